//! Learning-rate schedules: a factor on the optimizer's rate for every step.
//!
//! Evaluated on the host and given to the step program as a scalar, so a schedule may also
//! follow the clock ([`Schedule::at`]) and changing it recompiles nothing. Steps `s` count from
//! 0, `S` is the number of all steps, `W` of those that warm up, `f` the floor. During warm-up
//! the factor is `(s + 1) / (W + 1)` of the value that follows (NeMo's rule: the first step is
//! never lost to a rate of zero); from `S` on it is the floor.

use std::f64::consts::PI;

/// How the rate falls at the end of [`Schedule::wsd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cooldown {
    /// `1 - x`, for `x` from 0 to 1.
    #[default]
    Linear,
    /// `1 - sqrt(x)` (Hägele et al. 2024).
    OneMinusSqrt,
    /// `(1 + cos(pi x)) / 2`.
    Cosine,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Constant,
    Linear,
    Cosine,
    InverseSqrt,
    Noam { d_model: f64 },
    NoamHold { hold: f64, rate: f64 },
    Polynomial { hold: f64, power: f64 },
    Square,
    SquareRoot,
    Wsd { decay: u64, cooldown: Cooldown },
    OneCycle { rise: f64, start: f64, end: f64 },
}

/// A factor on the learning rate for every step.
///
/// ```
/// use mobilis_runtime::train::Schedule;
/// let schedule = Schedule::cosine(1000).warmup(9).floor(0.1);
/// assert_eq!(schedule.factor(0), 0.1); // 1 / (9 + 1)
/// assert_eq!(schedule.factor(9), 1.0);
/// assert_eq!(schedule.factor(1000), 0.1);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    form: Form,
    total: u64,
    warmup: u64,
    floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::constant()
    }
}

impl Schedule {
    fn new(form: Form, total: u64) -> Schedule {
        Schedule { form, total, warmup: 0, floor: 0.0 }
    }

    /// Always 1.
    pub fn constant() -> Schedule {
        Schedule::new(Form::Constant, u64::MAX)
    }

    /// `f + (1 - f) (1 - (s - W) / (S - W))`
    pub fn linear(total: u64) -> Schedule {
        Schedule::new(Form::Linear, total)
    }

    /// `f + (1 - f) (1 + cos(pi (s - W) / (S - W))) / 2` (Loshchilov and Hutter 2017).
    pub fn cosine(total: u64) -> Schedule {
        Schedule::new(Form::Cosine, total)
    }

    /// `max(f, 1 / sqrt((s + 1) / (W + 1)))`
    pub fn inverse_sqrt() -> Schedule {
        Schedule::new(Form::InverseSqrt, u64::MAX)
    }

    /// `d_model^-1/2 min(t^-1/2, t W^-3/2)` with `t = max(s, 1)` (Vaswani et al. 2017): the
    /// optimizer's rate is a plain multiplier here, about 1 to 5. The floor holds after warm-up.
    pub fn noam(d_model: u64, warmup: u64) -> Schedule {
        Schedule { warmup, ..Schedule::new(Form::Noam { d_model: d_model as f64 }, u64::MAX) }
    }

    /// 1 for `hold` steps after warm-up, then `max(f, (W / (s - hold))^rate)` (Kim et al. 2022,
    /// Squeezeformer): a `rate` of 0.5 falls as [`noam`](Self::noam) does. NeMo:
    /// `NoamHoldAnnealing`.
    pub fn noam_hold(warmup: u64, hold: u64, rate: f64) -> Schedule {
        let form = Form::NoamHold { hold: hold as f64, rate };
        Schedule { warmup, ..Schedule::new(form, u64::MAX) }
    }

    /// `f + (1 - f) (1 - (s - W) / (S - W))^power`. NeMo: `PolynomialDecayAnnealing`.
    pub fn polynomial(total: u64, power: f64) -> Schedule {
        Schedule::polynomial_hold(total, 0, power)
    }

