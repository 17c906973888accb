//! Documentation and conditions on axes.

use mobilis::prelude::*;

axes! {
    /// Only with a feature that does not exist.
    #[cfg(any())]
    pub Absent = 3 * Nothing;
    /// Always.
    #[doc(alias = "width")]
    pub Hidden = 3;
}

pub fn f(x: Tensor![Hidden]) -> Tensor![Hidden] {
    x
}
