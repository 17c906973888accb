//! Transducer losses, RNN-T and TDT (`transducer.cu`): losses and gradients by the joint's logits.
//!
//! [`nodes`] reads the logits of some frames once and keeps a few values of each node; [`loss`] needs no more than
//! these; [`gradient`] reads the logits again. The first and the last take a range of frames, so that a joint can be
//! computed, used and forgotten a few frames at a time.

use crate::size::{count, int, refused, tiles};
use crate::{Arg, CudaError, Launch, Ptr, args};
use std::ops::Range;

const NAME: &str = "transducer loss";

/// Sizes of a batch: `logits [batch, time, labels + 1, tokens + durations]`, `targets [batch, labels]` of `i32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transducer {
    /// Sequences.
    pub batch: usize,
    /// Frames.
    pub time: usize,
    /// Labels at most.
    pub labels: usize,
    /// Tokens, blank among them.
    pub tokens: usize,
    /// The token that is no label.
    pub blank: usize,
    /// By how many frames a step may advance, at most 8 of them: TDT. None: RNN-T.
    pub durations: Vec<usize>,
    /// TDT: what is taken off the logarithm of every token's probability.
    pub sigma: f32,
    /// The labels.
    pub targets: Ptr,
    /// How many frames of each sequence count, `[batch]` of `i32`; null where all do.
    pub time_lengths: Ptr,
    /// How many labels of each sequence count, `[batch]` of `i32`; null where all do.
    pub label_lengths: Ptr,
}

/// What [`nodes`] and [`loss`] leave for [`gradient`]: [`Transducer::workspace`] bytes at this address.
pub type Workspace = Ptr;

impl Transducer {
    fn arguments(&self) -> Result<Vec<Arg>, CudaError> {
        let nodes = [self.batch, self.time, self.labels + 1];
        count(NAME, "the nodes", &[nodes[0], nodes[1], nodes[2], 4 + self.durations.len()])?;
        if self.durations.len() > 8 {
            return Err(refused(NAME, format!("{} durations, at most 8 are taken", self.durations.len())));
        }
        if !self.durations.is_empty() && self.durations.iter().all(|d| *d == 0) {
            return Err(refused(NAME, "durations that never advance, one above 0 is needed"));
        }
        if self.blank >= self.tokens {
            return Err(refused(NAME, format!("blank is {}, there are {} tokens", self.blank, self.tokens)));
        }
        let mut all = args![self.targets, self.time_lengths, self.label_lengths];
        let durations = (0..8).map(|i| self.durations.get(i).copied().unwrap_or(0));
        let sizes = [self.batch, self.time, self.labels, self.tokens, self.blank, self.durations.len()];
        for size in sizes.into_iter().chain(durations) {
            all.push(int(NAME, "", size)?.into());
        }
        Ok(all)
    }

    fn nodes(&self) -> usize {
        self.batch * self.time * (self.labels + 1)
    }

    /// Bytes of values of nodes, alpha and beta.
    pub fn workspace(&self) -> usize {
        4 * self.nodes() * (6 + self.durations.len())
    }

    fn rooms(&self, workspace: Workspace) -> [Ptr; 3] {
        let alpha = workspace.at(4 * self.nodes() * (4 + self.durations.len()));
        [workspace, alpha, alpha.at(4 * self.nodes())]
    }

    /// Blocks for the nodes of some frames, and these as arguments.
    fn range(&self, frames: &Range<usize>) -> Result<(u32, Vec<Arg>), CudaError> {
        if frames.end > self.time || frames.start > frames.end {
            return Err(refused(NAME, format!("frames {frames:?} of {}", self.time)));
        }
        let nodes = self.batch * frames.len() * (self.labels + 1);
        Ok((tiles(nodes, 8), args![frames.start as i32, frames.len() as i32]))
    }
}

/// Reads the logits of some frames, `[batch, frames, labels + 1, tokens + durations]`. A token that does not exist is
/// noted in `status` ([`crate::status`]).
///
/// # Errors
/// Nodes of 2³¹ values or more, more than 8 durations or none that advances, a blank that is no token.
pub fn nodes(
    s: &Transducer,
    logits: Ptr,
    frames: Range<usize>,
    workspace: Workspace,
    status: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    let (blocks, range) = s.range(&frames)?;
    let sigma = if s.durations.is_empty() { 0.0 } else { s.sigma };
    let args = args![logits, workspace, status, sigma].into_iter().chain(range).chain(sizes).collect();
    Ok(vec![Launch::new("transducer_nodes_f32", [blocks, 1, 1], 256, args)])
}

/// The loss of each sequence, `[batch]`, after [`nodes`] of all frames: minus the logarithm of the probability of its
/// labels, infinity where no path leads to the end.
///
/// # Errors
/// As [`nodes`].
pub fn loss(s: &Transducer, losses: Ptr, workspace: Workspace) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    let [nodes, alpha, beta] = s.rooms(workspace);
    let threads = (s.labels + 1).next_multiple_of(32).min(1024) as u32;
    let args = args![nodes, alpha, beta, losses].into_iter().chain(sizes).collect();
    Ok(vec![Launch::new("transducer_paths_f32", [int(NAME, "sequences", s.batch)? as u32, 2, 1], threads, args)])
}

/// How gradients are bent, as NeMo's warprnnt does it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bend {
    /// FastEmit: how much more the gradients of labels count.
    pub fastemit: f32,
    /// The largest size of a gradient by a logit, before that of the loss; 0 for none.
    pub clamp: f32,
}

/// The gradient by the logits of some frames from `g [batch]`, that of the losses, after [`loss`]; `grad` may be
/// where the logits are.
///
/// # Errors
/// As [`nodes`].
#[allow(clippy::too_many_arguments)]
pub fn gradient(
    s: &Transducer,
    logits: Ptr,
    frames: Range<usize>,
    losses: Ptr,
    g: Ptr,
    bend: Bend,
    grad: Ptr,
    workspace: Workspace,
) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    let (blocks, range) = s.range(&frames)?;
    let [nodes, alpha, beta] = s.rooms(workspace);
    let args = args![logits, nodes, alpha, beta, losses, g, grad, bend.fastemit, bend.clamp];
    let args = args.into_iter().chain(range).chain(sizes).collect();
    Ok(vec![Launch::new("transducer_grad_f32", [blocks, 1, 1], 256, args)])
}
