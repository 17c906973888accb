//! What a search asks of the logits of one step, thousands of them: the likeliest, and what its probability is
//! relative to. On one thread: a step of a small model takes not much longer than waking another would.

use super::math::exp_flushed as exp;
use super::reduce::largest;
use super::stream::sum_each;

/// The place of the largest value and the value, the first of several; nothing where none is above minus
/// infinity, or one is not a number.
pub fn likeliest(logits: &[f32]) -> Option<(usize, f32)> {
    let most = most(logits);
    let place = logits.iter().position(|v| *v == most)?;
    (most > f32::NEG_INFINITY).then_some((place, most))
}

/// `ln(sum(exp(x)))`; minus infinity of nothing, and not a number where one is none.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = most(logits);
    if !most.is_finite() {
        return f64::from(most);
    }
    f64::from(most) + f64::from(sum(logits, most)).ln()
}

#[inline(always)]
fn most_body(x: &[f32]) -> f32 {
    largest(x)
}
crate::dispatch! {
    fn most(x: &[f32]) -> f32 = most_body;
}

#[inline(always)]
fn sum_body<const FUSED: bool>(x: &[f32], most: f32) -> f32 {
    sum_each!([x], exp::<FUSED>(x - most))
}
crate::dispatch! {
    fn sum(x: &[f32], most: f32) -> f32 = fused sum_body;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_definition() {
        for n in [1, 31, 512, 5000] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 71) % 97) as f32 * 0.3 - 20.0).collect();
            let want = x.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            assert!((log_sum_exp(&x) - want).abs() < 1e-5, "{n}");
            let (place, value) = likeliest(&x).expect("there are some");
            assert!(x.iter().all(|v| *v <= value) && x[..place].iter().all(|v| *v < value), "{n}");
        }
    }

    #[test]
    fn nothing_is_likeliest_of_nothing() {
        assert_eq!((likeliest(&[]), log_sum_exp(&[])), (None, f64::NEG_INFINITY));
        let none = [f32::NEG_INFINITY; 70];
        assert_eq!((likeliest(&none), log_sum_exp(&none)), (None, f64::NEG_INFINITY));
        let one = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
        assert_eq!((likeliest(&one), log_sum_exp(&one)), (Some((1, 3.0)), 3.0));
        assert_eq!(log_sum_exp(&[1.0, f32::INFINITY]), f64::INFINITY);
        assert!(likeliest(&[1.0, f32::NAN]).is_none() && log_sum_exp(&[1.0, f32::NAN]).is_nan());
    }
}
