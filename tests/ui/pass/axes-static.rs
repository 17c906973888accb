//! Sizes known to the compiler, and arithmetic on them.

use mobilis::prelude::*;

axes! {
    pub Hidden = 128;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
    pub Ffn = 4 * Hidden;
    pub Gated = floor(8 * Hidden / 3);
    pub Padded = 64 * ceil(Gated / 64);
    pub Rest = Padded - Gated + 1;
    pub Nested = (Hidden + 2) * (Heads - 1);
}

const _: () = {
    assert!(matches!(HeadDim::SIZE, Some(32)));
    assert!(matches!(Gated::SIZE, Some(341)));
    assert!(matches!(Padded::SIZE, Some(384)));
    assert!(matches!(Rest::SIZE, Some(44)));
    assert!(matches!(Nested::SIZE, Some(390)));
};
