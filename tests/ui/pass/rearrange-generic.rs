//! Splitting an axis of a family.

use mobilis::prelude::*;

axes! {
    Time;
    trait Sizes { Hidden, Heads, HeadDim }
    struct Small: Sizes { Hidden = 64, Heads = 4, HeadDim = 16 }
    struct Any: Sizes { Hidden = Heads * HeadDim, Heads, HeadDim }
}

fn split<A: Sizes>(x: Tensor![Time, A::Hidden]) -> Tensor![A::Heads, Time, A::HeadDim] {
    rearrange!(x[t (h d)] => [h t d])
}
fn merge<A: Sizes>(x: Tensor![A::Heads, Time, A::HeadDim]) -> Tensor![Time, A::Hidden] {
    rearrange!(x[h t d] => [t (h d) as A::Hidden])
}

pub fn f(x: Tensor![Time, <Small as Sizes>::Hidden], y: Tensor![Time, <Any as Sizes>::Hidden]) {
    let _ = merge::<Small>(split::<Small>(x));
    let _ = merge::<Any>(split::<Any>(y));
}
