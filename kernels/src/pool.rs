//! One pool of threads for all kernels.
//!
//! A parallel region hands out task numbers from counters; the caller works too, and returns when
//! every task is done. Each thread begins in a range of its own and helps the others when that is
//! done: neighbouring tasks mostly read neighbouring memory, and one thread that reads from front to
//! back gets twice the bandwidth of two that leapfrog each other. A step of a language model is some hundred regions of some microseconds, so
//! a region must cost a fraction of one:
//!
//! * It begins with one store to a word that workers watch (`State`): they spin for a moment
//!   between regions (kernels follow each other closely) and then sleep. The system is asked to wake
//!   them only if one does sleep.
//! * It ends when its tasks are done, whoever did them. The caller closes it when no task is left; a
//!   worker that is late (asleep, or its processor taken away by another program) finds it closed
//!   and is not waited for.
//!
//! Starting a region allocates nothing.

pub mod record;

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;

type Task = dyn Fn(usize) + Sync;

/// A region's work, valid while its caller waits in [`Pool::run`]; no task asks the workers to end.
#[derive(Clone, Copy)]
struct Job {
    task: Option<*const Task>,
    tasks: usize,
}

/// Something that others' writes shall not push out of a cache.
#[repr(align(128))]
struct Apart<T>(T);

/// The number of the region in the upper half, whether it is [`CLOSED`], and how many workers are in
/// it: one word, so that a worker enters a region or finds it closed, and nothing between.
type State = Apart<AtomicU64>;
const CLOSED: u64 = 1 << 31;
const REGION: u64 = 1 << 32;

struct Shared {
    state: State,
    /// What the region does: written while it is closed and empty, read by those who have entered.
    job: UnsafeCell<Job>,
    /// The next task of each range.
    next: Box<[Apart<AtomicUsize>]>,
    panicked: AtomicBool,
    /// Workers that sleep, or are about to.
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    wake: Condvar,
}
// SAFETY: the job's pointer is used only by those who have entered its region, which the caller
// leaves when nobody is in it; the closure is `Sync`. All else is made for sharing.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// A fixed set of threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One region at a time: programs on several threads take turns.
    region: Mutex<()>,
}

/// Ranges of tasks at most. Threads share them where there are more.
const RANGES: usize = 16;

/// How often a worker looks for the next region before it sleeps: some tens of microseconds.
const SPINS: usize = 4_000;

thread_local! {
    static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; at least one.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Apart(AtomicU64::new(CLOSED)),
            job: UnsafeCell::new(Job { task: None, tasks: 0 }),
            next: (0..threads.clamp(1, RANGES)).map(|_| Apart(AtomicUsize::new(0))).collect(),
            panicked: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads.max(1))
            .map_while(|i| {
                let shared = shared.clone();
                // Fewer threads than asked for still give every result.
                std::thread::Builder::new().name(format!("mobilis-{i}")).spawn(move || work(&shared, i)).ok()
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
        s.open(Job { task: Some(task), tasks });
        INSIDE.set(true);
        let mine = catch_unwind(AssertUnwindSafe(|| take_tasks(s, 0, tasks, f)));
        INSIDE.set(false);
        s.close();
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

impl Shared {
    /// Begins a region. The one before has ended.
    fn open(&self, job: Job) {
        let state = self.state.0.load(Ordering::Relaxed);
        debug_assert!(state as u32 as u64 == CLOSED, "a region is open");
        // SAFETY: nobody is in the region, and nobody enters it.
        unsafe { *self.job.get() = job };
        for (range, next) in self.next.iter().enumerate() {
            next.0.store(self.range(range, job.tasks).start, Ordering::Relaxed);
        }
        self.state.0.store((state - CLOSED).wrapping_add(REGION), Ordering::Release);
        // Who goes to sleep looks at the state after it has said so; here it is the other way round.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            drop(self.bed.lock().unwrap_or_else(|e| e.into_inner()));
            self.wake.notify_all();
        }
    }

    /// The tasks of a range: nearly as many in each.
    fn range(&self, range: usize, tasks: usize) -> Range<usize> {
        let (size, longer) = (tasks / self.next.len(), tasks % self.next.len());
        let start = range * size + range.min(longer);
        start..start + size + (range < longer) as usize
    }

    /// Lets nobody enter any more, and waits for those who have.
    fn close(&self) {
        let mut spins = 0usize;
        let mut state = self.state.0.fetch_or(CLOSED, Ordering::AcqRel) | CLOSED;
        while state as u32 as u64 != CLOSED {
            spins += 1;
            if spins > SPINS {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    /// Waits for a region after `seen` and enters it, unless it is closed; gives its number.
    fn enter(&self, seen: u64) -> (u64, Option<Job>) {
        let mut spins = 0;
        loop {
            let state = self.state.0.load(Ordering::Acquire);
            let region = state / REGION;
            if region == seen {
                if spins < SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                } else {
                    self.sleep(seen);
                }
            } else if state & CLOSED != 0 {
                return (region, None);
            } else if self.state.0.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // SAFETY: it is not written before this worker has left.
                return (region, Some(unsafe { *self.job.get() }));
            }
        }
    }

    /// Sleeps until there is a region after `seen`.
    fn sleep(&self, seen: u64) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut bed = self.bed.lock().unwrap_or_else(|e| e.into_inner());
        while self.state.0.load(Ordering::Relaxed) / REGION == seen {
            bed = self.wake.wait(bed).unwrap_or_else(|e| e.into_inner());
        }
        drop(bed);
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take_tasks(s: &Shared, thread: usize, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    let _recorded = record::begin();
    let ranges = s.next.len();
    for range in (0..ranges).map(|i| (thread + i) % ranges) {
        let end = s.range(range, tasks).end;
        loop {
            let i = s.next[range].0.fetch_add(1, Ordering::Relaxed);
            if i >= end {
                break;
            }
            f(i);
        }
    }
}

fn work(s: &Shared, thread: usize) {
    INSIDE.set(true);
    let mut seen = 0;
    loop {
        let (region, job) = s.enter(seen);
        seen = region;
        let Some(Job { task, tasks }) = job else { continue };
        if let Some(task) = task {
            // SAFETY: the caller of `run` waits until this worker has left, so the closure is alive.
            let f = unsafe { &*task };
            if catch_unwind(AssertUnwindSafe(|| take_tasks(s, thread, tasks, f))).is_err() {
                s.panicked.store(true, Ordering::Relaxed);
            }
        }
        s.state.0.fetch_sub(1, Ordering::Release);
        if task.is_none() {
            return;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A region that is never closed: everybody enters it, and ends.
        self.shared.open(Job { task: None, tasks: 0 });
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
    fn many_short_regions_lose_no_task_and_nobody_sleeps_through_one() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for region in 0..20_000 {
            let tasks = 2 + region % 5;
            let before = total.load(Ordering::Relaxed);
            pool.run(tasks, &|_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), before + tasks);
            if region % 2_000 == 0 {
                // Long enough for workers to fall asleep.
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        // Tasks that take longer than waking up are shared.
        let threads = Mutex::new(std::collections::HashSet::new());
        pool.run(30, &|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            threads.lock().expect("no test panics here").insert(std::thread::current().id());
        });
        assert_eq!(threads.into_inner().expect("as above").len(), 3);
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
