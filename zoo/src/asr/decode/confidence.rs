//! How sure a model is: a number from 0 (all classes alike) to 1 (one class certain) for a distribution, and
//! for what is made of several.
//!
//! With `p` over `V` classes and a sharpness `a` ("alpha", below 1 for models that are too sure), after
//! Laptev and Ginsburg 2022, "Fast entropy-based methods of word-level confidence estimation", and NeMo's
//! `asr_confidence_utils.py`:
//!
//! ```text
//! maximum     (max p^a V^a - 1) / (V^a - 1)
//! Gibbs       H = -sum p^a ln p            greatest: V^(1 - a) ln V
//! Tsallis     H = (1 - sum p^a) / (a - 1)  greatest: (V^(1 - a) - 1) / (1 - a)
//! Renyi       H = log2(sum p^a) / (1 - a)  greatest: log2 V
//! ```
//!
//! An entropy becomes a confidence as `1 - H / greatest` (linear) or
//! `(e^-H - e^-greatest) / (1 - e^-greatest)` (exponential; base 2 for Rényi, and Gibbs' `H` times `a`).
//! At `a = 1` all entropies are Shannon's. What would be below 0 is 0 (Gibbs' entropy is not greatest where all
//! classes are alike, but for `a = 1`).

/// Which measure of sureness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The largest probability.
    Maximum,
    /// The entropy of Gibbs, weighted by `p^a`.
    Gibbs,
    /// The entropy of Tsallis: NeMo's default.
    Tsallis,
    /// The entropy of Rényi.
    Renyi,
}

/// How several confidences become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregate {
    /// The mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// The product.
    Product,
}

impl Aggregate {
    /// One for all; 1 for none.
    pub fn of(self, values: impl IntoIterator<Item = f32>) -> f32 {
        let values: Vec<f32> = values.into_iter().collect();
        if values.is_empty() {
            return 1.0;
        }
        match self {
            Aggregate::Mean => values.iter().sum::<f32>() / values.len() as f32,
            Aggregate::Min => values.iter().copied().fold(f32::INFINITY, f32::min),
            Aggregate::Max => values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            Aggregate::Product => values.iter().product(),
        }
    }
}

/// How confidence is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// The measure.
    pub measure: Measure,
    /// The sharpness, above 0.
    pub alpha: f32,
    /// Whether an entropy is normalized exponentially, not linearly.
    pub exponential: bool,
    /// How frames become tokens, and tokens words.
    pub aggregate: Aggregate,
}

impl Default for Confidence {
    /// NeMo's: Tsallis' entropy with `a = 0.33`, exponential, the least counts.
    fn default() -> Self {
        Confidence { measure: Measure::Tsallis, alpha: 0.33, exponential: true, aggregate: Aggregate::Min }
    }
}

impl Confidence {
    /// How sure a distribution is, `0.0 ..= 1.0`, of log-probabilities over at least two classes (1 for
    /// fewer).
    pub fn of(&self, log_probs: &[f32]) -> f32 {
        let v = log_probs.len() as f64;
        if log_probs.len() < 2 {
            return 1.0;
        }
        if log_probs.iter().any(|x| x.is_nan()) {
            return 0.0;
        }
        let a = self.alpha as f64;
        let x = || log_probs.iter().map(|x| *x as f64).filter(|x| *x > f64::NEG_INFINITY);
        // Sums over classes that are possible: p ln p is 0 at p = 0.
        let powers = || x().map(|x| (x * a).exp()).sum::<f64>();
        let gibbs = || -x().map(|x| (x * a).exp() * x).sum::<f64>();
        let shannon = a == 1.0;
        let found = match self.measure {
            Measure::Maximum => {
                let (most, all) = (x().fold(f64::NEG_INFINITY, f64::max), v.powf(a));
                ((most * a).exp() * all - 1.0) / (all - 1.0)
            }
            Measure::Gibbs => self.normalize(gibbs() * if self.exponential { a } else { 1.0 }, {
                v.powf(1.0 - a) * v.ln() * if self.exponential { a } else { 1.0 }
            }),
            _ if shannon => self.normalize(gibbs(), v.ln()),
            Measure::Tsallis => self.normalize((1.0 - powers()) / (a - 1.0), (v.powf(1.0 - a) - 1.0) / (1.0 - a)),
            Measure::Renyi if self.exponential => self.normalize(powers().ln() / (1.0 - a), v.ln()),
            Measure::Renyi => self.normalize(powers().log2() / (1.0 - a), v.log2()),
        };
        if found.is_nan() { 0.0 } else { found.clamp(0.0, 1.0) as f32 }
    }

