//! A causal convolution's padding, declared one short.

use mobilis::prelude::*;

axes! {
    pub Time;
    pub Padded = Time + 1;
}

pub fn causal(x: Tensor![Time]) -> Tensor![Padded] {
    x.pad(Time, Const::<2>, Const::<0>, Padding::Constant(0.0)).relabel()
}
