//! Pooling over the last one or two dimensions: the largest or the mean of each window.
//!
//! Windows slide as kernels of convolutions do, with the same output lengths. The maximum
//! remembers where it was found, so its gradient goes there: to the first of equal maxima, as
//! PyTorch's does. The mean is a linear map, and its gradient the transpose of it, so
//! [`AveragePool`] and [`AveragePoolGrad`] are each other's gradients.

mod typed;

use super::conv::window_length;
use super::{Cost, GradContext, NoGradient, Rule, arity};
use crate::graph::trace::{Handle, fail, op1, opn, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};

/// How a window slides along one dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The number of values in it.
    pub kernel: u64,
    /// Steps between neighbouring windows.
    pub stride: u64,
    /// Positions before and after the input: minus infinity for the maximum, 0 for the mean.
    pub padding: u64,
    /// Steps between neighbouring values in it.
    pub dilation: u64,
}

impl Window {
    fn length(&self, input: &Extent) -> Result<Extent, String> {
        if 2 * self.padding > self.kernel {
            return Err(format!("has padding {} beyond half of its kernel {}", self.padding, self.kernel));
        }
        window_length(input, &Extent::constant(self.kernel), self.stride, [self.padding; 2], self.dilation)
    }
}

/// Which inputs each output of a mean joins.
#[derive(Clone, Debug, PartialEq)]
pub enum Windows {
    /// Sliding windows, one entry per dimension.
    Sliding {
        /// How they slide; without dilation.
        windows: Vec<Window>,
        /// Whether the mean divides by the kernel's size also where it hangs over the edge.
        /// PyTorch: `count_include_pad`.
        count_padding: bool,
    },
    /// As many windows as the output has positions, near equal and covering the input: output
    /// `q` of `n` joins `floor(q L / n) .. ceil((q + 1) L / n)`. The number is of dimensions.
    Adaptive(usize),
}

impl Windows {
    /// The number of dimensions.
    pub fn spatial(&self) -> usize {
        match self {
            Windows::Sliding { windows, .. } => windows.len(),
            Windows::Adaptive(n) => *n,
        }
    }

    /// The inputs that output `q` along dimension `axis` joins, `lo..hi`, and what it divides
    /// by, for an input of length `input` and an output of length `output`.
    pub fn span(&self, axis: usize, q: usize, input: usize, output: usize) -> (usize, usize, usize) {
        match self {
            Windows::Sliding { windows, count_padding } => {
                let w = windows[axis];
                let (first, padding) = (q * w.stride as usize, w.padding as usize);
                let lo = first.saturating_sub(padding);
                let hi = (first + w.kernel as usize).saturating_sub(padding).min(input).max(lo);
                (lo, hi, if *count_padding { w.kernel as usize } else { hi - lo })
            }
            Windows::Adaptive(_) => {
                let (lo, hi) = (q * input / output, ((q + 1) * input).div_ceil(output));
                (lo, hi, hi - lo)
            }
        }
    }

    /// Checks an output against its input.
    fn check(&self, x: &[Dim], y: &[Dim]) -> Result<(), String> {
        let lead = leading(x, y, self.spatial())?;
        match self {
            Windows::Sliding { windows, .. } => {
                if windows.iter().any(|w| w.dilation != 1) {
                    return Err("of means has no dilation".into());
                }
                check_lengths(windows, &x[lead..], &y[lead..])
            }
            Windows::Adaptive(_) => Ok(()),
        }
    }
}

/// The number of leading dimensions, which must agree.
fn leading(x: &[Dim], y: &[Dim], spatial: usize) -> Result<usize, String> {
    let typed = |dims: &[Dim]| TensorType::new(dims.to_vec(), DType::F32);
    if !(1..=2).contains(&spatial) || x.len() < spatial || x.len() != y.len() {
        return Err(format!("over the last {spatial} dimensions of {} cannot give {}", typed(x), typed(y)));
    }
    let lead = x.len() - spatial;
    match x[..lead].iter().zip(&y[..lead]).find(|(a, b)| a.extent != b.extent) {
        Some((a, b)) => Err(format!("keeps its leading dimensions, is to change `{a}` into `{b}`")),
        None => Ok(lead),
    }
}

fn check_lengths(windows: &[Window], x: &[Dim], y: &[Dim]) -> Result<(), String> {
    for ((w, x), y) in windows.iter().zip(x).zip(y) {
        let expected = w.length(&x.extent)?;
        if expected != y.extent {
            return Err(format!("of `{x}` with kernel {} gives {expected}, not `{y}`", w.kernel));
        }
    }
    Ok(())
}

/// The largest value of each window: `x -> (y, positions)`. A position is a row-major index
/// into the pooled dimensions, of the first maximum; NaN is larger than everything.
#[derive(Clone, Debug)]
pub struct MaxPool {
    /// How windows slide, one entry per dimension.
    pub windows: Vec<Window>,
    /// The dimensions of the result.
    pub dims: Vec<Dim>,
}

/// The gradient of [`MaxPool`]: `(gradient, positions) -> ` zeros but for sums at `positions`.
#[derive(Clone, Debug)]
pub struct MaxPoolGrad {
    /// How many dimensions are pooled.
    pub spatial: usize,
    /// The dimensions of the pooled value.
    pub dims: Vec<Dim>,
}

/// The mean of each window.
#[derive(Clone, Debug)]
pub struct AveragePool {
    /// Which inputs each output joins.
    pub windows: Windows,
    /// The dimensions of the result.
    pub dims: Vec<Dim>,
}

