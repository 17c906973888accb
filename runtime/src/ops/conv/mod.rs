//! Convolution over one or two spatial dimensions, and its transposes.
//!
//! ```text
//! y[b, o, q..] = bias[o] + sum over c, k.. of x[b, g C/G + c, q S - P + k D ..] w[o, c, k..]
//! ```
//!
//! with stride `S`, padding `P` (zeros), dilation `D` and `G` groups, `g = floor(o / (O / G))`.
//! Layouts are PyTorch's: `x` is `[batch, channels, length]` or `[batch, channels, height,
//! width]`, `w` is `[out, in / groups, kernel..]`. As everywhere in the field the kernel is not
//! flipped (a cross-correlation).
//!
//! **Three operations, one sum.** Without bias the sum is linear in `x`, `w` and, paired with a
//! gradient, in `y`: it is a trilinear form `T(x, w, y)`. [`Conv`] is its derivative by `y`,
//! [`ConvInputGrad`] by `x` (a transposed convolution) and [`ConvWeightGrad`] by `w`. So the
//! three share one shape check, one cost, one loop on the reference device, and each one's
//! gradients are the other two.

mod typed;

pub use typed::Sliding;

use super::{Cost, GradContext, NoGradient, Rule, reduce};
use crate::graph::trace::{Handle, fail, op1, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};

/// How a kernel moves over its input: one entry per spatial dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Steps between neighbouring outputs.
    pub stride: Vec<u64>,
    /// Zeros before and after the input.
    pub padding: Vec<[u64; 2]>,
    /// Steps between neighbouring kernel entries.
    pub dilation: Vec<u64>,
    /// Groups of channels that do not see each other. An extent, since a depthwise convolution
    /// has as many as channels.
    pub groups: Extent,
}

impl Geometry {
    /// One or two spatial dimensions with equal settings and one group.
    pub fn square(spatial: usize, stride: u64, padding: u64, dilation: u64) -> Geometry {
        Geometry {
            stride: vec![stride; spatial],
            padding: vec![[padding; 2]; spatial],
            dilation: vec![dilation; spatial],
            groups: Extent::constant(1),
        }
    }

    /// The same with groups.
    #[must_use]
    pub fn grouped(mut self, groups: Extent) -> Geometry {
        self.groups = groups;
        self
    }

    /// The number of spatial dimensions.
    pub fn spatial(&self) -> usize {
        self.stride.len()
    }

    /// The output length of spatial dimension `axis`:
    /// `floor((input + padding - dilation * (kernel - 1) - 1) / stride) + 1`.
    ///
    /// # Errors
    /// A stride of 0, or a kernel that is longer than its padded input.
    pub fn length(&self, axis: usize, input: &Extent, kernel: &Extent) -> Result<Extent, String> {
        window_length(input, kernel, self.stride[axis], self.padding[axis], self.dilation[axis])
    }

    /// Checks the dimensions of input, weight and output against each other.
    fn check(&self, x: &[Dim], w: &[Dim], y: &[Dim]) -> Result<(), String> {
        let n = self.spatial();
        if !(1..=2).contains(&n) || self.padding.len() != n || self.dilation.len() != n {
            return Err("works over one or two spatial dimensions".into());
        }
        for (what, dims) in [("input", x), ("weight", w), ("output", y)] {
            if dims.len() != n + 2 {
                let found = TensorType::new(dims.to_vec(), DType::F32);
                return Err(format!("over {n} spatial dimensions has {what} of rank {}, not {found}", n + 2));
            }
        }
        if x[0].extent != y[0].extent {
            return Err(format!("has batches `{}` and `{}`", x[0], y[0]));
        }
        if w[0].extent != y[1].extent {
            return Err(format!("has {} filters for output channels `{}`", w[0], y[1]));
        }
        if Extent::mul(w[1].extent.clone(), self.groups.clone()) != x[1].extent {
            let groups = &self.groups;
            return Err(format!(
                "has filters over `{}` channels in {groups} groups for an input with `{}`",
                w[1], x[1]
            ));
        }
        match (w[0].extent.as_constant(), self.groups.as_constant()) {
            (_, Some(0)) => return Err("has at least one group".into()),
            (Some(o), Some(g)) if o % g != 0 => return Err(format!("cannot divide {o} filters into {g} groups")),
            _ => {}
        }
        for i in 0..n {
            let expected = self.length(i, &x[i + 2].extent, &w[i + 2].extent)?;
            if expected != y[i + 2].extent {
                return Err(format!("of `{}` with kernel {} gives {expected}, not `{}`", x[i + 2], w[i + 2], y[i + 2]));
            }
        }
        Ok(())
    }

