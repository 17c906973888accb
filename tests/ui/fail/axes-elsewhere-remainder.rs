//! The relation is checked too when its axes are declared elsewhere.

use mobilis::prelude::*;

mod sizes {
    mobilis::axes! {
        pub Time;
        pub Hidden = 130;
        pub Heads = 4;
    }
}
use sizes::{Heads, Hidden, Time};

axes! {
    pub HeadDim = Hidden / Heads;
}
