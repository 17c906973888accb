//! Measuring: random operands, rotating sets, medians, and what the device could do at best.

use crate::check::Check;
use mobilis_cuda::driver::vendor::Vendor;
use mobilis_cuda::gemm::Element;
use mobilis_cuda::{Buffer, CudaError, Gpu, Launch, Ptr};
use std::fmt;

/// Bytes that rotating operands have together: more than twice the largest second-level cache.
const ROTATE: usize = 160 << 20;
/// Samples of which the median counts.
const SAMPLES: usize = 11;
/// A sample lasts at least so many seconds.
const SAMPLE: f64 = 1e-3;

/// What bounds the arithmetic of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peak {
    /// Nothing: the bytes bound it.
    None,
    /// `f32` on ordinary multipliers.
    F32,
    /// `f32` rounded to TF32 on tensor cores.
    Tf32,
    /// 16 bits on tensor cores.
    Bf16,
    /// FP8 on tensor cores.
    Fp8,
}

/// The launches of one set of operands.
pub type Make = Box<dyn Fn(&mut Operands) -> Result<Vec<Launch>, CudaError>>;

/// A row of the table.
pub struct Case {
    /// Its name: the family first.
    pub name: String,
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that must be read and written.
    pub bytes: f64,
    /// What bounds the arithmetic.
    pub peak: Peak,
    /// The same product for the peer: `m`, `n`, `k`, the element type, whether TF32.
    pub peer: Option<((usize, usize, usize), Element, bool)>,
    /// Makes the launches for full sizes, and for small ones on the emulator.
    pub make: [Make; 2],
}

/// Gives a case its buffers, filled with random numbers.
pub struct Operands<'b> {
    bench: &'b Bench<'b>,
    held: Vec<Buffer>,
    checks: Vec<(Check, f64)>,
}

impl Operands<'_> {
    /// The device.
    pub fn gpu(&self) -> &Gpu {
        self.bench.gpu
    }

    /// Random numbers around zero.
    pub fn random(&mut self, count: usize, element: Element) -> Result<Ptr, CudaError> {
        let source = match element {
            Element::F32 => &self.bench.random[0],
            Element::Bf16 | Element::F16 => &self.bench.random[1],
            _ => &self.bench.random[2],
        };
        let bytes = count * element.bytes().max(1);
        let buffer = self.bench.gpu.alloc(bytes)?;
        // Each begins elsewhere: the sides of a product are not alike.
        let (mut from, mut to) = (self.held.len() * 1_000_003 * 256 % source.bytes(), 0);
        while to < bytes {
            let piece = (source.bytes() - from).min(bytes - to);
            self.bench.gpu.copy(source.ptr().at(from), buffer.ptr().at(to), piece)?;
            (from, to) = (0, to + piece);
        }
        let at = buffer.ptr();
        self.held.push(buffer);
        Ok(at)
    }

    /// Memory for results.
    pub fn space(&mut self, bytes: usize) -> Result<Ptr, CudaError> {
        let buffer = self.bench.gpu.alloc(bytes.max(1))?;
        buffer.fill(0)?;
        let at = buffer.ptr();
        self.held.push(buffer);
        Ok(at)
    }

    /// What must hold of the results before they are measured: how far they are off, and may be.
    pub fn check(&mut self, check: Check, most: f64) {
        self.checks.push((check, most));
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(Buffer::bytes).sum()
    }
}

/// What the device can do at best, as measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ceilings {
    copy: f64,
    f32: Option<f64>,
    tf32: Option<f64>,
    bf16: Option<f64>,
    fp8: Option<f64>,
}

impl Ceilings {
    fn of(&self, peak: Peak) -> Option<f64> {
        match peak {
            Peak::None => None,
            Peak::F32 => self.f32,
            Peak::Tf32 => self.tf32,
            Peak::Bf16 => self.bf16,
            Peak::Fp8 => self.fp8,
        }
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy {:.0} GB/s", self.copy / 1e9)?;
        for (name, rate) in [("f32", self.f32), ("tf32", self.tf32), ("bf16", self.bf16), ("fp8", self.fp8)] {
            rate.map_or(Ok(()), |rate| write!(f, ", {name} {:.0} TFLOP/s", rate / 1e12))?;
        }
        Ok(())
    }
}

