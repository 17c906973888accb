//! The losses that heads of encoders and encoder-decoders are judged by, over results on the host.
//!
//! What a label is follows from the configuration's `problem_type`, and where that is absent, as in
//! Hugging Face's library, from the number of labels and the kind of the label.

use super::config::{Config, ConfigError};
use super::family::Values;

/// What the right answers are.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// A class of each row; those below 0 do not count.
    Classes(Vec<i32>),
    /// A number for each value.
    Numbers(Vec<f64>),
}

/// Labels that do not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LabelError {
    /// A setting of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another number of labels.
    #[error("{expected} labels are expected for results of sizes {sizes:?}, {found} are given")]
    Count {
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
        /// The sizes of the results.
        sizes: Vec<usize>,
    },
    /// A class that there is not.
    #[error("label {label} is not one of {classes} classes")]
    Class {
        /// The label.
        label: i32,
        /// How many classes there are.
        classes: usize,
    },
}

/// The mean cross-entropy in nats of logits `[.., classes]`; labels below 0 do not count.
///
/// # Errors
/// Labels that do not fit.
pub fn cross_entropy(logits: &Values, labels: &[i32]) -> Result<f64, LabelError> {
    let classes = logits.sizes.last().copied().unwrap_or(0).max(1);
    counted(logits, labels.len(), logits.data.len() / classes)?;
    let (mut sum, mut count) = (0.0, 0);
    for (row, label) in logits.data.chunks_exact(classes).zip(labels) {
        let Ok(at) = usize::try_from(*label) else { continue };
        let right = row.get(at).ok_or(LabelError::Class { label: *label, classes })?;
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        let total: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
        sum += total.ln() + f64::from(largest - right);
        count += 1;
    }
    Ok(sum / f64::from(count))
}

/// The loss of a classifier: mean squared error, cross-entropy, or binary cross-entropy.
///
/// # Errors
/// Labels that do not fit, a problem that is not known.
pub fn classification(config: &Config, logits: &Values, labels: &Labels) -> Result<f64, LabelError> {
    const PROBLEM: &str = "problem_type";
    let classes = logits.sizes.last().copied().unwrap_or(0);
    let guess = match (classes, labels) {
        (1, _) => "regression",
        (_, Labels::Classes(_)) => "single_label_classification",
        (_, Labels::Numbers(_)) => "multi_label_classification",
    };
    let numbers = || match labels {
        Labels::Classes(all) => all.iter().map(|v| f64::from(*v)).collect(),
        Labels::Numbers(all) => all.clone(),
    };
    let mean = |loss: fn(f64, f64) -> f64| {
        let numbers: Vec<f64> = numbers();
        counted(logits, numbers.len(), logits.data.len())?;
        let all = logits.data.iter().zip(&numbers).map(|(x, y)| loss(f64::from(*x), *y));
        Ok(all.sum::<f64>() / numbers.len() as f64)
    };
    match (config.word(PROBLEM)?.unwrap_or(guess), labels) {
        ("regression", _) => mean(|x, y| (x - y) * (x - y)),
        ("multi_label_classification", _) => mean(|x, y| x.max(0.0) - x * y + (-x.abs()).exp().ln_1p()),
        ("single_label_classification", Labels::Classes(labels)) => cross_entropy(logits, labels),
        ("single_label_classification", _) => Err(config.wrong(PROBLEM, "a problem whose labels are numbers").into()),
        _ => {
            let known = "regression, single_label_classification or multi_label_classification";
            Err(config.wrong(PROBLEM, known).into())
        }
    }
}

fn counted(logits: &Values, found: usize, expected: usize) -> Result<(), LabelError> {
    match found == expected {
        true => Ok(()),
        false => Err(LabelError::Count { expected, found, sizes: logits.sizes.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("config.json", text).expect("an object")
    }

    #[test]
    fn losses_by_problem() {
        let logits = Values { sizes: vec![2, 2], data: vec![0.0, 0.0, 2.0, -1.0] };
        let classes = Labels::Classes(vec![1, 0]);
        let expected = (2f64.ln() + (1.0 + (-3f64).exp()).ln()) / 2.0;
        let found = classification(&config("{}"), &logits, &classes).expect("a loss");
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        let found = cross_entropy(&logits, &[1, -100]).expect("a loss");
        assert!((found - 2f64.ln()).abs() < 1e-12);

        let numbers = Labels::Numbers(vec![1.0, 0.0, 1.0, 0.0]);
        let expected = (2.0 * 2f64.ln() + (-2f64).exp().ln_1p() + (-1f64).exp().ln_1p()) / 4.0;
        let found = classification(&config("{}"), &logits, &numbers).expect("a loss");
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        let regression = config(r#"{"problem_type": "regression"}"#);
        assert_eq!(classification(&regression, &logits, &numbers), Ok((1.0 + 1.0 + 1.0) / 4.0));
        let one = Values { sizes: vec![2, 1], data: vec![0.5, 1.5] };
        assert_eq!(classification(&config("{}"), &one, &Labels::Classes(vec![0, 1])), Ok(0.25));
    }

    #[test]
    fn labels_that_do_not_fit() {
        let logits = Values { sizes: vec![1, 2], data: vec![0.0, 0.0] };
        let of = |text, labels| classification(&config(text), &logits, &labels).expect_err("labels").to_string();
        assert!(of("{}", Labels::Classes(vec![2])).contains("label 2 is not one of 2 classes"));
        assert!(of("{}", Labels::Classes(vec![0, 1])).contains("1 labels are expected"));
        assert!(of(r#"{"problem_type": "guess"}"#, Labels::Classes(vec![0])).contains("regression"));
    }
}
