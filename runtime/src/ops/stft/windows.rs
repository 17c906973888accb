//! Window functions, computed in the graph so that their length may be known at run time.

use crate::graph::trace::Handle;
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::ops::elementwise::{self as ew, CompareKind, UnaryKind};
use crate::ops::leaf;

/// The shape of a window of length `L`, periodic as transforms need it: at place `m` of `0..L`,
/// with `p = 2 pi m / L`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WindowShape {
    /// `0.5 - 0.5 cos p`. PyTorch: `hann_window`.
    #[default]
    Hann,
    /// `0.54 - 0.46 cos p`. PyTorch: `hamming_window`.
    Hamming,
    /// `0.42 - 0.5 cos p + 0.08 cos 2p`. PyTorch: `blackman_window`.
    Blackman,
    /// `1`
    Rectangular,
}

/// A window of length `length` in the middle of `frame` values, zeros around it. With
/// `symmetric` the period is `length - 1`, as in `torch.hann_window(.., periodic=False)`.
pub fn window(shape: WindowShape, length: Extent, frame: Dim, symmetric: bool) -> Handle {
    let one = Extent::constant(1);
    let before = Extent::floor_div(Extent::sub(frame.extent.clone(), length.clone()), Extent::constant(2));
    let ty = TensorType::new(vec![frame], DType::I32);
    let m = ew::sub(ew::cast(leaf::iota(0, &ty), DType::F32), leaf::size(before));
    let period = if symmetric { Extent::sub(length.clone(), one) } else { length.clone() };
    let p = ew::scale(ew::div(m, leaf::size(period)), 2.0 * std::f64::consts::PI);
    // a + b cos p + c cos 2p
    let (a, b, c) = match shape {
        WindowShape::Hann => (0.5, -0.5, 0.0),
        WindowShape::Hamming => (0.54, -0.46, 0.0),
        WindowShape::Blackman => (0.42, -0.5, 0.08),
        WindowShape::Rectangular => (1.0, 0.0, 0.0),
    };
    let cos = |factor: f64, multiple: f64| ew::scale(ew::unary(UnaryKind::Cos, ew::scale(p, multiple)), factor);
    let mut value = ew::add(cos(b, 1.0), leaf::scalar(a));
    if c != 0.0 {
        value = ew::add(value, cos(c, 2.0));
    }
    let zero = leaf::scalar(0.0);
    let inside = ew::compare(CompareKind::Lt, m, leaf::size(length));
    let value = ew::select(inside, value, zero);
    ew::select(ew::compare(CompareKind::Ge, m, zero), value, zero)
}
