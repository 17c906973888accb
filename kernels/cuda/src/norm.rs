//! Layer and RMS norm of rows, forward and backward (`norm.cu`). Group and instance norm are layer norms of
//! longer rows without weights.

use crate::reduce::{Reduction, reduce, workspace as reduce_workspace};
use crate::rows::{Number, Shape, count, even, kernel};
use crate::{CudaError, Launch, Ptr, args};

/// A norm of `rows` rows of `n` values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Norm {
    /// Rows.
    pub rows: usize,
    /// Values of a row.
    pub n: usize,
    /// Added to the variance or the mean square.
    pub eps: f32,
    /// Mean 0 and variance 1, else mean square 1.
    pub centred: bool,
    /// How values are stored, backwards weights too; forward, weights and biases are `f32`, and so are gradients of weights.
    pub number: Number,
}

const FORWARD: [Shape; 6] = [Shape::G8, Shape::W1, Shape::W4, Shape::B4, C8, Shape::STREAM];
const C8: Shape = Shape { name: "c8", group: 512, vectors: 8, threads: 512 };
const FORWARD_NARROW: [Shape; 5] = [Shape::G8, Shape::W1, Shape::W4, Shape::B4, Shape::STREAM];
const C4: Shape = Shape { name: "c4", group: 512, vectors: 4, threads: 512 };
const BACKWARD: [Shape; 6] = [Shape::G8, Shape::W1, Shape::W4, Shape::B4, C4, Shape::STREAM];
const fn two(name: &'static str, group: usize, threads: usize) -> Shape {
    Shape { name, group, vectors: 2, threads }
}
const BACKWARD_NARROW: [Shape; 6] =
    [Shape::G8, Shape::W1, two("w2", 32, 256), two("b2", 256, 256), two("c2", 512, 512), Shape::STREAM];

/// How gradients of weights come about.
struct Plan {
    shape: Shape,
    /// Blocks of the first launch.
    blocks: usize,
    /// Partial rows of each of the two gradients.
    partial: usize,
}

impl Norm {
    fn args(self, family: &'static str) -> Result<(i64, i32, f32, i32), CudaError> {
        Ok((self.rows as i64, count(family, "values in a row", self.n)?, self.eps, i32::from(self.centred)))
    }

    /// `y = norm(x) * weight + bias`; null for what there is not. With a `residual`, `(residual, sum)`: `sum = x +
    /// residual` is written and normalised. The result is stored as `to`; `y` may lie where `x` does if that is its type too.
    ///
    /// # Errors
    /// 2³¹ values or more in a row, more rows than a grid has blocks.
    pub fn forward(
        self,
        x: Ptr,
        residual: Option<(Ptr, Ptr)>,
        weight: Ptr,
        bias: Ptr,
        (y, to): (Ptr, Number),
    ) -> Result<Vec<Launch>, CudaError> {
        let (rows, n, eps, centred) = self.args("norm")?;
        if self.rows == 0 || n == 0 {
            return Ok(vec![]);
        }
        let shapes: &[Shape] = if self.number == Number::F32 { &FORWARD } else { &FORWARD_NARROW };
        let shape = Shape::choose(shapes, self.n, self.number);
        let (more, sums) = residual.unwrap_or((Ptr::NULL, Ptr::NULL));
        let even = even(self.n, self.number, &[x, more, weight, bias, sums, y]);
        let args = args![x, more, weight, bias, sums, y, to as i32, rows, n, eps, centred, even];
        let name = kernel("norm", self.number, shape.name);
        Ok(vec![Launch::new(name, [shape.grid("norm", self.rows)?, 1, 1], shape.threads as u32, args)])
    }

