//! Embedding on the CPU.

use super::lower::Lower;
use mobilis_kernels::cpu::embedding::{check, embedding, embedding_grad, stored_embedding};

pub fn lower(cx: &mut Lower) {
    let (rows, width) = (cx.input_sizes(0)[0], cx.input_sizes(0)[1]);
    if let Some((table, first)) = cx.table() {
        let (ids, out) = (cx.input(1), cx.output(0));
        cx.try_task(move |m| {
            let (ids, table) = (m.i32(ids), table.rows()?);
            check(&ids, rows)?;
            let table = (table.encoding(), &table.bytes()[..], first);
            stored_embedding(m.pool(), table, &ids, width, &mut m.f32_mut(out));
            Ok(())
        });
        return;
    }
    let (table, ids, out) = (cx.input(0), cx.input(1), cx.output(0));
    cx.try_task(move |m| {
        let ids = m.i32(ids);
        check(&ids, rows)?;
        embedding(m.pool(), &m.f32(table), &ids, width, &mut m.f32_mut(out));
        Ok(())
    });
}

pub fn grad(cx: &mut Lower) {
    let (rows, width) = (cx.output_sizes(0)[0], cx.output_sizes(0)[1]);
    let (ids, g, out) = (cx.input(0), cx.input(1), cx.output(0));
    cx.try_task(move |m| {
        let ids = m.i32(ids);
        check(&ids, rows)?;
        embedding_grad(m.pool(), &ids, &m.f32(g), width, &mut m.f32_mut(out));
        Ok(())
    });
}
