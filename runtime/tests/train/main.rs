//! Training: optimizers against independent implementations, clipping, accumulation, steps.

extern crate mobilis_runtime as mobilis;

mod checkpoint;
mod economy;
mod optimizers;
mod precision;
mod reference;
mod run;
mod step;
