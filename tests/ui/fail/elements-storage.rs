//! Elements are not storage types.

use mobilis::prelude::*;

elements! {
    pub Score: f32;
    pub Token: u16;
}