/// A device with what was measured of it.
pub struct Bench<'g> {
    gpu: &'g Gpu,
    vendor: Option<&'g Vendor>,
    small: bool,
    random: [Buffer; 3],
    /// What the device can do.
    pub ceilings: Ceilings,
}

impl<'g> Bench<'g> {
    pub fn new(gpu: &'g Gpu, vendor: Option<&'g Vendor>, small: bool) -> Result<Bench<'g>, CudaError> {
        // Larger operands are copies of these, side by side.
        let count = if small { 1 << 12 } else { 1 << 24 };
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..count).map(|_| next()).collect();
        let halves: Vec<u16> = values.iter().map(|v| (v.to_bits() >> 16) as u16).collect();
        // Eight bits below the patterns of infinities and NaN.
        let bytes: Vec<u8> = values.iter().map(|v| ((v.abs() * 118.0) as u8) | (((*v < 0.0) as u8) << 7)).collect();
        let random = [gpu.alloc(4 * count)?, gpu.alloc(2 * count)?, gpu.alloc(count)?];
        gpu.write(random[0].ptr(), &values)?;
        gpu.write(random[1].ptr(), &halves)?;
        gpu.write(random[2].ptr(), &bytes)?;
        let mut bench = Bench { gpu, vendor, small, random, ceilings: Ceilings::default() };
        bench.ceilings = bench.measured()?;
        Ok(bench)
    }

    fn measured(&self) -> Result<Ceilings, CudaError> {
        let bytes = if self.small { 1 << 16 } else { 1usize << 30 };
        let (from, to) = (self.gpu.alloc(bytes)?, self.gpu.alloc(bytes)?);
        from.fill(1)?;
        let seconds = self.median(&mut || self.gpu.copy(from.ptr(), to.ptr(), bytes))?;
        let mut ceilings = Ceilings { copy: 2.0 * bytes as f64 / seconds, ..Ceilings::default() };
        let side = 8192;
        let rate = |element, tf32| {
            let found = self.peer(((side, side, side), element, tf32)).ok().flatten();
            found.map(|seconds| 2.0 * (side as f64).powi(3) / seconds)
        };
        if self.vendor.is_some() {
            ceilings.f32 = rate(Element::F32, false);
            ceilings.tf32 = rate(Element::F32, true);
            ceilings.bf16 = rate(Element::Bf16, false);
            ceilings.fp8 = rate(Element::E4M3, false);
        }
        Ok(ceilings)
    }

    /// The median of a repetition's seconds.
    fn median(&self, once: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
        once()?;
        let first = self.gpu.timed(&mut *once)?;
        if self.small {
            return Ok(first);
        }
        let times = (SAMPLE / first.max(1e-7)).ceil().clamp(1.0, 2000.0) as usize;
        let mut samples = vec![];
        for _ in 0..SAMPLES {
            samples.push(self.gpu.timed(|| (0..times).try_for_each(|_| once()))? / times as f64);
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples[SAMPLES / 2])
    }

    /// The peer's seconds for a product, over rotating operands.
    fn peer(
        &self,
        ((m, n, k), element, tf32): ((usize, usize, usize), Element, bool),
    ) -> Result<Option<f64>, CudaError> {
        let Some(vendor) = self.vendor else { return Ok(None) };
        let mut product = vendor.product((m, n, k), element, tf32)?;
        let out = if element == Element::F32 { 4 } else { 2 };
        let mut operands = Operands { bench: self, held: vec![], checks: vec![] };
        let mut sets = vec![];
        while sets.is_empty() || (operands.bytes() < ROTATE && sets.len() < 64) {
            let (a, b) = (operands.random(m * k, element)?, operands.random(n * k, element)?);
            sets.push((a, b, operands.space(m * n * out)?));
        }
        let mut best = f64::INFINITY;
        for chosen in 0..product.algorithms() {
            product.chosen = chosen;
            let mut all = || sets.iter().try_for_each(|(a, b, c)| product.run(*a, *b, *c));
            // An algorithm that does not run is none.
            if let Ok(seconds) = self.median(&mut all) {
                best = best.min(seconds / sets.len() as f64);
            }
        }
        Ok(best.is_finite().then_some(best))
    }

    /// Measures a case.
    pub fn run(&mut self, case: &Case) -> Result<Line, CudaError> {
        let mut operands = Operands { bench: self, held: vec![], checks: vec![] };
        let mut sets = vec![];
        while sets.is_empty() || (!self.small && operands.bytes() < ROTATE && sets.len() < 64) {
            let known = operands.checks.len();
            sets.push((case.make[self.small as usize])(&mut operands)?);
            // The others are the same launches.
            if sets.len() > 1 {
                operands.checks.truncate(known);
            }
        }
        let run = || sets.iter().try_for_each(|launches| self.gpu.run(launches));
        // Kernels are loaded before anything is recorded.
        run()?;
        self.gpu.synchronize()?;
        for (check, most) in &operands.checks {
            let off = check(self.gpu)?;
            if off > *most {
                let message = format!("its results are off by {off:.2e} of their size, at most {most} is right");
                return Err(CudaError::Refused { kernel: "WRONG", message });
            }
        }
        let checked = !operands.checks.is_empty();
        let recorded = self.gpu.record(run)?;
        let mut all = || recorded.as_ref().map_or_else(run, |r| r.replay());
        let seconds = self.median(&mut all)? / sets.len() as f64;
        drop(recorded);
        drop(operands);
        let peer = match case.peer {
            Some(peer) if !self.small => self.peer(peer)?,
            _ => None,
        };
        let bound = self.ceilings.of(case.peak).map_or(0.0, |rate| case.flops / rate);
        let known = case.peak == Peak::None || bound > 0.0;
        let least = bound.max(case.bytes / self.ceilings.copy);
        let measured = !self.small;
        Ok(Line {
            name: case.name.clone(),
            seconds,
            flops: case.flops,
            bytes: case.bytes,
            ratio: peer.map(|peer| peer / seconds),
            share: (known && measured).then_some(least / seconds),
            measured,
            checked,
        })
    }
}

