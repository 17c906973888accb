//! Axes of a generic function.

use mobilis::prelude::*;

axes! {
    Batch;
    trait Sizes { Hidden, Ffn }
}

pub fn f<A: Sizes, T: Axis>(x: Tensor![Batch, T, A::Hidden], w: Tensor![A::Ffn, A::Hidden]) -> Tensor![Batch, T, A::Ffn] {
    einsum!(x[b T A::Hidden] * w[A::Ffn A::Hidden] => [b T A::Ffn])
}
pub fn g<A: Sizes, T: Axis>(x: Tensor![Batch, T, A::Hidden], w: Tensor![A::Ffn, A::Hidden]) -> Tensor![Batch, T, A::Ffn] {
    einsum!(x[b t i] * w[o i] => [b t o])
}
