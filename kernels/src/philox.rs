//! Philox 4x32-10: random numbers as a function of a counter.
//!
//! The generator has no state to carry along: block `i` of a stream is computed from `i` alone,
//! so any device, thread or order gives the same numbers (Salmon, Moraes, Dror and Shaw 2011,
//! "Parallel random numbers: as easy as 1, 2, 3"). It passes TestU01's BigCrush; it is not for
//! cryptography.
//!
//! Distributions are computed in `f64`; devices round to their storage, so all draw the same.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words for a counter under a key.
#[inline]
pub const fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    let mut round = 0;
    while round < ROUNDS {
        let x = (a as u64) * (MULTIPLIERS[0] as u64);
        let y = (c as u64) * (MULTIPLIERS[1] as u64);
        (a, b, c, d) = ((y >> 32) as u32 ^ b ^ k0, y as u32, (x >> 32) as u32 ^ d ^ k1, x as u32);
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
        round += 1;
    }
    [a, b, c, d]
}

/// [`philox4x32`] for many counters, whose words stand side by side.
#[inline(always)]
pub(crate) fn philox4x32_wide<const N: usize>(counter: [[u32; N]; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    for _ in 0..ROUNDS {
        for i in 0..N {
            let x = (a[i] as u64) * (MULTIPLIERS[0] as u64);
            let y = (c[i] as u64) * (MULTIPLIERS[1] as u64);
            (a[i], b[i]) = ((y >> 32) as u32 ^ b[i] ^ k0, y as u32);
            (c[i], d[i]) = ((x >> 32) as u32 ^ d[i] ^ k1, x as u32);
        }
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    [a, b, c, d]
}

/// A sequence of values: that of one operation in one run of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The user's seed.
    pub seed: u32,
    /// The run's number.
    pub step: u32,
    /// The operation's number.
    pub stream: u32,
}

impl Stream {
    /// Words `4 * block` to `4 * block + 3` of the sequence.
    #[inline]
    pub fn block(self, block: u64) -> [u32; 4] {
        philox4x32([block as u32, (block >> 32) as u32, self.stream, self.step], [self.seed, 0])
    }

    /// Calls `put(i, value)` for each position `i` of `first..first + count`, where the value is
    /// made by `f` from the four words of a block.
    #[inline]
    pub fn fill(self, first: usize, count: usize, f: impl Fn([u32; 4]) -> [f64; 4], mut put: impl FnMut(usize, f64)) {
        let end = first + count;
        let mut i = first;
        while i < end {
            let values = f(self.block(i as u64 / 4));
            let stop = end.min((i / 4 + 1) * 4);
            for k in i..stop {
                put(k, values[k % 4]);
            }
            i = stop;
        }
    }
}

/// Uniform in 0 (included) to 1 (excluded): multiples of 2^-24, exact in `f32`.
pub fn uniform(words: [u32; 4]) -> [f64; 4] {
    words.map(|w| f64::from(w >> 8) / 16_777_216.0)
}

/// Strictly between 0 and 1.
fn open(word: u32) -> f64 {
    (f64::from(word) + 0.5) / 4_294_967_296.0
}

/// Normal with mean 0 and variance 1, two from each pair of words (Box and Muller 1958).
pub fn normal(words: [u32; 4]) -> [f64; 4] {
    let pair = |a: u32, b: u32| {
        let radius = (-2.0 * open(a).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * open(b)).sin_cos();
        (radius * cos, radius * sin)
    };
    let ((a, b), (c, d)) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

/// `-log(-log(u))` for uniform `u`.
pub fn gumbel(words: [u32; 4]) -> [f64; 4] {
    words.map(|w| -(-open(w).ln()).ln())
}

/// 1 with probability `p`, else 0.
pub fn bernoulli(words: [u32; 4], p: f64) -> [f64; 4] {
    uniform(words).map(|u| f64::from(u8::from(u < p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors for `philox4x32 10` in `kat_vectors` of the authors' library Random123.
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn draw(f: impl Fn([u32; 4]) -> [f64; 4], n: usize) -> Vec<f64> {
        let mut out = vec![f64::NAN; n];
        Stream { seed: 7, step: 1, stream: 2 }.fill(0, n, f, |i, v| out[i] = v);
        out
    }

    /// Mean and variance within five standard errors.
    fn moments(values: &[f64], mean: f64, variance: f64, fourth: f64) {
        let n = values.len() as f64;
        let m = values.iter().sum::<f64>() / n;
        let v = values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n;
        assert!((m - mean).abs() < 5.0 * (variance / n).sqrt(), "mean {m} is not {mean}");
        assert!(
            (v - variance).abs() < 5.0 * ((fourth - variance * variance) / n).sqrt(),
            "variance {v}, not {variance}"
        );
    }

    #[test]
    fn distributions_have_their_moments() {
        let n = 100_000;
        let u = draw(uniform, n);
        assert!(u.iter().all(|v| (0.0..1.0).contains(v)));
        moments(&u, 0.5, 1.0 / 12.0, 1.0 / 80.0);
        moments(&draw(normal, n), 0.0, 1.0, 3.0);
        moments(&draw(|w| bernoulli(w, 0.3), n), 0.3, 0.21, 0.3 * 0.7 * (1.0 - 3.0 * 0.21));
        // Euler's constant, pi^2 / 6, kurtosis 27/5.
        let variance = std::f64::consts::PI.powi(2) / 6.0;
        moments(&draw(gumbel, n), 0.577_215_664_9, variance, 5.4 * variance * variance);
    }

    #[test]
    fn parts_of_a_sequence_are_the_same_as_the_whole() {
        let whole = draw(normal, 103);
        let s = Stream { seed: 7, step: 1, stream: 2 };
        for (first, count) in [(0, 0), (0, 1), (3, 2), (5, 98), (102, 1)] {
            s.fill(first, count, normal, |i, v| {
                assert!((first..first + count).contains(&i));
                assert_eq!(v, whole[i]);
            });
        }
        assert_ne!(s.block(0), Stream { step: 2, ..s }.block(0));
        assert_ne!(s.block(0), Stream { stream: 3, ..s }.block(0));
        assert_ne!(s.block(0), Stream { seed: 8, ..s }.block(0));
    }
}
