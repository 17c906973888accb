//! A profile as text.

use super::{Profile, Row};
use crate::graph::polynomial::bytes;
use std::fmt::Write;

/// Seconds for people: `1.23 ms`.
pub(super) fn seconds(t: f64) -> String {
    let (scaled, unit) = match t {
        t if t >= 1.0 => (t, "s"),
        t if t >= 1e-3 => (t * 1e3, "ms"),
        t => (t * 1e6, "µs"),
    };
    let decimals = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.decimals$} {unit}")
}

/// A rate in billions: `98.1`.
pub(super) fn giga(rate: f64) -> String {
    match rate / 1e9 {
        0.0 => String::new(),
        r if r < 0.01 => format!("{r:.4}"),
        r => format!("{r:.decimals$}", decimals = if r < 9.995 { 2 } else { usize::from(r < 99.95) }),
    }
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.*} %", usize::from(part < 0.0995), part * 100.0)
}

const HEAD: [&str; 8] = ["", "calls", "time", "share", "GFLOP/s", "GB/s", "of limit", "FLOP/B"];

fn cells(name: String, row: &Row, total: f64) -> [String; 8] {
    [
        name,
        row.calls.to_string(),
        seconds(row.seconds),
        percent(row.seconds / total.max(1e-12)),
        giga(row.rate()),
        giga(row.bandwidth()),
        row.share().map(percent).unwrap_or_default(),
        if row.bytes > 0.0 { format!("{:.1}", row.intensity()) } else { String::new() },
    ]
}

fn table(out: &mut String, title: &str, rows: Vec<[String; 8]>) {
    let head = HEAD.map(String::from);
    let all = || std::iter::once(&head).chain(&rows);
    let width: Vec<usize> = (0..HEAD.len()).map(|c| all().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let _ = writeln!(out, "\n{title}");
    for row in all() {
        let mut line = format!("  {:w$}", row[0], w = width[0]);
        for (cell, w) in row.iter().zip(&width).skip(1) {
            let _ = write!(line, "  {cell:>w$}");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// How many of the slowest tasks are listed.
const SLOWEST: usize = 12;

impl Profile {
    /// Tables for a terminal: kinds of operations, modules, the slowest tasks, memory.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let (limits, threads) = (self.limits, self.threads);
        let of = |rate: mobilis_kernels::cpu::limits::Rate| rate.of(threads, limits.threads);
        let whole = Row { seconds: self.seconds, ..self.modules[0].row.clone() };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{} a run (median of {}), {} tasks on {} thread{}: {} GFLOP, {} GFLOP/s, {} of the peak",
            seconds(self.seconds),
            self.runs,
            self.tasks.len(),
            threads,
            if threads == 1 { "" } else { "s" },
            giga(whole.flops),
            giga(whole.rate()),
            percent(whole.rate() / of(limits.peak())),
        );
        let bandwidths: Vec<String> = limits.read.iter().map(|r| format!("{} {}", r.name, giga(of(r.rate)))).collect();
        let _ = writeln!(
            out,
            "the machine: {} GFLOP/s, reading {} GB/s, copying {} GB/s",
            giga(of(limits.peak())),
            bandwidths.join(", "),
            giga(of(limits.copy)),
        );
        let (arena, lower) = self.memory;
        let _ = writeln!(
            out,
            "memory: {} for values between operations (at least {}), {} for parameters and states",
            bytes(arena as u64),
            bytes(lower as u64),
            bytes(self.variables as u64),
        );
        let mut rows: Vec<_> = self.operations.iter().map(|r| cells(r.name.clone(), r, self.seconds)).collect();
        let outside = self.seconds - self.operations.iter().map(|r| r.seconds).sum::<f64>();
        if outside > 0.0 {
            let row = Row { seconds: outside, ..Row::default() };
            let mut line = cells("outside of tasks".into(), &row, self.seconds);
            line[1].clear();
            rows.push(line);
        }
        table(&mut out, "operations", rows);
        table(&mut out, "modules", self.module_lines());
        let mut order: Vec<_> = self.tasks.iter().collect();
        order.sort_by(|a, b| b.row.seconds.total_cmp(&a.row.seconds));
        let slowest = order.iter().take(SLOWEST).map(|t| {
            let path = &self.modules[t.scope].row.name;
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            cells(clip(&format!("{place}{} {}", t.row.name, t.detail), 76), &t.row, self.seconds)
        });
        table(&mut out, "slowest tasks", slowest.collect());
        out
    }

    /// Modules as a tree, each under its own.
    fn module_lines(&self) -> Vec<[String; 8]> {
        let mut lines = vec![];
        // A scope may be entered again after others: children are found by their parent.
        let mut todo = vec![(0usize, 0usize)];
        while let Some((at, depth)) = todo.pop() {
            let module = &self.modules[at];
            if module.row.calls == 0 && at != 0 {
                continue;
            }
            let own = module.row.name.rsplit('.').next().filter(|n| !n.is_empty());
            let name = match own {
                // The number of an element alone says little.
                Some(n) if n.bytes().all(|b| b.is_ascii_digit()) => {
                    let parts: Vec<&str> = module.row.name.rsplitn(3, '.').collect();
                    format!("{}.{n} ({})", parts.get(1).unwrap_or(&""), module.kind)
                }
                Some(n) => format!("{n} ({})", module.kind),
                None => module.kind.to_string(),
            };
            lines.push(cells(format!("{}{name}", "  ".repeat(depth)), &module.row, self.seconds));
            let children = (1..self.modules.len()).rev().filter(|c| self.modules[*c].parent == at);
            todo.extend(children.map(|c| (c, depth + 1)));
        }
        lines
    }
}

/// At most so many characters.
pub(super) fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most - 1) {
        Some((end, _)) if text.chars().count() > most => format!("{}…", &text[..end]),
        _ => text.into(),
    }
}
