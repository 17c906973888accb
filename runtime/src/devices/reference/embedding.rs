//! Embedding on the reference device.

use super::{Eval, RefArray};

/// The row that an index picks, or what is wrong with it.
fn row(id: f64, rows: usize) -> Result<usize, String> {
    if id >= 0.0 && id < rows as f64 {
        return Ok(id as usize);
    }
    Err(format!("index {id} is outside the table of {rows} rows (0 to {})", rows as i64 - 1))
}

pub fn embedding(cx: &Eval) -> Result<RefArray, String> {
    let (table, ids) = (cx.inputs[0], cx.inputs[1]);
    let width = table.sizes[1];
    let mut data = vec![];
    for id in &ids.data {
        let r = row(*id, table.sizes[0])?;
        data.extend(&table.data[r * width..(r + 1) * width]);
    }
    Ok(RefArray::new(&cx.outputs[0], data))
}

pub fn grad(cx: &Eval) -> Result<RefArray, String> {
    let (ids, g) = (cx.inputs[0], cx.inputs[1]);
    let mut out = RefArray::filled(&cx.outputs[0], 0.0);
    let width = out.sizes[1];
    for (i, id) in ids.data.iter().enumerate() {
        let r = row(*id, out.sizes[0])?;
        for j in 0..width {
            out.data[r * width + j] += g.data[i * width + j];
        }
    }
    Ok(out)
}
