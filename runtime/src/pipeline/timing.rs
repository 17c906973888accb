//! Where a pipeline's time goes, stage by stage.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a pipeline counts for one call of a stage in it. All copies of a pipeline share it.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    items: AtomicU64,
    calls: AtomicU64,
    busy: AtomicU64,
    longest: AtomicU64,
    starved: AtomicU64,
    blocked: AtomicU64,
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Clock {
    pub(crate) fn ran(&self, items: usize, took: Duration) {
        self.items.fetch_add(items as u64, Relaxed);
        self.calls.fetch_add(1, Relaxed);
        self.busy.fetch_add(nanos(took), Relaxed);
        self.longest.fetch_max(nanos(took), Relaxed);
    }
    pub(crate) fn starved(&self, d: Duration) {
        self.starved.fetch_add(nanos(d), Relaxed);
    }
    pub(crate) fn blocked(&self, d: Duration) {
        self.blocked.fetch_add(nanos(d), Relaxed);
    }
    pub(crate) fn clear(&self) {
        for n in [&self.items, &self.calls, &self.busy, &self.longest, &self.starved, &self.blocked] {
            n.store(0, Relaxed);
        }
    }
    pub(crate) fn read(&self, stage: &'static str) -> StageTime {
        let time = |n: &AtomicU64| Duration::from_nanos(n.load(Relaxed));
        StageTime {
            stage,
            items: self.items.load(Relaxed),
            calls: self.calls.load(Relaxed),
            busy: time(&self.busy),
            longest: time(&self.longest),
            starved: time(&self.starved),
            blocked: time(&self.blocked),
        }
    }
}

/// The time of one call of a stage, summed over all runs so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageTime {
    /// The stage, as the pipeline calls it.
    pub stage: &'static str,
    /// How many items it was given.
    pub items: u64,
    /// In how many calls.
    pub calls: u64,
    /// How long it ran.
    pub busy: Duration,
    /// The longest call.
    pub longest: Duration,
    /// In streams: how long it waited for the stages before it.
    pub starved: Duration,
    /// In streams: how long it waited for the stages after it.
    pub blocked: Duration,
}

/// The time of every stage, in the order in which they run. Prints as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing(pub Vec<StageTime>);

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|s| s.stage.len()).max().unwrap_or(0).max(5);
        let heads = ["items", "ms/item", "longest ms", "share", "starved s", "blocked s"];
        let [items, each, longest, share, starved, blocked] = heads;
        writeln!(f, "{:width$} {items:>8} {each:>10} {longest:>10} {share:>6} {starved:>9} {blocked:>9}", "stage")?;
        let all: f64 = self.0.iter().map(|s| s.busy.as_secs_f64()).sum();
        for s in &self.0 {
            let busy = s.busy.as_secs_f64();
            let each = if s.items == 0 { 0.0 } else { 1e3 * busy / s.items as f64 };
            let share = if all > 0.0 { 100.0 * busy / all } else { 0.0 };
            writeln!(
                f,
                "{:width$} {:>8} {each:>10.3} {:>10.3} {share:>5.1}% {:>9.3} {:>9.3}",
                s.stage,
                s.items,
                1e3 * s.longest.as_secs_f64(),
                s.starved.as_secs_f64(),
                s.blocked.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

/// What one run gave, with all that was computed on the way.
#[derive(Clone, Debug)]
pub struct Traced<Output, Values> {
    /// What the pipeline gives.
    pub output: Output,
    /// Every named intermediate result.
    pub values: Values,
    /// How long each stage took, in the order in which they ran.
    pub times: Vec<(&'static str, Duration)>,
}
