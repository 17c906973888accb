//! One pool of threads for all kernels.
//!
//! A parallel region hands out task numbers from a counter; the caller works too, and returns
//! when every task is done. Starting a region allocates nothing. Workers spin for a moment
//! between regions (kernels follow each other closely) and then sleep.

pub mod record;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;

type Task = dyn Fn(usize) + Sync;

/// A region's work, valid while its caller waits in [`Pool::run`].
#[derive(Clone, Copy)]
struct Job {
    task: *const Task,
    tasks: usize,
}
// SAFETY: the pointer is used only between the start of a region and its end, while the caller
// keeps the closure alive, and the closure is `Sync`.
unsafe impl Send for Job {}

struct Shared {
    /// The current job and its number; `None` asks the workers to end.
    job: Mutex<(u64, Option<Job>)>,
    wake: Condvar,
    epoch: AtomicUsize,
    next: AtomicUsize,
    busy: AtomicUsize,
    panicked: AtomicBool,
}

/// A fixed set of threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One region at a time: programs on several threads take turns.
    region: Mutex<()>,
}

/// How long a worker looks for the next region before it sleeps.
const SPINS: usize = 2_000;

thread_local! {
    static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; at least one.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            job: Mutex::new((0, None)),
            wake: Condvar::new(),
            epoch: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let workers = (1..threads.max(1))
            .map_while(|i| {
                let shared = shared.clone();
                // Fewer threads than asked for still give every result.
                std::thread::Builder::new().name(format!("mobilis-{i}")).spawn(move || work(&shared)).ok()
            })
            .collect();
        Pool { shared, workers, region: Mutex::new(()) }
    }

    /// The pool that programs share: `MOBILIS_THREADS` threads, else one per core.
    pub fn global() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| {
            let asked = std::env::var("MOBILIS_THREADS").ok().and_then(|v| v.parse().ok());
            Pool::new(asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())))
        })
    }

    /// The number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f` with each of `0..tasks` once, on all threads. A call from inside a region runs
    /// on the calling thread.
    ///
    /// # Panics
    /// When `f` panics for some task, after the others have ended.
    pub fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() || INSIDE.get() {
            (0..tasks).for_each(f);
            return;
        }
        let _turn = self.region.lock().unwrap_or_else(|e| e.into_inner());
        let s = &*self.shared;
        // SAFETY: only the lifetime changes; `run` does not return before the workers are done.
        let task: *const Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(f) };
        s.next.store(0, Ordering::Relaxed);
        s.busy.store(self.workers.len(), Ordering::Relaxed);
        {
            let mut slot = s.job.lock().unwrap_or_else(|e| e.into_inner());
            slot.0 += 1;
            slot.1 = Some(Job { task, tasks });
            s.epoch.store(slot.0 as usize, Ordering::Release);
        }
        s.wake.notify_all();
        INSIDE.set(true);
        let mine = catch_unwind(AssertUnwindSafe(|| take_tasks(s, tasks, f)));
        INSIDE.set(false);
        let mut spins = 0usize;
        while s.busy.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins > SPINS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let theirs = s.panicked.swap(false, Ordering::Relaxed);
        if let Err(payload) = mine {
            resume_unwind(payload);
        }
        assert!(!theirs, "a kernel panicked on a worker thread");
    }

    /// Splits `data`, whole rows of `row` values, into blocks for the threads and calls
    /// `f(first_row, block)` for each. No block has fewer than `least` rows but the last.
    pub fn rows<T: Send>(&self, data: &mut [T], row: usize, least: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let count = data.len().checked_div(row).unwrap_or(0);
        self.ranges(count, least, data, row, &f);
    }

    fn ranges<T: Send>(
        &self,
        count: usize,
        least: usize,
        data: &mut [T],
        row: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        if count == 0 {
            return;
        }
        // Four blocks a thread even out unequal speeds.
        let block = count.div_ceil(4 * self.threads()).max(least.max(1));
        let base = Base(data.as_mut_ptr());
        self.run(count.div_ceil(block), &|i| {
            let first = i * block;
            let rows = block.min(count - first);
            // SAFETY: blocks are disjoint ranges of `data`, which is borrowed mutably here.
            let slice = unsafe { std::slice::from_raw_parts_mut(base.get().add(first * row), rows * row) };
            f(first, slice);
        });
    }
}

struct Base<T>(*mut T);
// SAFETY: used to make disjoint slices only.
unsafe impl<T: Send> Sync for Base<T> {}
impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

fn take_tasks(s: &Shared, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    let _recorded = record::begin();
    loop {
        let i = s.next.fetch_add(1, Ordering::Relaxed);
        if i >= tasks {
            return;
        }
        f(i);
    }
}

fn work(s: &Shared) {
    INSIDE.set(true);
    let mut seen = 0u64;
    loop {
        let mut spins = 0;
        while s.epoch.load(Ordering::Acquire) as u64 == seen && spins < SPINS {
            std::hint::spin_loop();
            spins += 1;
        }
        let job = {
            let mut slot = s.job.lock().unwrap_or_else(|e| e.into_inner());
            while slot.0 == seen {
                slot = s.wake.wait(slot).unwrap_or_else(|e| e.into_inner());
            }
            seen = slot.0;
            slot.1
        };
        let Some(job) = job else { return };
        // SAFETY: the caller of `run` waits until `busy` is 0, so the closure is alive.
        let f = unsafe { &*job.task };
        if catch_unwind(AssertUnwindSafe(|| take_tasks(s, job.tasks, f))).is_err() {
            s.panicked.store(true, Ordering::Relaxed);
        }
        s.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut slot = self.shared.job.lock().unwrap_or_else(|e| e.into_inner());
            slot.0 += 1;
            slot.1 = None;
            self.shared.epoch.store(slot.0 as usize, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has reported it in `run`.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::new(3);
        for tasks in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn rows_cover_everything() {
        let pool = Pool::new(2);
        let mut data = vec![0usize; 7 * 13];
        pool.rows(&mut data, 7, 2, |first, block| {
            for (r, row) in block.chunks_mut(7).enumerate() {
                row.fill(first + r);
            }
        });
        assert!(data.iter().enumerate().all(|(i, v)| *v == i / 7));
        pool.rows(&mut data[..0], 0, 1, |_, _| panic!("there are no rows"));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(64, &|i| assert!(i != 63, "task 63"))));
        assert!(caught.is_err());
        pool.run(8, &|_| {});
    }

    #[test]
    fn regions_nest() {
        let pool = Pool::new(2);
        let total = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(4, &|_| {
                total.fetch_add(1, Ordering::Relaxed);
            })
        });
        assert_eq!(total.load(Ordering::Relaxed), 16);
    }
}
