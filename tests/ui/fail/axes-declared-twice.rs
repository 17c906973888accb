//! One name for two axes.

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Hidden = 64;
    pub Batch = 8;
}
