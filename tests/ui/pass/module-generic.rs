//! Modules over any rank and over a family of axes.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    trait Sizes { Hidden, Ffn }
    struct Small: Sizes { Hidden = 64, Ffn = 256 }
}

#[neural_module]
pub struct Scale<A: Axis> {
    #[init(ones())]
    weight: Param![A],
}

#[neural_module]
impl<A: Axis> Scale<A> {
    pub fn forward<S>(&self, x: Tensor<S>) -> Tensor<S>
    where
        S: EndsWith<A>,
        (A,): BroadcastTo<S>,
    {
        x * self.weight.get()
    }
}

#[neural_module]
pub struct Net<A: Sizes> {
    norm: Scale<A::Hidden>,
    up: Param![A::Ffn, A::Hidden],
}

#[neural_module]
impl<A: Sizes> Net<A> {
    pub fn forward(&self, x: Tensor![Batch, Time, A::Hidden]) -> Tensor![Batch, Time, A::Ffn] {
        let x = self.norm.forward(x);
        einsum!(x[b t i] * self.up.get()[o i] => [b t o])
    }
}

pub fn f(net: &Net<Small>, x: Tensor![Batch, Time, <Small as Sizes>::Hidden]) -> Tensor![Batch, Time, <Small as Sizes>::Ffn] {
    net.call(x)
}
