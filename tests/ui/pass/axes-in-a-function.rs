//! Axes of a function are its own.

use mobilis::prelude::*;

pub fn f() {
    axes! {
        Local = 3;
        Other = 2 * Local;
    }
    fn g(x: Tensor![Other]) -> Tensor![6] {
        x.relabel()
    }
    let _ = g;
}

pub fn h() {
    axes! { Local = 4; }
    const _: () = assert!(matches!(Local::SIZE, Some(4)));
}
