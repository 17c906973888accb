//! A misspelled axis.

use mobilis::prelude::*;

axes! {
    pub Hidden = 64;
    pub Ffn = 4 * Hiden;
}
