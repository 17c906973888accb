//! One launch for many arrays: chains of the same steps, each over an array of its own (what other frameworks call
//! multi-tensor or foreach kernels), as an optimizer's step is over all parameters.
//!
//! Blocks are dealt out to arrays by their sizes; a block finds its array in a table that is an argument of the
//! kernel, so nothing is written to the device before. Inputs are read as the results lie, or are one value; a value that
//! all arrays read is an argument of its own. A launch takes as many arrays as the table has room for: some
//! sixty for AdamW.

use super::layout::{Class, Place, Plan, Stride, contiguous, join};
use super::text::{expression, head, loaded, register, storage};
use super::{Input, Kind, NAME, Op, Output, Step, THREADS, check, refused};
use crate::{Arg, CudaError, Launch, Ptr, args, generated};

/// Positions of a vector, and vectors of a thread.
const VECTOR: usize = 4;
const UNROLL: usize = 1;

/// One array's chain.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// What it reads.
    pub inputs: Vec<Input>,
    /// Its results.
    pub outputs: Vec<Output>,
    /// The sizes of each of them.
    pub sizes: Vec<usize>,
}

/// How an input lies: as the results, or one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lies {
    Linear,
    Single,
}

fn lies(member: &Member, input: &Input) -> Option<Lies> {
    let (sizes, strides) = join(&member.sizes, vec![input.strides.clone()]);
    match strides[0] == contiguous(&sizes) {
        true => Some(Lies::Linear),
        false => strides[0].iter().all(|s| *s == 0).then_some(Lies::Single),
    }
}

/// Whether a member can be run with others, and what must be the same for all that are: how inputs lie, and the kinds and
/// numbers of results.
pub fn alike(member: &Member) -> Option<Vec<(u16, bool)>> {
    let total: usize = member.sizes.iter().product();
    let vector = |at: Ptr, bytes: usize| at.0.is_multiple_of((VECTOR * bytes) as u64);
    let mut key = vec![];
    for input in &member.inputs {
        let lies = lies(member, input)?;
        if lies == Lies::Linear && !vector(input.at, input.kind.bytes()) {
            return None;
        }
        key.push((input.kind as u16, lies == Lies::Linear));
    }
    // Results are no wider than real numbers.
    let fits = total > 1 && member.outputs.iter().all(|o| vector(o.1, 4));
    key.extend(member.outputs.iter().map(|o| (o.0, true)));
    fits.then_some(key)
}

/// The launches of chains of the same steps over several arrays, which are [`alike`].
///
/// # Errors
/// What [`chain`](super::chain()) refuses, positions among the steps, members that are not alike.
pub fn many(steps: &[Step], members: &[Member]) -> Result<Vec<Launch>, CudaError> {
    let Some(first) = members.first() else { return Ok(vec![]) };
    let key = alike(first);
    let positions = steps.iter().any(|s| matches!(s.op, Op::Iota(_) | Op::Size(_)));
    if key.is_none() || positions || members.iter().any(|m| alike(m) != key) {
        return Err(refused(
            "chains that are run together read arrays alike, aligned to vectors, and no positions or sizes",
        ));
    }
    members.iter().try_for_each(|m| check(&m.inputs, steps, &m.outputs, &m.sizes))?;
    // What all arrays read: one value at one place.
    let shared: Vec<bool> = (0..first.inputs.len())
        .map(|i| {
            let one = lies(first, &first.inputs[i]) == Some(Lies::Single);
            one && members.iter().all(|m| m.inputs[i].at == first.inputs[i].at)
        })
        .collect();
    let own = shared.iter().filter(|s| !**s).count();
    let size = 2 + own + first.outputs.len();
    let kernel = generated::register("chains", &text(first, &shared, steps, size));
    let mut launches = vec![];
    for some in members.chunks(Arg::TABLE / size) {
        let (mut table, mut blocks) = (vec![], 0usize);
        for member in some {
            let total: usize = member.sizes.iter().product();
            table.extend([Ptr(blocks as u64), Ptr(total as u64)]);
            table.extend(member.inputs.iter().zip(&shared).filter(|i| !i.1).map(|i| i.0.at));
            table.extend(member.outputs.iter().map(|o| o.1));
            blocks += total.div_ceil(THREADS * VECTOR * UNROLL);
        }
        if blocks >= 1 << 31 {
            return Err(refused(format!("{blocks} blocks, a grid has at most {}", i32::MAX)));
        }
        let mut list = vec![Arg::Table(table)];
        list.extend(args![some.len() as i32]);
        list.extend(first.inputs.iter().zip(&shared).filter(|i| *i.1).map(|i| Arg::Ptr(i.0.at)));
        launches.push(Launch::new(kernel, [blocks as u32, 1, 1], THREADS as u32, list));
    }
    Ok(launches)
}

