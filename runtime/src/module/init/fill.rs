//! Filling new parameters.
//!
//! The numbers of a parameter are a function of the seed and of the parameter's *name*, drawn by
//! a counter-based generator. So they do not depend on the order of fields, on other parameters
//! or on the machine: a layer added to a model leaves the initial values of all others alone.

use super::Init;
use mobilis_kernels::philox::philox4x32;

/// What the initial values of one parameter are drawn from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    seed: u64,
    stream: u64,
}

impl Key {
    /// The key of the parameter `name` under a seed.
    pub fn new(seed: u64, name: &str) -> Key {
        // FNV-1a, 64 bits: stable over platforms and releases, unlike the standard library's hasher.
        let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
        Key { seed, stream }
    }
}

/// Numbers of one stream, in order.
struct Stream {
    key: Key,
    block: u64,
    /// The second half of the last block.
    spare: Option<u64>,
    /// The second of the last pair of normal numbers.
    normal: Option<f64>,
}

impl Stream {
    fn new(key: Key) -> Stream {
        Stream { key, block: 0, spare: None, normal: None }
    }

    fn bits(&mut self) -> u64 {
        if let Some(bits) = self.spare.take() {
            return bits;
        }
        let split = |v: u64| [v as u32, (v >> 32) as u32];
        let ([b0, b1], [s0, s1]) = (split(self.block), split(self.key.stream));
        let [w0, w1, w2, w3] = philox4x32([b0, b1, s0, s1], split(self.key.seed));
        self.block += 1;
        let join = |low: u32, high: u32| low as u64 | ((high as u64) << 32);
        self.spare = Some(join(w2, w3));
        join(w0, w1)
    }

    /// Uniform in `0..1` with 53 random bits.
    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        if let Some(v) = self.normal.take() {
            return v;
        }
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.normal = Some(radius * sin);
        radius * cos
    }
}

/// Redraws after which a truncated normal gives up: the interval then has less than about a
/// thousandth of the mass.
const REDRAWS: usize = 10_000;

impl Init {
    /// The initial values of a parameter of the given sizes, row-major.
    ///
    /// ```
    /// use mobilis_runtime::module::init::{Init, Key};
    /// let init = Init::Normal { mean: 0.0, std: 0.02 };
    /// let values = init.fill(&[4, 8], Key::new(7, "blocks.0.mlp.up.weight"));
    /// assert_eq!(values.len(), 32);
    /// assert_eq!(values, init.fill(&[4, 8], Key::new(7, "blocks.0.mlp.up.weight")));
    /// ```
    pub fn fill(&self, sizes: &[usize], key: Key) -> Vec<f32> {
        let count: usize = sizes.iter().product();
        let mut stream = Stream::new(key);
        let mut draw =
            |f: &mut dyn FnMut(&mut Stream) -> f64| -> Vec<f32> { (0..count).map(|_| f(&mut stream) as f32).collect() };
        let (fan_in, fan_out) = fans(sizes);
        let mut uniform = |std: f64| {
            // A uniform number in ±b has the variance b²/3.
            let bound = std * 3f64.sqrt();
            draw(&mut |s| (2.0 * s.uniform() - 1.0) * bound)
        };
        match *self {
            Init::Table(ref values) => {
                let mut values = values.to_vec();
                values.resize(count, 0.0);
                values
            }
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Constant(v) => vec![v as f32; count],
            Init::Uniform { low, high } => draw(&mut |s| low + (high - low) * s.uniform()),
            Init::Normal { mean, std } => draw(&mut |s| mean + std * s.normal()),
            Init::TruncatedNormal { mean, std, low, high } => draw(&mut |s| truncated(s, mean, std, low, high)),
            Init::XavierUniform { gain } => uniform(gain * (2.0 / (fan_in + fan_out)).sqrt()),
            Init::XavierNormal { gain } => {
                let std = gain * (2.0 / (fan_in + fan_out)).sqrt();
                draw(&mut |s| std * s.normal())
            }
            Init::KaimingUniform { gain } => uniform(gain / fan_in.sqrt()),
            Init::KaimingNormal { gain } => {
                let std = gain / fan_in.sqrt();
                draw(&mut |s| std * s.normal())
            }
            Init::Orthogonal { gain } => orthogonal(sizes, gain, &mut stream),
        }
    }

