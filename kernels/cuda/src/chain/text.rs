//! The text of a chain's kernel.

use super::layout::{Class, Place, Plan};
use super::{Input, Kind, NAME, Op, Output, Step, THREADS};

pub(super) fn storage(kind: Kind) -> &'static str {
    match kind {
        Kind::F32 => "float",
        Kind::I32 => "int",
        Kind::U8 => "unsigned char",
        Kind::Bf16 => "bf16",
        Kind::F16 => "f16",
    }
}

/// Truth values are whole numbers in registers.
pub(super) fn register(kind: Kind) -> &'static str {
    if kind.real() { "float" } else { "int" }
}

pub(super) fn text(plan: &Plan, inputs: &[Input], steps: &[Step], outputs: &[Output]) -> String {
    let (v, u, dims) = (plan.vector, plan.unroll, plan.sizes.len());
    let index = if plan.wide { "unsigned long long" } else { "unsigned" };
    let mut t = head(inputs, steps);
    let mut parameters = vec!["long long total".to_string()];
    for d in 1..dims {
        parameters.push(format!("{index} n{d}, {index} m{d}, unsigned h{d}"));
    }
    for (i, place) in plan.places.iter().enumerate() {
        if let Some(input) = inputs.get(i) {
            parameters.push(format!("const {}* p{i}", storage(input.kind)));
        }
        let asked = place.strides.iter().enumerate().filter(|s| s.1.argument);
        parameters.extend(asked.map(|(d, _)| format!("{index} s{i}_{d}")));
    }
    for (i, step) in steps.iter().enumerate() {
        if matches!(step.op, Op::Size(_)) {
            parameters.push(format!("{} c{i}", register(step.kind)));
        }
    }
    for (i, (step, _)) in outputs.iter().enumerate() {
        parameters.push(format!("{}* o{i}", storage(steps[*step as usize].kind)));
    }
    let mut line = |s: String| {
        t.push_str(&s);
        t.push('\n');
    };
    line(format!("extern \"C\" __global__ void __launch_bounds__({THREADS}) {NAME}({}) {{", parameters.join(", ")));
    line(format!("  const {index} first = ({index})blockIdx.x * {}u + threadIdx.x * {v}u;", THREADS * v * u));
    for (i, place) in plan.places.iter().enumerate() {
        let values = if place.class == Class::Repeated { 1 } else { v };
        let kind = inputs.get(i).map_or("int", |input| register(input.kind));
        line(format!("  {kind} a{i}[{u}][{values}];"));
    }
    // Everything that the thread reads, before it computes.
    line(format!("#pragma unroll\n  for (int u = 0; u < {u}; u++) {{"));
    line(format!("    {index} i = first + u * {}u;\n    if (i >= total) break;", THREADS * v));
    if plan.places.iter().any(|p| p.class != Class::Linear && p.strides.iter().any(|s| s.step != 0)) {
        line(format!("    {index} rest = i, q;"));
        for d in (1..dims).rev() {
            line(format!("    q = quotient(rest, m{d}, h{d}); const {index} x{d} = rest - q * n{d}; rest = q;"));
        }
        line(format!("    const {index} x0 = rest;"));
    }
    let left = "(long long)(total - i)";
    for (i, place) in plan.places.iter().enumerate() {
        let at = offset(i, place);
        let inner = format!("s{i}_{}", dims - 1);
        line(match (place.class, place.at.is_some()) {
            (Class::Linear, _) if plan.ragged => format!("    load_some<{v}>(a{i}[u], p{i} + i, {left});"),
            (Class::Linear, _) => format!("    load<{v}>(a{i}[u], p{i} + i);"),
            (Class::Vectors, _) => format!("    load<{v}>(a{i}[u], p{i} + ({at}));"),
            (Class::Repeated, true) => format!("    a{i}[u][0] = {}p{i}[{at}];", loaded(inputs[i].kind)),
            (Class::Repeated, false) => format!("    a{i}[u][0] = (int)({at});"),
            (Class::Strided, true) => {
                let inside = if plan.ragged && v > 1 { "if (i + k < total) " } else { "" };
                format!(
                    "    for (int k = 0; k < {v}; k++) {inside}a{i}[u][k] = {}p{i}[{at} + k * {inner}];",
                    loaded(inputs[i].kind)
                )
            }
            (Class::Strided, false) => {
                format!("    for (int k = 0; k < {v}; k++) a{i}[u][k] = (int)({at} + k * {inner});")
            }
        });
    }
    line("  }".into());
    line(format!("#pragma unroll\n  for (int u = 0; u < {u}; u++) {{"));
    line(format!("    {index} i = first + u * {}u;\n    if (i >= total) break;", THREADS * v));
    for (i, (step, _)) in outputs.iter().enumerate() {
        line(format!("    {} r{i}[{v}];", register(steps[*step as usize].kind)));
    }
    line(format!("#pragma unroll\n    for (int k = 0; k < {v}; k++) {{"));
    let mut iota = inputs.len();
    for (i, step) in steps.iter().enumerate() {
        let value = match step.op {
            Op::Iota(_) => {
                iota += 1;
                element(iota - 1, &plan.places[iota - 1])
            }
            _ => expression(i, plan, inputs, steps),
        };
        line(format!("      const {} t{i} = {value};", register(step.kind)));
    }
    for (i, (step, _)) in outputs.iter().enumerate() {
        let truth = if steps[*step as usize].kind == Kind::U8 { " != 0" } else { "" };
        line(format!("      r{i}[k] = t{step}{truth};"));
    }
    line("    }".into());
    for i in 0..outputs.len() {
        line(if plan.ragged {
            format!("    store_some<{v}>(o{i} + i, r{i}, {left});")
        } else {
            format!("    store<{v}>(o{i} + i, r{i});")
        });
    }
    line(format!("  }}\n}}\nCUEMU_EXPORT({NAME})"));
    t
}