fn text(member: &Member, shared: &[bool], steps: &[Step], size: usize) -> String {
    let (v, u, inputs) = (VECTOR, UNROLL, &member.inputs);
    let class = |input: &Input| match lies(member, input) {
        Some(Lies::Linear) => Class::Linear,
        _ => Class::Repeated,
    };
    let place = |input: &Input| Place {
        at: Some(input.at),
        class: class(input),
        strides: vec![Stride { step: (class(input) == Class::Linear) as usize, argument: false }],
    };
    let places = inputs.iter().map(place).collect();
    let plan = Plan { sizes: vec![2], places, vector: v, unroll: u, wide: true, ragged: true };
    let mut t = head(inputs, steps);
    let mut line = |s: String| {
        t.push_str(&s);
        t.push('\n');
    };
    let mut parameters = vec!["const __grid_constant__ Table table".to_string(), "int members".into()];
    for (i, input) in inputs.iter().enumerate().filter(|i| shared[i.0]) {
        parameters.push(format!("const {}* p{i}", storage(input.kind)));
    }
    line(format!("extern \"C\" __global__ void __launch_bounds__({THREADS}) {NAME}({}) {{", parameters.join(", ")));
    line(format!("  const unsigned long long* e = entry(table, members, {size});"));
    line("  const long long total = (long long)e[1];".into());
    line(format!(
        "  const long long first = (long long)(blockIdx.x - e[0]) * {} + threadIdx.x * {v};",
        THREADS * v * u
    ));
    let mut word = 2;
    for (i, input) in inputs.iter().enumerate().filter(|i| !shared[i.0]) {
        line(format!("  const {0}* p{i} = (const {0}*)e[{word}];", storage(input.kind)));
        word += 1;
    }
    for (i, (step, _)) in member.outputs.iter().enumerate() {
        let kind = storage(steps[*step as usize].kind);
        line(format!("  {kind}* o{i} = ({kind}*)e[{}];", word + i));
    }
    for (i, input) in inputs.iter().enumerate() {
        let values = if class(input) == Class::Linear { v } else { 1 };
        line(format!("  {} a{i}[{u}][{values}];", register(input.kind)));
    }
    line(format!("#pragma unroll\n  for (int u = 0; u < {u}; u++) {{"));
    line(format!("    long long i = first + u * {};\n    if (i >= total) break;", THREADS * v));
    for (i, input) in inputs.iter().enumerate() {
        line(match class(input) {
            Class::Linear => format!("    load_some<{v}>(a{i}[u], p{i} + i, total - i);"),
            _ => format!("    a{i}[u][0] = {}*p{i};", loaded(input.kind)),
        });
    }
    line(format!("  }}\n#pragma unroll\n  for (int u = 0; u < {u}; u++) {{"));
    line(format!("    long long i = first + u * {};\n    if (i >= total) break;", THREADS * v));
    for (i, (step, _)) in member.outputs.iter().enumerate() {
        line(format!("    {} r{i}[{v}];", register(steps[*step as usize].kind)));
    }
    line(format!("#pragma unroll\n    for (int k = 0; k < {v}; k++) {{"));
    for (i, step) in steps.iter().enumerate() {
        line(format!("      const {} t{i} = {};", register(step.kind), expression(i, &plan, inputs, steps)));
    }
    for (i, (step, _)) in member.outputs.iter().enumerate() {
        let truth = if steps[*step as usize].kind == Kind::U8 { " != 0" } else { "" };
        line(format!("      r{i}[k] = t{step}{truth};"));
    }
    line("    }".into());
    for i in 0..member.outputs.len() {
        line(format!("    store_some<{v}>(o{i} + i, r{i}, total - i);"));
    }
    line(format!("  }}\n}}\nCUEMU_EXPORT({NAME})"));
    t
}
