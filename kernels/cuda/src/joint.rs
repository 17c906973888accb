//! A transducer's joint network together with its loss (`joint.cu`, `transducer.cu`): logits exist for a few frames at
//! a time, forward and once more backward.

use crate::conv::Factors;
use crate::size::{count, int, refused, tiles};
use crate::transducer::{self, Bend, Transducer};
use crate::{Arg, CudaError, Launch, Ptr, args};
use std::ops::Range;

const NAME: &str = "transducer joint";

/// A joint network: `logits = W act(e[b, t] + p[b, u]) + bias`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joint {
    /// Hidden values of a node.
    pub width: usize,
    /// Hyperbolic tangents, not rectified.
    pub tanh: bool,
    /// What the factors of its products are.
    pub factors: Factors,
    /// Bytes of logits that may be in memory at once; those of one frame of every sequence are always.
    pub memory: usize,
}

/// What the joint reads.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// The encoder's part, `[batch, time, width]`.
    pub e: Ptr,
    /// The predictor's part, `[batch, labels + 1, width]`.
    pub p: Ptr,
    /// `[tokens + durations, width]`
    pub weight: Ptr,
    /// `[tokens + durations]`, or null.
    pub bias: Ptr,
}

/// Gradients by what the joint reads, in the same shapes; that of the bias may be null.
#[derive(Clone, Copy, Debug)]
pub struct Gradients {
    /// By the encoder's part.
    pub e: Ptr,
    /// By the predictor's part.
    pub p: Ptr,
    /// By the weight.
    pub weight: Ptr,
    /// By the bias.
    pub bias: Ptr,
}

impl Joint {
    /// Values of one frame of all sequences: nodes and logits.
    fn frame(&self, s: &Transducer) -> [usize; 2] {
        let nodes = s.batch * (s.labels + 1);
        [nodes, nodes * (s.tokens + s.durations.len())]
    }

    /// The ranges of frames that are computed one after the other.
    fn ranges(&self, s: &Transducer) -> Vec<Range<usize>> {
        let step = (self.memory / 4 / self.frame(s)[1].max(1)).clamp(1, s.time.max(1));
        (0..s.time).step_by(step).map(|t| t..(t + step).min(s.time)).collect()
    }

    /// Where the transducer's workspace, the logits of a range and the gradients of its hidden values lie, and the end.
    fn rooms(&self, s: &Transducer, workspace: Ptr) -> [Ptr; 4] {
        let most = self.ranges(s).first().map_or(0, |r| r.len());
        let [nodes, logits] = self.frame(s);
        let room = |at: Ptr, bytes: usize| at.at(bytes.next_multiple_of(16));
        let first = room(workspace, s.workspace());
        let second = room(first, most * logits * 4);
        [workspace, first, second, room(second, most * nodes * self.width * 4)]
    }

    /// Bytes of scratch for [`loss`] and [`gradient`].
    pub fn workspace(&self, s: &Transducer) -> usize {
        self.rooms(s, Ptr::NULL)[3].0 as usize
    }

    /// Rows of a tile.
    fn rows(&self) -> usize {
        if self.factors == Factors::Bf16 { 128 } else { 64 }
    }