/// What the text begins with.
pub(super) fn head(inputs: &[Input], steps: &[Step]) -> String {
    let narrow = inputs.iter().map(|i| i.kind).chain(steps.iter().map(|s| s.kind)).any(Kind::narrow);
    format!("{}#include \"chain.cuh\"\n", if narrow { "#include \"base.cuh\"\n" } else { "" })
}

/// What makes a value of a register of one in memory.
pub(super) fn loaded(kind: Kind) -> &'static str {
    if kind.narrow() { "(float)" } else { "" }
}

/// Where the first value of a vector of input `i` is.
fn offset(i: usize, place: &Place) -> String {
    let terms =
        place.strides.iter().enumerate().filter(|s| s.1.argument || (s.1.step == 1 && s.0 + 1 == place.strides.len()));
    let terms: Vec<String> =
        terms.map(|(d, s)| if s.argument { format!("x{d} * s{i}_{d}") } else { format!("x{d}") }).collect();
    if terms.is_empty() { "0".into() } else { terms.join(" + ") }
}

/// The value of input `i` at position `k` of vector `u`.
fn element(i: usize, place: &Place) -> String {
    if place.class == Class::Repeated { format!("a{i}[u][0]") } else { format!("a{i}[u][k]") }
}

pub(super) fn expression(i: usize, plan: &Plan, inputs: &[Input], steps: &[Step]) -> String {
    let step = &steps[i];
    let arg = |k: usize| {
        let a = step.args[k] as usize;
        match a.checked_sub(inputs.len()) {
            None => (element(a, &plan.places[a]), inputs[a].kind),
            Some(s) => (format!("t{s}"), steps[s].kind),
        }
    };
    match &step.op {
        Op::Constant(v) if step.kind == Kind::F32 => {
            format!("__uint_as_float(0x{:08x}u) /* {v} */", (*v as f32).to_bits())
        }
        Op::Constant(v) => format!("(int)0x{:08x}u", *v as i64 as i32),
        Op::Size(_) => format!("c{i}"),
        Op::Iota(_) => unreachable!("the caller gives positions"),
        Op::Call(name) => {
            let class = if arg(0).1.real() { "f" } else { "i" };
            let args: Vec<String> = (0..step.args.len()).map(|k| arg(k).0).collect();
            format!("{class}_{name}({})", args.join(", "))
        }
        Op::Select => format!("{} ? {} : {}", arg(0).0, arg(1).0, arg(2).0),
        Op::Cast => match (arg(0), step.kind) {
            ((a, _), Kind::F32 | Kind::Bf16 | Kind::F16) => format!("(float){a}"),
            ((a, from), Kind::I32) if from.real() => format!("to_i32({a})"),
            ((a, from), Kind::U8) if from.real() => format!("{a} != 0.0f"),
            ((a, Kind::I32), Kind::U8) => format!("{a} != 0"),
            ((a, _), _) => a,
        },
    }
}
