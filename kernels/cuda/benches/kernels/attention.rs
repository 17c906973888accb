//! Attention with 16,384 tokens in all and a model width of 2,048, as in FlashAttention's own figures.

use crate::check::{self, Arrays};
use crate::measure::{Case, Make, Operands, Peak};
use mobilis_cuda::attention::{
    Element as Half, Gradients, Kernels, Operand, Packed, Problem, Sizes, backward16, backward16_workspace, decode,
    decode_workspace, forward, forward_workspace, forward8, forward16, turn_values, turned_bytes,
};
use mobilis_cuda::gemm::Element;
use mobilis_cuda::{CudaError, Launch, Ptr};

/// Tokens of all examples.
const TOKENS: usize = 16384;
/// Features of all heads.
const WIDTH: usize = 2048;

pub fn cases() -> Vec<Case> {
    let mut all = vec![];
    for (d, causal, lengths) in
        [(128, true, &[2048, 4096, 8192, 16384][..]), (128, false, &[8192]), (64, true, &[8192])]
    {
        all.extend(
            lengths
                .iter()
                .map(|t| case(Sizes { b: TOKENS / t, t: *t, s: *t, g: WIDTH / d, r: 1, d, e: d }, causal, true)),
        );
    }
    all.extend([4096, 16384].map(|t| both(Sizes { b: TOKENS / t, t, s: t, g: WIDTH / 128, r: 1, d: 128, e: 128 })));
    // A step over a cache: 32 examples, 8 key-value heads of 4 query heads each.
    for half in [true, false] {
        all.push(case(Sizes { b: 32, t: 1, s: 4096, g: 8, r: 4, d: 128, e: 128 }, false, half));
    }
    all.push(case(Sizes { b: 4, t: 2048, s: 2048, g: 16, r: 1, d: 128, e: 128 }, true, false));
    all.extend([4096, 16384].map(|t| eight(Sizes { b: TOKENS / t, t, s: t, g: WIDTH / 128, r: 1, d: 128, e: 128 })));
    all.extend([false, true].map(uneven));
    all
}

/// Forward in e4m3, causal, with values turned beforehand, as in a cache of eight bits.
fn eight(n: Sizes) -> Case {
    let less = Sizes { b: 1, t: n.t.min(80), s: 96, g: 1, r: n.r, ..n };
    Case {
        name: format!("attention fp8 d{} causal {}x{}x{}", n.d, n.b, n.t, n.s),
        flops: (n.b * n.g * n.r * n.t * n.s * (n.d + n.e)) as f64,
        bytes: (n.b * n.g * (n.t * (n.d + 2 * n.e) + n.s * (n.d + n.e))) as f64,
        peak: Peak::Fp8,
        peer: None,
        make: [Box::new(move |o| eight_bits(o, n)), Box::new(move |o| eight_bits(o, less))],
    }
}

fn eight_bits(o: &mut Operands, n: Sizes) -> Result<Vec<Launch>, CudaError> {
    let info = o.gpu().info().clone();
    let problem = Problem { causal: true, ..Problem::new(n) };
    let q = Operand::packed(o.random(n.b * n.t * n.g * n.r * n.d, Element::E4M3)?, n.t, n.g * n.r, n.d);
    let k = Operand::packed(o.random(n.b * n.s * n.g * n.d, Element::E4M3)?, n.s, n.g, n.d);
    let v = Operand::packed(o.random(n.b * n.s * n.g * n.e, Element::Bf16)?, n.s, n.g, n.e);
    let ones = o.space(n.b * n.g * 4)?;
    o.gpu().write(ones, &vec![1f32; n.b * n.g])?;
    let turned = o.space(turned_bytes(&problem)?)?;
    o.gpu().run(&turn_values(&problem, Half::Bf16, v, ones, turned)?)?;
    let (out, lse) = (o.space(n.b * n.t * n.g * n.r * n.e * 2)?, o.space(4 * n.b * n.g * n.r * n.t)?);
    // Weights and values have three bits of fraction.
    let arrays = Arrays { types: [Element::E4M3, Element::Bf16], q, k, v };
    o.check(check::attention(problem, arrays, out, Element::Bf16), 0.1);
    forward8(&problem, &info, [q, k], turned, [ones; 3], out, lse)
}