/// The gradient of [`AveragePool`]: every value is shared out evenly among the inputs of its
/// window.
#[derive(Clone, Debug)]
pub struct AveragePoolGrad {
    /// Which inputs each output joins.
    pub windows: Windows,
    /// The dimensions of the pooled value.
    pub dims: Vec<Dim>,
}

fn real(x: &TensorType) -> Result<&TensorType, String> {
    if x.dtype == DType::F32 { Ok(x) } else { Err(format!("takes real values, is given {x}")) }
}

impl Rule for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        let lead = leading(&real(x)?.dims, &self.dims, self.windows.len())?;
        check_lengths(&self.windows, &x.dims[lead..], &self.dims[lead..])?;
        let y = TensorType::new(self.dims.clone(), DType::F32);
        Ok(vec![y.clone(), y.with_dtype(DType::I32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let back = MaxPoolGrad { spatial: self.windows.len(), dims: type_of(cx.inputs[0]).dims };
        Ok(vec![Some(op1(back, &[cx.grad(), cx.outputs[1]]))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let kernel = self.windows.iter().map(|w| w.kernel).product();
        Cost::streaming(Extent::mul(outputs[0].count(), Extent::constant(kernel)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        describe(&self.windows)
    }
}

impl Rule for MaxPoolGrad {
    fn name(&self) -> &'static str {
        "max_pool_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [g, positions] = arity(inputs)?;
        leading(&self.dims, &real(g)?.dims, self.spatial)?;
        if !g.same_extents(positions) || positions.dtype != DType::I32 {
            return Err(format!("has no position for every value of {g}: {positions}"));
        }
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of max pooling are not available".into()))
    }
}

impl Rule for AveragePool {
    fn name(&self) -> &'static str {
        "average_pool"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x] = arity(inputs)?;
        self.windows.check(&real(x)?.dims, &self.dims)?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let back = AveragePoolGrad { windows: self.windows.clone(), dims: type_of(cx.inputs[0]).dims };
        Ok(vec![Some(op1(back, &[cx.grad()]))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(average_flops(&self.windows, inputs[0], &outputs[0]), inputs, outputs)
    }
    fn attributes(&self) -> String {
        describe_means(&self.windows)
    }
}

impl Rule for AveragePoolGrad {
    fn name(&self) -> &'static str {
        "average_pool_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [g] = arity(inputs)?;
        self.windows.check(&self.dims, &real(g)?.dims)?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let forward = AveragePool { windows: self.windows.clone(), dims: type_of(cx.inputs[0]).dims };
        Ok(vec![Some(op1(forward, &[cx.grad()]))])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        Cost::streaming(average_flops(&self.windows, &outputs[0], inputs[0]), inputs, outputs)
    }
    fn attributes(&self) -> String {
        describe_means(&self.windows)
    }
}

/// One addition per pair of an input and a window that it is in.
fn average_flops(windows: &Windows, x: &TensorType, y: &TensorType) -> Extent {
    match windows {
        Windows::Sliding { windows, .. } => {
            Extent::mul(y.count(), Extent::constant(windows.iter().map(|w| w.kernel).product()))
        }
        Windows::Adaptive(_) => x.count(),
    }
}

fn describe(windows: &[Window]) -> String {
    let word = |f: fn(&Window) -> u64| windows.iter().map(|w| f(w).to_string()).collect::<Vec<_>>().join("x");
    format!("kernel={} stride={} padding={}", word(|w| w.kernel), word(|w| w.stride), word(|w| w.padding))
}

fn describe_means(windows: &Windows) -> String {
    match windows {
        Windows::Sliding { windows, .. } => describe(windows),
        Windows::Adaptive(_) => "adaptive".into(),
    }
}

/// The dimensions of a pooled value, the pooled ones without names; `None` after a mistake,
/// which is recorded.
fn pooled(name: &str, x: Handle, windows: &[Window]) -> Option<Vec<Dim>> {
    let mut dims = type_of(x).dims;
    let lead = dims.len().checked_sub(windows.len());
    let Some(lead) = lead else {
        fail(format!("{name}: over {} dimensions is given {}", windows.len(), type_of(x)));
        return None;
    };
    for (dim, w) in dims[lead..].iter_mut().zip(windows) {
        match w.length(&dim.extent) {
            Ok(extent) => *dim = Dim::anonymous(extent),
            Err(e) => {
                fail(format!("{name}: {e}"));
                return None;
            }
        }
    }
    Some(dims)
}

/// The largest value of each window over the last dimensions, one window each; and where it
/// was. PyTorch: `max_pool1d`, `max_pool2d` with `return_indices=True`.
pub fn max_pool(x: Handle, windows: &[Window]) -> [Handle; 2] {
    match pooled("max_pool", x, windows) {
        Some(dims) => max_pool_to(x, windows, dims),
        None => [x, x],
    }
}

/// [`max_pool`] with a result of the given dimensions.
pub fn max_pool_to(x: Handle, windows: &[Window], dims: Vec<Dim>) -> [Handle; 2] {
    let out = opn(MaxPool { windows: windows.to_vec(), dims }, &[x], 2);
    [out[0], out[1]]
}

/// The mean of each window over the last dimensions. PyTorch: `avg_pool1d`, `avg_pool2d`.
pub fn average_pool(x: Handle, windows: &[Window], count_padding: bool) -> Handle {
    match pooled("average_pool", x, windows) {
        Some(dims) => average_pool_to(x, Windows::Sliding { windows: windows.to_vec(), count_padding }, dims),
        None => x,
    }
}

/// The mean of each window, with a result of the given dimensions.
pub fn average_pool_to(x: Handle, windows: Windows, dims: Vec<Dim>) -> Handle {
    op1(AveragePool { windows, dims }, &[x])
}
