//! Exact division of a run-time axis that is declared elsewhere.

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
    pub Half = Time / 2;
}
