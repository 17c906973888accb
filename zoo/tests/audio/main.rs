//! Sound from files, and what becomes of it.

mod augment;
mod features;
mod files;
mod hostile;
