//! A profile as JSON.

use super::{Profile, Row};
use crate::json::Json;

fn row(r: &Row) -> Vec<(&'static str, Json)> {
    vec![
        ("name", r.name.as_str().into()),
        ("calls", r.calls.into()),
        ("seconds", r.seconds.into()),
        ("flops", r.flops.into()),
        ("bytes", r.bytes.into()),
        ("flops_per_second", r.rate().into()),
        ("bytes_per_second", r.bandwidth().into()),
        ("share_of_limit", r.share().map_or(Json::Null, Json::from)),
    ]
}

impl Profile {
    /// Everything but the trace, as one JSON object: seconds, operations and bytes per run.
    pub fn to_json(&self) -> String {
        let (limits, threads) = (self.limits, self.threads);
        let of = |rate: mobilis_kernels::cpu::limits::Rate| Json::from(rate.of(threads, limits.threads));
        let object = |entries: Vec<(&'static str, Json)>| Json::map(entries);
        let mut ceilings = vec![("flops_per_second", of(limits.peak())), ("copy_bytes_per_second", of(limits.copy))];
        ceilings.extend(limits.int8_ops.map(|r| ("int8_operations_per_second", of(r))));
        let read = limits.read.iter().map(|r| {
            object(vec![("level", r.name.into()), ("bytes", r.bytes.into()), ("bytes_per_second", of(r.rate))])
        });
        ceilings.push(("read", Json::list(read)));
        let modules = self.modules.iter().map(|m| {
            let mut entries = row(&m.row);
            entries[0].0 = "path";
            entries.insert(1, ("type", m.kind.into()));
            object(entries)
        });
        let tasks = self.tasks.iter().map(|t| {
            let mut entries = row(&t.row);
            entries.extend([
                ("kernel", t.kernel.as_str().into()),
                ("module", self.modules[t.scope].row.name.as_str().into()),
                ("detail", t.detail.as_str().into()),
            ]);
            object(entries)
        });
        let entries = vec![
            ("seconds", self.seconds.into()),
            ("runs", self.runs.into()),
            ("threads", threads.into()),
            ("arena_bytes", self.memory.0.into()),
            ("arena_lower_bound", self.memory.1.into()),
            ("variable_bytes", self.variables.into()),
            ("machine", object(ceilings)),
            ("operations", Json::list(self.operations.iter().map(|r| object(row(r))))),
            ("modules", Json::list(modules)),
            ("tasks", Json::list(tasks)),
        ];
        object(entries).to_string()
    }
}
