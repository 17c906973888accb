//! More experts chosen than there are.

use mobilis::prelude::*;

axes! {
    pub Tokens;
    pub Experts = 4;
    pub Chosen = 8;
}

pub fn choose(x: Tensor![Tokens, Experts]) -> Tensor![Tokens, Chosen; Index] {
    x.top_k(Experts, Chosen).1
}
