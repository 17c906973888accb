//! Views: where a value lies, with strides.

use super::reference::array::strides as contiguous;
use crate::graph::DType;

/// Values in a buffer, seen through strides.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The buffer.
    pub slot: u32,
    /// The first value.
    pub offset: usize,
    /// The size of each dimension.
    pub sizes: Vec<usize>,
    /// The distance between neighbours along each dimension; 0 repeats.
    pub strides: Vec<usize>,
    /// The storage.
    pub dtype: DType,
}

impl View {
    /// A whole buffer in row-major order.
    pub fn whole(slot: u32, sizes: &[usize], dtype: DType) -> View {
        View { slot, offset: 0, sizes: sizes.to_vec(), strides: contiguous(sizes), dtype }
    }

    /// The number of values.
    pub fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The distance from the first value to the last, plus one; there must be values.
    pub fn reach(&self) -> usize {
        self.sizes.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum::<usize>() + 1
    }

    /// Whether the values follow each other in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.count() == 0 || {
            let expected = contiguous(&self.sizes);
            self.sizes.iter().zip(&self.strides).zip(expected).all(|((n, s), e)| *n == 1 || *s == e)
        }
    }

    /// The same values under other sizes without moving them, where strides can express it.
    pub fn reshape(&self, sizes: &[usize]) -> Option<View> {
        if self.count() == 0 || self.is_contiguous() {
            return Some(View { strides: contiguous(sizes), sizes: sizes.to_vec(), ..self.clone() });
        }
        // Old and new dimensions are matched in groups of equal product; within a group the old
        // dimensions must follow each other without gaps.
        let old: Vec<(usize, usize)> =
            self.sizes.iter().copied().zip(self.strides.iter().copied()).filter(|d| d.0 != 1).collect();
        let mut strides = vec![0; sizes.len()];
        let (mut i, mut j) = (0, 0);
        while i < old.len() {
            let (mut have, mut want) = (old[i].0, 1);
            let first = j;
            loop {
                if want == have {
                    break;
                }
                if want < have {
                    want *= *sizes.get(j)?;
                    j += 1;
                } else {
                    i += 1;
                    let (n, s) = *old.get(i)?;
                    if old[i - 1].1 != n * s {
                        return None;
                    }
                    have *= n;
                }
            }
            let mut stride = old[i].1;
            for d in (first..j).rev() {
                strides[d] = stride;
                stride *= sizes[d];
            }
            i += 1;
        }
        Some(View { strides, sizes: sizes.to_vec(), ..self.clone() })
    }

    /// Dimensions in another order.
    #[must_use]
    pub fn permute(&self, perm: &[usize]) -> View {
        View {
            sizes: perm.iter().map(|p| self.sizes[*p]).collect(),
            strides: perm.iter().map(|p| self.strides[*p]).collect(),
            ..self.clone()
        }
    }

    /// Repetition along leading dimensions.
    #[must_use]
    pub fn broadcast(&self, sizes: &[usize]) -> View {
        let mut strides = vec![0; sizes.len() - self.sizes.len()];
        strides.extend(&self.strides);
        View { sizes: sizes.to_vec(), strides, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_that_need_no_copy() {
        let view = View::whole(0, &[4, 6, 5], DType::F32);
        assert_eq!(view.reshape(&[24, 5]).map(|v| v.strides), Some(vec![5, 1]));
        let swapped = view.permute(&[1, 0, 2]);
        assert_eq!(swapped.reshape(&[2, 3, 4, 5]).map(|v| v.strides), Some(vec![15, 5, 30, 1]));
        assert_eq!(swapped.reshape(&[24, 5]), None);
        assert_eq!(swapped.reshape(&[6, 20]).map(|v| v.strides), None);
        let row = View::whole(0, &[5], DType::F32).broadcast(&[3, 5]);
        assert_eq!(row.reshape(&[3, 1, 5]).map(|v| v.strides), Some(vec![0, 5, 1]));
        assert_eq!(row.reshape(&[15]), None);
    }
}
