//! A profile's last run as a trace in Chrome's format, for Perfetto (<https://ui.perfetto.dev>) or
//! `chrome://tracing`: modules above their tasks, and below them what every thread did.
//!
//! The format: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use super::Profile;
use crate::json::Json;
use std::time::Duration;

type Span = (Duration, Duration);

fn micros(t: Duration) -> Json {
    Json::from(t.as_secs_f64() * 1e6)
}

/// A complete event.
fn event(name: &str, thread: usize, (start, end): Span, details: Vec<(&'static str, Json)>) -> Json {
    Json::map(vec![
        ("name", Json::from(name)),
        ("ph", "X".into()),
        ("pid", 1usize.into()),
        ("tid", thread.into()),
        ("ts", micros(start)),
        ("dur", micros(end.saturating_sub(start))),
        ("args", Json::map(details)),
    ])
}

fn thread_name(thread: usize, name: &str) -> Json {
    Json::map(vec![
        ("name", Json::from("thread_name")),
        ("ph", "M".into()),
        ("pid", 1usize.into()),
        ("tid", thread.into()),
        ("args", Json::map([("name", name)])),
    ])
}

impl Profile {
    /// The last run for Perfetto or `chrome://tracing`.
    pub fn to_trace(&self) -> String {
        let mut events = vec![thread_name(0, "program")];
        self.module_events(&mut events);
        for task in &self.tasks {
            let details = vec![
                ("kernel", task.kernel.as_str().into()),
                ("module", self.modules[task.scope].row.name.as_str().into()),
                ("detail", task.detail.as_str().into()),
                ("median_us", (task.row.seconds * 1e6).into()),
                ("flops", task.row.flops.into()),
                ("bytes", task.row.bytes.into()),
            ];
            events.push(event(&task.row.name, 0, task.span, details));
        }
        let mut threads: Vec<&str> = self.busy.iter().map(|b| b.0.as_str()).collect();
        threads.sort_unstable();
        threads.dedup();
        for (i, name) in threads.iter().enumerate() {
            events.push(thread_name(i + 1, &format!("thread {name}")));
        }
        for (name, start, end) in &self.busy {
            let thread = threads.iter().position(|t| t == name).map_or(0, |i| i + 1);
            // The task in whose time the thread worked.
            let at = self.tasks.partition_point(|t| t.span.0 <= *start).checked_sub(1);
            let what = at.map_or("outside of tasks", |i| self.tasks[i].row.name.as_str());
            events.push(event(what, thread, (*start, *end), vec![]));
        }
        Json::map(vec![("traceEvents", Json::list(events)), ("displayTimeUnit", "ms".into())]).to_string()
    }

    /// For every stretch of tasks of one module an event around them, outer modules first.
    fn module_events(&self, events: &mut Vec<Json>) {
        let path = |task: usize| {
            let mut path = vec![self.tasks[task].scope];
            while let Some(at) = path.last().filter(|s| **s != 0) {
                path.push(self.modules[*at].parent);
            }
            path.reverse();
            path
        };
        // Modules that are open: which, and since when.
        let mut open: Vec<(usize, Duration)> = vec![];
        let mut close = |open: &mut Vec<(usize, Duration)>, keep: usize, end: Duration| {
            for (module, start) in open.drain(keep..) {
                let m = &self.modules[module];
                let name =
                    if m.row.name.is_empty() { m.kind.to_string() } else { format!("{} ({})", m.row.name, m.kind) };
                events.push(event(&name, 0, (start, end), vec![]));
            }
        };
        for i in 0..self.tasks.len() {
            let path = path(i);
            let same = open.iter().zip(&path).take_while(|(o, p)| o.0 == **p).count();
            let before = if i > 0 { self.tasks[i - 1].span.1 } else { Duration::ZERO };
            close(&mut open, same, before);
            open.extend(path[same..].iter().map(|m| (*m, self.tasks[i].span.0)));
        }
        let end = self.tasks.last().map_or(Duration::ZERO, |t| t.span.1);
        close(&mut open, 0, end);
    }
}
