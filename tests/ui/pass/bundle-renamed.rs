//! A family imported under another name.

use mobilis::prelude::*;

mod family {
    mobilis::axes! {
        pub trait TinyAxes { Hidden }
        pub(crate) trait Hidden2 { Hidden }
    }
}
use family::{Hidden2, TinyAxes as Sizes};

axes! {
    pub struct Small: Sizes { Hidden = 64 }
    struct Other: Hidden2 { Hidden = 3 }
}

pub fn f(x: Tensor![<Small as Sizes>::Hidden]) -> Tensor![64] {
    x.relabel()
}
