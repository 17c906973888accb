//! Pooling over planes (`pool.cu`): the largest value or the mean of each window, and their gradients. Over one
//! dimension the plane has one row.

use crate::size::{count, int, refused, tiles};
use crate::{Arg, CudaError, Launch, Ptr, args};

const NAME: &str = "pooling";

/// How windows slide over planes of `input`, each pair rows and columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Sizes of the input.
    pub input: [usize; 2],
    /// Sizes of the output.
    pub output: [usize; 2],
    /// Sizes of a window.
    pub kernel: [usize; 2],
    /// Steps between neighbouring windows.
    pub stride: [usize; 2],
    /// Places before the input.
    pub before: [usize; 2],
    /// Steps between neighbouring places of a window; 1 for means.
    pub dilation: [usize; 2],
}

/// What a mean divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mean {
    /// By the number of inputs that it joins.
    OfInputs,
    /// By the window's size, also where it hangs over the edge.
    OfWindow,
    /// Output `q` of `n` joins inputs `floor(q L / n) .. ceil((q + 1) L / n)`; how windows slide does not matter.
    Adaptive,
}

impl Windows {
    /// Checks all sizes for `planes` planes; gives these and the sizes as arguments.
    fn check(&self, planes: usize) -> Result<Vec<Arg>, CudaError> {
        count(NAME, "the input", &[planes, self.input[0], self.input[1]])?;
        count(NAME, "the output", &[planes, self.output[0], self.output[1]])?;
        for i in 0..2 {
            let reach = (self.output[i].max(1) - 1)
                .saturating_mul(self.stride[i])
                .saturating_add(self.kernel[i].saturating_mul(self.dilation[i]))
                .saturating_add(self.before[i])
                .saturating_add(self.input[i]);
            if reach >= 1 << 30 || self.stride[i] == 0 {
                return Err(refused(NAME, format!("windows {self:?}: a stride of 0, or 2^30 places and more")));
            }
        }
        let all = [self.input, self.output, self.kernel, self.stride, self.before, self.dilation];
        let sizes = std::iter::once(planes).chain(all.into_iter().flatten());
        sizes.map(|n| int(NAME, "places", n).map(Arg::from)).collect()
    }

    fn means(&self, planes: usize, mean: Mean) -> Result<Vec<Arg>, CudaError> {
        self.check(planes)?;
        let mut sizes = vec![planes];
        for i in 0..2 {
            sizes.extend([self.input[i], self.output[i], self.kernel[i], self.stride[i], self.before[i]]);
        }
        sizes.extend([mean as usize; 2]);
        sizes.into_iter().map(|n| int(NAME, "places", n).map(Arg::from)).collect()
    }
}

fn launch(kernel: &'static str, planes: usize, places: usize, pointers: &[Ptr], sizes: Vec<Arg>) -> Vec<Launch> {
    if planes == 0 || places == 0 {
        return vec![];
    }
    let blocks = planes as u32 * tiles(places, 256);
    let args = pointers.iter().map(|p| Arg::from(*p)).chain(sizes).collect();
    vec![Launch::new(kernel, [blocks, 1, 1], 256, args)]
}

/// The largest value of each window of `x[planes, input..]`, NaN above all, and the position of the first of these
/// in its plane as `i32`. A window that holds no input gives minus infinity and position -1.
///
/// # Errors
/// Arrays of 2³¹ values or more.
pub fn max(w: &Windows, planes: usize, x: Ptr, y: Ptr, positions: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = w.check(planes)?;
    Ok(launch("max_pool_f32", planes, w.output[0] * w.output[1], &[x, y, positions], sizes))
}

/// The gradient of [`max`]: `g[planes, windows]` added at `positions` of `x[planes, places]`, in one order.
///
/// # Errors
/// As [`max`].
pub fn max_grad(
    [planes, windows, places]: [usize; 3],
    g: Ptr,
    positions: Ptr,
    x: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let n = count(NAME, "the input", &[planes, places])? as usize;
    count(NAME, "the output", &[planes, windows])?;
    if n == 0 {
        return Ok(vec![]);
    }
    let zeros = Launch::new("max_pool_zeros_f32", [tiles(n, 256).min(4096), 1, 1], 256, args![x, n as i64]);
    let args = args![g, positions, x, planes as i32, windows as i32, places as i32];
    Ok(vec![zeros, Launch::new("max_pool_grad_f32", [tiles(planes, 4), 1, 1], 128, args)])
}

/// The mean of each window of `x[planes, input..]`.
///
/// # Errors
/// As [`max`].
pub fn average(w: &Windows, mean: Mean, planes: usize, x: Ptr, y: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = w.means(planes, mean)?;
    Ok(launch("average_pool_f32", planes, w.output[0] * w.output[1], &[x, y], sizes))
}

/// The gradient of [`average`], from `g[planes, output..]`.
///
/// # Errors
/// As [`max`].
pub fn average_grad(w: &Windows, mean: Mean, planes: usize, g: Ptr, x: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = w.means(planes, mean)?;
    Ok(launch("average_pool_grad_f32", planes, w.input[0] * w.input[1], &[g, x], sizes))
}
