//! Convolutions over planes and both their gradients (`conv.cu`). Over one dimension the plane has one row.

use crate::parts;
use crate::size::{count, int, refused};
use crate::{Arg, CudaError, Launch, Ptr, args};

/// The sizes of a convolution, and how its kernel moves. `x` is `[batch, groups channels, input..]`, `w` is
/// `[groups filters, channels, kernel..]`, `y` is `[batch, groups filters, output..]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    /// Sequences or images.
    pub batch: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Input channels of a group.
    pub channels: usize,
    /// Output channels of a group.
    pub filters: usize,
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Rows and columns of the output.
    pub output: [usize; 2],
    /// Steps between neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros before the input.
    pub before: [usize; 2],
    /// Steps between neighbouring places of the kernel.
    pub dilation: [usize; 2],
}

/// What the factors of products are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Factors {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16, for tensor cores; sums are in `f32`. Of values that are bf16 already the products are exact.
    Bf16,
}

const NAME: &str = "convolution";
/// Columns of a tile.
const TILE: usize = 128;

impl Conv {
    fn values(&self) -> [usize; 3] {
        let of = |a: usize, [b, c]: [usize; 2]| self.groups * a * b * c;
        [
            self.batch * of(self.channels, self.input),
            of(self.filters, self.kernel) * self.channels,
            self.batch * of(self.filters, self.output),
        ]
    }

    /// All sizes as arguments, after checking them.
    fn arguments(&self) -> Result<Vec<Arg>, CudaError> {
        let [ih, iw] = self.input;
        let [kh, kw] = self.kernel;
        let [oh, ow] = self.output;
        count(NAME, "the input", &[self.batch, self.groups, self.channels, ih, iw])?;
        count(NAME, "the weight", &[self.groups, self.filters, self.channels, kh, kw])?;
        count(NAME, "the output", &[self.batch, self.groups, self.filters, oh, ow])?;
        if self.stride.contains(&0) || self.dilation.contains(&0) {
            return Err(refused(NAME, "a stride or a dilation of 0, at least 1 is taken"));
        }
        for i in 0..2 {
            // Where a window may begin and end, so that no sum overflows in the kernel.
            let reach = (self.output[i].max(1) - 1)
                .saturating_mul(self.stride[i])
                .saturating_add(self.kernel[i].saturating_mul(self.dilation[i]))
                .saturating_add(self.before[i])
                .saturating_add(self.input[i]);
            if reach >= 1 << 30 {
                return Err(refused(NAME, format!("windows that reach {reach} places, fewer than 2^30 are taken")));
            }
        }
        let [sh, sw] = self.stride;
        let [ph, pw] = self.before;
        let [dh, dw] = self.dilation;
        let all =
            [self.batch, self.groups, self.channels, self.filters, ih, iw, kh, kw, oh, ow, sh, sw, ph, pw, dh, dw];
        all.iter().map(|n| int(NAME, "places", *n).map(Arg::from)).collect()
    }

    /// Whether each filter sees one channel, and few filters the same one.
    fn depthwise(&self) -> bool {
        self.channels == 1 && self.filters <= 8
    }

    /// The launch over lines that take a step at a time, where this is one: a line's length before and after, and
    /// whether it goes backward.
    fn line(&self, backward: bool, pointers: [Ptr; 4]) -> Option<Launch> {
        let one = |a: usize, b: usize| a == 1 && b == 1;
        let taps = self.kernel[1];
        let fits = one(self.channels, self.filters)
            && one(self.input[0], self.kernel[0])
            && one(self.output[0], self.stride[0])
            && one(self.stride[1], self.dilation[1])
            && self.before[0] == 0
            && (3..=1024).contains(&taps);
        let (from, to) = if backward { (self.output[1], self.input[1]) } else { (self.input[1], self.output[1]) };
        let before = if backward { taps as i32 - 1 - self.before[1] as i32 } else { self.before[1] as i32 };
        let [x, w, bias, y] = pointers;
        let sizes = args![self.groups as i32, from as i32, to as i32, taps as i32, before, backward as i32];
        let blocks = u32::try_from(to.div_ceil(256) * self.batch * self.groups).ok().filter(|b| *b < 1 << 31)?;
        let shared = ((256 + taps) / 32 * 33 + 33 + taps) * 4;
        fits.then(|| {
            let args = args![x, w, bias, y].into_iter().chain(sizes).collect();
            Launch::new("conv_line_f32", [blocks, 1, 1], 64, args).shared(shared as u32)
        })
    }

