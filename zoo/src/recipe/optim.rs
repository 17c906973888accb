//! `optim`: optimizers under NeMo's and PyTorch's names, with their defaults.

use super::schedule::schedule;
use super::{Keys, RecipeError};
use mobilis_runtime::train::{Adam, AdamW, Lion, NovoGrad, Optimizer, Schedule, Sgd};

/// The names that are known.
const NAMES: [&str; 5] = ["adamw", "adam", "sgd", "novograd", "lion"];

/// The optimizer that an `optim` section names, and its `sched`, for `total` steps.
///
/// | name | keys beside `lr`, `weight_decay` |
/// |---|---|
/// | `adamw`, `adam` | `betas`, `eps` |
/// | `sgd` | `momentum`, `dampening`, `nesterov` |
/// | `novograd` | `betas`, `eps`, `grad_averaging`, `amsgrad`, `luc`, `luc_trust` |
/// | `lion` | `betas` |
///
/// # Errors
/// Keys that the optimizer does not have, values out of its range.
pub fn optimizer(keys: &mut Keys, total: u64) -> Result<(Box<dyn Optimizer>, Schedule), RecipeError> {
    let name = keys.choice("name", &NAMES)?;
    let lr = keys.required::<f64>("lr")?;
    let decay = keys.or("weight_decay", if name == "adamw" { 0.01 } else { 0.0 })?;
    let optimizer: Box<dyn Optimizer> = match name {
        "adamw" => {
            let ((b1, b2), eps) = moments(keys, [0.9, 0.999])?;
            Box::new(AdamW::new(lr).betas(b1, b2).eps(eps).weight_decay(decay))
        }
        "adam" => {
            let ((b1, b2), eps) = moments(keys, [0.9, 0.999])?;
            Box::new(Adam::new(lr).betas(b1, b2).eps(eps).weight_decay(decay))
        }
        "sgd" => {
            let (momentum, dampening) = (keys.or("momentum", 0.0)?, keys.or("dampening", 0.0)?);
            let sgd = Sgd::new(lr).momentum(momentum).dampening(dampening).weight_decay(decay);
            Box::new(if keys.or("nesterov", false)? { sgd.nesterov() } else { sgd })
        }
        "novograd" => {
            let ((b1, b2), eps) = moments(keys, [0.95, 0.98])?;
            let mut novograd = NovoGrad::new(lr).betas(b1, b2).eps(eps).weight_decay(decay);
            if keys.or("grad_averaging", false)? {
                novograd = novograd.averaging();
            }
            if keys.or("amsgrad", false)? {
                novograd = novograd.amsgrad();
            }
            let (bounded, trust) = (keys.or("luc", false)?, keys.or("luc_trust", 1e-3)?);
            Box::new(if bounded { novograd.clipped(trust) } else { novograd })
        }
        _ => {
            let (b1, b2) = betas(keys, [0.9, 0.99])?;
            Box::new(Lion::new(lr).betas(b1, b2).weight_decay(decay))
        }
    };
    optimizer.validate().map_err(|fault| keys.fault("name", format!("{name}: {fault}")))?;
    let schedule = keys.optional("sched", |keys| schedule(keys, lr, total))?.unwrap_or_default();
    Ok((optimizer, schedule))
}

fn moments(keys: &mut Keys, default: [f64; 2]) -> Result<((f64, f64), f64), RecipeError> {
    Ok((betas(keys, default)?, keys.or("eps", 1e-8)?))
}

fn betas(keys: &mut Keys, default: [f64; 2]) -> Result<(f64, f64), RecipeError> {
    match keys.or("betas", default.to_vec())?[..] {
        [first, second] => Ok((first, second)),
        _ => Err(keys.fault("betas", "are expected to be two numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::document::{parse, resolve};

    fn of(yaml: &str) -> Result<(Box<dyn Optimizer>, Schedule), String> {
        let document = resolve(parse(yaml, "yaml")?, &[]).map_err(|e| e.to_string())?;
        let mut keys = Keys::new(document).map_err(|e| e.to_string())?;
        let built = keys.section("optim", |k| optimizer(k, 1000)).map_err(|e| e.to_string())?;
        keys.finish().map_err(|e| e.to_string())?;
        Ok(built)
    }

    /// MatchboxNet's and Conformer's sections as NeMo ships them.
    #[test]
    fn sections_of_nemo() {
        let (optimizer, schedule) = of(
            "optim:\n  name: novograd\n  lr: 0.05\n  betas: [0.95, 0.5]\n  weight_decay: 0.001\n  sched:\n    monitor: val_loss\n    \
             reduce_on_plateau: false\n    name: \"PolynomialHoldDecayAnnealing\"\n    power: 2.0\n    warmup_ratio: 0.05\n    \
             hold_ratio: 0.45\n    min_lr: 0.001\n    last_epoch: -1\n",
        )
        .unwrap();
        assert_eq!((optimizer.name(), optimizer.learning_rate(), optimizer.decay()), ("NovoGrad", 0.05, 0.001));
        assert_eq!(schedule, Schedule::polynomial_hold(1000, 450, 2.0).warmup(50).floor(0.02));
        let (optimizer, schedule) = of(
            "optim: {name: adamw, lr: 2.0, betas: [0.9, 0.98], weight_decay: 1e-3, sched: {name: NoamAnnealing, d_model: 512, \
             warmup_steps: 10000, warmup_ratio: null, min_lr: 1e-6}}",
        )
        .unwrap();
        assert_eq!((optimizer.name(), optimizer.decay()), ("AdamW", 1e-3));
        assert_eq!(schedule, Schedule::noam(512, 10000).warmup(10000).floor(5e-7));
    }

    #[test]
    fn faults() {
        for (yaml, says) in [
            ("optim: {lr: 1, name: novogard}", "did you mean `novograd`"),
            ("optim: {name: sgd}", "`optim.lr` is missing"),
            ("optim: {name: sgd, lr: 1, betas: [1, 2]}", "`optim.betas` is not known"),
            ("optim: {name: adam, lr: 1, betas: [1]}", "two numbers"),
            ("optim: {name: adam, lr: -1}", "must be at least 0"),
            ("optim: {name: adam, lr: 1, sched: {name: Cosine}}", "CosineAnnealing"),
            ("optim: {name: adam, lr: 1, sched: {name: CosineAnnealing, warmup_steps: 1, warmup_ratio: 0.1}}", "both"),
            ("optim: {name: adam, lr: 1, sched: {name: CosineAnnealing, min_lr: 2}}", "at most the rate"),
            (
                "optim: {name: adam, lr: 1, sched: {name: CosineAnnealing, power: 2}}",
                "`optim.sched.power` is not known",
            ),
            ("optim: {name: adam, lr: 1, sched: {name: NoamAnnealing}}", "`optim.sched.d_model` is missing"),
        ] {
            let error = of(yaml).map(|_| ()).unwrap_err();
            assert!(error.contains(says), "{yaml}: {error}");
        }
    }
}
