//! Where an input's values lie.

use crate::cpu::copy::collapse;

/// How an input is laid out over the output's positions.
#[derive(Clone, Debug)]
pub struct Layout {
    offset: usize,
    sizes: Vec<usize>,
    strides: Vec<usize>,
}

/// Values that follow each other at one distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    /// The first value.
    pub at: usize,
    /// The distance; 0 repeats one value.
    pub step: usize,
    /// How many.
    pub count: usize,
}

impl Layout {
    /// The layout of a view with these strides over an output of these sizes.
    pub fn new(sizes: &[usize], strides: &[usize], offset: usize) -> Layout {
        let (sizes, strides) = collapse(sizes, strides);
        Layout { offset, sizes, strides }
    }

    /// Whether the values follow each other as the output's do.
    pub fn is_contiguous(&self) -> bool {
        self.sizes.len() == 1 && self.strides[0] == 1 || self.sizes == [1]
    }

    /// Whether one value stands for all.
    pub(super) fn is_uniform(&self) -> bool {
        self.strides.iter().all(|s| *s == 0) || self.sizes == [1]
    }

    /// The largest index touched, plus one.
    pub fn reach(&self) -> usize {
        if self.sizes.contains(&0) {
            return 0;
        }
        self.offset + self.sizes.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum::<usize>() + 1
    }

    /// The output's positions.
    pub(super) fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The run that begins at position `start`, of at most `len` values.
    #[inline(always)]
    pub(super) fn run(&self, start: usize, len: usize) -> Run {
        let last = self.sizes.len() - 1;
        let (inner, step) = (self.sizes[last], self.strides[last]);
        if last == 0 {
            return Run { at: self.offset + start * step, step, count: len };
        }
        let (row, column) = (start / inner, start % inner);
        let (mut rest, mut at) = (row, self.offset + column * step);
        for d in (0..last).rev() {
            at += rest % self.sizes[d] * self.strides[d];
            rest /= self.sizes[d];
        }
        Run { at, step, count: (inner - column).min(len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_visit_every_position() {
        for (sizes, strides) in [(vec![3, 4, 5], vec![40, 0, 2]), (vec![7], vec![3]), (vec![4, 6], vec![1, 4])] {
            let layout = Layout::new(&sizes, &strides, 2);
            let total: usize = sizes.iter().product();
            let mut seen = vec![];
            while seen.len() < total {
                let run = layout.run(seen.len(), (total - seen.len()).min(4));
                seen.extend((0..run.count).map(|i| run.at + i * run.step));
            }
            for (i, at) in seen.iter().enumerate() {
                let (mut rest, mut expected) = (i, 2);
                for (n, s) in sizes.iter().zip(&strides).rev() {
                    expected += rest % n * s;
                    rest /= n;
                }
                assert_eq!(*at, expected);
                assert!(*at < layout.reach());
            }
        }
    }
}
