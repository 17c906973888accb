//! An element refines something.

use mobilis::prelude::*;

elements! {
    pub TokenId;
}
