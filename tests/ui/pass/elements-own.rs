//! Elements of one's own, with parameters and parents.

use mobilis::prelude::*;

elements! {
    /// Sound.
    pub Sound<const RATE: u32>: Real;
    pub Speech<const RATE: u32>: Sound<RATE>;
    pub Narrowband: Speech<8000>;
    pub Counts<A: Axis>: Lengths<A>;
    pub Pair<A: Axis, E: Element, const N: usize>: Real;
    Private: Mask;
}

axes! { Time; }

fn sound(_: Tensor<(Time,), impl Is<Sound<8000>>>) {}

pub fn f(a: Tensor![Time; Narrowband], b: Tensor![Time; Speech<8000>], c: Tensor![Time], d: Tensor![Time; Private]) {
    sound(a);
    sound(b);
    sound(c);
    let _ = d;
}
