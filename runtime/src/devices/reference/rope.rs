//! Rotary embedding on the reference device.

use super::array::for_each_index;
use super::{Eval, RefArray};
use crate::ops::rope::{Pairing, Rope, RopeTable};

pub fn table(op: &RopeTable, cx: &Eval) -> Result<Vec<RefArray>, String> {
    let positions = cx.inputs[0];
    let half = cx.outputs[0][cx.outputs[0].len() - 1];
    let last = positions.data.iter().fold(-1.0, |m: f64, p| m.max(*p));
    let (mut cos, mut sin) = (vec![], vec![]);
    for (i, p) in positions.data.iter().enumerate() {
        let length = cx.inputs.get(1).map_or(last + 1.0, |lengths| lengths.data[i]);
        let (frequencies, factor) = op.rotary.frequencies(half, length as usize)?;
        cos.extend(frequencies.iter().map(|w| (p * w).cos() * factor));
        sin.extend(frequencies.iter().map(|w| (p * w).sin() * factor));
    }
    Ok(vec![RefArray::new(&cx.outputs[0], cos), RefArray::new(&cx.outputs[1], sin)])
}

pub fn rope(op: &Rope, cx: &Eval) -> Result<RefArray, String> {
    let (x, cos, sin) = (cx.inputs[0], cx.inputs[1], cx.inputs[2]);
    let (features, half) = (x.sizes[x.sizes.len() - 1], cos.sizes[cos.sizes.len() - 1]);
    if 2 * half > features {
        return Err(format!("{half} pairs do not fit into {features} features"));
    }
    let mut out = x.clone();
    for_each_index(&x.sizes[..x.sizes.len() - 1], |index| {
        let row: Vec<usize> = index.iter().copied().chain([0]).collect();
        let start = x.offset(&row);
        for i in 0..half {
            let (a, b) = match op.pairing {
                Pairing::HalfSplit => (start + i, start + i + half),
                Pairing::Interleaved => (start + 2 * i, start + 2 * i + 1),
            };
            let at: Vec<usize> = op.axes.iter().map(|d| index[*d]).chain([i]).collect();
            let (c, s) = (cos.at(&at), if op.inverse { -sin.at(&at) } else { sin.at(&at) });
            (out.data[a], out.data[b]) = (x.data[a] * c - x.data[b] * s, x.data[b] * c + x.data[a] * s);
        }
    });
    Ok(out)
}