    fn normalize(&self, entropy: f64, greatest: f64) -> f64 {
        if self.exponential {
            let least = (-greatest).exp();
            ((-entropy).exp() - least) / (1.0 - least)
        } else {
            1.0 - entropy / greatest
        }
    }

    /// How sure logits are: their log-softmax is taken first.
    pub fn of_logits(&self, logits: &[f32]) -> f32 {
        let sum = super::log_sum(logits);
        self.of(&logits.iter().map(|x| x - sum).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Confidence> {
        use Measure::*;
        [Maximum, Gibbs, Tsallis, Renyi].into_iter().flat_map(|measure| {
            [0.2, 0.33, 1.0, 1.5].into_iter().flat_map(move |alpha| {
                [false, true].map(|exponential| Confidence { measure, alpha, exponential, aggregate: Aggregate::Min })
            })
        })
    }

    #[test]
    fn certainty_is_one_and_ignorance_zero() {
        for c in all() {
            let sure = c.of(&[0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
            let lost = c.of(&[(1.0f32 / 3.0).ln(); 3]);
            assert!((sure - 1.0).abs() < 1e-5 && lost.abs() < 1e-5, "{c:?}: {sure} {lost}");
            let between = c.of(&[0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()]);
            let surer = c.of(&[0.9f32.ln(), 0.05f32.ln(), 0.05f32.ln()]);
            // Gibbs' entropy is not greatest where all are alike but for `a = 1`: confidence is cut at 0.
            let cut = c.measure == Measure::Gibbs && c.alpha < 1.0;
            assert!((0.0 < between && between < surer || cut) && surer < 1.0, "{c:?}: {between} {surer}");
            assert_eq!(c.of(&[f32::NAN; 3]), 0.0);
        }
    }

    /// NeMo's formulas, written out as they stand there.
    #[test]
    fn equals_the_formulas_of_nemo() {
        let p = [0.6f64, 0.3, 0.1];
        let x: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
        let (v, t) = (3.0f64, 0.33f64);
        let neg_alpha: f64 = p.iter().map(|p| p.powf(t)).sum();
        let neg_gibbs: f64 = p.iter().map(|p| p.powf(t) * p.ln()).sum();
        let tsallis_most = ((1.0 - v.powf(1.0 - t)) / (1.0 - t)).exp();
        let gibbs_most = v.powf(-t * v.powf(1.0 - t));
        let expected = [
            (Measure::Maximum, false, ((0.6f64.powf(t)) * v.powf(t) - 1.0) / (v.powf(t) - 1.0)),
            (Measure::Gibbs, false, 1.0 + neg_gibbs / v.ln() / v.powf(1.0 - t)),
            (Measure::Gibbs, true, ((neg_gibbs * t).exp() - gibbs_most) / (1.0 - gibbs_most)),
            (Measure::Tsallis, false, 1.0 + (1.0 - neg_alpha) / (v.powf(1.0 - t) - 1.0)),
            (Measure::Tsallis, true, (((1.0 - neg_alpha) / (1.0 - t)).exp() - tsallis_most) / (1.0 - tsallis_most)),
            (Measure::Renyi, false, 1.0 + neg_alpha.log2() / (t - 1.0) / v.log2()),
            (Measure::Renyi, true, (neg_alpha.powf(1.0 / (t - 1.0)) * v - 1.0) / (v - 1.0)),
        ];
        // Gibbs' linear one is below 0 here, and cut.
        for (measure, exponential, value) in expected {
            let c = Confidence { measure, alpha: 0.33, exponential, aggregate: Aggregate::Mean };
            assert!((c.of(&x) as f64 - value.max(0.0)).abs() < 1e-5, "{measure:?} {exponential}: {} {value}", c.of(&x));
        }
    }

    #[test]
    fn several_become_one() {
        let of = |a: Aggregate| a.of([0.5, 1.0, 0.25]);
        assert_eq!([of(Aggregate::Min), of(Aggregate::Max), of(Aggregate::Product)], [0.25, 1.0, 0.125]);
        assert!((of(Aggregate::Mean) - 7.0 / 12.0).abs() < 1e-6);
        assert_eq!(Aggregate::Mean.of([]), 1.0);
    }
}
