//! Initializers by name and by expression.

use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Hidden = 64;
    Heads = 4;
    HeadDim = 16;
    Ffn = 4 * Hidden;
}

use mobilis::module::init::Init;

const STD: f64 = 0.02;

#[neural_module]
pub struct Net {
    #[init(zeros())]
    a: Param![Hidden],
    #[init(normal(STD / 2.0))]
    b: Param![Hidden, Ffn],
    #[init(truncated_normal(0.02))]
    c: Param![Hidden, Ffn],
    #[init(orthogonal())]
    d: Param![Hidden, Ffn],
    #[init(Init::Uniform { low: -1.0, high: 1.0 })]
    e: Param![Hidden],
    #[init(kaiming_uniform())]
    f: [Param![Hidden, Ffn]; 2],
}

pub fn make() -> Net {
    Net::default()
}