    /// What is wrong with the initializer's settings, in words.
    pub fn fault(&self) -> Option<String> {
        let finite = |values: &[f64]| values.iter().all(|v| v.is_finite());
        let wrong = match *self {
            Init::Zeros | Init::Ones | Init::Constant(_) | Init::Table(_) => None,
            Init::Uniform { low, high } => (!finite(&[low, high]) || low > high).then_some("low is above high"),
            Init::Normal { mean, std } => (!finite(&[mean, std]) || std < 0.0).then_some("the deviation is negative"),
            Init::TruncatedNormal { mean, std, low, high } => {
                if mean.is_nan() || std.is_nan() || std < 0.0 {
                    Some("the deviation is negative")
                } else if low.is_nan() || high.is_nan() || low > high {
                    Some("low is above high")
                } else {
                    // Redrawing meets an interval within three deviations soon enough.
                    let outside = low > mean + 3.0 * std || high < mean - 3.0 * std;
                    outside.then_some("the interval lies more than 3 deviations from the mean")
                }
            }
            Init::XavierUniform { gain }
            | Init::XavierNormal { gain }
            | Init::KaimingUniform { gain }
            | Init::KaimingNormal { gain }
            | Init::Orthogonal { gain } => (!gain.is_finite()).then_some("the gain is not a number"),
        };
        wrong.map(|words| format!("{self:?}: {words}"))
    }
}

/// `fan_in` and `fan_out` of a weight `[out, in, ..field]`. A vector counts as its own fan in both.
fn fans(sizes: &[usize]) -> (f64, f64) {
    let (fan_in, fan_out) = match sizes {
        [] => (1, 1),
        [n] => (*n, *n),
        [out, inner, field @ ..] => {
            let field: usize = field.iter().product();
            (inner * field, out * field)
        }
    };
    // Empty parameters take no numbers; the fan must only not divide by zero.
    (fan_in.max(1) as f64, fan_out.max(1) as f64)
}

fn truncated(s: &mut Stream, mean: f64, std: f64, low: f64, high: f64) -> f64 {
    let mut v = mean + std * s.normal();
    for _ in 0..REDRAWS {
        if (low..=high).contains(&v) {
            return v;
        }
        v = mean + std * s.normal();
    }
    // `fault` has refused such settings; whoever fills without asking gets the nearest bound.
    v.max(low).min(high)
}

/// `gain` times orthonormal rows or columns, whichever are fewer, of the matrix
/// `[sizes[0], rest]`: Gram-Schmidt on normal vectors. Its triangular factor has a positive
/// diagonal, so the result is uniform over all such matrices without a correction of signs
/// (Mezzadri 2007). Every vector is projected twice, which is enough for full precision.
fn orthogonal(sizes: &[usize], gain: f64, stream: &mut Stream) -> Vec<f32> {
    let count: usize = sizes.iter().product();
    if count == 0 {
        return Vec::new();
    }
    let rows = sizes.first().copied().unwrap_or(1);
    let cols = count / rows;
    let (few, length) = (rows.min(cols), rows.max(cols));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(few);
    while basis.len() < few {
        let mut v: Vec<f64> = (0..length).map(|_| stream.normal()).collect();
        for _ in 0..2 {
            for u in &basis {
                let along = dot(u, &v);
                v.iter_mut().zip(u).for_each(|(v, u)| *v -= along * u);
            }
        }
        let norm = dot(&v, &v).sqrt();
        // A vector that lies in the span of the others, which has probability zero, is redrawn.
        if norm > 1e-6 {
            v.iter_mut().for_each(|v| *v /= norm);
            basis.push(v);
        }
    }
    let at = |i: usize, j: usize| if rows <= cols { basis[i][j] } else { basis[j][i] };
    (0..count).map(|k| (gain * at(k / cols, k % cols)) as f32).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
