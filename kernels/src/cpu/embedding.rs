//! Rows of a table, and their gradients.

use super::quant::Encoding;
use super::share::Shared;
use crate::pool::Pool;

/// Whether every index names one of `rows` rows.
///
/// # Errors
/// The first that does not.
pub fn check(ids: &[i32], rows: usize) -> Result<(), String> {
    match ids.iter().find(|id| **id < 0 || **id as usize >= rows) {
        Some(id) => Err(format!("index {id} is outside the table of {rows} rows (0 to {})", rows as i64 - 1)),
        None => Ok(()),
    }
}

/// `out[i] = table[ids[i]]` for rows of `width` values. Indices have passed [`check`].
pub fn embedding(pool: &Pool, table: &[f32], ids: &[i32], width: usize, out: &mut [f32]) {
    pool.rows(out, width, (8192 / width.max(1)).max(1), |first, block| {
        for (r, row) in block.chunks_exact_mut(width).enumerate() {
            let id = ids[first + r] as usize;
            row.copy_from_slice(&table[id * width..(id + 1) * width]);
        }
    });
}

/// The same from a table as a file stores it: its encoding, its bytes, and the number of the first
/// row's first value in them.
pub fn stored_embedding(
    pool: &Pool,
    (encoding, bytes, first): (Encoding, &[u8], usize),
    ids: &[i32],
    width: usize,
    out: &mut [f32],
) {
    pool.rows(out, width, (4096 / width.max(1)).max(1), |from, block| {
        for (r, row) in block.chunks_exact_mut(width).enumerate() {
            encoding.widen(bytes, first + ids[from + r] as usize * width, row);
        }
    });
}

/// `out[ids[i]] += g[i]` into zeros. Each task has a range of the table's rows and meets the
/// indices in their order, so the sums do not depend on threads.
pub fn embedding_grad(pool: &Pool, ids: &[i32], g: &[f32], width: usize, out: &mut [f32]) {
    if width == 0 {
        return;
    }
    let rows = out.len() / width;
    // One task per thread: each reads all indices.
    let tasks = pool.threads().min(rows);
    let each = rows.div_ceil(tasks.max(1));
    let out = Shared::new(out);
    pool.run(tasks, &|task| {
        let mine = task * each..((task + 1) * each).min(rows);
        if mine.is_empty() {
            return;
        }
        // SAFETY: ranges of rows are disjoint.
        let out = unsafe { out.part(mine.start * width, mine.len() * width) };
        out.fill(0.0);
        for (id, g) in ids.iter().zip(g.chunks_exact(width)) {
            if mine.contains(&(*id as usize)) {
                let at = (*id as usize - mine.start) * width;
                out[at..at + width].iter_mut().zip(g).for_each(|(o, g)| *o += g);
            }
        }
    });
}
