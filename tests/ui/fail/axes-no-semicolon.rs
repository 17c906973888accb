//! Declarations end with a semicolon.

use mobilis::prelude::*;

axes! {
    pub Batch
    pub Hidden = 64;
}
