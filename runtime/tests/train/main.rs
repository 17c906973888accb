//! Training: optimizers against independent implementations, clipping, accumulation, steps.

mod optimizers;
mod reference;
mod step;
