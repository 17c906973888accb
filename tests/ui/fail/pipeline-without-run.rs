//! Stages, and nothing that joins them.

use mobilis::prelude::*;

pipeline! {
    pub struct Listen {
        decode: fn(String) -> usize,
    }
}
