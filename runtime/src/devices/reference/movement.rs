//! Movement on the reference device.

use super::{Eval, RefArray};
use crate::ops::movement::Permute;

pub fn reshape(cx: &Eval) -> RefArray {
    RefArray::new(&cx.outputs[0], cx.inputs[0].data.clone())
}

pub fn permute(op: &Permute, cx: &Eval) -> RefArray {
    let x = cx.inputs[0];
    let mut source = vec![0; op.perm.len()];
    RefArray::from_fn(&cx.outputs[0], |index| {
        for (to, from) in op.perm.iter().enumerate() {
            source[*from] = index[to];
        }
        x.at(&source)
    })
}

pub fn broadcast(cx: &Eval) -> RefArray {
    RefArray::from_fn(&cx.outputs[0], |index| cx.inputs[0].at_suffix(index))
}