    fn plan(self, multiprocessors: u32) -> Plan {
        let shapes = if self.number == Number::F32 { &BACKWARD } else { &BACKWARD_NARROW };
        let shape = Shape::choose(shapes, self.n, self.number);
        if shape.vectors == 0 {
            // `norm_columns`: enough blocks of 256 columns, at least 16 rows each.
            let wanted = (8 * multiprocessors as usize).div_ceil(self.n.div_ceil(256).max(1));
            let part = self.rows.div_ceil(wanted.clamp(1, self.rows.div_ceil(16).max(1))).max(1);
            return Plan { shape, blocks: self.rows, partial: self.rows.div_ceil(part) };
        }
        let most = multiprocessors as usize * (1024 / shape.threads).max(1);
        let blocks = self.rows.div_ceil(shape.rows()).min(most);
        Plan { shape, blocks, partial: blocks * shape.rows() }
    }

    /// Bytes of workspace that [`backward`](Self::backward) needs where gradients of weights are wanted.
    pub fn workspace(self, multiprocessors: u32) -> usize {
        let plan = self.plan(multiprocessors);
        let one = (plan.partial * self.n * 4).next_multiple_of(256);
        let stats = (self.rows * 8).next_multiple_of(256);
        2 * one + stats + reduce_workspace(Reduction::Sum, &[plan.partial, self.n], &[0], multiprocessors)
    }

    /// Gradients of [`forward`](Self::forward) without residual: by `x` to `gx` (which may lie where `g` or `x`
    /// does), by weight and bias to `gw` and `gb` where these are not null.
    ///
    /// # Errors
    /// As of [`forward`](Self::forward).
    pub fn backward(
        self,
        (x, weight, g): (Ptr, Ptr, Ptr),
        (gx, gw, gb): (Ptr, Ptr, Ptr),
        workspace: Ptr,
        multiprocessors: u32,
    ) -> Result<Vec<Launch>, CudaError> {
        let (rows, n, eps, centred) = self.args("norm_back")?;
        let parameters = gw != Ptr::NULL || gb != Ptr::NULL;
        if n == 0 {
            return Ok(vec![]);
        }
        let plan = self.plan(multiprocessors);
        let even = even(self.n, self.number, &[x, weight, g, gx]);
        let one = (plan.partial * self.n * 4).next_multiple_of(256);
        let part = |of: Ptr, at: usize| if of == Ptr::NULL { of } else { workspace.at(at) };
        let (pw, pb, stats) = (part(gw, 0), part(gb, one), workspace.at(2 * one));
        let rest = stats.at((self.rows * 8).next_multiple_of(256));
        let mut launches = vec![];
        if self.rows > 0 && plan.shape.vectors == 0 {
            let grid = count("norm_back", "rows", self.rows)? as u32;
            let stats = if parameters { stats } else { Ptr::NULL };
            let args = args![x, weight, g, gx, stats, n, eps, centred, even];
            launches.push(Launch::new(kernel("norm_back", self.number, "s"), [grid, 1, 1], 512, args));
            if parameters {
                let columns = self.n.div_ceil(256);
                let part = self.rows.div_ceil(plan.partial) as i64;
                let args = args![x, g, stats, pw, pb, rows, n, columns as i32, part];
                let grid = count("norm_back", "blocks", columns * plan.partial)? as u32;
                launches.push(Launch::new(kernel("norm_columns", self.number, "s"), [grid, 1, 1], 256, args));
            }
        } else if self.rows > 0 {
            let family = if parameters { "norm_back" } else { "norm_data" };
            let args = args![x, weight, g, gx, pw, pb, rows, n, eps, centred, even];
            let name = kernel(family, self.number, plan.shape.name);
            launches.push(Launch::new(name, [plan.blocks as u32, 1, 1], plan.shape.threads as u32, args));
        }
        for (partial, to) in [(pw, gw), (pb, gb)] {
            if to != Ptr::NULL {
                let sizes = [plan.partial, self.n];
                launches.extend(reduce(Reduction::Sum, (partial, to, rest), &sizes, &[0], multiprocessors)?);
            }
        }
        Ok(launches)
    }
}
