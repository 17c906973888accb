//! How the inputs of a chain lie over its positions: dimensions joined where no input keeps them apart, the
//! vectors that all can be read in, and what the kernel must be told.

use super::{Input, Op, Output, Step};
use crate::Ptr;

/// The distance of an input along a dimension.
pub(super) struct Stride {
    pub step: usize,
    /// Whether the text must ask for it: it is neither 0 nor known.
    pub argument: bool,
}

/// How an input is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// As the outputs lie.
    Linear,
    /// Vectors whose places follow from coordinates.
    Vectors,
    /// One value for a whole vector.
    Repeated,
    /// Value by value.
    Strided,
}

/// An input, or the positions that an iota gives.
pub(super) struct Place {
    /// The input's address; nothing for positions.
    pub at: Option<Ptr>,
    pub class: Class,
    pub strides: Vec<Stride>,
}

pub(super) struct Plan {
    /// The sizes of the joined dimensions, at least one.
    pub sizes: Vec<usize>,
    /// Inputs, then iotas in the order of the steps.
    pub places: Vec<Place>,
    /// Positions of a vector.
    pub vector: usize,
    /// Vectors of a thread.
    pub unroll: usize,
    /// Whether positions need 64 bits.
    pub wide: bool,
    /// Whether the last vector may be cut off.
    pub ragged: bool,
}

pub(super) fn plan(inputs: &[Input], steps: &[Step], outputs: &[Output], sizes: &[usize]) -> Plan {
    // Positions along a dimension are an input that holds its own place.
    let iotas = steps.iter().filter_map(|s| match s.op {
        Op::Iota(axis) => Some((0..sizes.len()).map(|d| (d == axis) as usize).collect::<Vec<_>>()),
        _ => None,
    });
    let strides: Vec<Vec<usize>> = inputs.iter().map(|i| i.strides.clone()).chain(iotas).collect();
    let (sizes, strides) = join(sizes, strides);
    let total: usize = sizes.iter().product();
    let last = sizes.len() - 1;
    let ragged = last == 0;
    let kinds = |i: usize| inputs.get(i).map_or(4, |i| i.kind.bytes());
    let at = |i: usize| inputs.get(i).map_or(0, |i| i.at.0 as usize);
    let aligned = |p: usize, bytes: usize| p.is_multiple_of(4 * bytes);
    let outputs_fit = outputs.iter().all(|o| aligned(o.1.0 as usize, steps[o.0 as usize].kind.bytes()));
    let vector = if outputs_fit && (ragged || sizes[last].is_multiple_of(4)) { 4 } else { 1 };
    let linear = contiguous(&sizes);
    let places: Vec<Place> = strides
        .iter()
        .enumerate()
        .map(|(i, s)| {
            let input = inputs.get(i);
            let even = aligned(at(i), kinds(i)) && s[..last].iter().all(|s| s % 4 == 0);
            let class = match s[last] {
                0 => Class::Repeated,
                1 if input.is_some() && *s == linear && (vector == 1 || even) => Class::Linear,
                1 if input.is_some() && !ragged && (vector == 1 || even) => Class::Vectors,
                _ => Class::Strided,
            };
            let stride = |(d, step): (usize, &usize)| Stride {
                step: *step,
                argument: class != Class::Linear && *step != 0 && (d < last || class == Class::Strided),
            };
            Place { at: input.map(|i| i.at), class, strides: s.iter().enumerate().map(stride).collect() }
        })
        .collect();
    let reach = |p: &Place| p.strides.iter().zip(&sizes).map(|(s, n)| s.step * (n - 1)).sum::<usize>();
    let wide = total >= 1 << 31 || places.iter().any(|p| reach(p) >= 1 << 31);
    // Registers for what is loaded ahead: at most 64.
    let unroll = if vector * inputs.len() <= 8 { 8 / vector } else { (64 / (vector * inputs.len())).clamp(1, 2) };
    Plan { sizes, places, vector, unroll, wide, ragged }
}

pub(super) fn contiguous(sizes: &[usize]) -> Vec<usize> {
    (0..sizes.len()).map(|d| sizes[d + 1..].iter().product()).collect()
}

/// Drops dimensions of one index and joins neighbours that every input walks through as one.
pub(super) fn join(sizes: &[usize], strides: Vec<Vec<usize>>) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut to: Vec<usize> = vec![];
    let mut out: Vec<Vec<usize>> = vec![vec![]; strides.len()];
    for (d, n) in sizes.iter().copied().enumerate().filter(|d| d.1 != 1) {
        let joins = !to.is_empty() && strides.iter().zip(&out).all(|(s, o)| o[o.len() - 1] == s[d] * n);
        if joins {
            *to.last_mut().expect("not empty") *= n;
            strides.iter().zip(&mut out).for_each(|(s, o)| *o.last_mut().expect("as long as `to`") = s[d]);
        } else {
            to.push(n);
            strides.iter().zip(&mut out).for_each(|(s, o)| o.push(s[d]));
        }
    }
    if to.is_empty() {
        to.push(1);
        out.iter_mut().for_each(|o| o.push(0));
    }
    (to, out)
}

/// Multiplier and shift of a divisor, for `quotient` of `chain.cuh`.
pub(super) fn magic(d: usize) -> (u32, u32) {
    let d = d.clamp(1, 1 << 31) as u64;
    let shift = 64 - (d - 1).leading_zeros().min(64);
    let shift = if d == 1 { 0 } else { shift };
    let multiplier = ((1u64 << 32) * ((1u64 << shift) - d)) / d + 1;
    (multiplier as u32, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_exact() {
        let quotient = |n: u32, (m, s): (u32, u32)| ((((n as u64 * m as u64) >> 32) + n as u64) >> s) as u32;
        for d in [1, 2, 3, 5, 7, 12, 33, 64, 641, 4096, 50_257, 65_535, 65_536, 1 << 30, (1 << 31) - 1] {
            for n in [0, 1, 2, d - 1, d, d + 1, 2 * d - 1, 12_345_678, (1 << 31) - 1] {
                let n = n.min((1 << 31) - 1);
                assert_eq!(quotient(n as u32, magic(d)), (n / d) as u32, "{n} by {d}");
            }
        }
    }

    #[test]
    fn dimensions_join_where_all_inputs_agree() {
        let (sizes, strides) = join(&[2, 3, 1, 4], vec![vec![12, 4, 4, 1], vec![0, 4, 9, 1]]);
        assert_eq!((sizes, strides), (vec![2, 12], vec![vec![12, 1], vec![0, 1]]));
        assert_eq!(join(&[1, 1], vec![vec![5, 5]]), (vec![1], vec![vec![0]]));
    }
}
