//! Sliding windows over one dimension, and their sum (`window.cu`).

use crate::size::{count, refused, tiles};
use crate::{CudaError, Launch, Ptr, args};

/// Windows over the middle of `[outer, length, inner]`, which they make `[outer, windows, kernel, inner]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// What lies before the dimension.
    pub outer: usize,
    /// Its size.
    pub length: usize,
    /// What lies after it.
    pub inner: usize,
    /// How many windows.
    pub windows: usize,
    /// Places of each.
    pub kernel: usize,
    /// Steps between windows.
    pub stride: usize,
    /// Steps between places.
    pub dilation: usize,
}

const NAME: &str = "windows";

impl Windows {
    /// Values of both sides.
    fn check(&self) -> Result<[usize; 2], CudaError> {
        let whole = count(NAME, "the whole", &[self.outer, self.length, self.inner])?;
        let cut = count(NAME, "the windows", &[self.outer, self.windows, self.kernel, self.inner])?;
        let span = (self.windows.max(1) - 1)
            .saturating_mul(self.stride)
            .saturating_add((self.kernel.max(1) - 1).saturating_mul(self.dilation));
        if self.stride == 0 || self.dilation == 0 || (cut > 0 && span >= self.length) {
            return Err(refused(NAME, format!("{self:?}: windows lie within the dimension, steps are at least 1")));
        }
        Ok([whole as usize, cut as usize])
    }

    fn launch(&self, kernel: &'static str, values: usize, from: Ptr, to: Ptr) -> Vec<Launch> {
        if values == 0 {
            return vec![];
        }
        let n = |v: usize| v.min(i32::MAX as usize) as i32;
        let args = args![
            from,
            to,
            n(self.outer),
            n(self.length),
            n(self.windows),
            n(self.kernel),
            n(self.inner),
            n(self.stride),
            n(self.dilation)
        ];
        vec![Launch::new(kernel, [tiles(values, 256), 1, 1], 256, args)]
    }
}

/// `y[o, w, k, i] = x[o, w stride + k dilation, i]` of values of 1, 2 or 4 bytes.
///
/// # Errors
/// Arrays of 2³¹ values or more, windows that do not lie within the dimension.
pub fn unfold(w: &Windows, bytes: usize, x: Ptr, y: Ptr) -> Result<Vec<Launch>, CudaError> {
    let [_, cut] = w.check()?;
    let kernel = match bytes {
        1 => "unfold_b1",
        2 => "unfold_b2",
        4 => "unfold_b4",
        _ => return Err(refused(NAME, format!("values of {bytes} bytes, 1, 2 or 4 are taken"))),
    };
    Ok(w.launch(kernel, cut, x, y))
}

/// The sum of windows at their places, in `f32`: the adjoint of [`unfold`].
///
/// # Errors
/// As [`unfold`].
pub fn fold(w: &Windows, y: Ptr, x: Ptr) -> Result<Vec<Launch>, CudaError> {
    let [whole, _] = w.check()?;
    Ok(w.launch("fold_f32", whole, y, x))
}
