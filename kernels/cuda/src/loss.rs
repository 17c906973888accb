//! Cross-entropy of rows of logits, and its gradient (`loss.cu`).

use crate::rows::{Number, Shape, count, even, kernel};
use crate::{Arg, CudaError, Launch, Ptr, args};

/// The settings, the number of rows and of classes, and how logits are stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CrossEntropy {
    /// Rows.
    pub rows: usize,
    /// Logits of a row.
    pub classes: usize,
    /// Targets of this value are left out.
    pub ignore: Option<i32>,
    /// The part of a target that is spread over all classes.
    pub smoothing: f32,
    /// The weight of the squared log-sum-exp.
    pub z_loss: f32,
    /// How logits and their gradients are stored; all else is `f32`.
    pub number: Number,
    /// Where a wrong target is noted ([`crate::status`]), or null.
    pub status: Ptr,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "w", group: 32, vectors: 8, threads: 256 },
    Shape { name: "b", group: 512, vectors: 0, threads: 512 },
];

impl CrossEntropy {
    fn launch(self, family: &'static str, first: Vec<Arg>, of: &[Ptr]) -> Result<Vec<Launch>, CudaError> {
        let n = count(family, "classes", self.classes)?;
        if self.rows == 0 {
            return Ok(vec![]);
        }
        let shape = Shape::choose(&SHAPES, n as usize, self.number);
        let mut args = first;
        args.extend(args![self.rows as i64, n, i32::from(self.ignore.is_some()), self.ignore.unwrap_or(0)]);
        args.extend(args![self.smoothing, self.z_loss, even(n as usize, self.number, of), self.status]);
        let name = kernel(family, self.number, shape.name);
        Ok(vec![Launch::new(name, [shape.grid(family, self.rows)?, 1, 1], shape.threads as u32, args)])
    }

    /// `loss [rows]` and `lse [rows]` of `logits [rows, classes]` against `targets [rows]`.
    ///
    /// # Errors
    /// 2³¹ classes or more, more rows than a grid has blocks.
    pub fn forward(self, logits: Ptr, targets: Ptr, loss: Ptr, lse: Ptr) -> Result<Vec<Launch>, CudaError> {
        self.launch("cross_entropy", args![logits, targets, loss, lse], &[logits])
    }

    /// The gradient by the logits, from that by the losses; it may lie where the logits do.
    ///
    /// # Errors
    /// As of [`forward`](Self::forward).
    pub fn backward(self, logits: Ptr, targets: Ptr, lse: Ptr, g: Ptr, gx: Ptr) -> Result<Vec<Launch>, CudaError> {
        if self.classes == 0 {
            return Ok(vec![]);
        }
        self.launch("cross_entropy_back", args![logits, targets, lse, g, gx], &[logits, gx])
    }

    /// The losses, and where `g` is not null the gradient by the logits over these.
    ///
    /// # Errors
    /// As of [`forward`](Self::forward).
    pub fn fused(self, logits: Ptr, targets: Ptr, g: Ptr, loss: Ptr) -> Result<Vec<Launch>, CudaError> {
        self.launch("cross_entropy_fused", args![logits, targets, g, loss], &[logits])
    }
}