    /// 1 for `hold` steps after warm-up, then as [`polynomial`](Self::polynomial) over the rest.
    /// NeMo: `PolynomialHoldDecayAnnealing`.
    pub fn polynomial_hold(total: u64, hold: u64, power: f64) -> Schedule {
        Schedule::new(Form::Polynomial { hold: hold as f64, power }, total)
    }

    /// `max(f, ((S - s) / (S - W))^2)`. NeMo: `SquareAnnealing`.
    pub fn square(total: u64) -> Schedule {
        Schedule::new(Form::Square, total)
    }

    /// `max(f, sqrt((S - s) / S))`: as in NeMo (`SquareRootAnnealing`), warm-up counts as done steps.
    pub fn square_root(total: u64) -> Schedule {
        Schedule::new(Form::SquareRoot, total)
    }

    /// Warm-up, stable, decay (Hu et al. 2024, MiniCPM): 1 until `decay` steps before `total`,
    /// then down to the floor along a straight line or another [`Schedule::cooldown`].
    pub fn wsd(total: u64, decay: u64) -> Schedule {
        Schedule::new(Form::Wsd { decay, cooldown: Cooldown::default() }, total)
    }

    /// Up from 1/25 to 1 over the first 30 % and down to 1/250000, both along half cosines
    /// (Smith and Topin 2018). PyTorch: `OneCycleLR(max_lr, total_steps)`. A warm-up comes
    /// before the cycle and takes its steps from it.
    pub fn one_cycle(total: u64) -> Schedule {
        Schedule::new(Form::OneCycle { rise: 0.3, start: 1.0 / 25.0, end: 1.0 / 25e4 }, total)
    }

    /// Rises in a straight line over the first `steps` steps.
    #[must_use]
    pub fn warmup(mut self, steps: u64) -> Schedule {
        self.warmup = steps;
        self
    }

    /// The factor below which the schedule does not fall after warm-up: `min_lr / lr`.
    #[must_use]
    pub fn floor(mut self, floor: f64) -> Schedule {
        self.floor = floor;
        self
    }

    /// The form of the decay of [`Schedule::wsd`]; nothing for other schedules.
    #[must_use]
    pub fn cooldown(mut self, form: Cooldown) -> Schedule {
        if let Form::Wsd { cooldown, .. } = &mut self.form {
            *cooldown = form;
        }
        self
    }

    /// How many steps it spans; `None` where it never ends.
    pub fn total(&self) -> Option<u64> {
        (self.total != u64::MAX).then_some(self.total)
    }

    /// The factor at step `step`, from 0.
    pub fn factor(&self, step: u64) -> f64 {
        self.value(step as f64)
    }

    /// The factor after a fraction of all steps, for training by the clock: 0 is the first step,
    /// 1 the end. Schedules without an end stay at their first step.
    pub fn at(&self, progress: f64) -> f64 {
        let progress = progress.clamp(0.0, 1.0);
        self.value(if self.total == u64::MAX { 0.0 } else { progress * self.total as f64 })
    }

    fn value(&self, s: f64) -> f64 {
        let (warmup, total) = (self.warmup as f64, self.total as f64);
        if let Form::Noam { d_model } = self.form {
            let t = s.max(1.0);
            let rising = if warmup > 0.0 { t * warmup.powf(-1.5) } else { f64::INFINITY };
            let factor = t.powf(-0.5).min(rising) / d_model.sqrt();
            return if s > warmup { factor.max(self.floor) } else { factor };
        }
        if s < warmup {
            return self.after(0.0, warmup) * (s + 1.0) / (warmup + 1.0);
        }
        if s >= total {
            return match self.form {
                Form::OneCycle { end, .. } => end.max(self.floor),
                _ => self.floor,
            };
        }
        self.after(s - warmup, warmup)
    }

