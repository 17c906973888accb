//! Transducer losses on the CPU.

use super::lower::Lower;
use crate::ops::transducer::{Joint, Transducer, TransducerOptions};
use mobilis_kernels::cpu::joint::{self, Gradients, Sizes};
use mobilis_kernels::cpu::transducer::{self as kernel, scratch_len};
use mobilis_kernels::memory::{Memory, Piece};
use mobilis_kernels::pool::Pool;

/// Sizes that a batch has, and where its labels and lengths lie.
struct Batch {
    options: TransducerOptions,
    sizes: Sizes,
    rest: [Piece; 3],
}

impl Batch {
    fn new(op: &Transducer, cx: &mut Lower) -> Result<Batch, String> {
        let n = op.sources();
        let (first, labels) = (cx.input_sizes(0).to_vec(), cx.input_sizes(n)[1]);
        let (nodes, wide) = match op.joint {
            Some(_) => (cx.input_sizes(1)[1], cx.input_sizes(2)[0]),
            None => (first[2], first[3]),
        };
        if nodes != labels + 1 || wide <= op.options.durations.len() {
            return Err(format!("{nodes} nodes of a frame with {wide} logits are not for {labels} labels"));
        }
        let width = if n == 4 { first[2] } else { 0 };
        let rest = [n, n + 1, n + 2].map(|i| cx.input(i));
        let sizes = Sizes { batch: first[0], time: first[1], labels, wide, width };
        Ok(Batch { options: op.options.clone(), sizes, rest })
    }

    fn run(&self, m: &Memory, f: impl FnOnce(&kernel::Transducer)) -> Result<(), String> {
        let [targets, frames, counts] = self.rest.map(|p| m.i32(p));
        let o = &self.options;
        let op = kernel::Transducer {
            time: self.sizes.time,
            labels: self.sizes.labels,
            tokens: self.sizes.wide - o.durations.len(),
            blank: o.blank,
            durations: &o.durations,
            sigma: o.sigma as f32,
            fastemit: o.fastemit as f32,
            clamp: o.clamp as f32,
            targets: &targets,
            frames: &frames,
            counts: &counts,
        };
        op.check()?;
        f(&op);
        Ok(())
    }

    /// Floats of paths for the threads that can work.
    fn paths(&self) -> usize {
        Pool::global().threads().min(self.sizes.batch).max(1) * scratch_len(self.sizes.time, self.sizes.labels)
    }
}

fn given<'m>(bent: Joint, width: usize, of: &'m [impl std::ops::Deref<Target = [f32]>; 4]) -> joint::Joint<'m> {
    let [e, p, weight, bias] = of;
    joint::Joint { width, tanh: bent == Joint::Tanh, e, p, weight, bias }
}

pub fn lower(op: &Transducer, cx: &mut Lower) -> Result<(), String> {
    let batch = Batch::new(op, cx)?;
    let sources: Vec<Piece> = (0..op.sources()).map(|i| cx.input(i)).collect();
    let (losses, nodes, width) = (cx.output(0), cx.output(1), batch.sizes.width);
    let bent = op.joint;
    let scratch = match bent {
        Some(_) => batch.sizes.loss_scratch(Pool::global().threads()),
        None => batch.paths(),
    };
    let scratch = cx.scratch(scratch);
    cx.try_task(move |m| {
        let (mut losses, mut nodes, mut scratch) = (m.f32_mut(losses), m.f32_mut(nodes), m.f32_mut(scratch));
        batch.run(m, |op| match bent {
            Some(bent) => {
                let of = [0, 1, 2, 3].map(|i| m.f32(sources[i]));
                joint::loss(m.pool(), op, &given(bent, width, &of), &mut nodes, &mut losses, &mut scratch);
            }
            None => {
                kernel::nodes(m.pool(), op, &m.f32(sources[0]), &mut nodes);
                kernel::loss(m.pool(), op, &nodes, &mut losses, &mut scratch);
            }
        })
    });
    Ok(())
}

pub fn grad(op: &Transducer, cx: &mut Lower) -> Result<(), String> {
    let batch = Batch::new(op, cx)?;
    let n = op.sources();
    let sources: Vec<Piece> = (0..n).map(|i| cx.input(i)).collect();
    let (nodes, g) = (cx.input(n + 3), cx.input(n + 4));
    let out: Vec<Piece> = (0..n).map(|i| cx.output(i)).collect();
    let (bent, width) = (op.joint, batch.sizes.width);
    let scratch = if bent.is_some() { batch.sizes.gradient_scratch() } else { 2 * batch.paths() };
    let scratch = cx.scratch(scratch);
    cx.try_task(move |m| {
        let (nodes, g, mut scratch) = (m.f32(nodes), m.f32(g), m.f32_mut(scratch));
        batch.run(m, |op| match bent {
            Some(bent) => {
                let of = [0, 1, 2, 3].map(|i| m.f32(sources[i]));
                let [mut e, mut p, mut weight, mut bias] = [0, 1, 2, 3].map(|i| m.f32_mut(out[i]));
                let out = Gradients { e: &mut e, p: &mut p, weight: &mut weight, bias: &mut bias };
                joint::gradient(m.pool(), op, &given(bent, width, &of), &nodes, &g, out, &mut scratch);
            }
            None => {
                let (logits, mut grad) = (m.f32(sources[0]), m.f32_mut(out[0]));
                kernel::gradient(m.pool(), op, (&logits, &nodes), &g, &mut grad, &mut scratch);
            }
        })
    });
    Ok(())
}