    /// Which of the kernels for tiles of 128, 64 and 32 rows to take, and its rows, where `blocks` blocks are needed for
    /// each row of tiles.
    fn choose(rows: usize, blocks: usize, factors: Factors, kernels: [&'static str; 3]) -> (&'static str, usize) {
        let [bf16, large, small] = kernels;
        match factors {
            Factors::Bf16 => (bf16, 128),
            // Small tiles where there are few rows, or too few tiles for a large device.
            Factors::F32 if rows > 32 && blocks * rows.div_ceil(64) >= parts::FULL / 2 => (large, 64),
            Factors::F32 => (small, 32),
        }
    }

    /// Into how many parts the weight gradient's sum is cut, and the depth of a part.
    fn parts(&self) -> (usize, usize) {
        let depth = self.batch * self.output[0] * self.output[1];
        let columns = (self.channels * self.kernel[0] * self.kernel[1]).div_ceil(TILE);
        let blocks = self.groups * columns * self.filters.div_ceil(64);
        parts::split(depth, blocks)
    }
}

fn launch(kernel: &'static str, grid: [usize; 2], pointers: &[Ptr], sizes: &[Arg]) -> Result<Vec<Launch>, CudaError> {
    let x = int(NAME, "blocks", grid[0])? as u32;
    if grid[1] > 65535 {
        return Err(refused(NAME, format!("{} rows of tiles, at most 65535 are taken", grid[1])));
    }
    let args = pointers.iter().map(|p| Arg::from(*p)).chain(sizes.iter().cloned()).collect();
    Ok(vec![Launch::new(kernel, [x, grid[1] as u32, 1], 256, args)])
}

/// `y = conv(x, w) + bias`; no bias is [`Ptr::NULL`].
///
/// # Errors
/// Arrays of 2³¹ values or more; a stride or dilation of 0.
pub fn forward(s: &Conv, factors: Factors, x: Ptr, w: Ptr, bias: Ptr, y: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.values()[2] == 0 {
        return Ok(vec![]);
    }
    let places = s.output[0] * s.output[1];
    if let Some(line) = s.line(false, [x, w, bias, y]) {
        return Ok(vec![line]);
    }
    if s.depthwise() {
        let grid = [places.div_ceil(256) * s.batch * s.groups * s.filters, 1];
        return launch("conv_depthwise_f32", grid, &[x, w, bias, y], &sizes);
    }
    let blocks = (s.batch * places).div_ceil(TILE) * s.groups;
    let kernels = ["conv_bf16", "conv_64_f32", "conv_32_f32"];
    let (kernel, rows) = Conv::choose(s.filters, blocks, factors, kernels);
    launch(kernel, [blocks, s.filters.div_ceil(rows)], &[x, w, bias, y], &sizes)
}

/// `x`, of which `y` is the gradient by the output: the transposed convolution, plus a bias over the channels of
/// `x` where there is one.
///
/// # Errors
/// As [`forward`].
pub fn input_grad(s: &Conv, factors: Factors, y: Ptr, w: Ptr, bias: Ptr, x: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.values()[0] == 0 {
        return Ok(vec![]);
    }
    if let Some(line) = s.line(true, [y, w, bias, x]) {
        return Ok(vec![line]);
    }
    if s.depthwise() {
        let grid = [(s.input[0] * s.input[1]).div_ceil(256) * s.batch * s.groups, 1];
        return launch("conv_depthwise_input_f32", grid, &[y, w, bias, x], &sizes);
    }
    // Of every phase as many tiles as the largest one has.
    let phases = s.stride[0] * s.stride[1];
    let largest = s.batch * s.input[0].div_ceil(s.stride[0]) * s.input[1].div_ceil(s.stride[1]);
    let blocks = largest.div_ceil(TILE) * s.groups * phases;
    let kernels = ["conv_input_bf16", "conv_input_64_f32", "conv_input_32_f32"];
    let (kernel, rows) = Conv::choose(s.channels, blocks, factors, kernels);
    launch(kernel, [blocks, s.channels.div_ceil(rows)], &[y, w, bias, x], &sizes)
}

/// Bytes of scratch that [`weight_grad`] takes.
pub fn weight_grad_workspace(s: &Conv) -> usize {
    let parts = s.parts().0;
    if s.depthwise() || parts == 1 { 0 } else { parts * s.values()[1] * 4 }
}

/// `w`, the gradient by the weight: the same bits at each run.
///
/// # Errors
/// As [`forward`].
pub fn weight_grad(
    s: &Conv,
    factors: Factors,
    x: Ptr,
    y: Ptr,
    w: Ptr,
    workspace: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    let weights = s.values()[1];
    if weights == 0 {
        return Ok(vec![]);
    }
    let taps = s.kernel[0] * s.kernel[1];
    if s.depthwise() {
        let grid = [taps.div_ceil(8) * s.groups * s.filters, 1];
        return launch("conv_depthwise_weight_f32", grid, &[x, y, w], &sizes);
    }
    let (parts, part) = s.parts();
    count(NAME, "the weight gradient's parts", &[parts, weights])?;
    let blocks = (s.channels * taps).div_ceil(TILE) * s.groups * parts;
    let to = if parts == 1 { w } else { workspace };
    let kernels = ["conv_weight_bf16", "conv_weight_64_f32", "conv_weight_32_f32"];
    let (kernel, rows) = Conv::choose(s.filters, blocks, factors, kernels);
    let sizes: Vec<Arg> = std::iter::once(Arg::from(int(NAME, "values of a part", part)?)).chain(sizes).collect();
    let mut all = launch(kernel, [blocks, s.filters.div_ceil(rows)], &[x, y, to], &sizes)?;
    if parts > 1 {
        all.push(parts::sum(to, w, parts, weights));
    }
    Ok(all)
}
