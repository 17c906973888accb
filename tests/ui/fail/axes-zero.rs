//! A size of zero.

use mobilis::prelude::*;

axes! {
    pub Hidden = 0;
    pub Rest = floor(3 / 4);
}
