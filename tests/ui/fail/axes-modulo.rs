//! There is no remainder.

use mobilis::prelude::*;

axes! {
    pub Samples;
    pub Rest = Samples % 160;
}
