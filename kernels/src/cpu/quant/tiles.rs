//! The inner loops: a few rows of activations times one or two panels of sixteen channels.
//!
//! * `real`: bf16 and f16 weights become `f32` in registers (a shift, a conversion) and are
//!   multiplied as such. AVX-512's `vdpbf16ps` is no faster than `f32` where it was measured
//!   (half as fast on Emerald Rapids), and would round the activations.
//! * `blocks`: blocks of whole numbers times activations of eight bits with one scale for 32 values:
//!   whole numbers within a block (or a half of one), one fused multiply-add to close it, and one
//!   more where it has a minimum.
//! * `exact`: the same blocks times activations as they are: whole numbers become `f32` in registers.
//! * `channels`: Int8, one scale a channel and one a row: whole numbers from end to end.

use super::Format;
use super::lanes::{Lanes, Portable};
use super::packed::Kind;
use crate::cpu::simd::Level;

/// Where a tile reads and writes. Rows and channels that the kernel computes are all there.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The inner size: values for `real` and `exact`, blocks of 32 for the others.
    pub inner: usize,
    /// `real` and `exact`: value `(row, k)` of the activations is `x[row * x_row + k * x_col]`.
    pub x: *const f32,
    pub x_row: usize,
    pub x_col: usize,
    /// The others: four values of each of the tile's rows, then the next four, ...
    pub quants: *const i32,
    /// `blocks`: the scale (the bits of an `f32`) of each row, block by block; `channels`: of each row.
    pub scales: *const i32,
    /// Where sums start, laid out likewise.
    pub starts: *const i32,
    /// The first line of the first panel, alternating with those of the second, and the first scales.
    pub w: *const u8,
    pub w_scales: *const u8,
    /// Rows of as many values as the panels have channels.
    pub out: *mut f32,
}

/// Sums of a tile that are too few to hide the latency of one multiplication after another: they are computed in
/// two halves.
const FEW: usize = 8;

#[inline(always)]
unsafe fn write<L: Lanes, const R: usize, const P: usize>(t: &Tile, sums: [[L::F; P]; R]) {
    for r in 0..R {
        for p in 0..P {
            // SAFETY: the result holds R rows of 16 P values.
            unsafe { L::store(t.out.add((r * P + p) * 16), sums[r][p]) };
        }
    }
}

