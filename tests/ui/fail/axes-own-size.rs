//! An axis defined by itself.

use mobilis::prelude::*;

axes! {
    pub Time = Time + 1;
}
