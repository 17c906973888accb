//! Every operation: values against literals or an independent formula, gradients against
//! central differences in `f64`, devices against the reference, sizes 0, 1 and odd, inputs that
//! are views. One file a family, as in `runtime/src/ops`.

mod contraction;
mod conv;
mod elementwise;
mod pool;