#[inline(always)]
unsafe fn real<L: Lanes, const R: usize, const P: usize, const BF16: bool>(t: &Tile) {
    // SAFETY: activations and panels hold `inner` values of each row and channel (of bf16, an
    // even number); the caller has the instructions of L.
    unsafe {
        let other = if R * P <= FEW { 1 } else { 0 };
        let mut sums = [[[L::splat(0.0); P]; R]; 2];
        for pair in 0..t.inner / 2 {
            let mut w = [[L::splat(0.0); P]; 2];
            for p in 0..P {
                let at = t.w.add((2 * pair + p) * 64);
                (w[0][p], w[1][p]) = if BF16 { L::bf16(at) } else { (L::f16(at), L::f16(at.add(32))) };
            }
            for i in 0..2 {
                let set = i * other;
                for r in 0..R {
                    let x = L::splat(*t.x.add(r * t.x_row + (2 * pair + i) * t.x_col));
                    for p in 0..P {
                        sums[set][r][p] = L::fma(w[i][p], x, sums[set][r][p]);
                    }
                }
            }
        }
        if t.inner % 2 == 1 {
            let k = t.inner - 1;
            for p in 0..P {
                let at = t.w.add((k + p) * 64);
                let w = if BF16 { L::bf16(at).0 } else { L::f16(at) };
                for r in 0..R {
                    sums[0][r][p] = L::fma(w, L::splat(*t.x.add(r * t.x_row + k * t.x_col)), sums[0][r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                if other == 1 {
                    sums[0][r][p] = L::add(sums[0][r][p], sums[1][r][p]);
                }
            }
        }
        write::<L, R, P>(t, sums[0]);
    }
}

/// Bytes of a block of a pair of panels: see [`Format::block_bytes`].
const fn block_bytes(four: bool, halves: bool, min: bool) -> usize {
    (if four { 512 } else { 1024 }) + (if halves { 128 } else { 64 }) * (if min { 2 } else { 1 })
}

/// Line `j` of half `h` of a block, which is at `w`, of the panel `p`: with four bits the same line
/// holds both halves.
#[inline(always)]
unsafe fn half_line<L: Lanes, const FOUR: bool>(w: *const u8, h: usize, j: usize, p: usize) -> L::W {
    let line = if FOUR { j } else { h * 4 + j };
    // SAFETY: by the caller's promise.
    unsafe {
        let at = w.add((line * 2 + p) * 64);
        match (FOUR, h) {
            (false, _) => L::bytes(at),
            (true, 0) => L::nibbles(at).0,
            (true, _) => L::nibbles(at).1,
        }
    }
}

/// `HALVES`: each half of a block has a scale. `MIN`: scales have minima.
#[inline(always)]
unsafe fn blocks<L: Lanes, const R: usize, const P: usize, const FOUR: bool, const HALVES: bool, const MIN: bool>(
    t: &Tile,
) {
    let lines = if FOUR { 4 } else { 8 };
    let halves = if HALVES { 2 } else { 1 };
    let stride = block_bytes(FOUR, HALVES, MIN);
    // Few rows leave registers for sums of their own of the high nibbles.
    let apart = FOUR && R <= 2;
    // SAFETY: activations and panels hold `inner` blocks, panels their scales behind them; the
    // caller has the instructions of L.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; R];
        for b in 0..t.inner {
            let block = t.w.add(b * stride);
            for h in 0..halves {
                let mut dots = [[L::whole(0); P]; R];
                let mut high_dots = [[L::whole(0); P]; R];
                if !MIN {
                    for r in 0..R {
                        dots[r] = [L::whole(*t.starts.add((b * halves + h) * R + r)); P];
                    }
                }
                let a = t.quants.add(b * 8 * R);
                if HALVES {
                    for j in 0..4 {
                        for p in 0..P {
                            let w = half_line::<L, FOUR>(block, h, j, p);
                            for r in 0..R {
                                dots[r][p] = L::dot(dots[r][p], w, *a.add((h * 4 + j) * R + r));
                            }
                        }
                    }
                } else {
                    for j in 0..lines {
                        for p in 0..P {
                            let at = block.add((j * 2 + p) * 64);
                            if apart {
                                let (low, high) = L::nibbles_in_place(at);
                                for r in 0..R {
                                    dots[r][p] = L::dot(dots[r][p], low, *a.add(j * R + r));
                                    high_dots[r][p] = L::dot(high_dots[r][p], high, *a.add((j + 4) * R + r));
                                }
                            } else if FOUR {
                                let (low, high) = L::nibbles(at);
                                for r in 0..R {
                                    dots[r][p] = L::dot(dots[r][p], low, *a.add(j * R + r));
                                    dots[r][p] = L::dot(dots[r][p], high, *a.add((j + 4) * R + r));
                                }
                            } else {
                                let w = L::bytes(at);
                                for r in 0..R {
                                    dots[r][p] = L::dot(dots[r][p], w, *a.add(j * R + r));
                                }
                            }
                        }
                    }
                }
                for p in 0..P {
                    let scales = t.w_scales.add(b * stride + h * 64 + p * 32);
                    let least = if MIN { L::f16(scales.add(halves * 64)) } else { L::splat(0.0) };
                    let scales = L::f16(scales);
                    for r in 0..R {
                        if apart && !HALVES {
                            dots[r][p] = L::sum(dots[r][p], L::sixteenth(high_dots[r][p]));
                        }
                        let scale =
                            L::mul(scales, L::splat(f32::from_bits((*t.scales.add(b * R + r)).cast_unsigned())));
                        sums[r][p] = L::fma(L::float(dots[r][p]), scale, sums[r][p]);
                        if MIN {
                            let of = f32::from_bits((*t.starts.add((b * halves + h) * R + r)).cast_unsigned());
                            sums[r][p] = L::fma(least, L::splat(of), sums[r][p]);
                        }
                    }
                }
            }
        }
        write::<L, R, P>(t, sums);
    }
}

/// `blocks` with activations as they are.
#[inline(always)]
unsafe fn exact<L: Lanes, const R: usize, const P: usize, const FOUR: bool, const HALVES: bool, const MIN: bool>(
    t: &Tile,
) {
    let halves = if HALVES { 2 } else { 1 };
    let stride = block_bytes(FOUR, HALVES, MIN);
    // What was added to the whole numbers: see `Format::zero`.
    let zero = if MIN {
        0
    } else if FOUR {
        8
    } else {
        -128
    };
    // SAFETY: panels hold blocks for `inner` values, activations that many values; the caller has the
    // instructions of L.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; R];
        for b in 0..t.inner.div_ceil(32) {
            let block = t.w.add(b * stride);
            for h in 0..2 {
                let mut parts = [[L::splat(0.0); P]; R];
                let mut total = [0f32; R];
                for j in 0..4 {
                    let mut w = [L::bytes(t.w); P];
                    for p in 0..P {
                        w[p] = L::less(half_line::<L, FOUR>(block, h, j, p), zero);
                    }
                    for i in 0..4 {
                        let k = b * 32 + h * 16 + j * 4 + i;
                        if k >= t.inner {
                            break;
                        }
                        let mut values = [L::splat(0.0); P];
                        for p in 0..P {
                            values[p] = L::byte(w[p], i);
                        }
                        for r in 0..R {
                            let x = *t.x.add(r * t.x_row + k * t.x_col);
                            total[r] += if MIN { x } else { 0.0 };
                            for p in 0..P {
                                parts[r][p] = L::fma(values[p], L::splat(x), parts[r][p]);
                            }
                        }
                    }
                }
                let own = if HALVES { h } else { 0 };
                for p in 0..P {
                    let scales = t.w_scales.add(b * stride + own * 64 + p * 32);
                    let least = if MIN { L::f16(scales.add(halves * 64)) } else { L::splat(0.0) };
                    let scales = L::f16(scales);
                    for r in 0..R {
                        sums[r][p] = L::fma(parts[r][p], scales, sums[r][p]);
                        if MIN {
                            sums[r][p] = L::fma(least, L::splat(total[r]), sums[r][p]);
                        }
                    }
                }
            }
        }
        write::<L, R, P>(t, sums);
    }
}

#[inline(always)]
unsafe fn channels<L: Lanes, const R: usize, const P: usize>(t: &Tile) {
    // SAFETY: activations and panels hold `inner` blocks, panels a scale for each channel behind
    // them; the caller has the instructions of L.
    unsafe {
        let other = if R * P <= FEW { 1 } else { 0 };
        let mut dots = [[[L::whole(0); P]; R]; 2];
        for r in 0..R {
            dots[0][r] = [L::whole(*t.starts.add(r)); P];
        }
        for step in 0..t.inner * 4 {
            for i in 0..2 {
                let set = i * other;
                let mut w = [L::bytes(t.w); P];
                for p in 0..P {
                    w[p] = L::bytes(t.w.add(((2 * step + i) * 2 + p) * 64));
                }
                for r in 0..R {
                    let a = *t.quants.add((2 * step + i) * R + r);
                    for p in 0..P {
                        dots[set][r][p] = L::dot(dots[set][r][p], w[p], a);
                    }
                }
            }
        }
        let mut sums = [[L::splat(0.0); P]; R];
        for r in 0..R {
            let scale = L::splat(f32::from_bits((*t.scales.add(r)).cast_unsigned()));
            for p in 0..P {
                let channel = L::load(t.w_scales.add(p * 64).cast());
                let total = if other == 1 { L::sum(dots[0][r][p], dots[1][r][p]) } else { dots[0][r][p] };
                sums[r][p] = L::mul(L::float(total), L::mul(scale, channel));
            }
        }
        write::<L, R, P>(t, sums);
    }
}

/// Defines the function that chooses among the tiles of one instruction set.
macro_rules! tiles {
    ($name:ident, $lanes:ty, $panels:literal, $real:tt, $blocks:tt $(, $features:literal)?) => {
        /// # Safety
        /// The processor has the instructions, and everything that the tile names is there.
        $(#[target_feature(enable = $features)])?
        unsafe fn $name(kind: Kind, rows: usize, t: &Tile) {
            // SAFETY: by the caller's promise.
            unsafe {
                match (kind.format, kind.is_exact()) {
                    (Format::Bf16, _) => tiles!(@ rows, t, $real, real, $lanes, $panels, true),
                    (Format::F16, _) => tiles!(@ rows, t, $real, real, $lanes, $panels, false),
                    (Format::Int8, _) => tiles!(@ rows, t, $real, channels, $lanes, $panels,),
                    (Format::Q8_0, false) => tiles!(@ rows, t, $blocks, blocks, $lanes, $panels, false, false, false),
                    (Format::Q4_0, false) => tiles!(@ rows, t, $blocks, blocks, $lanes, $panels, true, false, false),
                    (Format::Q4_1, false) => tiles!(@ rows, t, $blocks, blocks, $lanes, $panels, true, false, true),
                    (Format::Q8_1, false) => tiles!(@ rows, t, $blocks, blocks, $lanes, $panels, false, false, true),
                    (Format::Q8Half, false) => tiles!(@ rows, t, $blocks, blocks, $lanes, $panels, false, true, false),
                    (Format::Q4Half, false) => tiles!(@ rows, t, $blocks, blocks, $lanes, $panels, true, true, true),
                    (Format::Q8_0, true) => tiles!(@ rows, t, $blocks, exact, $lanes, $panels, false, false, false),
                    (Format::Q4_0, true) => tiles!(@ rows, t, $blocks, exact, $lanes, $panels, true, false, false),
                    (Format::Q4_1, true) => tiles!(@ rows, t, $blocks, exact, $lanes, $panels, true, false, true),
                    (Format::Q8_1, true) => tiles!(@ rows, t, $blocks, exact, $lanes, $panels, false, false, true),
                    (Format::Q8Half, true) => tiles!(@ rows, t, $blocks, exact, $lanes, $panels, false, true, false),
                    (Format::Q4Half, true) => tiles!(@ rows, t, $blocks, exact, $lanes, $panels, true, true, true),
                }
            }
        }
    };
    (@ $rows:ident, $t:ident, [$most:literal, $($n:literal),*], $f:ident, $lanes:ty, $panels:literal, $($flag:literal),*) => {
        tiles!(@@ $rows, $t, [$most $(, $n)*], $f, $lanes, $panels, ($($flag),*))
    };
    (@@ $rows:ident, $t:ident, [$($n:literal),*], $f:ident, $lanes:ty, $panels:literal, $flags:tt) => {
        match $rows {
            $($n => tiles!(@@@ $f, $lanes, $n, $panels, $flags, $t),)*
            _ => unreachable!("`Machine::rows` gives the sizes of tiles"),
        }
    };
    (@@@ $f:ident, $lanes:ty, $n:literal, $panels:literal, ($($flag:literal),*), $t:ident) => {
        $f::<$lanes, $n, $panels $(, $flag)*>($t)
    };
}

tiles!(portable, Portable, 1, [4, 1], [2, 1]);
#[cfg(target_arch = "x86_64")]
tiles!(avx2, super::lanes::Avx2, 1, [4, 1], [2, 1], "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tiles!(
    avx512,
    super::lanes::Avx512,
    2,
    [12, 4, 1],
    [6, 2, 1],
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"
);

/// The tiles of an instruction set that the processor has.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    /// Panels of a tile.
    pub panels: usize,
    /// Sizes of tiles for `real` and `channels`, and for `blocks`, in rows, from large to small.
    real: &'static [usize],
    blocks: &'static [usize],
    run: unsafe fn(Kind, usize, &Tile),
}

impl Machine {
    /// The best for a level. AVX2 is used without F16C only on processors that never were, and
    /// AVX-512 without VNNI only on those of 2017: they get the level below.
    pub fn at(level: Level) -> Machine {
        #[cfg(target_arch = "x86_64")]
        {
            let f16c = is_x86_feature_detected!("f16c");
            if level == Level::Avx512 && f16c && is_x86_feature_detected!("avx512vnni") {
                return Machine { panels: 2, real: &[12, 4, 1], blocks: &[6, 2, 1], run: avx512 };
            }
            if level >= Level::Avx2 && f16c {
                return Machine { panels: 1, real: &[4, 1], blocks: &[2, 1], run: avx2 };
            }
        }
        let _ = level;
        Machine { panels: 1, real: &[4, 1], blocks: &[2, 1], run: portable }
    }

    /// The same with tiles that sum in one order, however many rows they have: those of few.
    pub fn alike(self) -> Machine {
        let few = self.real.iter().position(|n| n * self.panels <= FEW).unwrap_or(0);
        Machine { real: &self.real[few..], ..self }
    }

    /// The rows of the next tile when `left` are left, at least 1.
    pub fn rows(&self, kind: Kind, left: usize) -> usize {
        let sizes = if kind.format.is_blocks() { self.blocks } else { self.real };
        sizes.iter().copied().find(|n| *n <= left).unwrap_or(1)
    }

    /// Runs the tile of `rows` rows.
    ///
    /// # Safety
    /// `rows` comes from [`rows`](Self::rows), and everything that the tile names is there.
    pub unsafe fn run(&self, kind: Kind, rows: usize, tile: &Tile) {
        // SAFETY: `at` compared the instructions with the processor; the rest is promised.
        unsafe { (self.run)(kind, rows, tile) }
    }
}
