//! Movement on GPUs: views, and copies where strides cannot express it.

use super::lower::Lower;
use crate::devices::lower::Emit;
use crate::devices::view::View;
use crate::ops::movement::Permute;

pub fn reshape(cx: &mut Lower) {
    let view = cx.as_stored(0);
    let sizes = cx.output_sizes(0).to_vec();
    let view = view.reshape(&sizes).unwrap_or_else(|| {
        let v = cx.value(0);
        let piece = cx.piece_of(v);
        View { offset: piece.offset, ..View::whole(piece.slot, &sizes, view.dtype) }
    });
    cx.alias(0, view);
}

pub fn permute(op: &Permute, cx: &mut Lower) {
    let view = cx.as_stored(0).permute(&op.perm);
    cx.alias(0, view);
}

pub fn broadcast(cx: &mut Lower) {
    let sizes = cx.output_sizes(0).to_vec();
    let view = cx.as_stored(0).broadcast(&sizes);
    cx.alias(0, view);
}