/// A line of the table.
pub struct Line {
    name: String,
    seconds: f64,
    flops: f64,
    bytes: f64,
    /// How much faster than the peer.
    pub ratio: Option<f64>,
    /// The share of what the device could do.
    pub share: Option<f64>,
    /// Whether it ran with full sizes on a device.
    measured: bool,
    /// Whether its results were compared with what they should be.
    checked: bool,
}

impl Line {
    /// The table's head.
    pub fn head() -> String {
        format!(
            "{:44} {:>10} {:>9} {:>8} {:>9} {:>9} right",
            "kernel", "us", "TFLOP/s", "GB/s", "x vendor", "% ceiling"
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.measured {
            return write!(f, "{:44} ran{}", self.name, if self.checked { ", right" } else { "" });
        }
        let or_dash = |v: Option<String>| v.unwrap_or_else(|| "-".into());
        let flops = (self.flops > 0.0).then(|| format!("{:.1}", self.flops / self.seconds / 1e12));
        write!(
            f,
            "{:44} {:>10.2} {:>9} {:>8.0} {:>9} {:>9} {}",
            self.name,
            self.seconds * 1e6,
            or_dash(flops),
            self.bytes / self.seconds / 1e9,
            or_dash(self.ratio.map(|r| format!("{r:.3}"))),
            or_dash(self.share.map(|s| format!("{:.1}", 100.0 * s))),
            if self.checked { "yes" } else { "-" }
        )
    }
}
