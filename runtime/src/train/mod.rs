//! Training: the step that turns a loss into new parameters.
//!
//! Forward, backward, clipping and the optimizer are one program, so that nothing leaves the
//! device between them and the memory planner sees all of it. [`step`] extends a traced loss to
//! that program with the help of an [`optimizer`] (graph updates over untyped handles, like
//! gradient rules) and [`clip`]ping; moments and counters are variables of kind `State`, so a
//! checkpoint holds them by name. The learning rate is an argument of the program, computed on
//! the host for every step by a [`schedule`].
//!
//! `Model::train_step` compiles it all ([`run`]); [`Trainer`] is the loop around it, and
//! [`tensorboard`] writes down how it goes.

pub mod checkpoint;
pub mod clip;
mod loss_scale;
pub mod optimizer;
pub mod run;
pub mod schedule;
pub mod step;
pub mod tensorboard;
pub mod trainer;

pub use checkpoint::ResumeError;
pub use clip::Clip;
pub use optimizer::{Adafactor, Adam, AdamW, Lion, Muon, NovoGrad, Optimizer, Sgd};
pub use run::{StepReport, TrainError, TrainStep};
pub use schedule::Schedule;
pub use step::{BuildError, Group, StepGraphs, TrainOptions, build_step};
pub use trainer::{History, Progress, Trainer};
