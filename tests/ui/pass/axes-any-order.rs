//! Declarations may use later ones.

use mobilis::prelude::*;

axes! {
    pub Ffn = 4 * Hidden;
    pub Hidden = Heads * HeadDim;
    pub Heads = 4;
    pub HeadDim = 16;
}

const _: () = assert!(matches!(Ffn::SIZE, Some(256)));
