//! Joins chains that read the same values into one chain with several results.
//!
//! What chains cost is the memory that they read and write. Two chains over the same positions of
//! which one reads the other's result, or which share an input, read it once when they are one
//! pass: an optimizer's moments and parameter, the gradients by both sides of a gate.
//!
//! Each chain takes in earlier ones. The joined chain stands where the later one stood, so nothing
//! between them may read the earlier one's results; and what the earlier one reads must not live
//! much longer for it.

use crate::graph::{DType, Graph, Value};
use crate::ops::Op;
use crate::ops::chain::{Chain, Step};
use crate::transforms::fuse::Limits;

/// The graph with its chains joined. Nodes that nothing needs any more stay; see
/// [`prune`](super::prune::prune).
pub fn join(mut graph: Graph, limits: &Limits) -> Graph {
    let mut users: Vec<Vec<u32>> = vec![vec![]; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| users[v.node as usize].push(id as u32));
    }
    for later in 0..graph.nodes.len() as u32 {
        let node = &graph.nodes[later as usize];
        if !matches!(node.op, Op::Chain(_)) || node.types[0].rank() == 0 {
            continue;
        }
        let mut refused: Vec<u32> = vec![];
        while let Some(earlier) = relative(&graph, &users, later, &refused) {
            let fits = pays(&graph, &users, earlier, later);
            match fits.then(|| joined(&graph, &users[earlier as usize], earlier, later, limits)).flatten() {
                Some(joined) => take_in(&mut graph, &mut users, earlier, later, joined),
                None => refused.push(earlier),
            }
        }
    }
    graph
}

/// The last chain before `later`, but those refused, that gives it a value or shares a large input.
fn relative(graph: &Graph, users: &[Vec<u32>], later: u32, refused: &[u32]) -> Option<u32> {
    let node = &graph.nodes[later as usize];
    let whole = node.inputs.iter().filter(|v| graph.ty(**v).same_extents(&node.types[0]));
    let related = whole.flat_map(|v| users[v.node as usize].iter().copied().chain([v.node]));
    let open = |id: &u32| {
        let of = &graph.nodes[*id as usize];
        *id < later && matches!(of.op, Op::Chain(_)) && !refused.contains(id)
    };
    related.filter(open).max()
}

fn chain(graph: &Graph, id: u32) -> &Chain {
    match &graph.nodes[id as usize].op {
        Op::Chain(chain) => chain,
        _ => unreachable!("only chains are joined"),
    }
}

/// Whether the later chain should take in the earlier one, as far as the graph is concerned.
fn pays(graph: &Graph, users: &[Vec<u32>], earlier: u32, later: u32) -> bool {
    let (a, b) = (&graph.nodes[earlier as usize], &graph.nodes[later as usize]);
    let ty = &b.types[0];
    if !a.types[0].same_extents(ty) {
        return false;
    }
    if users[earlier as usize].iter().any(|u| *u < later) {
        return false;
    }
    let whole = |v: &&Value| graph.ty(**v).same_extents(ty);
    let shared = a.inputs.iter().filter(whole).any(|v| b.inputs.contains(v));
    if !shared && !b.inputs.iter().any(|v| v.node == earlier) {
        return false;
    }
    // The earlier results need not be kept from there to here; its inputs must be.
    let bytes = |dtype: DType| dtype.bytes();
    let longer = a.inputs.iter().filter(whole).filter(|v| {
        let external = matches!(graph.node(**v).op, Op::Var(_) | Op::Input(_));
        !external && users[v.node as usize].iter().all(|u| *u < later)
    });
    let longer: usize = longer.map(|v| bytes(graph.ty(*v).dtype)).sum();
    longer <= a.types.iter().map(|t| bytes(t.dtype)).sum::<usize>()
}

/// Both chains as one, with its inputs and, of every result of the earlier one that others read,
/// its new port; none if that breaks a limit.
fn joined(
    graph: &Graph,
    readers: &[u32],
    earlier: u32,
    later: u32,
    limits: &Limits,
) -> Option<(Chain, Vec<Value>, Vec<Option<u16>>)> {
    let (a, b) = (chain(graph, earlier), chain(graph, later));
    let (from_a, from_b) = (&graph.nodes[earlier as usize].inputs, &graph.nodes[later as usize].inputs);
    let mut inputs = from_a.clone();
    for v in from_b {
        if v.node != earlier && !inputs.contains(v) {
            inputs.push(*v);
        }
    }
    if inputs.len() > limits.inputs {
        return None;
    }
    let mut steps: Vec<Step> = vec![];
    // Where the steps of each chain went.
    let mut place_a: Vec<u16> = vec![];
    let mut place_b: Vec<u16> = vec![];
    let count = inputs.len() as u16;
    let mut add = |op: &Op, args: Vec<u16>, step: &Step| -> u16 {
        let print = format!("{op:?}");
        let known = steps.iter().position(|s| s.args == args && s.ty == step.ty && format!("{:?}", s.op) == print);
        count
            + known.unwrap_or_else(|| {
                steps.push(Step { op: op.clone(), args, ty: step.ty.clone() });
                steps.len() - 1
            }) as u16
    };
    for step in &a.steps {
        let args = step.args.iter().map(|x| match (*x as usize).checked_sub(a.inputs) {
            None => *x,
            Some(s) => place_a[s],
        });
        place_a.push(add(&step.op, args.collect(), step));
    }
    for step in &b.steps {
        let args = step.args.iter().map(|x| match (*x as usize).checked_sub(b.inputs) {
            Some(s) => place_b[s],
            None => match from_b[*x as usize] {
                v if v.node == earlier => place_a[a.results[v.port as usize] as usize],
                v => inputs.iter().position(|i| *i == v).expect("inputs are of both chains") as u16,
            },
        });
        place_b.push(add(&step.op, args.collect(), step));
    }
    let mut results: Vec<u16> = b.results.iter().map(|r| place_b[*r as usize] - count).collect();
    let ports: Vec<Option<u16>> = (0..a.results.len() as u16)
        .map(|port| {
            let v = Value { node: earlier, port };
            let read = readers.iter().any(|u| *u != later && graph.nodes[*u as usize].inputs.contains(&v));
            (read || graph.results().any(|r| r == v)).then(|| {
                results.push(place_a[a.results[port as usize] as usize] - count);
                results.len() as u16 - 1
            })
        })
        .collect();
    let whole = Chain { inputs: inputs.len(), steps, results };
    let (floats, ints) = whole.pressure();
    let fits = whole.steps.len() <= limits.steps
        && whole.results.len() <= limits.results
        && floats <= limits.floats
        && ints <= limits.ints;
    fits.then_some((whole, inputs, ports))
}

