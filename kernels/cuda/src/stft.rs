//! Short-time Fourier transforms and their gradients (`stft.cu`), as the op set defines them.

use crate::parts;
use crate::size::{count, int, refused, tiles};
use crate::{Arg, CudaError, Launch, Ptr, args};

const NAME: &str = "short-time Fourier transform";
/// The longest window that shared memory holds beside one pair of frames.
const LONGEST: usize = (160 << 10) / 24;

/// Sizes, and how frames are cut from signals: `x [signals, samples]`, `w [window]`,
/// `y [signals, window / 2 + 1, frames, 2]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stft {
    /// Signals.
    pub signals: usize,
    /// Samples of each.
    pub samples: usize,
    /// Values of the window and of a transform.
    pub window: usize,
    /// Frames of each signal.
    pub frames: usize,
    /// Samples between frames.
    pub hop: usize,
    /// Places before the signal.
    pub pad: usize,
    /// Beyond its ends the signal is mirrored, not zero.
    pub reflect: bool,
}

impl Stft {
    fn arguments(&self) -> Result<Vec<Arg>, CudaError> {
        count(NAME, "the signals", &[self.signals, self.samples])?;
        count(NAME, "the spectra", &[self.signals, self.window / 2 + 1, self.frames, 2])?;
        count(NAME, "the frames", &[self.signals, self.frames, self.window])?;
        if self.window == 0 || self.hop == 0 {
            return Err(refused(NAME, "a window or a hop of 0, at least 1 is taken"));
        }
        let all = [self.samples, self.window, self.frames, self.hop, self.pad, self.reflect as usize];
        all.iter().map(|n| int(NAME, "samples", *n).map(Arg::from)).collect()
    }

    /// Pairs of frames of a block, and its shared memory; none for windows that go term by term.
    fn pairs(&self) -> Option<(usize, u32)> {
        let fit = (64 << 10) / (16 * self.window);
        let pairs = fit.clamp(1, 4).min(self.frames.div_ceil(2)).max(1);
        (self.window <= LONGEST).then_some((pairs, ((1 + 2 * pairs) * self.window * 8) as u32))
    }

    fn blocks(&self, pairs: usize) -> u32 {
        self.signals as u32 * tiles(self.frames, 2 * pairs)
    }

    /// Bytes of scratch that [`input_grad`] takes: frames.
    pub fn input_grad_workspace(&self) -> usize {
        self.signals * self.frames * self.window * 4
    }

    fn parts(&self) -> (usize, usize) {
        parts::split(self.signals * self.frames, self.window.div_ceil(32))
    }

    /// Bytes of scratch that [`window_grad`] takes: frames, and parts of the sum.
    pub fn window_grad_workspace(&self) -> usize {
        self.input_grad_workspace() + self.parts().0 * self.window * 4
    }

    /// Spectra back to frames.
    fn to_frames(self, y: Ptr, frames: Ptr) -> Launch {
        let (n, t) = (self.window as i32, self.frames as i32);
        if let Some((pairs, shared)) = self.pairs() {
            let args = args![y, frames, pairs as i32, n, t];
            return Launch::new("stft_frames_f32", [self.blocks(pairs), 1, 1], 256, args).shared(shared);
        }
        let grid = tiles(self.signals * self.frames * self.window, 256);
        Launch::new("stft_frames_direct_f32", [grid, 1, 1], 256, args![y, frames, self.signals as i32, n, t])
    }
}

/// The transform; with `power`, the squares of absolute values as `[signals, bins, frames]`.
///
/// # Errors
/// Arrays of 2³¹ values or more, a window or a hop of 0.
pub fn stft(s: &Stft, power: bool, x: Ptr, w: Ptr, y: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.signals * s.frames == 0 {
        return Ok(vec![]);
    }
    let with = |n: usize| args![x, w, y, power as i32, n as i32].into_iter().chain(sizes.iter().cloned()).collect();
    Ok(vec![match s.pairs() {
        Some((pairs, shared)) => Launch::new("stft_f32", [s.blocks(pairs), 1, 1], 256, with(pairs)).shared(shared),
        None => {
            let grid = tiles(s.signals * s.frames * (s.window / 2 + 1), 256);
            Launch::new("stft_direct_f32", [grid, 1, 1], 256, with(s.signals))
        }
    }])
}

/// The gradient by the signal: `x`.
///
/// # Errors
/// As [`stft`].
pub fn input_grad(s: &Stft, y: Ptr, w: Ptr, x: Ptr, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.signals * s.samples == 0 {
        return Ok(vec![]);
    }
    let mut all = vec![];
    if s.frames > 0 {
        all.push(s.to_frames(y, workspace));
    }
    let args = args![workspace, w, x, s.signals as i32].into_iter().chain(sizes).collect();
    all.push(Launch::new("stft_gather_f32", [tiles(s.signals * s.samples, 256), 1, 1], 256, args));
    Ok(all)
}

/// The gradient by the window: `w`.
///
/// # Errors
/// As [`stft`].
pub fn window_grad(s: &Stft, x: Ptr, y: Ptr, w: Ptr, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    let (parts, part) = s.parts();
    let sums = workspace.at(s.input_grad_workspace());
    let mut all = vec![];
    if s.signals * s.frames > 0 {
        all.push(s.to_frames(y, workspace));
    }
    let to = if parts == 1 { w } else { sums };
    let args = args![workspace, x, to, s.signals as i32, int(NAME, "frames", part)?].into_iter().chain(sizes).collect();
    all.push(Launch::new("stft_window_f32", [tiles(s.window, 32), parts as u32, 1], 256, args));
    all.extend((parts > 1).then(|| parts::sum(sums, w, parts, s.window)));
    Ok(all)
}
