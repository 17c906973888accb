//! Random choices as a function of what they are for.
//!
//! A draw is a stream of Philox under a seed, an epoch, a recording's place in its corpus and the
//! step's place in the chain: the same whoever asks, in whatever order, on however many threads.

use mobilis_runtime::philox::philox4x32;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Draw {
    key: [u32; 2],
    place: [u32; 3],
    block: u32,
    words: [u32; 4],
    used: usize,
    normal: Option<f64>,
}

impl Draw {
    /// The stream of one step for one recording.
    pub fn new(seed: u64, epoch: u64, index: u64, step: u32) -> Self {
        let low = |v: u64| v as u32;
        let high = |v: u64| (v >> 32) as u32;
        // Corpora of more than 2^32 recordings and runs of more than 2^32 epochs stay apart too.
        let key = [low(seed) ^ high(epoch), high(seed) ^ high(index)];
        Self { key, place: [low(epoch), low(index), step], block: 0, words: [0; 4], used: 4, normal: None }
    }

    fn word(&mut self) -> u32 {
        if self.used == 4 {
            let [a, b, c] = self.place;
            self.words = philox4x32([self.block, a, b, c], self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        (((high << 32) | low) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.normal.take() {
            return value;
        }
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
        self.normal = Some(radius * sin);
        radius * cos
    }
}
