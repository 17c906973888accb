//! Sums over paths, as losses of sequences compute them: logarithms in `f64` (a path of a thousand
//! steps has a probability far below the least number, and its logarithm more digits than `f32` has),
//! kept in scratch memory of `f32`.

/// The logarithm of what no path reaches.
pub(super) const NEVER: f64 = f64::NEG_INFINITY;

/// `log(exp(a) + exp(b))`
#[inline]
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (most, least) = if a > b { (a, b) } else { (b, a) };
    if least == NEVER { most } else { most + (least - most).exp().ln_1p() }
}

/// `f64`s in memory for `f32`, two for each.
pub(super) struct Wide<'a>(&'a mut [[f32; 2]]);

impl<'a> Wide<'a> {
    pub fn new(room: &'a mut [f32]) -> Self {
        Wide(room.as_chunks_mut().0)
    }

    #[inline]
    pub fn get(&self, i: usize) -> f64 {
        let [high, low] = self.0[i];
        f64::from_bits((high.to_bits() as u64) << 32 | low.to_bits() as u64)
    }

    #[inline]
    pub fn set(&mut self, i: usize, v: f64) {
        let bits = v.to_bits();
        self.0[i] = [f32::from_bits((bits >> 32) as u32), f32::from_bits(bits as u32)];
    }
}

/// A length from outside, as many as there are at most.
#[inline]
pub(super) fn length(of: i32, most: usize) -> usize {
    usize::try_from(of).unwrap_or(0).min(most)
}

/// Whether the labels of every sequence that count are classes other than blank.
///
/// # Errors
/// The first that is not.
pub(super) fn check_labels(
    targets: &[i32],
    counts: &[i32],
    labels: usize,
    (classes, blank): (usize, usize),
) -> Result<(), String> {
    if blank >= classes {
        return Err(format!("blank is class {blank}, there are {classes} classes"));
    }
    for (b, count) in counts.iter().enumerate() {
        let of = &targets[b * labels..][..length(*count, labels)];
        if let Some(l) = of.iter().find(|l| **l < 0 || **l as usize >= classes || **l as usize == blank) {
            return Err(format!("label {l} of sequence {b} is not one of {classes} classes without blank, {blank}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_bit() {
        let mut room = [0f32; 7];
        let mut wide = Wide::new(&mut room);
        for (i, v) in [std::f64::consts::PI, NEVER, -1_234.567_890_123_456].into_iter().enumerate() {
            wide.set(i, v);
            assert_eq!(wide.get(i).to_bits(), v.to_bits());
        }
    }

    #[test]
    fn sums() {
        assert_eq!(log_add(NEVER, NEVER), NEVER);
        assert_eq!(log_add(-3.0, NEVER), -3.0);
        assert!(log_add(f64::NAN, NEVER).is_nan() && log_add(NEVER, f64::NAN).is_nan());
        assert!((log_add(0.25f64.ln(), 0.5f64.ln()) - 0.75f64.ln()).abs() < 1e-15);
    }
}
