//! Connectionist temporal classification (`ctc.cu`): losses and gradients by logits.

use crate::size::{count, int, refused, tiles};
use crate::{Arg, CudaError, Launch, Ptr, args};

const NAME: &str = "CTC loss";

/// Sizes of a batch: `logits [batch, time, classes]` (log probabilities are logits too), `targets [batch, labels]` of `i32`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ctc {
    /// Sequences.
    pub batch: usize,
    /// Frames.
    pub time: usize,
    /// Labels at most.
    pub labels: usize,
    /// Classes, blank among them.
    pub classes: usize,
    /// The class that is no label.
    pub blank: usize,
    /// Losses of sequences that their frames cannot hold are 0, not infinity. They have no gradient either way.
    pub zero_infinity: bool,
    /// The labels.
    pub targets: Ptr,
    /// How many frames of each sequence count, `[batch]` of `i32`; null where all do.
    pub time_lengths: Ptr,
    /// How many labels of each sequence count, `[batch]` of `i32`; null where all do.
    pub label_lengths: Ptr,
}

impl Ctc {
    fn arguments(&self) -> Result<Vec<Arg>, CudaError> {
        count(NAME, "the logits", &[self.batch, self.time, self.classes])?;
        count(NAME, "the states", &[self.batch, self.time, 2 * self.labels + 1])?;
        count(NAME, "the targets", &[self.batch, self.labels, 2])?;
        if self.blank >= self.classes {
            return Err(refused(NAME, format!("blank is {}, there are {} classes", self.blank, self.classes)));
        }
        if self.shared() > 160 << 10 {
            return Err(refused(NAME, format!("{} labels, at most 10239 are taken", self.labels)));
        }
        let n = |n: usize| int(NAME, "", n).map(Arg::from);
        let mut all = args![self.targets, self.time_lengths, self.label_lengths];
        for size in [self.batch, self.time, self.labels, self.classes, self.blank] {
            all.push(n(size)?);
        }
        Ok(all)
    }

    fn width(&self) -> usize {
        2 * self.labels + 1
    }

    /// Two rows of states.
    fn shared(&self) -> usize {
        self.width().saturating_mul(8)
    }

    /// Bytes of what [`loss`] leaves for [`gradient`]: log sums of rows, alpha, links.
    pub fn workspace(&self) -> usize {
        4 * (self.batch * self.time * (1 + self.width()) + 2 * self.batch * self.labels)
    }

    fn rooms(&self, workspace: Ptr) -> [Ptr; 3] {
        let alpha = workspace.at(4 * self.batch * self.time);
        [workspace, alpha, alpha.at(4 * self.batch * self.time * self.width())]
    }

    /// A launch of a block a sequence, threads over states.
    fn sequences(&self, kernel: &'static str, args: Vec<Arg>) -> Launch {
        let threads = self.width().next_multiple_of(32).min(1024) as u32;
        Launch::new(kernel, [self.batch as u32, 1, 1], threads, args).shared(self.shared() as u32)
    }
}

/// The loss of each sequence, `[batch]`: minus the logarithm of the probability of its labels. A class that does not
/// exist is noted in `status` ([`crate::status`]).
///
/// # Errors
/// Arrays of 2³¹ values or more, more labels than fit into shared memory, a blank that is no class.
pub fn loss(s: &Ctc, logits: Ptr, losses: Ptr, workspace: Ptr, status: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.batch == 0 {
        return Ok(vec![]);
    }
    let [sums, alpha, links] = s.rooms(workspace);
    let with = |args: Vec<Arg>| args.into_iter().chain(sizes.iter().cloned()).collect::<Vec<_>>();
    let path = args![logits, sums, alpha, losses, s.zero_infinity as i32];
    Ok(vec![
        Launch::new("ctc_rows_f32", [tiles(s.batch * s.time, 8), 1, 1], 256, with(args![logits, sums])),
        Launch::new("ctc_links", [s.batch as u32, 1, 1], 256, with(args![links, status])),
        s.sequences("ctc_alpha_f32", with(path)),
    ])
}

/// The gradient by the logits from `g [batch]`, that of the losses, after [`loss`], whose workspace it uses up.
///
/// # Errors
/// As [`loss`].
pub fn gradient(s: &Ctc, logits: Ptr, g: Ptr, grad: Ptr, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.batch == 0 {
        return Ok(vec![]);
    }
    let [sums, alpha, links] = s.rooms(workspace);
    let with = |args: Vec<Arg>| args.into_iter().chain(sizes.iter().cloned()).collect::<Vec<_>>();
    let each = args![logits, sums, alpha, links, g, grad];
    Ok(vec![
        s.sequences("ctc_beta_f32", with(args![logits, sums, alpha])),
        Launch::new("ctc_grad_f32", [(s.batch * s.time) as u32, 1, 1], 256, with(each)),
    ])
}
