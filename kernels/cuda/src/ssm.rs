//! The scan of a selective state space (`ssm.cu`), forward and backward, as the op set defines it.

use crate::size::{count, int, refused, tiles};
use crate::{Arg, CudaError, Launch, Ptr, args};

const NAME: &str = "state-space scan";
/// Channels of a block, and steps of a chunk, as in `ssm.cu`.
const CHANNELS: usize = 32;
const CHUNK: usize = 64;

/// Sizes of a scan: `x [batch, time, heads, channels]`, `dt [batch, time, heads]`, `a [heads]` or
/// `[heads, size]`, `b` and `c` `[batch, time, groups, size]`, `state [batch, heads, channels, size]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scan {
    /// Sequences.
    pub batch: usize,
    /// Steps.
    pub time: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub channels: usize,
    /// Groups of heads that share `b` and `c`.
    pub groups: usize,
    /// Values of a channel's state, at most 256.
    pub size: usize,
    /// A head has one decay, not one per value of the state.
    pub scalar: bool,
    /// How many steps of each sequence count, `[batch]` of `i32`; null where all do.
    pub lengths: Ptr,
}

/// What a scan reads.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Inputs.
    pub x: Ptr,
    /// Step sizes.
    pub dt: Ptr,
    /// Decays.
    pub a: Ptr,
    /// What of the input each state takes.
    pub b: Ptr,
    /// What of each state the output takes.
    pub c: Ptr,
    /// The state before.
    pub state: Ptr,
}

/// Gradients by what a scan reads.
#[derive(Clone, Copy, Debug)]
pub struct Gradients {
    /// By inputs.
    pub x: Ptr,
    /// By step sizes.
    pub dt: Ptr,
    /// By decays.
    pub a: Ptr,
    /// By `b`.
    pub b: Ptr,
    /// By `c`.
    pub c: Ptr,
    /// By the state before.
    pub state: Ptr,
}

impl Scan {
    fn arguments(&self) -> Result<Vec<Arg>, CudaError> {
        if self.groups == 0 || !self.heads.is_multiple_of(self.groups) {
            return Err(refused(NAME, format!("{} heads in {} groups of equal size", self.heads, self.groups)));
        }
        if self.size > 256 {
            return Err(refused(NAME, format!("states of {} values, at most 256 are taken", self.size)));
        }
        count(NAME, "the input", &[self.batch, self.time, self.heads, self.channels])?;
        count(NAME, "b and c", &[self.batch, self.time, self.groups, self.size])?;
        count(NAME, "the state", &[self.batch, self.heads, self.channels, self.size])?;
        let all = [self.batch, self.time, self.heads, self.channels, self.groups, self.size, self.scalar as usize];
        let mut sizes = all.iter().map(|n| int(NAME, "", *n).map(Arg::from)).collect::<Result<Vec<_>, _>>()?;
        sizes.push(self.lengths.into());
        Ok(sizes)
    }

    fn all_channels(&self) -> usize {
        self.batch * self.heads * self.channels
    }

    fn kernels(&self) -> (&'static str, &'static str) {
        match self.size {
            0..=16 => ("ssm_16_f32", "ssm_back_16_f32"),
            17..=64 => ("ssm_64_f32", "ssm_back_64_f32"),
            65..=128 => ("ssm_128_f32", "ssm_back_128_f32"),
            _ => ("ssm_256_f32", "ssm_back_256_f32"),
        }
    }

    fn chunks(&self) -> usize {
        self.time.div_ceil(CHUNK).max(1)
    }

    /// Blocks of a group's channels.
    fn blocks(&self) -> usize {
        (self.heads / self.groups.max(1) * self.channels).div_ceil(CHANNELS)
    }

    /// Bytes of what the backward scan keeps: states before chunks, states of a chunk, decays of channels, sums
    /// over blocks, step sizes of channels.
    fn rooms(&self) -> [usize; 5] {
        let state = self.all_channels() * self.size * 4;
        let sums = self.blocks() * self.batch * self.groups * CHUNK * 2 * self.size * 4;
        [self.chunks() * state, CHUNK * state, state, sums, CHUNK * self.all_channels() * 4]
            .map(|n| n.next_multiple_of(16))
    }

    /// Bytes of scratch that [`grad`] takes.
    pub fn grad_workspace(&self) -> usize {
        self.rooms().iter().sum()
    }

    fn scan(&self, x: &Input, out: [Ptr; 3], sizes: &[Arg]) -> Launch {
        let [y, last, kept] = out;
        let args = args![x.x, x.dt, x.a, x.b, x.c, x.state, y, last, kept];
        let args = args.into_iter().chain(sizes.iter().cloned()).collect();
        Launch::new(self.kernels().0, [tiles(self.all_channels(), CHANNELS), 1, 1], 256, args)
    }
}

/// All steps: `y [batch, time, heads, channels]` and the last state.
///
/// # Errors
/// Arrays of 2³¹ values or more, states of more than 256 values, heads that do not fall into groups.
pub fn scan(s: &Scan, x: &Input, y: Ptr, last: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    Ok(if s.all_channels() == 0 { vec![] } else { vec![s.scan(x, [y, last, Ptr::NULL], &sizes)] })
}

/// The gradient of [`scan`] from those of `y` and of the last state.
///
/// # Errors
/// As [`scan`].
pub fn grad(
    s: &Scan,
    x: &Input,
    (dy, d_last): (Ptr, Ptr),
    out: &Gradients,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    let with = |args: Vec<Arg>| args.into_iter().chain(sizes.iter().cloned()).collect();
    let mut at = workspace;
    let [kept, scratch, da, sums, ddt] = s.rooms().map(|bytes| {
        let room = at;
        at = at.at(bytes);
        room
    });
    let chunks = s.chunks();
    let mut all = vec![];
    if s.all_channels() > 0 {
        all.push(s.scan(x, [Ptr::NULL, Ptr::NULL, kept], &sizes));
    }
    for chunk in (0..chunks).rev() {
        let here = args![chunk as i32, chunks as i32];
        let back = args![x.x, x.dt, x.a, x.b, x.c, dy, d_last, kept, scratch, out.x, out.state, da, sums, ddt];
        let grid = int(NAME, "blocks", s.blocks() * s.batch * s.groups)? as u32;
        all.push(Launch::new(s.kernels().1, [grid, 1, 1], 256, with([back, here].concat())));
        let steps = (s.time - chunk * CHUNK).min(CHUNK);
        let values = s.batch * steps * (s.groups * 2 * s.size + s.heads);
        let args = args![sums, ddt, out.b, out.c, out.dt, chunk as i32];
        all.push(Launch::new("ssm_chunk_f32", [tiles(values, 256), 1, 1], 256, with(args)));
    }
    all.push(Launch::new("ssm_decay_f32", [s.heads as u32, 1, 1], 256, with(args![da, out.a])));
    Ok(all)
}
