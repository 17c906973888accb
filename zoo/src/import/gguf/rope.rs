//! Rotary positions between metadata, tensors of factors, and Hugging Face's `rope_scaling`.
//!
//! llama.cpp stores Llama 3's scaling not by its settings but as one factor a frequency
//! (`rope_freqs.weight`), by which the frequency is divided. The settings are found again from the
//! factors: with `s(i) = (original / wavelength(i) - low) / (high - low)`, the factors between the
//! plain and the fully scaled ones are `1 / ((1 - s) / factor + s)`. Only the ratios of `original`,
//! `low` and `high` count; `low` is 1 in every published model.

use serde_json::{Value, json};
use std::f64::consts::TAU;

/// Llama 3's settings from the factors of `head_dim / 2` frequencies; nothing where no frequency
/// is scaled.
pub(super) fn llama3(factors: &[f32], theta: f64) -> Option<Value> {
    let count = factors.len() as f64;
    let most = factors.iter().copied().fold(1f32, f32::max) as f64;
    if !most.is_finite() || most <= 1.0 {
        return None;
    }
    // 1 / wavelength and the smoothness of the frequencies in between: a straight line.
    let points: Vec<(f64, f64)> = factors
        .iter()
        .enumerate()
        .map(|(i, f)| (theta.powf(-(i as f64) / count) / TAU, *f as f64))
        .filter(|(_, f)| *f > 1.0 + 1e-6 && *f < most * (1.0 - 1e-6))
        .map(|(x, f)| (x, (1.0 / f - 1.0 / most) / (1.0 - 1.0 / most)))
        .collect();
    let (mut high, mut original) = (4.0, 8192.0);
    if let ([first, ..], [.., last]) = (&points[..], &points[..])
        && first.0 != last.0
    {
        let slope = (first.1 - last.1) / (first.0 - last.0);
        let start = first.1 - slope * first.0;
        high = 1.0 - 1.0 / start;
        original = slope * (high - 1.0);
    }
    if !(high.is_finite() && high > 1.0 && original.is_finite() && original > 0.0) {
        return None;
    }
    Some(json!({
        "rope_type": "llama3",
        "factor": tidy(most),
        "low_freq_factor": 1.0,
        "high_freq_factor": tidy(high),
        "original_max_position_embeddings": tidy(original).round() as u64,
    }))
}

/// A number that is whole but for the rounding of `f32`.
fn tidy(v: f64) -> f64 {
    if (v - v.round()).abs() < 2e-4 * v.abs().max(1.0) { v.round() } else { v }
}

/// The factors of Llama 3's settings, as the converter computes them.
pub(crate) fn llama3_factors(dim: usize, theta: f64, [factor, low, high, original]: [f64; 4]) -> Vec<f32> {
    let of = |i: usize| {
        let wavelength = TAU * theta.powf(2.0 * i as f64 / dim as f64);
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..dim / 2).map(|i| of(i) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_again() {
        for (dim, theta, settings) in [
            (128, 500_000.0, [8.0, 1.0, 4.0, 8192.0]),
            (64, 500_000.0, [32.0, 1.0, 4.0, 8192.0]),
            (16, 10_000.0, [8.0, 1.0, 4.0, 64.0]),
        ] {
            let factors = llama3_factors(dim, theta, settings);
            let found = llama3(&factors, theta).expect("scaled");
            let get = |key: &str| found[key].as_f64().expect("a number");
            let again = [
                get("factor"),
                get("low_freq_factor"),
                get("high_freq_factor"),
                get("original_max_position_embeddings"),
            ];
            let same = llama3_factors(dim, theta, again);
            assert!(factors.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-3 * a), "{found}: {factors:?} {same:?}");
            if dim > 16 {
                assert_eq!(again, settings);
            }
        }
        assert_eq!(llama3(&[1.0; 8], 1e4), None);
        assert_eq!(llama3(&[f32::NAN, f32::INFINITY], 1e4), None);
    }
}
