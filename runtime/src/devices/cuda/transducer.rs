//! Transducer losses on GPUs. What the loss keeps of its nodes is where the kernels' workspace begins.

use super::lower::{Lower, Lowering};
use crate::ops::transducer::{Joint, Transducer};
use mobilis_cuda::conv::Factors;
use mobilis_cuda::joint::{self, Gradients, Input};
use mobilis_cuda::transducer::{self as kernel, Bend};

/// Bytes of logits that a joint network has in memory at once.
const BLOCK: usize = 256 << 20;

fn batch(op: &Transducer, cx: &mut Lower) -> Result<kernel::Transducer, String> {
    let (n, o) = (op.sources(), &op.options);
    let (first, labels) = (cx.input_sizes(0).to_vec(), cx.input_sizes(n)[1]);
    let (nodes, wide) = match op.joint {
        Some(_) => (cx.input_sizes(1)[1], cx.input_sizes(2)[0]),
        None => (first[2], first[3]),
    };
    if first.contains(&0) || nodes != labels + 1 || wide <= o.durations.len() {
        // The host knows what nothing gives, and what is wrong.
        return Err("has no sequences, frames or hidden values, or sizes that do not fit".into());
    }
    let [targets, time_lengths, label_lengths] = [n, n + 1, n + 2].map(|i| cx.input(i));
    Ok(kernel::Transducer {
        batch: first[0],
        time: first[1],
        labels,
        tokens: wide - o.durations.len(),
        blank: o.blank,
        durations: o.durations.clone(),
        sigma: o.sigma as f32,
        targets,
        time_lengths,
        label_lengths,
    })
}

/// The joint network and what it reads.
fn network(joint: Joint, cx: &mut Lower) -> (joint::Joint, Input) {
    let width = cx.input_sizes(0)[2];
    let [e, p, weight, bias] = [0, 1, 2, 3].map(|i| cx.input(i));
    let network = joint::Joint { width, tanh: joint == Joint::Tanh, factors: Factors::F32, memory: BLOCK };
    (network, Input { e, p, weight, bias })
}

pub fn lower(op: &Transducer, cx: &mut Lower) -> Lowering {
    let s = batch(op, cx)?;
    let bytes = 4 * cx.output_sizes(1).iter().product::<usize>();
    let (losses, nodes, status) = (cx.output(0), cx.output(1), cx.status());
    let (workspace, launches) = match op.joint {
        Some(joint) => {
            let (j, x) = network(joint, cx);
            let workspace = cx.scratch(j.workspace(&s));
            (workspace, joint::loss(&s, &j, &x, losses, workspace, status)?)
        }
        None => {
            let (logits, workspace) = (cx.input(0), cx.scratch(s.workspace()));
            let mut launches = kernel::nodes(&s, logits, 0..s.time, workspace, status)?;
            launches.extend(kernel::loss(&s, losses, workspace)?);
            (workspace, launches)
        }
    };
    // Nodes beyond the lengths are not visited.
    cx.fill(workspace, 0, bytes);
    cx.launch(launches);
    cx.copy(workspace, nodes, bytes);
    Ok(())
}

pub fn grad(op: &Transducer, cx: &mut Lower) -> Lowering {
    let (s, n) = (batch(op, cx)?, op.sources());
    let bytes = 4 * cx.input_sizes(n + 3).iter().product::<usize>();
    let (nodes, g, losses) = (cx.input(n + 3), cx.input(n + 4), cx.scratch(4 * s.batch));
    let bend = Bend { fastemit: op.options.fastemit as f32, clamp: op.options.clamp as f32 };
    let (workspace, launches) = match op.joint {
        Some(joint) => {
            let (j, x) = network(joint, cx);
            let [e, p, weight, bias] = [0, 1, 2, 3].map(|i| cx.output(i));
            let workspace = cx.scratch(j.workspace(&s));
            let out = Gradients { e, p, weight, bias };
            (workspace, joint::gradient(&s, &j, &x, losses, g, bend, &out, workspace)?)
        }
        None => {
            let (logits, grad, workspace) = (cx.input(0), cx.output(0), cx.scratch(s.workspace()));
            (workspace, kernel::gradient(&s, logits, 0..s.time, losses, g, bend, grad, workspace)?)
        }
    };
    let paths = kernel::loss(&s, losses, workspace)?;
    cx.copy(nodes, workspace, bytes);
    cx.launch(paths);
    cx.launch(launches);
    Ok(())
}
