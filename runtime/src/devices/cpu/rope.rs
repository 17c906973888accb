//! Rotary embedding on the CPU.

use super::lower::Lower;
use crate::devices::reference::array::strides;
use crate::ops::rope::{Pairing, Rope, RopeTable};
use mobilis_kernels::cpu::rope::{self, rope, table};
use std::sync::Mutex;

pub fn lower_table(op: &RopeTable, cx: &mut Lower) -> Result<(), String> {
    let half = *cx.output_sizes(0).last().ok_or("has no pairs")?;
    let (positions, cos, sin) = (cx.input(0), cx.output(0), cx.output(1));
    // Frequencies are known now, unless they depend on how long the text is.
    if !op.rotary.scaling.depends_on_length() {
        let (frequencies, factor) = op.rotary.frequencies(half, 0)?;
        cx.task(move |m| {
            table(m.pool(), &frequencies, factor, &m.i32(positions), &mut m.f32_mut(cos), &mut m.f32_mut(sin));
        });
        return Ok(());
    }
    // A place for them is kept, so that a run allocates nothing.
    let (rotary, frequencies) = (op.rotary.clone(), Mutex::new(vec![0.0; half]));
    let lengths = (cx.inputs() > 1).then(|| cx.input(1));
    cx.try_task(move |m| {
        let positions = m.i32(positions);
        let mut frequencies = frequencies.lock().unwrap_or_else(|e| e.into_inner());
        let (mut cos, mut sin) = (m.f32_mut(cos), m.f32_mut(sin));
        // Neighbours of one length are filled in together.
        let lengths = lengths.map(|l| m.i32(l));
        let mut first = 0;
        while first < positions.len() {
            let (length, count) = match &lengths {
                None => (positions.iter().fold(-1, |l, p| l.max(*p)) + 1, positions.len()),
                Some(l) => (l[first], l[first..].iter().take_while(|n| **n == l[first]).count()),
            };
            let factor = rotary.fill(length.max(0) as usize, &mut frequencies)?;
            let (last, place) = (first + count, first * half..(first + count) * half);
            let (cos, sin) = (&mut cos[place.clone()], &mut sin[place]);
            table(m.pool(), &frequencies, factor, &positions[first..last], cos, sin);
            first = last;
        }
        Ok(())
    });
    Ok(())
}

pub fn lower(op: &Rope, cx: &mut Lower) -> Result<(), String> {
    let (sizes, table) = (cx.input_sizes(0).to_vec(), cx.input_sizes(1).to_vec());
    let (features, half) = (sizes[sizes.len() - 1], table[table.len() - 1]);
    if 2 * half > features {
        return Err(format!("{half} pairs do not fit into {features} features"));
    }
    // Rows of features in row-major order; for each dimension that the table follows: its distance
    // in rows, its size, and the table's distance in rows.
    let rows = strides(&sizes[..sizes.len() - 1]);
    let steps = strides(&table[..table.len() - 1]);
    let follow: Vec<(usize, usize, usize)> =
        op.axes.iter().zip(&steps).map(|(axis, step)| (rows[*axis], sizes[*axis].max(1), *step)).collect();
    let kernel = rope::Rope { features, half, interleaved: op.pairing == Pairing::Interleaved, inverse: op.inverse };
    let (x, cos, sin, y) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
    cx.task(move |m| rope(m.pool(), kernel, &follow, &m.f32(x), &m.f32(cos), &m.f32(sin), &mut m.f32_mut(y)));
    Ok(())
}
