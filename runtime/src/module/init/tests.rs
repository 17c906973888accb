//! Statistics of initial values. Bounds are five standard errors of the statistic, so that a
//! right generator fails by chance less than once in a million seeds (and the seeds are fixed).

use super::{Init, Key, shorthand};

const N: usize = 40_000;

/// Mean, variance, and fourth standardised moment (3 for a normal, 1.8 for a uniform variable).
fn moments(values: &[f32]) -> (f64, f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| *v as f64).sum::<f64>() / n;
    let power = |k| values.iter().map(|v| (*v as f64 - mean).powi(k)).sum::<f64>() / n;
    (mean, power(2), power(4) / power(2).powi(2))
}

/// Checks moments against those of a distribution with the given mean, variance and kurtosis.
fn expect(init: Init, sizes: &[usize], mean: f64, variance: f64, kurtosis: f64) -> Vec<f32> {
    let values = init.fill(sizes, Key::new(3, "layer.weight"));
    let n = values.len() as f64;
    assert_eq!(values.len(), sizes.iter().product::<usize>());
    let (m, v, k) = moments(&values);
    assert!((m - mean).abs() < 5.0 * (variance / n).sqrt(), "{init:?}: mean {m}, not {mean}");
    let error = variance * ((kurtosis - 1.0) / n).sqrt();
    assert!((v - variance).abs() < 5.0 * error, "{init:?}: variance {v}, not {variance}");
    // The standard error of a normal sample's kurtosis is sqrt(24 / n); a uniform one's is less.
    assert!((k - kurtosis).abs() < 5.0 * (24.0 / n).sqrt(), "{init:?}: kurtosis {k}, not {kurtosis}");
    values
}

#[test]
fn constants() {
    let key = Key::new(1, "x");
    assert_eq!(Init::Zeros.fill(&[2, 2], key), [0.0; 4]);
    assert_eq!(Init::Ones.fill(&[3], key), [1.0; 3]);
    assert_eq!(Init::Constant(-2.5).fill(&[], key), [-2.5]);
    assert!(Init::default().fill(&[0, 4], key).is_empty());
    assert!(shorthand::orthogonal().fill(&[4, 0], key).is_empty());
}

#[test]
fn uniform_and_normal() {
    let values = expect(Init::Uniform { low: -1.0, high: 3.0 }, &[N], 1.0, 16.0 / 12.0, 1.8);
    assert!(values.iter().all(|v| (-1.0..=3.0).contains(v)));
    assert!(values.iter().any(|v| *v < -0.99) && values.iter().any(|v| *v > 2.99));
    let values = expect(Init::Normal { mean: 0.5, std: 0.02 }, &[N], 0.5, 4e-4, 3.0);
    // 31.7 % lie beyond one deviation, 4.55 % beyond two, 0.27 % beyond three.
    for (deviations, share) in [(1.0, 0.317_31), (2.0, 0.045_50), (3.0, 0.002_70)] {
        let beyond = values.iter().filter(|v| (**v as f64 - 0.5).abs() > deviations * 0.02).count() as f64 / N as f64;
        assert!((beyond - share).abs() < 5.0 * (share / N as f64).sqrt(), "{beyond} beyond {deviations}");
    }
}

#[test]
fn truncated_normal_keeps_the_middle() {
    // Variance of a standard normal cut at ±2: 1 - 2 * 2 φ(2) / (2 Φ(2) - 1) = 0.773741.
    let init = shorthand::truncated_normal(0.1);
    let values = init.fill(&[N], Key::new(4, "w"));
    assert!(values.iter().all(|v| v.abs() <= 0.2));
    assert!(values.iter().any(|v| v.abs() > 0.195));
    let (mean, variance, _) = moments(&values);
    assert!(mean.abs() < 5.0 * (0.007_737 / N as f64).sqrt());
    assert!((variance - 0.007_737_41).abs() < 0.000_2, "{variance}");
    // Values inside are not moved to the bounds.
    assert!(values.iter().filter(|v| v.abs() == 0.2).count() < 3);
    let one_sided = Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 1.0, high: f64::INFINITY };
    let (mean, ..) = moments(&one_sided.fill(&[N], Key::new(4, "w")));
    assert!((mean - 1.525_135).abs() < 0.015, "φ(1) / (1 - Φ(1)) is not {mean}");
}