/// Eight sequences of 18 to 3,788 tokens, 15,224 in all: padded with lengths, or packed one after another.
fn uneven(packed: bool) -> Case {
    let lengths: Vec<usize> = (0..8).map(|i| [2048 + i * 290, 2048 - i * 290][i % 2]).collect();
    let pairs: usize = lengths.iter().map(|n| n * n).sum();
    let tokens: usize = lengths.iter().sum();
    let small = vec![70, 1, 33];
    Case {
        name: format!("attention bf16 d128 causal {}", if packed { "packed 8 uneven" } else { "lengths 8 uneven" }),
        flops: (2 * pairs * WIDTH) as f64,
        bytes: (4 * tokens * WIDTH * 2) as f64,
        peak: Peak::Bf16,
        peer: None,
        make: [
            Box::new(move |o| uneven_launches(o, &lengths, WIDTH / 128, packed)),
            Box::new(move |o| uneven_launches(o, &small, 1, packed)),
        ],
    }
}

fn uneven_launches(o: &mut Operands, lengths: &[usize], g: usize, packed: bool) -> Result<Vec<Launch>, CudaError> {
    let (b, most, d) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0), 128);
    let total: usize = lengths.iter().sum();
    let rows = if packed { total } else { b * most };
    let mut operand = || -> Result<Operand, CudaError> {
        let x = Operand::packed(o.random(rows * g * d, Element::Bf16)?, most, g, d);
        Ok(Operand { b: if packed { 0 } else { x.b }, ..x })
    };
    let operands = [operand()?, operand()?, operand()?];
    let (out, lse) = (o.space(rows * g * d * 2)?, o.space(4 * rows * g)?);
    let starts = std::iter::once(0).chain(lengths.iter().scan(0, |at, n| {
        *at += *n as i32;
        Some(*at)
    }));
    let numbers: Vec<i32> = if packed { starts.collect() } else { lengths.iter().map(|n| *n as i32).collect() };
    let at = o.space(4 * numbers.len())?;
    o.gpu().write(at, &numbers)?;
    let mut problem = Problem { causal: true, ..Problem::new(Sizes { b, t: most, s: most, g, r: 1, d, e: d }) };
    if !packed {
        problem.lengths = at;
    }
    let of = packed.then_some(Packed { starts_q: at, starts_k: at, total_q: total, total_k: total });
    let info = o.gpu().info().clone();
    forward16(&problem, &info, Kernels::of(&info), Half::Bf16, operands, of, out, lse)
}

fn case(n: Sizes, causal: bool, half: bool) -> Case {
    let pairs = (n.b * n.g * n.r * n.t * n.s) as f64 * if causal { 0.5 } else { 1.0 };
    let values = n.b * (n.t * n.g * n.r * (n.d + n.e) + n.s * n.g * (n.d + n.e));
    let full: Make = Box::new(move |o| launches(o, n, causal, half));
    let less = Sizes { b: 1, t: n.t.min(80), s: 96, g: 1, r: n.r, ..n };
    let small: Make = Box::new(move |o| launches(o, less, causal, half));
    let kind = if half { "bf16" } else { "f32" };
    let mask = if causal { " causal" } else { "" };
    Case {
        name: format!("attention {kind} d{}{mask} {}x{}x{}", n.d, n.b, n.t, n.s),
        flops: 2.0 * pairs * (n.d + n.e) as f64,
        bytes: (values * if half { 2 } else { 4 }) as f64,
        // One row of queries is bound by the cache's bytes.
        peak: match (n.t, half) {
            (1, _) => Peak::None,
            (_, true) => Peak::Bf16,
            (_, false) => Peak::F32,
        },
        peer: None,
        make: [full, small],
    }
}

