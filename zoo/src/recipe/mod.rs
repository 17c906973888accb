//! Recipes: files that say what to train, on what, and how.
//!
//! A recipe is TOML, YAML or JSON in the words of NeMo's configurations: `model.encoder.jasper`,
//! `model.optim.sched`, `trainer.max_steps`, `exp_manager.exp_dir`. [`document`] reads the file, applies
//! `key.sub=value` from the command line, and fills in `${other.key}`. [`keys`] is how every part takes its
//! settings: strictly, so that a key nobody knows is an error with the one that may have been meant, and
//! completely, so that what was taken, defaults included, can be printed and kept with the result.
//! [`optim`] and [`schedule`] build what is the same for all models.

pub mod document;
pub mod keys;
pub mod optim;
pub mod schedule;

pub use keys::{Keys, RecipeError};