    /// A product of `rows` by `columns` over the hidden values of a range.
    fn product(&self, kernels: [&'static str; 2], size: [usize; 2], args: Vec<Arg>, hidden: &[Arg]) -> Launch {
        let kernel = if self.factors == Factors::Bf16 { kernels[1] } else { kernels[0] };
        let blocks = tiles(size[0], self.rows()) * tiles(size[1], 128);
        Launch::new(kernel, [blocks, 1, 1], 256, args.into_iter().chain(hidden.iter().cloned()).collect())
    }

    /// The hidden values of a range as arguments.
    fn hidden(&self, s: &Transducer, x: &Input, r: &Range<usize>) -> Result<Vec<Arg>, CudaError> {
        let classes = s.tokens + s.durations.len();
        count(NAME, "the encoder's part", &[s.batch, s.time, self.width])?;
        count(NAME, "the predictor's part", &[s.batch, s.labels + 1, self.width])?;
        count(NAME, "the weight", &[classes, self.width])?;
        let nodes = count(NAME, "nodes", &[s.batch, r.len(), s.labels + 1])?;
        if (nodes as usize).div_ceil(64).saturating_mul(classes.max(self.width).div_ceil(128)) >= 1 << 31 {
            return Err(refused(NAME, format!("{nodes} nodes of {classes} classes are more than one launch takes")));
        }
        let n = |v: usize| int(NAME, "", v);
        let sizes = args![n(s.batch)?, n(s.time)?, n(r.start)?, n(r.len())?, n(s.labels + 1)?, n(self.width)?];
        Ok(args![x.e, x.p].into_iter().chain(sizes).chain(args![self.tanh as i32]).collect())
    }

    fn logits(&self, s: &Transducer, x: &Input, r: &Range<usize>, to: Ptr, hidden: &[Arg]) -> Launch {
        let (rows, classes) = (self.frame(s)[0] * r.len(), s.tokens + s.durations.len());
        let args = args![x.weight, x.bias, to, classes as i32];
        self.product(["joint_logits_f32", "joint_logits_bf16"], [rows, classes], args, hidden)
    }
}

/// The loss of each sequence, `[batch]`, as [`transducer::loss`].
///
/// # Errors
/// Those of [`transducer::nodes`]; arrays of 2³¹ values or more.
pub fn loss(
    s: &Transducer,
    j: &Joint,
    x: &Input,
    losses: Ptr,
    workspace: Ptr,
    status: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let [nodes, logits, ..] = j.rooms(s, workspace);
    let mut all = vec![];
    for r in j.ranges(s) {
        all.push(j.logits(s, x, &r, logits, &j.hidden(s, x, &r)?));
        all.extend(transducer::nodes(s, logits, r, nodes, status)?);
    }
    all.extend(transducer::loss(s, losses, nodes)?);
    Ok(all)
}

/// The gradients from `g [batch]`, that of the losses, after [`loss`] with the same workspace.
///
/// # Errors
/// As [`loss`].
#[allow(clippy::too_many_arguments)]
pub fn gradient(
    s: &Transducer,
    j: &Joint,
    x: &Input,
    losses: Ptr,
    g: Ptr,
    bend: Bend,
    out: &Gradients,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let [nodes, logits, dh, _] = j.rooms(s, workspace);
    let classes = s.tokens + s.durations.len();
    let mut ranges = j.ranges(s);
    if ranges.is_empty() {
        // No frames: sums of nothing are zeros.
        ranges.push(0..0);
    }
    let mut all = vec![];
    for r in ranges {
        let hidden = j.hidden(s, x, &r)?;
        let (rows, first) = (j.frame(s)[0] * r.len(), (r.start == 0) as i32);
        if rows > 0 {
            all.push(j.logits(s, x, &r, logits, &hidden));
            all.extend(transducer::gradient(s, logits, r.clone(), losses, g, bend, logits, nodes)?);
            let args = args![logits, x.weight, dh, classes as i32];
            all.push(j.product(["joint_back_f32", "joint_back_bf16"], [rows, j.width], args, &hidden));
        }
        let args = args![logits, out.weight, classes as i32, first];
        all.push(j.product(["joint_weight_f32", "joint_weight_bf16"], [classes, j.width], args, &hidden));
        if out.bias != Ptr::NULL {
            let args = args![logits, out.bias, int(NAME, "nodes", rows)?, classes as i32, first];
            all.push(Launch::new("joint_bias_f32", [tiles(classes, 32), 1, 1], 256, args));
        }
        let values = (s.batch * r.len() + s.batch * (s.labels + 1)) * j.width;
        count(NAME, "the encoder's and the predictor's gradients", &[values])?;
        let args = args![dh, out.e, out.p, first].into_iter().chain(hidden[2..8].iter().cloned()).collect();
        all.push(Launch::new("joint_sums_f32", [tiles(values, 256), 1, 1], 256, args));
    }
    Ok(all)
}
