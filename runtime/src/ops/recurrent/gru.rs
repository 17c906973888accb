//! Gated recurrent unit, in the form of cuDNN and PyTorch: the reset gate multiplies what the
//! recurrent weight makes of the state, its bias included.
//!
//! ```text
//! r, z = sigmoid of gates_t + W h + bias        q = W_n h + bias_n
//! n = tanh(gates_t + r q)        h' = (1 - z) n + z h        y_t = h'
//! ```
//!
//! The gradient, with `dh` arriving from the step after:
//!
//! ```text
//! dh += dy_t       dn = dh (1 - z) (1 - n^2)       dz = dh (h - n) z (1 - z)
//! dr = dn q r (1 - r)                 dgates = [dr, dz, dn]      e = [dr, dz, dn r]
//! dW += e h^T      dbias += e         dh <- dh z + W^T e
//! ```

use super::{Direction, check, flops, grads, ty, wide};
use crate::graph::trace::{Handle, opn};
use crate::graph::{DType, Extent, TensorType};
use crate::ops::{Cost, GradContext, NoGradient, Rule};

/// All steps of a GRU: `gates[b, t, 3h], weight[3h, h], bias[3h], h0[b, h][, lengths[b]]` gives
/// `y[b, t, h], h[b, h]` and for the gradient `r, z, n, q` as `[b, t, 4h]`.
#[derive(Clone, Debug)]
pub struct Gru {
    /// The order of the steps.
    pub direction: Direction,
}

/// The gradient of [`Gru`]: `weight, h0, y, saved, dy, dh[, lengths]` gives the gradients of
/// `gates, weight, bias, h0`.
#[derive(Clone, Debug)]
pub struct GruGrad {
    /// The order of the forward steps.
    pub direction: Direction,
}

impl Rule for Gru {
    fn name(&self) -> &'static str {
        "gru"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [gates, weight, bias, h, rest @ ..] = inputs else {
            return Err(format!("takes 4 or 5 inputs, is given {}", inputs.len()));
        };
        let [b, t, hidden] = &check(3, gates, weight, &[h], rest.first())?;
        if bias.rank() != 1 || bias.dims[0].extent != weight.dims[0].extent || bias.dtype != DType::F32 {
            return Err(format!("takes a bias over `{}`, is given {bias}", weight.dims[0]));
        }
        Ok(vec![ty(&[b, t, hidden]), ty(&[b, hidden]), ty(&[b, t, &wide(4, hidden)])])
    }
    fn grad(&self, cx: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        let mut inputs = vec![cx.inputs[1], cx.inputs[3], cx.outputs[0], cx.outputs[2]];
        inputs.extend(grads(cx, 0..2));
        inputs.extend(cx.inputs.get(4));
        let out = opn(GruGrad { direction: self.direction }, &inputs, 4);
        Ok(out.into_iter().map(Some).chain(cx.inputs.get(4).map(|_| None)).collect())
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = check(3, inputs[0], inputs[1], &[], None).map(|dims| flops(3, &dims));
        Cost::streaming(flops.unwrap_or(Extent::constant(0)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.direction.attribute()
    }
}

impl Rule for GruGrad {
    fn name(&self) -> &'static str {
        "gru_grad"
    }
    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [weight, h, y, saved, dy, dh, rest @ ..] = inputs else {
            return Err(format!("takes 6 or 7 inputs, is given {}", inputs.len()));
        };
        if y.rank() != 3 || weight.rank() != 2 || !dy.same_extents(y) {
            return Err(format!("takes steps [batch, time, hidden] and a weight, is given {y}, {dy} and {weight}"));
        }
        let gates = ty(&[&y.dims[0], &y.dims[1], &wide(3, &weight.dims[1])]);
        check(3, &gates, weight, &[h, dh], rest.first())?;
        if !saved.same_extents(&ty(&[&y.dims[0], &y.dims[1], &wide(4, &weight.dims[1])])) {
            return Err(format!("takes the saved gates of {y}, is given {saved}"));
        }
        Ok(vec![gates, (*weight).clone(), ty(&[&weight.dims[0]]), (*h).clone()])
    }
    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("second derivatives of a GRU are not available".into()))
    }
    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let flops = check(3, &outputs[0], inputs[0], &[], None).map(|dims| flops(6, &dims));
        Cost::streaming(flops.unwrap_or(Extent::constant(0)), inputs, outputs)
    }
    fn attributes(&self) -> String {
        self.direction.attribute()
    }
}

/// All steps of a GRU; see [`Gru`]. Gives `[y, h]`. PyTorch: one layer and direction of
/// `torch.nn.GRU(batch_first=True)`.
pub fn gru(
    gates: Handle,
    weight: Handle,
    bias: Handle,
    h: Handle,
    lengths: Option<Handle>,
    direction: Direction,
) -> [Handle; 2] {
    let inputs: Vec<Handle> = [gates, weight, bias, h].into_iter().chain(lengths).collect();
    let out = opn(Gru { direction }, &inputs, 3);
    [out[0], out[1]]
}