#[test]
fn fans_follow_the_layout() {
    let (out, inner, field) = (50, 40, 20);
    let (fan_in, fan_out) = ((inner * field) as f64, (out * field) as f64);
    let sizes = [out, inner, 4, 5];
    let gain = 1.5;
    let xavier = gain * gain * 2.0 / (fan_in + fan_out);
    let kaiming = gain * gain / fan_in;
    expect(Init::XavierUniform { gain }, &sizes, 0.0, xavier, 1.8);
    expect(Init::XavierNormal { gain }, &sizes, 0.0, xavier, 3.0);
    expect(Init::KaimingUniform { gain }, &sizes, 0.0, kaiming, 1.8);
    expect(Init::KaimingNormal { gain }, &sizes, 0.0, kaiming, 3.0);
    // PyTorch's linear layer: uniform in ±1/sqrt(fan_in).
    let bound = 1.0 / (200f32).sqrt();
    let values = Init::default().fill(&[100, 200], Key::new(0, "w"));
    let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest <= bound && largest > 0.999 * bound, "{largest} {bound}");
}

#[test]
fn orthogonal_rows_or_columns() {
    for (sizes, rows, cols) in [(vec![6, 11], 6, 11), (vec![12, 2, 2], 12, 4), (vec![7, 7], 7, 7), (vec![5], 5, 1)] {
        let w = Init::Orthogonal { gain: 2.0 }.fill(&sizes, Key::new(9, "w"));
        let at = |i: usize, j: usize| w[i * cols + j] as f64;
        let (few, length) = (rows.min(cols), rows.max(cols));
        for a in 0..few {
            for b in 0..few {
                let product: f64 =
                    (0..length).map(|k| if rows <= cols { at(a, k) * at(b, k) } else { at(k, a) * at(k, b) }).sum();
                let expected = if a == b { 4.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-5, "{sizes:?}: {a} {b}: {product}");
            }
        }
    }
    // Uniform over the sphere: a coordinate of a unit vector in 3 dimensions is uniform in ±1.
    let firsts: Vec<f32> =
        (0..4000).map(|seed| shorthand::orthogonal().fill(&[1, 3], Key::new(seed, "w"))[0]).collect();
    let (mean, variance, kurtosis) = moments(&firsts);
    assert!(mean.abs() < 0.05 && (variance - 1.0 / 3.0).abs() < 0.03 && (kurtosis - 1.8).abs() < 0.2);
}

#[test]
fn values_depend_on_seed_and_name_only() {
    let init = Init::Normal { mean: 0.0, std: 1.0 };
    let fill = |seed, name| init.fill(&[1000], Key::new(seed, name));
    assert_eq!(fill(1, "a.weight"), fill(1, "a.weight"));
    let correlation = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a * b) as f64).sum::<f64>() / 1000.0;
    for (seed, name) in [(2, "a.weight"), (1, "b.weight"), ((1 << 32) | 1, "a.weight")] {
        let c = correlation(&fill(1, "a.weight"), &fill(seed, name));
        assert!(c.abs() < 5.0 / 1000f64.sqrt(), "{seed} {name}: correlation {c}");
    }
    // A longer parameter of one name starts with the same numbers.
    assert_eq!(init.fill(&[10], Key::new(1, "a"))[..], init.fill(&[20], Key::new(1, "a"))[..10]);
    // The numbers themselves, so that no release changes them unseen.
    assert_eq!(Init::Uniform { low: 0.0, high: 1.0 }.fill(&[3], Key::new(42, "w")), PINNED);
}

/// Uniform numbers of seed 42 and name "w", from an independent program in Python.
const PINNED: [f32; 3] = [0.529696, 0.9503049, 0.3114573];

#[test]
fn faults_are_named() {
    assert_eq!(shorthand::truncated_normal(0.02).fault(), None);
    assert_eq!(Init::default().fault(), None);
    for bad in [
        Init::Uniform { low: 1.0, high: 0.0 },
        Init::Uniform { low: f64::NAN, high: 0.0 },
        Init::Normal { mean: 0.0, std: -1.0 },
        Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 5.0, high: 6.0 },
        Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 1.0, high: -1.0 },
        Init::Orthogonal { gain: f64::NAN },
    ] {
        assert!(bad.fault().is_some(), "{bad:?}");
    }
    // Filling with a fault ends all the same.
    let far = Init::TruncatedNormal { mean: 0.0, std: 1.0, low: 50.0, high: 60.0 };
    assert_eq!(far.fill(&[2], Key::new(0, "w")), [50.0; 2]);
}