    /// The factor `s` steps after warm-up.
    fn after(&self, s: f64, warmup: f64) -> f64 {
        let span = (self.total as f64 - warmup).max(1.0);
        let fall = |factor: f64| self.floor + (1.0 - self.floor) * factor;
        let half_cosine = |x: f64| (1.0 + (PI * x).cos()) / 2.0;
        match &self.form {
            Form::Constant => 1.0,
            Form::Linear => fall(1.0 - s / span),
            Form::Cosine => fall(half_cosine(s / span)),
            Form::InverseSqrt => ((warmup + 1.0) / (warmup + s + 1.0)).sqrt().max(self.floor),
            // Treated before.
            Form::Noam { .. } => 1.0,
            Form::NoamHold { hold, rate } => {
                let (from, to) = (warmup.powf(*rate).max(1.0), (warmup + s - hold).max(0.0).powf(*rate).max(1.0));
                if s < *hold { 1.0 } else { (from / to).min(1.0).max(self.floor) }
            }
            Form::Polynomial { hold, power } => {
                let x = ((s - hold) / (span - hold).max(1.0)).clamp(0.0, 1.0);
                fall((1.0 - x).powf(*power))
            }
            Form::Square => (1.0 - s / span).max(0.0).powi(2).max(self.floor),
            // The peak of the warm-up is 1.
            Form::SquareRoot if s == 0.0 && warmup > 0.0 => 1.0,
            Form::SquareRoot => (1.0 - (warmup + s) / self.total as f64).max(0.0).sqrt().max(self.floor),
            Form::Wsd { decay, cooldown } => {
                let decay = (*decay as f64).clamp(1.0, span);
                let x = ((s - (span - decay)) / decay).max(0.0);
                fall(match cooldown {
                    Cooldown::Linear => 1.0 - x,
                    Cooldown::OneMinusSqrt => 1.0 - x.sqrt(),
                    Cooldown::Cosine => half_cosine(x),
                })
            }
            Form::OneCycle { rise, start, end } => {
                // As PyTorch: the peak is at rise * S - 1, the end at S - 1.
                let (peak, last) = (rise * span - 1.0, span - 1.0);
                let between = |from: f64, to: f64, x: f64| to + (from - to) * half_cosine(x);
                let factor = if s <= peak {
                    between(*start, 1.0, s / peak)
                } else {
                    between(1.0, *end, ((s - peak) / (last - peak).max(1.0)).min(1.0))
                };
                factor.max(self.floor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-14, "{found} is not {expected}");
    }

    #[test]
    fn warm_up_is_linear_and_never_zero() {
        for schedule in [Schedule::constant(), Schedule::linear(100), Schedule::cosine(100), Schedule::inverse_sqrt()] {
            let schedule = schedule.warmup(4);
            for (s, factor) in [0.2, 0.4, 0.6, 0.8, 1.0].into_iter().enumerate() {
                close(schedule.factor(s as u64), factor);
            }
        }
    }

    #[test]
    fn straight_lines_and_cosines_reach_the_floor() {
        let linear = Schedule::linear(110).warmup(10).floor(0.2);
        close(linear.factor(10), 1.0);
        close(linear.factor(60), 0.6);
        close(linear.factor(110), 0.2);
        close(linear.factor(10_000), 0.2);
        let cosine = Schedule::cosine(110).warmup(10).floor(0.2);
        close(cosine.factor(10), 1.0);
        close(cosine.factor(60), 0.6);
        // A quarter of the way: (1 + cos(pi/4)) / 2
        close(cosine.factor(35), 0.2 + 0.8 * (1.0 + 0.5f64.sqrt()) / 2.0);
        close(cosine.factor(110), 0.2);
    }

    #[test]
    fn roots() {
        let schedule = Schedule::inverse_sqrt().warmup(3).floor(0.1);
        close(schedule.factor(15), 0.5);
        close(schedule.factor(63), 0.25);
        close(schedule.factor(1_000_000), 0.1);
    }

    #[test]
    fn noam_is_the_formula_of_the_paper() {
        let schedule = Schedule::noam(256, 100);
        close(schedule.factor(0), schedule.factor(1));
        close(schedule.factor(1), 1.0 / (16.0 * 1000.0));
        close(schedule.factor(100), 1.0 / (16.0 * 10.0));
        close(schedule.factor(400), 1.0 / (16.0 * 20.0));
        close(schedule.floor(1e-3).factor(1_000_000_000), 1e-3);
    }

    #[test]
    fn stable_then_decay() {
        let schedule = Schedule::wsd(100, 20).warmup(10);
        close(schedule.factor(10), 1.0);
        close(schedule.factor(80), 1.0);
        close(schedule.factor(85), 0.75);
        close(schedule.clone().cooldown(Cooldown::OneMinusSqrt).factor(85), 0.5);
        close(schedule.clone().cooldown(Cooldown::Cosine).floor(0.5).factor(90), 0.75);
        close(schedule.factor(100), 0.0);
    }

    /// Values of `torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=11)` by its
    /// formula: initial 0.04, peak after 0.3 * 11 - 1 = 2.3 steps, last step 10.
    #[test]
    fn one_cycle() {
        let schedule = Schedule::one_cycle(11);
        close(schedule.factor(0), 0.04);
        close(schedule.factor(1), 1.0 + (0.04 - 1.0) * (1.0 + (PI / 2.3).cos()) / 2.0);
        close(schedule.factor(3), 4e-6 + (1.0 - 4e-6) * (1.0 + (PI * 0.7 / 7.7).cos()) / 2.0);
        close(schedule.factor(10), 4e-6);
        close(schedule.factor(99), 4e-6);
    }

    /// NeMo's formulas (`nemo/core/optim/lr_scheduler.py`) for a rate of 1: `(s, W, H, S)` are step,
    /// warm-up, hold and end.
    #[test]
    fn the_schedules_of_speech_recipes() {
        let (w, h, total, power, min) = (10.0, 45.0, 100.0, 2.0, 0.02);
        let rising = |s: f64| (s + 1.0) / (w + 1.0);
        let hold = Schedule::polynomial_hold(100, 45, power).warmup(10).floor(min);
        let plain = Schedule::polynomial(100, power).warmup(10).floor(min);
        let square = Schedule::square(100).warmup(10).floor(min);
        let root = Schedule::square_root(100).warmup(10).floor(min);
        let noam = Schedule::noam_hold(10, 45, 0.5).floor(min);
        for step in 0..=200 {
            let s = f64::from(step);
            let expect = |after: f64| match s {
                s if s <= w => rising(s),
                s if s > total => min,
                _ => after,
            };
            let poly = |x: f64, all: f64| (1.0 - min) * (1.0 - (x / all).min(1.0)).powf(power) + min;
            let step = step as u64;
            close(hold.factor(step), expect(if s < w + h { 1.0 } else { poly(s - (w + h), total - (w + h)) }));
            close(plain.factor(step), expect(poly(s - w, total - w)));
            close(square.factor(step), expect(((total - s) / (total - w)).powi(2).max(min)));
            close(root.factor(step), expect(((total - s).max(0.0) / total).sqrt().max(min)));
            let falling = w.sqrt().max(1.0) / (s - h).max(0.0).sqrt().max(1.0);
            close(
                noam.factor(step),
                if s <= w {
                    rising(s)
                } else if s < w + h {
                    1.0
                } else {
                    falling.max(min)
                },
            );
        }
    }

    #[test]
    fn by_the_clock() {
        let schedule = Schedule::cosine(1000);
        close(schedule.at(0.5), 0.5);
        close(schedule.at(2.0), 0.0);
        close(Schedule::constant().at(0.7), 1.0);
    }

    /// Degenerate settings give finite factors.
    #[test]
    fn short_spans() {
        for total in 0..4 {
            for warmup in 0..4 {
                let forms = [Schedule::linear(total), Schedule::cosine(total), Schedule::wsd(total, 9)];
                let polynomials = [Schedule::polynomial(total, 2.0), Schedule::polynomial_hold(total, 2, 0.5)];
                let others =
                    [Schedule::square(total), Schedule::square_root(total), Schedule::noam_hold(warmup, 1, 1.0)];
                let others = others.into_iter().chain(polynomials).chain([Schedule::one_cycle(total)]);
                for schedule in forms.into_iter().chain(others) {
                    let schedule = schedule.warmup(warmup);
                    for s in 0..6 {
                        let factor = schedule.factor(s);
                        assert!((0.0..=1.0).contains(&factor), "{schedule:?} gives {factor} at {s}");
                    }
                }
            }
        }
    }
}
