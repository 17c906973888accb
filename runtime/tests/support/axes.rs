//! Axes and an element written out by hand, for tests that do not use the macros.

use mobilis_runtime::graph::Extent;
use mobilis_runtime::language::axis::{Print, symbol_print};
use mobilis_runtime::{Axis, Element, Index};

macro_rules! run_time {
    ($($name:ident)*) => {$(
        #[allow(dead_code)]
        pub struct $name;
        impl Axis for $name {
            const NAME: &'static str = stringify!($name);
            const PATH: &'static str = concat!(module_path!(), "::", stringify!($name));
            const PRINT: Print = symbol_print(Self::PATH);
            const SIZE: Option<u64> = None;
            fn extent() -> Extent {
                Extent::symbol(Self::NAME, Self::PATH, Self::PRINT)
            }
        }
    )*};
}
run_time! { Batch Time }

/// Indices with a meaning.
#[allow(dead_code)]
pub struct Ids;
impl Element for Ids {
    type Base = Index;
    const NAME: &'static str = "Ids";
}
