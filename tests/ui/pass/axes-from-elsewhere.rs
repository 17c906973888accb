//! Relations with axes of other modules.

use mobilis::prelude::*;

mod sizes {
    mobilis::axes! {
        pub Hidden = 128;
        pub Time;
    }
}

axes! {
    pub Heads = 4;
    pub HeadDim = sizes::Hidden / Heads;
    pub Twice = 2 * sizes::Time;
    pub Rest = sizes::Hidden - Heads;
}

const _: () = assert!(matches!(HeadDim::SIZE, Some(32)) && matches!(Rest::SIZE, Some(124)));
