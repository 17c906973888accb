//! A parameter is an axis, an element or a number.

use mobilis::prelude::*;

elements! {
    pub Counts<A>: Index;
}
