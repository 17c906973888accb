//! Whether a case computes what it says: before it is measured, places of its result, spread over all of it, are compared with
//! what they should be in `f64`, from operands as they lie on the device.
//!
//! A check gives by how much the worst place is off, in parts of what sums of so many random products, or a row of results,
//! are in size; a kernel that reads or writes a wrong place is off by about 1.

use mobilis_cuda::attention::{Operand, Problem};
use mobilis_cuda::gemm::{Element, Gemm};
use mobilis_cuda::{CudaError, Gpu, Plain, Ptr};

/// By how much a case is off, as its launches left the device.
pub type Check = Box<dyn Fn(&Gpu) -> Result<f64, CudaError>>;

/// Values on the device.
pub fn read<T: Plain + Default>(gpu: &Gpu, at: Ptr, count: usize) -> Result<Vec<T>, CudaError> {
    let mut values = vec![T::default(); count];
    gpu.read(at, &mut values)?;
    Ok(values)
}

/// Numbers on the device, the first of them `first` values from an address.
pub fn numbers(gpu: &Gpu, at: Ptr, element: Element, first: usize, count: usize) -> Result<Vec<f64>, CudaError> {
    let at = at.at(first * element.bytes());
    Ok(match element {
        Element::F32 => read::<f32>(gpu, at, count)?.into_iter().map(f64::from).collect(),
        Element::Bf16 => {
            let bits = read::<u16>(gpu, at, count)?.into_iter();
            bits.map(|b| f64::from(f32::from_bits(u32::from(b) << 16))).collect()
        }
        Element::F16 => read::<u16>(gpu, at, count)?.into_iter().map(|b| f64::from(half(b))).collect(),
        Element::E4M3 => {
            let all: Vec<f64> = (0..=255).map(|b| f64::from(e4m3(b))).collect();
            read::<u8>(gpu, at, count)?.into_iter().map(|b| all[usize::from(b)]).collect()
        }
        // The upper half of an f16.
        Element::E5M2 => read::<u8>(gpu, at, count)?.into_iter().map(|b| f64::from(half(u16::from(b) << 8))).collect(),
        Element::I8 => read::<i8>(gpu, at, count)?.into_iter().map(f64::from).collect(),
        Element::Q8_0 | Element::Q4_0 => vec![],
    })
}

