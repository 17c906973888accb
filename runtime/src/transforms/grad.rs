//! Reverse-mode differentiation: extends a graph by the gradients of one of its scalars.
//!
//! Nodes are visited from the loss backwards; each asks its operation's rule for the gradients
//! of its inputs, and a value that is used several times gets the sum. Gradient nodes carry the
//! scope of the node that they differentiate, so profiles attribute backward work to modules.

use crate::graph::trace::{self, Handle};
use crate::graph::{DType, Graph, Value};
use crate::language::element::Float;
use crate::language::shape::Shape;
use crate::ops::{GradContext, elementwise, leaf};
use crate::tensor::Tensor;

/// Why gradients cannot be taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GradError {
    /// The loss is not a real scalar.
    #[error("the loss must be one real number, it is {found}")]
    NotScalar {
        /// Its type.
        found: String,
    },
    /// An operation between a parameter and the loss has no gradient.
    #[error("`{op}` in {location} has no gradient: {reason}")]
    NoGradient {
        /// The operation.
        op: String,
        /// The module.
        location: String,
        /// Why.
        reason: String,
    },
    /// A rule built something inconsistent.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
}

/// The gradients of `loss` by each of `wrt`, in order; zeros where the loss does not depend on
/// one. The graph is extended, nothing in it changes.
///
/// # Errors
/// A loss that is not a real scalar; an operation without a gradient on a path from `wrt` to
/// the loss, named with its module.
pub fn grad(graph: &mut Graph, loss: Value, wrt: &[Value]) -> Result<Vec<Value>, GradError> {
    let ty = graph.ty(loss);
    if ty.rank() != 0 || ty.dtype != DType::F32 {
        return Err(GradError::NotScalar { found: ty.to_string() });
    }
    // What depends on `wrt` through real numbers.
    let count = loss.node as usize + 1;
    let mut depends = vec![false; graph.nodes.len()];
    for v in wrt {
        depends[v.node as usize] = true;
    }
    for id in 0..count {
        let through = |v: &Value| depends[v.node as usize] && graph.ty(*v).dtype == DType::F32;
        depends[id] |= graph.nodes[id].inputs.iter().any(through);
    }
    let mut failure = None;
    let grads = trace::extend(graph, |graph_view| {
        let mut grads: Vec<Vec<Option<Handle>>> = graph_view.nodes.iter().map(|n| vec![None; n.types.len()]).collect();
        grads[loss.node as usize][loss.port as usize] = Some(leaf::scalar(1.0));
        for id in (0..count).rev() {
            let node = &graph_view.nodes[id];
            let touched = grads[id].iter().any(Option::is_some);
            if !depends[id] || !touched || node.inputs.is_empty() {
                continue;
            }
            let wanted: Vec<bool> =
                node.inputs.iter().map(|v| depends[v.node as usize] && graph_view.ty(*v).dtype == DType::F32).collect();
            let cx = GradContext {
                inputs: node.inputs.iter().map(|v| trace::handle(*v)).collect(),
                outputs: (0..node.types.len())
                    .map(|p| trace::handle(Value { node: id as u32, port: p as u16 }))
                    .collect(),
                grads: grads[id].clone(),
                wanted,
            };
            let rule = node.op.rule();
            match trace::in_scope(node.scope, || rule.grad(&cx)) {
                Ok(found) => {
                    for ((v, g), wanted) in node.inputs.iter().zip(found).zip(&cx.wanted) {
                        if let (Some(g), true) = (g, wanted) {
                            let slot = &mut grads[v.node as usize][v.port as usize];
                            *slot = Some(match *slot {
                                Some(sum) => trace::in_scope(node.scope, || elementwise::add(sum, g)),
                                None => g,
                            });
                        }
                    }
                }
                Err(reason) => {
                    failure.get_or_insert(GradError::NoGradient {
                        op: rule.name().into(),
                        location: graph_view.location(node.scope),
                        reason: reason.0,
                    });
                }
            }
        }
        wrt.iter()
            .map(|v| {
                let g = grads[v.node as usize][v.port as usize];
                g.unwrap_or_else(|| leaf::fill(0.0, graph_view.ty(*v).clone()))
            })
            .map(trace::value)
            .collect::<Vec<Value>>()
    })?;
    match failure {
        Some(e) => Err(e),
        None => Ok(grads),
    }
}

/// The gradients of `loss` by each of `wrt` as values of the function being traced, so that it may
/// go on computing with them. PyTorch: `torch.autograd.grad(loss, wrt, create_graph=True)`.
///
/// What [`grad`] refuses is a mistake of the trace.
pub fn gradients(loss: Handle, wrt: &[Handle]) -> Vec<Handle> {
    if trace::failed() {
        return wrt.to_vec();
    }
    let (loss, values) = (trace::value(loss), wrt.iter().map(|h| trace::value(*h)).collect::<Vec<_>>());
    match trace::append(|graph| grad(graph, loss, &values)) {
        Ok(found) => found.into_iter().map(trace::handle).collect(),
        Err(e) => {
            trace::fail(e.to_string());
            wrt.to_vec()
        }
    }
}

impl<E: Float> Tensor<(), E> {
    /// The gradient of this number by a value that it was computed from, with its axes; zeros
    /// where it does not depend on it. PyTorch: `torch.autograd.grad(loss, x, create_graph=True)`.
    ///
    /// Training needs no call of this: [`Model::train_step`](crate::Model::train_step) takes the
    /// gradients by all parameters. It is for losses and models that contain derivatives.
    ///
    /// ```
    /// use mobilis_runtime::prelude::*;
    /// # extern crate mobilis_runtime as mobilis;
    /// axes! { pub Points; }
    /// let slopes = Model::init((), 0)?.compile(|_, x: Tensor![Points]| {
    ///     let first = x.pow(3.0).sum_all().gradient(x);
    ///     let second = first.sum_all().gradient(x);
    ///     (first, second)
    /// })?;
    /// let (first, second) = slopes.run(<Array![Points]>::from_vec(vec![1.0, 2.0])?)?;
    /// assert_eq!((first.data(), second.data()), (&[3.0, 12.0][..], &[6.0, 12.0][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn gradient<S: Shape, F: Float>(self, by: Tensor<S, F>) -> Tensor<S> {
        Tensor::from_raw(gradients(self.raw(), &[by.raw()])[0])
    }
}
