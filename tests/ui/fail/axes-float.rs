//! A size is a whole number.

use mobilis::prelude::*;

axes! {
    pub Hidden = 64;
    pub Ffn = 2.5 * Hidden;
}