fn half(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

fn e4m3(bits: u8) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match exponent {
        0 => fraction * 2f32.powi(-9),
        _ => (8.0 + fraction) * 2f32.powi(exponent - 10),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// Up to `most` of `n` places: the ends, and others spread between.
pub fn places(n: usize, most: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..most.min(n)).map(|i| i * 0x9E37_79B1 % n).collect();
    all.extend([0, n - 1]);
    all.sort_unstable();
    all.dedup();
    all
}

/// What was found beside what is expected, by a size.
pub fn off(found: f64, expected: f64, size: f64) -> f64 {
    let off = (found - expected).abs() / size.max(1e-30);
    // A NaN is the worst of all.
    if off.is_nan() { f64::INFINITY } else { off }
}

/// The distance of two rows by the length of the expected one.
pub fn apart(found: &[f64], expected: &[f64]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = length(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    off(difference, 0.0, length(&mut expected.iter().copied()))
}

/// The columns of `b` as rows of `k`, of weights `[n, k]`.
fn column(gpu: &Gpu, g: &Gemm, j: usize) -> Result<Vec<f64>, CudaError> {
    let blocks = g.k / 32;
    let bytes = match g.b.element {
        Element::Q8_0 => 32,
        Element::Q4_0 => 16,
        element => return numbers(gpu, g.b.at, element, j * g.b.col, g.k),
    };
    let scales = numbers(gpu, g.planes, Element::F16, j * blocks, blocks)?;
    let all = read::<u8>(gpu, g.b.at.at(j * blocks * bytes), blocks * bytes)?;
    let block = |(bytes, scale): (&[u8], &f64)| -> Vec<f64> {
        let whole: Vec<i8> = match g.b.element {
            Element::Q8_0 => bytes.iter().map(|b| *b as i8).collect(),
            _ => bytes.iter().map(|b| (b & 15) as i8 - 8).chain(bytes.iter().map(|b| (b >> 4) as i8 - 8)).collect(),
        };
        whole.iter().map(|w| f64::from(*w) * scale).collect()
    };
    Ok(all.chunks_exact(bytes).zip(&scales).flat_map(block).collect())
}

/// A product of rows `[m, k]` and weights `[n, k]` whose epilogue has factors for columns at most, at eight rows of 64 places.
pub fn product(g: Gemm) -> Check {
    Box::new(move |gpu| {
        let columns = places(g.n, 62).into_iter().map(|j| Ok((j, column(gpu, &g, j)?)));
        let columns = columns.collect::<Result<Vec<_>, CudaError>>()?;
        let blocks = g.k.div_ceil(128);
        let all = |at: Ptr, [far, step]: [usize; 2], lines: usize| match at {
            Ptr::NULL => Ok(vec![]),
            at => numbers(gpu, at, Element::F32, 0, (lines - 1) * far + (blocks - 1) * step + 1),
        };
        let factors = match &g.blocks {
            Some(s) => {
                [all(s.a, s.a_far, g.m)?, all(s.b, s.b_far, if s.each_column { g.n } else { g.n.div_ceil(128) })?]
            }
            None => [vec![], vec![]],
        };
        let mut worst = 0f64;
        for i in places(g.m, 6) {
            let row = numbers(gpu, g.a.at, g.a.element, i * g.a.row, g.k)?;
            let results = numbers(gpu, g.c.at, g.c.element, i * g.c.row, g.n)?;
            for (j, column) in &columns {
                let factor = match g.epilogue.column_scales {
                    Ptr::NULL => 1.0,
                    scales => numbers(gpu, scales, Element::F32, *j, 1)?[0],
                };
                let (mut sum, mut square) = (0.0, 0.0);
                for (l, (a, b)) in row.chunks(128).zip(column.chunks(128)).enumerate() {
                    let factor = factor
                        * match &g.blocks {
                            None => 1.0,
                            Some(s) => {
                                let group = if s.each_column { *j } else { j / 128 };
                                let at = |of: usize, line: usize, [far, step]: [usize; 2]| {
                                    factors[of].get(line * far + l * step).copied().unwrap_or(1.0)
                                };
                                at(0, i, s.a_far) * at(1, group, s.b_far)
                            }
                        };
                    for (a, b) in a.iter().zip(b) {
                        let one = a * b * factor;
                        sum += one;
                        square += one * one;
                    }
                }
                worst = worst.max(off(results[*j], sum, square.sqrt()));
            }
        }
        Ok(worst)
    })
}

/// One row of attention: its weights, and what they make of values.
struct Row {
    weights: Vec<f64>,
    out: Vec<f64>,
}

/// The arrays of an attention: queries and keys of one type, and values.
#[derive(Clone, Copy)]
pub struct Arrays {
    pub types: [Element; 2],
    pub q: Operand,
    pub k: Operand,
    pub v: Operand,
}

/// `n` lines of `features` from position 0 of an example's head on.
fn lines(
    gpu: &Gpu,
    x: &Operand,
    e: Element,
    [b, h]: [usize; 2],
    n: usize,
    features: usize,
) -> Result<Vec<Vec<f64>>, CudaError> {
    // With what stands between them: one copy.
    let all = numbers(gpu, x.at, e, b * x.b + h * x.h, (n - 1) * x.t + features)?;
    Ok((0..n).map(|t| all[t * x.t..][..features].to_vec()).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What query `i` sees of keys and values of its head.
fn row(p: &Problem, query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], i: usize) -> Row {
    let seen = if p.causal { (p.sizes.s + i + 1 - p.sizes.t).min(keys.len()) } else { keys.len() };
    let scores: Vec<f64> = keys[..seen].iter().map(|k| dot(query, k) * f64::from(p.scale)).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    let mut out = vec![0.0; values[0].len()];
    for (w, v) in weights.iter().zip(values) {
        out.iter_mut().zip(v).for_each(|(o, v)| *o += w * v);
    }
    Row { weights, out }
}

/// Attention's result `out [b t heads e]` of type `to`, at a few rows: causal or not, no masks.
pub fn attention(p: Problem, x: Arrays, out: Ptr, to: Element) -> Check {
    Box::new(move |gpu| {
        let (n, heads, mut worst) = (p.sizes, p.sizes.g * p.sizes.r, 0f64);
        for (b, h) in [(0, 0), (n.b - 1, heads - 1)] {
            let ([e, of_values], own) = (x.types, [b, h / n.r]);
            let (keys, values) = (lines(gpu, &x.k, e, own, n.s, n.d)?, lines(gpu, &x.v, of_values, own, n.s, n.e)?);
            for i in places(n.t, 3) {
                let query = numbers(gpu, x.q.at, e, b * x.q.b + i * x.q.t + h * x.q.h, n.d)?;
                let expected = row(&p, &query, &keys, &values, i).out;
                let found = numbers(gpu, out, to, ((b * n.t + i) * heads + h) * n.e, n.e)?;
                worst = worst.max(apart(&found, &expected));
            }
        }
        Ok(worst)
    })
}

/// Its gradients by a row of queries and one of values, of the last head, for the given gradient `g` (all of one type, in order).
pub fn gradients(p: Problem, x: Arrays, g: Operand, dq: Ptr, dv: Ptr) -> Check {
    Box::new(move |gpu| {
        let (n, e, heads) = (p.sizes, x.types[0], p.sizes.g * p.sizes.r);
        let (b, h) = (n.b - 1, heads - 1);
        let (keys, values) =
            (lines(gpu, &x.k, e, [b, h / n.r], n.s, n.d)?, lines(gpu, &x.v, e, [b, h / n.r], n.s, n.e)?);
        let (queries, given) = (lines(gpu, &x.q, e, [b, h], n.t, n.d)?, lines(gpu, &g, e, [b, h], n.t, n.e)?);
        let i = n.t / 2;
        let of = row(&p, &queries[i], &keys, &values, i);
        let delta = dot(&given[i], &of.out);
        let mut by_query = vec![0.0; n.d];
        for ((w, k), v) in of.weights.iter().zip(&keys).zip(&values) {
            let by_score = w * (dot(&given[i], v) - delta) * f64::from(p.scale);
            by_query.iter_mut().zip(k).for_each(|(d, k)| *d += by_score * k);
        }
        let found = numbers(gpu, dq, e, ((b * n.t + i) * heads + h) * n.d, n.d)?;
        let mut worst = apart(&found, &by_query);
        // Of heads that have their own values alone; the last keys, which few queries see.
        let j = n.s - n.t.min(n.s).min(48);
        if n.r == 1 {
            let mut by_value = vec![0.0; n.e];
            let first = if p.causal { (j + n.t).saturating_sub(n.s) } else { 0 };
            for i in first..n.t {
                let w = row(&p, &queries[i], &keys, &values, i).weights[j];
                by_value.iter_mut().zip(&given[i]).for_each(|(d, g)| *d += w * g);
            }
            let found = numbers(gpu, dv, e, ((b * n.s + j) * n.g + h) * n.e, n.e)?;
            worst = worst.max(apart(&found, &by_value));
        }
        Ok(worst)
    })
}

/// Rows `[rows, n]` of a result at `y`, each a function of its number.
pub fn rows(
    [count, n]: [usize; 2],
    y: Ptr,
    to: Element,
    of: impl Fn(&Gpu, usize) -> Result<Vec<f64>, CudaError> + 'static,
) -> Check {
    Box::new(move |gpu| {
        let mut worst = 0f64;
        for i in places(count, 14) {
            worst = worst.max(apart(&numbers(gpu, y, to, i * n, n)?, &of(gpu, i)?));
        }
        Ok(worst)
    })
}
