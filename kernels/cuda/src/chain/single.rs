//! A chain of one step as a kernel that is there already (`elementwise.cu`).

use super::layout::{contiguous, join, magic};
use super::{Input, Kind, Op, Output, Step, refused};
use crate::{Arg, CudaError, Launch, args};

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::F32 => "f32",
        Kind::I32 => "i32",
        Kind::U8 => "u8",
        // There are none.
        Kind::Bf16 => "bf16",
        Kind::F16 => "f16",
    }
}

/// The launch, or nothing where no such kernel takes it: several steps, more than four dimensions, 2³¹ values.
pub(super) fn single(
    inputs: &[Input],
    steps: &[Step],
    outputs: &[Output],
    sizes: &[usize],
) -> Result<Option<Launch>, CudaError> {
    let ([step], [(0, y)]) = (steps, outputs) else { return Ok(None) };
    let kinds: Vec<Kind> = step.args.iter().filter_map(|a| inputs.get(*a as usize)).map(|i| i.kind).collect();
    if kinds.iter().any(|k| k.narrow()) || step.kind.narrow() {
        return Ok(None);
    }
    let name = match (&step.op, &kinds[..]) {
        (Op::Call(f), [first, ..]) => format!("{f}_{}", name(*first)),
        (Op::Select, [Kind::U8, ..]) => format!("select_{}", name(step.kind)),
        (Op::Cast, [from]) => format!("cast_{}_{}", name(*from), name(step.kind)),
        _ => return Ok(None),
    };
    let Some(kernel) = kernel(&name) else { return Ok(None) };
    let read: Vec<&Input> = step.args.iter().map(|a| &inputs[*a as usize]).collect();
    let (sizes, strides) = join(sizes, read.iter().map(|i| i.strides.clone()).collect());
    let total: usize = sizes.iter().product();
    let reach = |s: &[usize]| s.iter().zip(&sizes).map(|(s, n)| s * (n - 1)).sum::<usize>();
    // The last block's positions are counted beyond the end.
    if sizes.len() > 4 || total >= (1 << 31) - 1024 || strides.iter().any(|s| reach(s) >= 1 << 31) {
        return Ok(None);
    }
    let linear = contiguous(&sizes);
    let mode = |s: &[usize]| match () {
        () if s.iter().all(|s| *s == 0) => 1,
        () if s == linear => 0,
        () => 2,
    };
    let aligned = |at: u64, kind: Kind| at.is_multiple_of(4 * kind.bytes() as u64);
    let even = aligned(y.0, step.kind)
        && read.iter().zip(&strides).all(|(i, s)| mode(s) == 1 || (mode(s) == 0 && aligned(i.at.0, i.kind)));
    let mut args: Vec<Arg> = read.iter().map(|i| i.at.into()).collect();
    args.extend(args![*y, total as u32, i32::from(even)]);
    // The last three dimensions; those that are missing have one index.
    let lead = 4 - sizes.len();
    let at = |of: &[usize], d: usize, none: usize| d.checked_sub(lead).map_or(none, |d| of[d]);
    for d in 1..4 {
        let n = at(&sizes, d, 1);
        let (multiplier, shift) = magic(n);
        args.extend(args![n as u32, multiplier, shift]);
    }
    for s in &strides {
        args.push(Arg::I32(mode(s)));
        args.extend((0..4).map(|d| Arg::U32(at(s, d, 0) as u32)));
    }
    let blocks = u32::try_from(total.div_ceil(1024)).map_err(|_| refused(format!("{total} values")))?;
    Ok(Some(Launch::new(kernel, [blocks, 1, 1], 256, args)))
}

fn kernel(name: &str) -> Option<&'static str> {
    let file = crate::sources::SOURCES.iter().find(|s| s.file == "elementwise")?;
    file.kernels.iter().find(|k| **k == name).copied()
}
