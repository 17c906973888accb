//! Values that begin at a cache line, as those of a program do.

use std::ops::{Deref, DerefMut};

pub struct Aligned {
    all: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn new(values: &[f32]) -> Aligned {
        let mut all = vec![0.0; values.len() + 16];
        let start = all.as_ptr().align_offset(64).min(16);
        all[start..start + values.len()].copy_from_slice(values);
        Aligned { all, start, len: values.len() }
    }

    pub fn zeros(len: usize) -> Aligned {
        Aligned::new(&vec![0.0; len])
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.all[self.start..self.start + self.len]
    }
}
impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.all[self.start..self.start + self.len]
    }
}
