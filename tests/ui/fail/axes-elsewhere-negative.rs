//! A negative difference of axes that are declared elsewhere.

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
    pub Rest = 2 * (Heads - Hidden);
}
