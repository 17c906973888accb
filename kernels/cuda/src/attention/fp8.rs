//! Attention in e4m3 on Hopper (`attention_sm90.cu`): values are turned beforehand, for the second product wants them by keys.

use super::tensor::section;
use super::{Element, Operand, Problem, blocks, int, refused};
use crate::{CudaError, Info, Launch, Ptr, Swizzle, Tile, args};

/// Rows of queries of a block, and keys of a step.
const ROWS: usize = 128;
const KEYS: usize = 128;

/// Keys of a row of turned values.
fn padded(s: usize) -> usize {
    s.next_multiple_of(32)
}

/// Bytes of turned values `[b g e s]`, keys padded to multiples of 32.
///
/// # Errors
/// More than an address space.
pub fn turned_bytes(problem: &Problem) -> Result<usize, CudaError> {
    let n = &problem.sizes;
    let bytes = [n.b, n.g, n.e, padded(n.s)].iter().try_fold(1usize, |p, f| p.checked_mul(*f));
    bytes.ok_or_else(|| refused(format!("{n:?} has too many values")))
}

/// Turns `v [b s g e]` to e4m3 in the order that [`forward8`] takes; each value is divided by `scales [b g]`, `float`, first.
/// Values behind the problem's lengths become zeros.
///
/// # Errors
/// Sizes beyond 2³¹.
pub fn turn_values(
    problem: &Problem,
    element: Element,
    v: Operand,
    scales: Ptr,
    to: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let n = problem.sizes;
    turned_bytes(problem)?;
    let grid = blocks(&[padded(n.s) / 32, n.e.div_ceil(32), n.g, n.b])?;
    let kernel = match element {
        Element::F32 => "attention_fp8_values_f32",
        Element::Bf16 => "attention_fp8_values_bf16",
        Element::F16 => "attention_fp8_values_f16",
    };
    let mut args = args![v.at];
    args.extend(v.strides());
    args.extend(args![scales, problem.lengths, to, int(n.s, "keys")?, int(n.g, "heads")?, int(n.e, "features")?]);
    args.extend(args![int(padded(n.s), "keys")?]);
    Ok(if grid == 0 { vec![] } else { vec![Launch::new(kernel, [grid, 1, 1], 128, args)] })
}

/// Attention over e4m3 `q [b t g*r d]` and `k [b s g d]` and [turned](turn_values) values: `out [b t g*r e]` in bf16 and
/// `lse [b g*r t]` in `float`. `scales` are what queries, keys and values are multiplied by, each `float [b g]`.
///
/// # Errors
/// Another device than Hopper; masks, dropout, scales of scores that are not positive; features that are no multiple
/// of 8 or more than 256; operands not aligned to 16 bytes; sizes beyond 2³¹.
#[allow(clippy::too_many_arguments)]
pub fn forward8(
    problem: &Problem,
    info: &Info,
    [q, k]: [Operand; 2],
    turned: Ptr,
    scales: [Ptr; 3],
    out: Ptr,
    lse: Ptr,
) -> Result<Vec<Launch>, CudaError> {
    let (n, rows) = (problem.sizes, problem.rows()?);
    turned_bytes(problem)?;
    if info.capability != 90 {
        return Err(refused(format!("e4m3 takes compute capability 9.0, the device has {}", info.capability)));
    }
    if problem.mask.is_some() || problem.dropout.is_some() {
        return Err(refused("e4m3 kernels take neither masks nor dropout".into()));
    }
    if problem.scale.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
        return Err(refused(format!("e4m3 kernels take positive scales, not {}", problem.scale)));
    }
    if [n.d, n.e].iter().any(|f| *f == 0 || f % 8 != 0 || *f > 256) {
        return Err(refused(format!("e4m3 kernels take multiples of 8 features up to 256, not {} and {}", n.d, n.e)));
    }
    if [q, k].iter().any(|o| o.at.0 % 16 != 0 || [o.b, o.t, o.h].iter().any(|s| s % 16 != 0)) {
        return Err(refused(format!("e4m3 kernels take operands aligned to 16 bytes, not {q:?} and {k:?}")));
    }
    if rows == 0 {
        return Ok(vec![]);
    }
    let (d, kernel): (usize, _) = match n.d.max(n.e) {
        0..=64 => (64, "attention_forward_e4m3_64_sm90"),
        65..=96 => (96, "attention_forward_e4m3_96_sm90"),
        97..=128 => (128, "attention_forward_e4m3_128_sm90"),
        129..=192 => (192, "attention_forward_e4m3_192_sm90"),
        _ => (256, "attention_forward_e4m3_256_sm90"),
    };
    let repeats = |o: &Operand, sizes: [usize; 3]| sizes.iter().zip([o.t, o.h, o.b]).any(|(n, s)| *n > 1 && s == 0);
    if repeats(&q, [n.t, n.g * n.r, n.b]) || repeats(&k, [n.s, n.g, n.b]) {
        return Err(refused(format!("e4m3 kernels take operands of which nothing repeats, not {q:?} and {k:?}")));
    }
    // Where there are no keys, any place will do.
    let tile = |o: &Operand, positions: usize, heads: usize, rows: usize| {
        let sizes = [n.d, positions, heads, n.b].map(|n| n.max(1) as u64);
        let strides = [o.t, o.h, o.b].map(|s| s.max(16) as u64);
        let at = if positions == 0 { q.at } else { o.at };
        Tile::new(at, 1, &sizes, &strides, &[128, rows as u32, 1, 1], Swizzle::B128)
    };
    let s = padded(n.s).max(32);
    let sizes = [s, n.e, n.g, n.b].map(|n| n as u64);
    let strides = [s, s * n.e, s * n.e * n.g].map(|n| n as u64);
    let turned = if n.s == 0 { q.at } else { turned };
    let values = Tile::new(turned, 1, &sizes, &strides, &[KEYS as u32, d as u32, 1, 1], Swizzle::B128);
    let heads = n.g * n.r;
    let count = blocks(&[n.t.div_ceil(ROWS), heads, n.b])?;
    let mut args = args![tile(&q, n.t, heads, 64), tile(&k, n.s, n.g, KEYS), values];
    args.extend(args![scales[0], scales[1], scales[2], out, lse, int(section(&n, 1), "heads")?, count as i32]);
    problem.push(&mut args)?;
    let wide = d.next_multiple_of(128);
    let shared = ROWS * wide + 2 * KEYS * (wide + d);
    let grid = count.min(info.multiprocessors.max(1));
    Ok(vec![Launch::new(kernel, [grid, 1, 1], 384, args).shared(shared as u32)])
}