    /// Two operations per product, the same number whichever of the three factors is the result.
    fn cost(&self, w: &[Dim], y: &[Dim], inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let products = Extent::product(y.iter().chain(&w[1..]).map(|d| &d.extent));
        Cost::streaming(Extent::mul(products, Extent::constant(2)), inputs, outputs)
    }

    fn attributes(&self) -> String {
        let word = |v: &[u64]| v.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
        let sides = self.padding.iter().map(|[a, b]| if a == b { a.to_string() } else { format!("{a}+{b}") });
        let padding = sides.collect::<Vec<_>>().join("x");
        let mut text = format!("stride={} padding={padding}", word(&self.stride));
        if self.dilation.iter().any(|d| *d != 1) {
            text += &format!(" dilation={}", word(&self.dilation));
        }
        if self.groups.as_constant() != Some(1) {
            text += &format!(" groups={}", self.groups);
        }
        text
    }
}

/// The number of places of a window over `input`; see [`Geometry::length`].
pub fn window_length(
    input: &Extent,
    kernel: &Extent,
    stride: u64,
    [before, after]: [u64; 2],
    dilation: u64,
) -> Result<Extent, String> {
    if stride == 0 || dilation == 0 {
        return Err("has a stride and a dilation of at least 1".into());
    }
    let one = || Extent::constant(1);
    if kernel.as_constant() == Some(0) {
        return Err("has a kernel of at least 1".into());
    }
    let span = Extent::add(Extent::mul(Extent::constant(dilation), Extent::sub(kernel.clone(), one())), one());
    let padded = Extent::add(input.clone(), Extent::constant(before + after));
    if let (Some(p), Some(s)) = (padded.as_constant(), span.as_constant())
        && p < s
    {
        return Err(format!("has a kernel that spans {s} positions over a padded input of {p}"));
    }
    Ok(Extent::add(Extent::floor_div(Extent::sub(padded, span), Extent::constant(stride)), one()))
}

/// A convolution: `x, w[, bias] -> y`. See the module's description.
#[derive(Clone, Debug)]
pub struct Conv {
    /// How the kernel moves.
    pub geometry: Geometry,
    /// The dimensions of `y`.
    pub dims: Vec<Dim>,
}

/// The gradient of a convolution by its input, which is the transposed convolution:
/// `y, w[, bias] -> x`.
#[derive(Clone, Debug)]
pub struct ConvInputGrad {
    /// How the kernel of the convolution that this transposes moves.
    pub geometry: Geometry,
    /// The dimensions of `x`.
    pub dims: Vec<Dim>,
}

/// The gradient of a convolution by its weight: `x, y -> w`.
#[derive(Clone, Debug)]
pub struct ConvWeightGrad {
    /// How the kernel moves.
    pub geometry: Geometry,
    /// The dimensions of `w`.
    pub dims: Vec<Dim>,
}

fn real(inputs: &[&TensorType], counts: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    if !counts.contains(&inputs.len()) {
        return Err(format!("takes {} to {} inputs, is given {}", counts.start(), counts.end(), inputs.len()));
    }
    match inputs.iter().find(|t| t.dtype != DType::F32) {
        Some(ty) => Err(format!("takes real inputs, is given {ty}")),
        None => Ok(()),
    }
}

/// A third input is a bias over the channels of the result.
fn check_bias(inputs: &[&TensorType], channels: &Dim) -> Result<(), String> {
    match inputs.get(2) {
        Some(b) if b.rank() != 1 || b.dims[0].extent != channels.extent => {
            Err(format!("adds a bias to `{channels}` channels, is given {b}"))
        }
        _ => Ok(()),
    }
}

/// The gradient of the bias: summed over all but the channels.
fn bias_grad(g: Handle) -> Handle {
    let positions: Vec<usize> = (0..type_of(g).rank()).filter(|p| *p != 1).collect();
    reduce::reduce(g, reduce::Kind::Sum, &positions)
}

