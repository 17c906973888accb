//! Precision: which products are computed with fewer bits, and how.
//!
//! A [`Precision`] is a policy over classes of operations and names of parameters; a model's code says
//! nothing of it. [`apply`] rewrites a traced graph: it puts roundings in front of products and
//! behind them, as ordinary operations ([`ops::quantize`](crate::ops::quantize), and
//! [`bf16`](crate::ops::elementwise::UnaryKind::Bf16) and
//! [`f16`](crate::ops::elementwise::UnaryKind::F16)), so that the CPU emulates bit for bit what
//! tensor cores compute, and a device that has them reads in the graph what to launch.
//!
//! It works on the graph of a whole training step, after the gradients have been taken: for each
//! linear layer `y = x W` its three products are found by what they read. The forward product reads
//! a parameter `W` (or a view of it) and a value `x` that is computed; of what the gradient rule of
//! a contraction appends in the same module, `dy W` reads the same `W` and `x dy` the same `x`.
//! Each of the three has its own formats and its own groups along what it sums over, which no
//! rewriting before the gradients could give it; and as the derivative of rounding is taken to be 1,
//! nothing is lost by rewriting after them.
//!
//! | class | `F32` | `Bf16` | `F16` | `Fp8` |
//! |---|---|---|---|---|
//! | linear layers: forward, gradient by `x`, by `W` | f32 | bf16 | f16 | by the [`Recipe`] |
//! | heads, routers (see [`Precision::head`]) | f32 | bf16 | f16 | bf16 |
//! | other products: attention, convolutions, experts | f32 | bf16 | f16 | bf16 |
//! | all else: embeddings, norms, softmax, losses, optimizer | f32 | f32 | f32 | f32 |
//!
//! Products add in f32. What a layer gives, forward and backward, is rounded to 16 bits; gradients
//! by weights and what heads give stay f32. A head that is rounded is no longer
//! [joined with its loss](crate::transforms::head): its logits are whole in memory. Inside of
//! attention only operands and results are rounded (on GPUs, whose tensor cores read them, weights too);
//! recurrent layers' steps are f32.
//!
//! A linear layer whose sizes (positions, inputs, outputs) are not all multiples of 16 (32 for MXFP8)
//! is computed in bf16; the [report](PrecisionReport) lists every product with its formats and
//! reasons. Sizes known at run time only are looked at then.
//!
//! `F16` comes with [dynamic scaling of the loss](LossScale). One rank is all there is today: where a
//! plan splits a value over several, it puts a maximum over ranks behind every
//! [`Amax`](crate::ops::quantize::Amax).

mod apply;
mod classes;
mod plan;
mod policy;
mod recipe;
mod report;
mod write;
pub use apply::{Applied, Options, PrecisionError, apply};
pub use policy::{Compute, LossScale, Precision};
pub use recipe::{Formats, History, Recipe, Scaling};
pub use report::{Gemm, Number, PrecisionReport, Role};