fn launches(o: &mut Operands, n: Sizes, causal: bool, half: bool) -> Result<Vec<Launch>, CudaError> {
    let element = if half { Element::Bf16 } else { Element::F32 };
    let heads = n.g * n.r;
    let q = Operand::packed(o.random(n.b * n.t * heads * n.d, element)?, n.t, heads, n.d);
    let k = Operand::packed(o.random(n.b * n.s * n.g * n.d, element)?, n.s, n.g, n.d);
    let v = Operand::packed(o.random(n.b * n.s * n.g * n.e, element)?, n.s, n.g, n.e);
    let (out, lse) = (o.space(n.b * n.t * heads * n.e * element.bytes())?, o.space(4 * n.b * heads * n.t)?);
    let problem = Problem { causal, ..Problem::new(n) };
    o.check(
        check::attention(problem, Arrays { types: [element; 2], q, k, v }, out, element),
        if half { 0.02 } else { 1e-4 },
    );
    let info = o.gpu().info().clone();
    if n.t == 1 {
        let element = if half { Half::Bf16 } else { Half::F32 };
        let workspace = o.space(decode_workspace(&problem, &info)?)?;
        return decode(&problem, &info, element, [q, k, v], None, out, lse, workspace);
    }
    if half {
        return forward16(&problem, &info, Kernels::of(&info), Half::Bf16, [q, k, v], None, out, lse);
    }
    let workspace = o.space(forward_workspace(&problem, &info)?)?;
    forward(&problem, &info, [q, k, v], out, lse, workspace)
}

/// Forward and backward, causal, bf16.
fn both(n: Sizes) -> Case {
    let pairs = (n.b * n.g * n.r * n.t * n.s) as f64 * 0.5;
    let less = Sizes { b: 1, t: n.t.min(80), s: 96, g: 1, r: n.r, ..n };
    Case {
        name: format!("attention bf16 d{} causal forward + backward {}x{}x{}", n.d, n.b, n.t, n.s),
        // Two products forward and five backward, as is usual to count.
        flops: 3.5 * 2.0 * pairs * (n.d + n.e) as f64,
        bytes: (n.b * n.t * n.g * n.r * (n.d + n.e) * 4 * 2) as f64,
        peak: Peak::Bf16,
        peer: None,
        make: [Box::new(move |o| passes(o, n)), Box::new(move |o| passes(o, less))],
    }
}

fn passes(o: &mut Operands, n: Sizes) -> Result<Vec<Launch>, CudaError> {
    let heads = n.g * n.r;
    let mut array = |positions, heads, features| {
        let at = o.random(n.b * positions * heads * features, Element::Bf16)?;
        Ok::<Operand, CudaError>(Operand::packed(at, positions, heads, features))
    };
    let (q, k) = (array(n.t, heads, n.d)?, array(n.s, n.g, n.d)?);
    let (v, g) = (array(n.s, n.g, n.e)?, array(n.t, heads, n.e)?);
    let (out, lse) = (o.space(n.b * n.t * heads * n.e * 2)?, o.space(4 * n.b * heads * n.t)?);
    let (dq, dk) = (o.space(n.b * n.t * heads * n.d * 2)?, o.space(n.b * n.s * n.g * n.d * 2)?);
    let dv = o.space(n.b * n.s * n.g * n.e * 2)?;
    let problem = Problem { causal: true, ..Problem::new(n) };
    let info = o.gpu().info().clone();
    let kernels = Kernels::of(&info);
    let workspace = o.space(backward16_workspace(&problem, None)?)?;
    let to = Gradients { out, lse, g, g_lse: Ptr::NULL, dq, dk, dv, dmask: Ptr::NULL };
    o.check(check::gradients(problem, Arrays { types: [Element::Bf16; 2], q, k, v }, g, dq, dv), 0.03);
    let mut all = forward16(&problem, &info, kernels, Half::Bf16, [q, k, v], None, out, lse)?;
    all.extend(backward16(&problem, &info, kernels, Half::Bf16, [q, k, v], None, &to, workspace)?);
    Ok(all)
}
