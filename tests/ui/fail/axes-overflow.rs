//! A size beyond 64 bits.

use mobilis::prelude::*;

axes! {
    pub Vocab = 18446744073709551615;
    pub Pairs = Vocab * Vocab;
    pub Huge = 18446744073709551616;
}
