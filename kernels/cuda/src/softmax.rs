//! Softmax and log-softmax along a dimension, and their gradients (`softmax.cu`).

use crate::rows::{Number, Shape, count, even, kernel};
use crate::{CudaError, Launch, Ptr, args};

const SHAPES: [Shape; 6] = [Shape::G8, Shape::W1, Shape::W4, Shape::B4, Shape::X4, Shape::STREAM];
/// Two bytes a value: a block of 256 holds 8192 already.
const NARROW: [Shape; 5] = [Shape::G8, Shape::W1, Shape::W4, Shape::B4, Shape::STREAM];

/// Values along the dimension, around which others may lie: `[outer, n, inner]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Along {
    /// The product of the sizes before it.
    pub outer: usize,
    /// Its size.
    pub n: usize,
    /// The product of the sizes behind it.
    pub inner: usize,
}

fn shape(n: usize, number: Number) -> Shape {
    let shapes: &[Shape] = if number == Number::F32 { &SHAPES } else { &NARROW };
    Shape::choose(shapes, n, number)
}

/// `y = softmax(x)`, or its logarithm, along the middle of `[outer, n, inner]`. May work in place.
///
/// # Errors
/// 2³¹ values or more along the dimension, 2³¹ blocks or more, columns that are not `f32`.
pub fn softmax(x: Ptr, y: Ptr, along: Along, log: bool, number: Number) -> Result<Vec<Launch>, CudaError> {
    let Along { outer, n, inner } = along;
    let length = count("softmax", "values in a row", n)?;
    if outer * n * inner == 0 {
        return Ok(vec![]);
    }
    if inner > 1 {
        let args = args![x, y, (outer * inner) as i64, length, inner as i64, i32::from(log)];
        return columns("softmax_f32_columns", outer * inner, args, number);
    }
    let shape = shape(n, number);
    let args = args![x, y, outer as i64, length, i32::from(log), even(n, number, &[x, y])];
    let name = kernel("softmax", number, shape.name);
    Ok(vec![Launch::new(name, [shape.grid("softmax", outer)?, 1, 1], shape.threads as u32, args)])
}

/// The gradient by `x` of [`softmax`] from its result `y` and the gradient `g` by it. May work in place.
///
/// # Errors
/// As of [`softmax`].
pub fn softmax_back(
    y: Ptr,
    g: Ptr,
    gx: Ptr,
    along: Along,
    log: bool,
    number: Number,
) -> Result<Vec<Launch>, CudaError> {
    let Along { outer, n, inner } = along;
    let length = count("softmax_back", "values in a row", n)?;
    if outer * n * inner == 0 {
        return Ok(vec![]);
    }
    if inner > 1 {
        let args = args![y, g, gx, (outer * inner) as i64, length, inner as i64, i32::from(log)];
        return columns("softmax_back_f32_columns", outer * inner, args, number);
    }
    let shape = shape(n, number);
    let args = args![y, g, gx, outer as i64, length, i32::from(log), even(n, number, &[y, g, gx])];
    let name = kernel("softmax_back", number, shape.name);
    Ok(vec![Launch::new(name, [shape.grid("softmax_back", outer)?, 1, 1], shape.threads as u32, args)])
}

fn columns(
    name: &'static str,
    columns: usize,
    args: Vec<crate::Arg>,
    number: Number,
) -> Result<Vec<Launch>, CudaError> {
    if number != Number::F32 {
        return Err(CudaError::Refused { kernel: name, message: format!("takes f32, is given {number:?}") });
    }
    let blocks = count(name, "blocks", columns.div_ceil(256))?;
    Ok(vec![Launch::new(name, [blocks as u32, 1, 1], 256, args)])
}