impl Rule for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        real(inputs, 2..=3)?;
        self.geometry.check(&inputs[0].dims, &inputs[1].dims, &self.dims)?;
        check_bias(inputs, &self.dims[1])?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (x, w, g) = (cx.inputs[0], cx.inputs[1], cx.grad());
        let mut grads = vec![
            cx.wanted[0].then(|| conv_input_grad(g, w, None, &self.geometry, type_of(x).dims)),
            cx.wanted[1].then(|| conv_weight_grad(x, g, &self.geometry, type_of(w).dims)),
        ];
        grads.extend(cx.wanted.get(2).map(|wanted| wanted.then(|| bias_grad(g))));
        Ok(grads)
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        self.geometry.cost(&inputs[1].dims, &self.dims, inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.geometry.attributes()
    }
}

impl Rule for ConvInputGrad {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        real(inputs, 2..=3)?;
        self.geometry.check(&self.dims, &inputs[1].dims, &inputs[0].dims)?;
        check_bias(inputs, &self.dims[1])?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (y, w, g) = (cx.inputs[0], cx.inputs[1], cx.grad());
        let mut grads = vec![
            cx.wanted[0].then(|| conv_to(g, w, None, &self.geometry, type_of(y).dims)),
            cx.wanted[1].then(|| conv_weight_grad(g, y, &self.geometry, type_of(w).dims)),
        ];
        grads.extend(cx.wanted.get(2).map(|wanted| wanted.then(|| bias_grad(g))));
        Ok(grads)
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        self.geometry.cost(&inputs[1].dims, &inputs[0].dims, inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.geometry.attributes()
    }
}

impl Rule for ConvWeightGrad {
    fn name(&self) -> &'static str {
        "conv_weight_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        real(inputs, 2..=2)?;
        self.geometry.check(&inputs[0].dims, &self.dims, &inputs[1].dims)?;
        Ok(vec![TensorType::new(self.dims.clone(), DType::F32)])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let (x, y, g) = (cx.inputs[0], cx.inputs[1], cx.grad());
        Ok(vec![
            cx.wanted[0].then(|| conv_input_grad(y, g, None, &self.geometry, type_of(x).dims)),
            cx.wanted[1].then(|| conv_to(x, g, None, &self.geometry, type_of(y).dims)),
        ])
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        self.geometry.cost(&self.dims, &inputs[1].dims, inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.geometry.attributes()
    }
}

fn operands(a: Handle, b: Handle, bias: Option<Handle>) -> Vec<Handle> {
    [Some(a), Some(b), bias].into_iter().flatten().collect()
}

/// A convolution whose result has the given dimensions.
pub fn conv_to(x: Handle, w: Handle, bias: Option<Handle>, geometry: &Geometry, dims: Vec<Dim>) -> Handle {
    op1(Conv { geometry: geometry.clone(), dims }, &operands(x, w, bias))
}

/// A convolution; its spatial dimensions have no names. PyTorch: `conv1d`, `conv2d`.
pub fn conv(x: Handle, w: Handle, bias: Option<Handle>, geometry: &Geometry) -> Handle {
    let (xt, wt) = (type_of(x), type_of(w));
    let rank = geometry.spatial() + 2;
    let mut dims: Vec<Dim> = xt.dims.first().into_iter().chain(wt.dims.first()).cloned().collect();
    if xt.rank() == rank && wt.rank() == rank {
        for i in 0..geometry.spatial() {
            match geometry.length(i, &xt.dims[i + 2].extent, &wt.dims[i + 2].extent) {
                Ok(extent) => dims.push(Dim::anonymous(extent)),
                Err(e) => {
                    fail(format!("conv: {e}"));
                    return x;
                }
            }
        }
    }
    conv_to(x, w, bias, geometry, dims)
}

/// The gradient of a convolution by its input, of dimensions `dims`; with the weight
/// `[in, out / groups, kernel..]` of a `torch.nn.ConvTranspose1d` it is that layer.
pub fn conv_input_grad(y: Handle, w: Handle, bias: Option<Handle>, geometry: &Geometry, dims: Vec<Dim>) -> Handle {
    op1(ConvInputGrad { geometry: geometry.clone(), dims }, &operands(y, w, bias))
}

/// The gradient of a convolution by its weight, of dimensions `dims`.
pub fn conv_weight_grad(x: Handle, y: Handle, geometry: &Geometry, dims: Vec<Dim>) -> Handle {
    op1(ConvWeightGrad { geometry: geometry.clone(), dims }, &[x, y])
}
