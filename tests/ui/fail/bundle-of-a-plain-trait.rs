//! An instance names a bundle.

use mobilis::prelude::*;

pub trait Sizes {}

axes! {
    pub struct Small: Sizes { Hidden = 64 }
}
