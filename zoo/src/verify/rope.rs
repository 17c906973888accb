//! Rotary positions by themselves: frequencies, cosines and sines of every kind of scaling.
//!
//! `NAME.inv_freq` are the frequencies of the settings `NAME` in the folder's `meta.json`,
//! `NAME.cos` and `NAME.sin` the tables of the first `positions` positions, `[positions, head_dim]`
//! with each half the same.

use super::{ABSOLUTE, Check, Golden, OpenError, VerifyError};
use crate::llm::config::Config;
use mobilis_runtime::ops::rope::tables;
use mobilis_runtime::prelude::*;

/// The suffix of the names.
pub const SUFFIX: &str = ".inv_freq";

axes! {
    /// Positions from 0.
    Positions;
    /// Pairs of features.
    Pairs;
}

/// Everything that a golden file of rotary positions expects. `settings` is the folder's `meta.json`.
///
/// # Errors
/// Settings that are missing or make no sense.
pub fn checks(settings: &Config, golden: &Golden) -> Result<Vec<Check>, VerifyError> {
    let mut checks = vec![];
    for name in golden.names_ending(SUFFIX).iter().filter_map(|n| n.strip_suffix(SUFFIX)) {
        let config = settings.inner(name).ok_or_else(|| OpenError::from(settings.missing(name)))?;
        let rotary = config.rotary(None).map_err(OpenError::from)?;
        let positions = config.size("positions").map_err(OpenError::from)?;
        let frequencies = format!("{name}{SUFFIX}");
        let half = golden.sizes(&frequencies)?.first().copied().unwrap_or(0);
        let wrong = |_| OpenError::from(config.wrong("rope_parameters", "one divisor for each pair"));
        let (found, _) = rotary.frequencies(half, positions).map_err(wrong)?;
        checks.push(golden.compare_within(&frequencies, &[half], found.into_iter(), |l| ABSOLUTE * l)?);

        type Table = Tensor<(Positions, Pairs)>;
        let features = mobilis_runtime::Extent::constant(2 * half as u64);
        let program = Model::init((), 0).map_err(OpenError::from)?.compile(|_, at: Tensor<(Positions,), Index>| {
            let (cos, sin) = tables(&rotary, at.raw(), &features);
            (Table::from_raw(cos), Table::from_raw(sin))
        })?;
        let at = Array::<(Positions,), Index>::from_parts(&[positions], (0..positions as i32).collect());
        let (cos, sin) = program.run(&at)?;
        for (kind, table) in [("cos", cos), ("sin", sin)] {
            let both = |row: &[f32]| [row, row].concat();
            let values = table.data().chunks(half.max(1)).flat_map(both).map(f64::from);
            let sizes = [positions, 2 * half];
            checks.push(golden.compare_within(&format!("{name}.{kind}"), &sizes, values, |l| 1e-5 * l)?);
        }
    }
    Ok(checks)
}
