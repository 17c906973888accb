//! What this machine can do at best: the ceilings that profiles and benchmarks compare with.
//!
//! [`measured`] runs small loops that do nothing but one thing — multiply and add in registers,
//! read a buffer that fits one level of the memory, copy — on one thread and on all of the pool,
//! once a process and in about a second. A rate is the best of many short runs: other programs can
//! only make a run slower, so the fastest one is nearest to what the machine can do.
//!
//! The time that a kernel needs at least follows from the roofline (Williams, Waterman and
//! Patterson, 2009): operations over the peak, or bytes over the bandwidth, whichever is longer.

mod caches;
mod loops;

use super::simd::{Level, detect, level};
use crate::pool::Pool;
pub use caches::Caches;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Something per second, on one thread and on all.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// On one thread.
    pub one: f64,
    /// On all threads of the pool together.
    pub all: f64,
}

impl Rate {
    /// The rate for a number of threads: between one and all in proportion.
    pub fn of(self, threads: usize, all: usize) -> f64 {
        if threads <= 1 || all <= 1 {
            return self.one;
        }
        let share = (threads.min(all) - 1) as f64 / (all - 1) as f64;
        self.one + (self.all - self.one) * share
    }
}

/// A level of the memory: what is read from it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reading {
    /// `L1`, `L2`, `L3` or `DRAM`.
    pub name: &'static str,
    /// The bytes that were read over and over, by each thread where `each`, else together.
    pub bytes: usize,
    /// Whether every core has this level for itself.
    pub each: bool,
    /// Bytes per second.
    pub rate: Rate,
}

/// The ceilings of a machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// Threads of the pool that `all` means.
    pub threads: usize,
    /// The caches.
    pub caches: Caches,
    /// Floating-point operations per second in `f32`, a multiply-add counted as two, for every
    /// instruction set that the processor has.
    pub f32_flops: Vec<(Level, Rate)>,
    /// Operations per second of 8-bit dot products summed in 32 bits, a multiply-add counted as
    /// two; where the processor has an instruction for them.
    pub int8_ops: Option<Rate>,
    /// Reading, from the nearest level to the farthest.
    pub read: Vec<Reading>,
    /// Bytes read and written per second by a copy of large buffers.
    pub copy: Rate,
}

impl Limits {
    /// Floating-point operations per second at the level in use.
    pub fn peak(&self) -> Rate {
        let at = |l: Level| self.f32_flops.iter().find(|f| f.0 == l).map(|f| f.1);
        at(level()).or(self.f32_flops.last().map(|f| f.1)).unwrap_or(Rate { one: f64::NAN, all: f64::NAN })
    }

    /// The level of the memory in which so many bytes stay, used by this number of threads.
    pub fn level_of(&self, bytes: usize, threads: usize) -> &Reading {
        let room = |r: &Reading| {
            let size = match r.name {
                "L1" => self.caches.l1,
                "L2" => self.caches.l2,
                "L3" => self.caches.l3,
                _ => usize::MAX,
            };
            if r.each { size.saturating_mul(threads.max(1)) } else { size }
        };
        let fits = self.read.iter().find(|r| bytes <= room(r));
        fits.unwrap_or_else(|| self.read.last().expect("DRAM is always measured"))
    }
}

/// The ceilings of this machine, measured by the first call, which takes about a second.
pub fn measured() -> &'static Limits {
    static LIMITS: OnceLock<Limits> = OnceLock::new();
    LIMITS.get_or_init(|| measure(Pool::global()))
}

/// How long one quantity is measured on one and on all threads.
const BUDGET: Duration = Duration::from_millis(50);

/// How long a thread waits for the others to begin with it.
const PATIENCE: Duration = Duration::from_millis(2);

/// Repeats `run`, which says how long it took, for the budget and at least three times; gives
/// `work` per second of the fastest.
fn best(work: f64, mut run: impl FnMut() -> Duration) -> f64 {
    let (start, mut least, mut runs) = (Instant::now(), Duration::MAX, 0);
    while runs < 3 || start.elapsed() < BUDGET {
        least = least.min(run());
        runs += 1;
    }
    work / least.as_secs_f64().max(1e-9)
}

/// Measures a loop on the calling thread, and on every thread of the pool at once. `f` gets the
/// thread's number and how many there are; `work` is what all of them do together. What every core
/// has for itself (`each`) must grow with the threads: where it does not, another program was in the
/// way, and it is measured again, a few times at most.
fn rate(pool: &Pool, each: bool, work: impl Fn(usize) -> f64, f: impl Fn(usize, usize) + Sync) -> Rate {
    let one = best(work(1), || {
        let start = Instant::now();
        f(0, 1);
        start.elapsed()
    });
    let threads = pool.threads();
    if threads == 1 {
        return Rate { one, all: one };
    }
    let mut all = 0f64;
    for _ in 0..4 {
        all = all.max(best(work(threads), || together(pool, &|i| f(i, threads))));
        if !each || all > 0.8 * one * threads as f64 {
            break;
        }
    }
    Rate { one, all }
}

