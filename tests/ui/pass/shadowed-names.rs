//! Names of the user's own do not get into the expansions.

pub struct Vec;
pub struct Option;
pub trait Default {}
pub trait Axis {}
pub mod core {}

mobilis::axes! {
    Batch;
    Hidden = 8;
    Heads = 2;
    trait Sizes { Wide }
    struct Some: Sizes { Wide = 3 }
}

pub fn f(x: mobilis::Tensor![Batch, Hidden]) -> mobilis::Tensor![Batch, Heads, 4] {
    mobilis::rearrange!(x[b (h d)] => [b h d])
}

#[mobilis::neural_module]
pub struct Net {
    weight: mobilis::Param![Hidden],
    layers: [mobilis::Param![Hidden]; 3],
}