/// Puts the joined chain in the later one's place.
fn take_in(
    graph: &mut Graph,
    users: &mut [Vec<u32>],
    earlier: u32,
    later: u32,
    (whole, inputs, ports): (Chain, Vec<Value>, Vec<Option<u16>>),
) {
    for (port, to) in ports.iter().enumerate() {
        let from = Value { node: earlier, port: port as u16 };
        let Some(to) = to else { continue };
        let to = Value { node: later, port: *to };
        let others: Vec<u32> = users[earlier as usize].iter().copied().filter(|u| *u != later).collect();
        for user in others {
            graph.nodes[user as usize].inputs.iter_mut().filter(|v| **v == from).for_each(|v| *v = to);
            users[later as usize].push(user);
        }
        let results = graph.outputs.iter_mut().chain(graph.updates.iter_mut().map(|u| &mut u.1));
        results.chain(graph.taps.iter_mut().map(|t| &mut t.1)).filter(|v| **v == from).for_each(|v| *v = to);
    }
    for v in &inputs {
        users[v.node as usize].retain(|u| *u != earlier && *u != later);
        users[v.node as usize].push(later);
    }
    let types = whole.results.iter().map(|r| whole.steps[*r as usize].ty.clone()).collect();
    let node = &mut graph.nodes[later as usize];
    (node.op, node.inputs, node.types) = (Op::Chain(whole), inputs, types);
    // The earlier one stays, without a user.
    users[earlier as usize].clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::trace::Handle;
    use crate::ops::elementwise as ew;
    use crate::ops::{leaf, reduce};
    use crate::testing::{check_cpu, real, traced};
    use crate::transforms::fuse::fuse;
    use crate::transforms::prune::prune;

    const LIMITS: Limits = Limits { inputs: 16, steps: 48, floats: 20, ints: 12, results: 4 };

    fn chains(graph: Graph) -> Vec<Chain> {
        let graph = prune(join(prune(fuse(prune(graph), &LIMITS)), &LIMITS));
        graph.nodes.iter().filter_map(|n| if let Op::Chain(c) = &n.op { Some(c.clone()) } else { None }).collect()
    }

    #[test]
    fn chains_of_the_same_values_are_one_pass() {
        let given = [real(&[3, 40], 1), real(&[3, 40], 2), real(&[40], 3)];
        let f = |x: &[Handle]| {
            let m = ew::add(ew::scale(x[0], 0.9), ew::scale(ew::exp(x[1]), 0.1));
            let v = ew::mul(ew::exp(x[1]), x[2]);
            vec![m, v, ew::sub(ew::div(m, v), leaf::scalar(1.0)), ew::mul(v, v)]
        };
        let found = chains(traced(&given, f));
        assert_eq!(found.iter().map(|c| c.results.len()).collect::<Vec<_>>(), [4]);
        let exps = found[0].steps.iter().filter(|s| s.op.rule().name() == "exp").count();
        assert!(exps <= 1, "a step of both chains is computed once");
        check_cpu(&given, &f, 1e-5);
    }

    #[test]
    fn what_is_read_in_between_is_not_put_off() {
        let given = [real(&[6, 5], 1), real(&[6, 5], 2)];
        let f = |x: &[Handle]| {
            let a = ew::exp(x[0]);
            let total = reduce::reduce(a, reduce::Kind::Sum, &[0]);
            let b = ew::mul(ew::mul(a, total), x[0]);
            vec![b]
        };
        let found = chains(traced(&given, f));
        assert!(found.iter().all(|c| c.results.len() == 1));
        check_cpu(&given, &f, 1e-5);
    }

    #[test]
    fn other_positions_stay_apart() {
        let given = [real(&[6, 5], 1), real(&[5], 2)];
        let f = |x: &[Handle]| vec![ew::exp(x[0]), ew::exp(x[1]), ew::mul(x[0], x[1])];
        let found = chains(traced(&given, f));
        let mut results: Vec<usize> = found.iter().map(|c| c.results.len()).collect();
        results.sort_unstable();
        assert_eq!(results, [1, 2]);
        check_cpu(&given, &f, 1e-5);
    }
}
