//! The family is declared in another module.

use mobilis::prelude::*;

pub mod family {
    mobilis::axes! {
        pub trait TinyAxes { Vocab, Hidden, Ffn = 4 * Hidden }
    }
}
use family::TinyAxes;

axes! {
    pub struct Small: TinyAxes { Vocab = 256, Hidden = 64 }
    pub struct Any: TinyAxes;
    struct Mine: family::TinyAxes { Hidden = 2 * Half, Vocab }
    Half = 12;
}

const _: () = assert!(matches!(<Mine as TinyAxes>::Ffn::SIZE, Some(96)));

pub fn f(_: Tensor![<Small as TinyAxes>::Ffn], _: Tensor![<Any as TinyAxes>::Ffn]) {}
