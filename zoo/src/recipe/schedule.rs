//! `sched`: learning rates under NeMo's names.

use super::{Keys, RecipeError};
use mobilis_runtime::train::Schedule;

/// The names that are known: NeMo's, and `constant`.
const NAMES: [&str; 12] = [
    "constant",
    "WarmupPolicy",
    "WarmupHoldPolicy",
    "WarmupAnnealing",
    "CosineAnnealing",
    "SquareAnnealing",
    "SquareRootAnnealing",
    "PolynomialDecayAnnealing",
    "PolynomialHoldDecayAnnealing",
    "InverseSquareRootAnnealing",
    "NoamAnnealing",
    "NoamHoldAnnealing",
];

/// The schedule that a `sched` section names, over `total` steps, for a rate of `lr`. Its keys are NeMo's:
/// `warmup_steps` or `warmup_ratio`, `hold_steps` or `hold_ratio`, `min_lr`, `power`, `d_model`,
/// `decay_rate`, `max_steps`.
///
/// # Errors
/// Keys that the schedule does not have, both of a pair, values out of range.
pub fn schedule(keys: &mut Keys, lr: f64, total: u64) -> Result<Schedule, RecipeError> {
    let name = keys.choice("name", &NAMES)?;
    // Lightning's, which watches a value for another kind of schedule.
    keys.without_effect(&["monitor", "reduce_on_plateau", "interval", "frequency", "iters_per_batch", "last_epoch"]);
    // NeMo writes -1 where it is to be computed.
    let total = match keys.get::<f64>("max_steps")? {
        Some(steps) if steps > 0.0 => steps as u64,
        _ => total,
    };
    let warmup = span(keys, "warmup", total)?.unwrap_or(0);
    let hold = match name {
        "WarmupHoldPolicy" | "PolynomialHoldDecayAnnealing" | "NoamHoldAnnealing" => span(keys, "hold", total)?,
        _ => None,
    };
    let power = match name {
        "PolynomialDecayAnnealing" | "PolynomialHoldDecayAnnealing" => {
            keys.without_effect(&["cycle"]);
            keys.or("power", 1.0)?
        }
        _ => 1.0,
    };
    let least = match name {
        "constant" => 0.0,
        // NeMo's default.
        "SquareAnnealing" => keys.or("min_lr", 1e-5)?,
        _ => keys.or("min_lr", 0.0)?,
    };
    if !(0.0..=lr).contains(&least) {
        return Err(keys.fault("min_lr", format!("is {least}; it must be at least 0 and at most the rate, {lr}")));
    }
    let schedule = match name {
        "constant" | "WarmupPolicy" | "WarmupHoldPolicy" => Schedule::constant(),
        "WarmupAnnealing" => Schedule::linear(total),
        "CosineAnnealing" => Schedule::cosine(total),
        "SquareAnnealing" => Schedule::square(total),
        "SquareRootAnnealing" => Schedule::square_root(total),
        "PolynomialDecayAnnealing" => Schedule::polynomial(total, power),
        "PolynomialHoldDecayAnnealing" => Schedule::polynomial_hold(total, hold.unwrap_or(0), power),
        "InverseSquareRootAnnealing" => Schedule::inverse_sqrt(),
        "NoamAnnealing" => Schedule::noam(keys.required::<u64>("d_model")?.max(1), warmup),
        _ => {
            let rate = keys.or("decay_rate", 0.5)?;
            if warmup == 0 {
                return Err(keys.fault("warmup_steps", "must be at least 1 for NoamHoldAnnealing"));
            }
            Schedule::noam_hold(warmup, hold.unwrap_or(0), rate)
        }
    };
    let floor = if lr > 0.0 { least / lr } else { 0.0 };
    Ok(schedule.warmup(warmup).floor(floor))
}

/// `<what>_steps`, or `<what>_ratio` of all steps.
fn span(keys: &mut Keys, what: &str, total: u64) -> Result<Option<u64>, RecipeError> {
    let (steps, ratio) = (format!("{what}_steps"), format!("{what}_ratio"));
    match (keys.get::<u64>(&steps)?, keys.get::<f64>(&ratio)?) {
        (Some(_), Some(_)) => Err(keys.fault(&ratio, format!("and `{steps}` are both given: one is expected"))),
        (_, Some(share)) if !(0.0..=1.0).contains(&share) => {
            Err(keys.fault(&ratio, format!("is {share}; a share of all steps, 0 to 1, is expected")))
        }
        (steps, ratio) => Ok(steps.or(ratio.map(|share| (share * total as f64) as u64))),
    }
}
