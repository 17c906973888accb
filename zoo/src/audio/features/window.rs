//! Window functions, in double precision (Harris 1978, "On the use of windows for harmonic analysis
//! with the discrete Fourier transform"; Povey's is Kaldi's own).

use std::f64::consts::TAU;

/// The shape of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// `0.5 - 0.5 cos p`
    #[default]
    Hann,
    /// `0.54 - 0.46 cos p`
    Hamming,
    /// `0.42 - 0.5 cos p + 0.08 cos 2p`
    Blackman,
    /// A triangle.
    Bartlett,
    /// Hann's to the power of 0.85.
    Povey,
    /// `1`
    Rectangular,
}

impl Shape {
    /// A window of `length` values. The phase `p` runs through a whole circle in `length` steps if
    /// `periodic`, else in `length - 1`, so that the window is symmetric.
    pub fn values(self, length: usize, periodic: bool) -> Vec<f64> {
        if length == 1 {
            return vec![1.0];
        }
        let period = if periodic { length } else { length - 1 } as f64;
        let value = |n: usize| {
            let p = TAU * n as f64 / period;
            match self {
                Shape::Hann => 0.5 - 0.5 * p.cos(),
                Shape::Hamming => 0.54 - 0.46 * p.cos(),
                Shape::Blackman => 0.42 - 0.5 * p.cos() + 0.08 * (2.0 * p).cos(),
                Shape::Bartlett => 1.0 - (2.0 * n as f64 / period - 1.0).abs(),
                Shape::Povey => (0.5 - 0.5 * p.cos()).max(0.0).powf(0.85),
                Shape::Rectangular => 1.0,
            }
        };
        (0..length).map(value).collect()
    }
}