/// The time from the first thread's start to the last one's end, all of them starting together if
/// they can: neither waking a thread nor one that takes two shares is part of the measurement.
fn together(pool: &Pool, f: &(dyn Fn(usize) + Sync)) -> Duration {
    let (ready, threads) = (AtomicUsize::new(0), pool.threads());
    let span: Mutex<Option<(Instant, Instant)>> = Mutex::new(None);
    pool.run(threads, &|i| {
        ready.fetch_add(1, Ordering::Relaxed);
        let come = Instant::now();
        while ready.load(Ordering::Relaxed) < threads && come.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        f(i);
        let end = Instant::now();
        let mut span = span.lock().unwrap_or_else(PoisonError::into_inner);
        *span = Some(span.map_or((start, end), |(s, e)| (s.min(start), e.max(end))));
    });
    let span = span.into_inner().unwrap_or_else(PoisonError::into_inner);
    span.map_or(Duration::MAX, |(start, end)| end - start)
}

fn measure(pool: &Pool) -> Limits {
    let caches = Caches::of_this_machine();
    let best_level = detect();
    let levels = [Level::Base, Level::Avx2, Level::Avx512].into_iter().filter(|l| *l <= best_level);
    let f32_flops = levels
        .map(|l| (l, rate(pool, true, |n| n as f64 * loops::fma(l, 0), |_, _| _ = loops::fma(l, loops::ROUNDS))))
        .collect();
    let int8_ops = loops::dot(0).map(|per_run| {
        let run = |_: usize, _: usize| _ = loops::dot(loops::ROUNDS);
        rate(pool, true, |n| n as f64 * per_run, run)
    });

    // Half of a cache leaves room for what else lies there. DRAM: far more than the last cache.
    let far = (caches.l3 * 3).clamp(64 << 20, 512 << 20);
    let buffer = vec![1u64; far / 8 + 8];
    // At a cache line: a load that straddles two costs twice.
    let words = &buffer[buffer.as_ptr().align_offset(64).min(8)..][..far / 8];
    let levels = [("L1", caches.l1 / 2, true), ("L2", caches.l2 / 2, true), ("L3", caches.l3 / 2, false)];
    let read = levels.into_iter().chain([("DRAM", far, false)]).map(|(name, bytes, each)| {
        // Small buffers are read several times a run, so that the clock's grain vanishes.
        let times = (4 << 20) / bytes.clamp(1, 4 << 20);
        let run = |i: usize, n: usize| {
            let part = if each { bytes / 8 } else { bytes / 8 / n };
            let from = (i * part).min(words.len() - part);
            loops::read(&words[from..from + part], times);
        };
        let work = |n: usize| (times * bytes * if each { n } else { 1 }) as f64;
        Reading { name, bytes, each, rate: rate(pool, each, work, run) }
    });
    let read = read.collect();
    Limits { threads: pool.threads(), caches, f32_flops, int8_ops, read, copy: copy(pool, words) }
}

/// The bandwidth of copying one half of a large buffer's size.
fn copy(pool: &Pool, words: &[u64]) -> Rate {
    let from = &words[..words.len() / 2];
    let mut to = vec![0u64; from.len()];
    let part = from.len().div_ceil(pool.threads());
    let parts: Vec<Mutex<&mut [u64]>> = to.chunks_mut(part).map(Mutex::new).collect();
    let run = |i: usize, n: usize| {
        // One thread copies all parts, one after the other.
        for j in (i..parts.len()).step_by(n) {
            let mut to = parts[j].lock().unwrap_or_else(PoisonError::into_inner);
            let count = to.len();
            to.copy_from_slice(&from[j * part..j * part + count]);
        }
    };
    let rate = rate(pool, false, |_| (from.len() * 16) as f64, run);
    std::hint::black_box(&to);
    rate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_plausible_and_measured_once() {
        let limits = measured();
        assert!(std::ptr::eq(limits, measured()));
        let rates = limits.f32_flops.iter().map(|f| f.1).chain(limits.read.iter().map(|r| r.rate)).chain([limits.copy]);
        for rate in rates.chain(limits.int8_ops) {
            assert!(rate.one.is_finite() && rate.one > 1e8 && rate.one < 1e14, "{limits:?}");
            assert!(rate.all > 0.2 * rate.one && rate.all < 1e16, "{limits:?}");
        }
        // Other programs disturb: only what holds by a wide margin.
        if let [(Level::Base, base), .., (Level::Avx512, wide)] = limits.f32_flops.as_slice() {
            assert!(wide.one > 2.0 * base.one, "{limits:?}");
        }
        assert!(limits.read[0].rate.one > 1.2 * limits.read[3].rate.one, "{limits:?}");
        assert_eq!(limits.read.iter().map(|r| r.name).collect::<Vec<_>>(), ["L1", "L2", "L3", "DRAM"]);
    }

    #[test]
    fn working_sets_find_their_level() {
        let limits = measured();
        let c = limits.caches;
        assert_eq!(limits.level_of(0, 1).name, "L1");
        assert_eq!(limits.level_of(c.l1 + 1, 1).name, "L2");
        assert_eq!(limits.level_of(c.l1 * 2, 2).name, "L1", "each core has its own");
        assert_eq!(limits.level_of(c.l3, 1).name, "L3");
        assert_eq!(limits.level_of(c.l3 + 1, 4).name, if c.l2 * 4 > c.l3 { "L2" } else { "DRAM" });
        assert_eq!(limits.level_of(usize::MAX, 1).name, "DRAM");
    }

    #[test]
    fn rates_lie_between_one_and_all() {
        let rate = Rate { one: 10.0, all: 40.0 };
        assert_eq!([0, 1, 2, 4, 9].map(|n| rate.of(n, 4)), [10.0, 10.0, 20.0, 40.0, 40.0]);
        assert_eq!(rate.of(3, 1), 10.0);
    }
}
