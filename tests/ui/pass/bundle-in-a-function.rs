//! A family of a function.

use mobilis::prelude::*;

pub fn f() {
    axes! {
        pub trait Sizes { Hidden }
        pub struct Small: Sizes { Hidden = 64 }
    }
    axes! { pub struct Any: Sizes; }
    const _: () = assert!(<Any as Sizes>::Hidden::SIZE.is_none());
    fn g<A: Sizes>(x: Tensor![A::Hidden]) -> Tensor![A::Hidden] {
        x
    }
    let _ = (g::<Small>, g::<Any>);
}
