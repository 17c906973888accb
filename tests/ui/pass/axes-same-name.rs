//! Axes of one name in two modules are two axes.

use mobilis::prelude::*;

mod a {
    mobilis::axes! { pub Hidden = 3; }
}
mod b {
    mobilis::axes! { pub Hidden = 3; }
}

pub fn f(x: Tensor![a::Hidden, b::Hidden]) -> Tensor![b::Hidden] {
    x.sum(a::Hidden)
}
