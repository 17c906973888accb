//! Fourier transforms of any length and the short-time transform over them ([`Stft`]).
//!
//! Many frames are transformed at once, each in a lane of its own of the processor's vectors
//! (`lanes`): what comes of a frame depends neither on its neighbours nor on how many there are.
//! Real signals of an even length are read as complex ones of half the length, and their spectra
//! are told apart afterwards (`real`; Sorensen and others 1987). Lengths are split into their
//! factors (Cooley and Tukey 1965), so products of small primes such as 400 and 512 are fast, and a
//! prime length costs its square.

mod grad;
mod lanes;
mod real;
mod stft;

pub use grad::{stft_input_grad, stft_window_grad};
pub use stft::{Frames, Output, Stft, stft};

/// A pass over all values: transforms of length `factor · rest` become `factor` of length `rest`.
#[derive(Clone, Copy, Debug)]
struct Pass {
    factor: usize,
    rest: usize,
    /// Where its roots begin in [`Fourier::turns`].
    turns: usize,
}

/// A prepared transform of one length.
#[derive(Clone, Debug)]
pub struct Fourier {
    n: usize,
    /// `exp(-2 pi i k / n)` for the complex values `k`.
    roots: Vec<[f32; 2]>,
    /// Of the complex transform: of half the length where that is even.
    passes: Vec<Pass>,
    /// What results of a pass are multiplied by, in its order; then, of a factor without a butterfly,
    /// the factor's roots.
    turns: Vec<[f32; 2]>,
    /// Where the complex transform leaves each of its values.
    place: Vec<u32>,
}

impl Fourier {
    /// A transform of length `n`, at least 1.
    pub fn new(n: usize) -> Fourier {
        let n = n.max(1);
        let length = if n.is_multiple_of(2) { n / 2 } else { n };
        let root = |k: usize, n: usize| {
            let angle = -2.0 * std::f64::consts::PI * (k % n) as f64 / n as f64;
            [angle.cos() as f32, angle.sin() as f32]
        };
        let (mut passes, mut turns, mut size) = (vec![], vec![], length);
        for factor in factors(length) {
            let rest = size / factor;
            passes.push(Pass { factor, rest, turns: turns.len() });
            turns.extend((0..rest).flat_map(|k| (1..factor).map(move |r| root(r * k, size))));
            if !lanes::FACTORS.contains(&factor) {
                turns.extend((0..factor).map(|k| root(k, factor)));
            }
            size = rest;
        }
        let place = |k: usize| {
            let step = |(at, k): (usize, usize), p: &Pass| (at + k % p.factor * p.rest, k / p.factor);
            passes.iter().fold((0, k), step).0 as u32
        };
        let (place, roots) = ((0..length).map(place).collect(), (0..length).map(|k| root(k, n)).collect());
        Fourier { n, roots, passes, turns, place }
    }

    /// The length.
    pub fn length(&self) -> usize {
        self.n
    }

    /// Bins of the spectrum of a real signal.
    pub fn bins(&self) -> usize {
        self.n / 2 + 1
    }

    /// Values of the complex transform.
    fn values(&self) -> usize {
        self.place.len()
    }

    /// Values that a pass needs beside these: as many as the largest factor without a butterfly.
    fn spare(&self) -> usize {
        self.passes.iter().map(|p| p.factor).filter(|p| !lanes::FACTORS.contains(p)).max().unwrap_or(0)
    }
}

/// Factors whose product is `n`: those with butterflies, and primes. The largest butterflies come
/// last, where nothing is multiplied by roots.
fn factors(n: usize) -> Vec<usize> {
    let (mut factors, mut rest, mut p) = (vec![], n >> n.trailing_zeros(), 3);
    while rest > 1 {
        if p * p > rest {
            p = rest;
        }
        while rest.is_multiple_of(p) {
            factors.push(p);
            rest /= p;
        }
        p += 2;
    }
    // Largest first: what remains is then soon near.
    factors.reverse();
    let twos = n.trailing_zeros() as usize;
    // Twice 4 rather than 2 and 8.
    let (eights, fours) = match (twos / 3, twos % 3) {
        (0, 1) => return [vec![2], factors].concat(),
        (eights, 1) => (eights - 1, 2),
        (eights, 2) => (eights, 1),
        (eights, _) => (eights, 0),
    };
    factors.extend([4].repeat(fours));
    factors.extend([8].repeat(eights));
    factors
}

#[cfg(test)]
mod tests;
