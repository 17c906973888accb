//! Long short-term memory.
//!
//! ```text
//! i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of gates_t + W h
//! c' = f c + i g        h' = o tanh(c')        y_t = h'
//! ```
//!
//! The gradient, with `dh` and `dc` arriving from the step after:
//!
//! ```text
//! dh += dy_t              dc += dh o (1 - tanh(c')^2)
//! do = dh tanh(c')        di = dc g        df = dc c        dg = dc i
//! da = [di i (1-i), df f (1-f), dg (1-g^2), do o (1-o)]     (gradient of gates_t)
//! dW += da h^T            dh <- W^T da     dc <- dc f
//! ```

use super::{Direction, check, flops, grads, ty, wide};
use crate::graph::trace::{Handle, opn};
use crate::graph::{Extent, TensorType};
use crate::ops::{Cost, GradContext, NoGradient, Rule};

/// All steps of an LSTM: `gates[b, t, 4h], weight[4h, h], h0[b, h], c0[b, h][, lengths[b]]`
/// gives `y[b, t, h], h[b, h], c[b, h]` and for the gradient the activated gates `[b, t, 4h]`
/// and the cells `[b, t, h]`.
#[derive(Clone, Debug)]
pub struct Lstm {
    /// The order of the steps.
    pub direction: Direction,
}

/// The gradient of [`Lstm`]: `weight, h0, c0, y, gates, cells, dy, dh, dc[, lengths]` gives the
/// gradients of `gates, weight, h0, c0`.
#[derive(Clone, Debug)]
pub struct LstmGrad {
    /// The order of the forward steps.
    pub direction: Direction,
}

impl Rule for Lstm {
    fn name(&self) -> &'static str {
        "lstm"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [gates, weight, h, c, rest @ ..] = inputs else {
            return Err(format!("takes 4 or 5 inputs, is given {}", inputs.len()));
        };
        let [b, t, hidden] = &check(4, gates, weight, &[h, c], rest.first())?;
        let state = ty(&[b, hidden]);
        let steps = ty(&[b, t, hidden]);
        Ok(vec![steps.clone(), state.clone(), state, ty(&[b, t, &wide(4, hidden)]), steps])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut inputs = vec![cx.inputs[1], cx.inputs[2], cx.inputs[3], cx.outputs[0], cx.outputs[3], cx.outputs[4]];
        inputs.extend(grads(cx, 0..3));
        inputs.extend(cx.inputs.get(4));
        let out = opn(LstmGrad { direction: self.direction }, &inputs, 4);
        Ok(out.into_iter().map(Some).chain(cx.inputs.get(4).map(|_| None)).collect())
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = check(4, inputs[0], inputs[1], &[], None).map(|dims| flops(4, &dims));
        Cost::streaming(flops.unwrap_or(Extent::constant(0)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.direction.attribute()
    }
}

impl Rule for LstmGrad {
    fn name(&self) -> &'static str {
        "lstm_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [weight, h, c, y, gates, cells, dy, dh, dc, rest @ ..] = inputs else {
            return Err(format!("takes 9 or 10 inputs, is given {}", inputs.len()));
        };
        check(4, gates, weight, &[h, c, dh, dc], rest.first())?;
        if let Some(t) = [cells, dy].iter().find(|t| !t.same_extents(y)) {
            return Err(format!("takes steps {y}, is given {t}"));
        }
        Ok(vec![(*gates).clone(), (*weight).clone(), (*h).clone(), (*c).clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of an LSTM are not available".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = check(4, inputs[4], inputs[0], &[], None).map(|dims| flops(8, &dims));
        Cost::streaming(flops.unwrap_or(Extent::constant(0)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.direction.attribute()
    }
}

/// All steps of an LSTM; see [`Lstm`]. Gives `[y, h, c]`. PyTorch: one layer and direction of
/// `torch.nn.LSTM(batch_first=True)`.
pub fn lstm(
    gates: Handle,
    weight: Handle,
    [h, c]: [Handle; 2],
    lengths: Option<Handle>,
    direction: Direction,
) -> [Handle; 3] {
    let inputs: Vec<Handle> = [gates, weight, h, c].into_iter().chain(lengths).collect();
    let out = opn(Lstm { direction }, &inputs, 5);
    [out[0], out[1], out[2]]
}
