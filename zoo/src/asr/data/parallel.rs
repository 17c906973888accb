//! Work done ahead on threads, and given in order.
//!
//! [`Ordered`] calls a function for 0, 1, 2, .. on some threads and gives the results in this order,
//! whichever is ready first. At most `ahead` results wait, so memory is bounded and a slow consumer
//! stops the threads; dropping it ends them. A panic of the function is a panic of whoever asks for that
//! result, and of nobody else.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Result};

/// Results of a function of whole numbers, computed ahead. An endless iterator.
pub struct Ordered<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something may be computed, or all shall end.
    room: Condvar,
    /// Something is ready.
    ready: Condvar,
    ahead: u64,
}

struct State<T> {
    /// The next number that a thread takes.
    next: u64,
    /// The next that is asked for.
    wanted: u64,
    done: BTreeMap<u64, Result<T>>,
    over: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code of others runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Ordered<T> {
    /// Computes `work(first)`, `work(first + 1)`, .. on `threads` threads, at most `ahead` of them before
    /// they are asked for.
    pub fn new(
        first: u64,
        threads: usize,
        ahead: usize,
        work: impl Fn(u64) -> T + Send + Sync + 'static,
    ) -> Ordered<T> {
        let state = State { next: first, wanted: first, done: BTreeMap::new(), over: false };
        let ahead = ahead.max(1) as u64;
        let shared = Arc::new(Shared { state: state.into(), room: Condvar::new(), ready: Condvar::new(), ahead });
        let work: Arc<dyn Fn(u64) -> T + Send + Sync> = Arc::new(work);
        let spawn = |_| {
            let (shared, work) = (shared.clone(), work.clone());
            std::thread::spawn(move || serve(&shared, &*work))
        };
        let threads = (0..threads.max(1)).map(spawn).collect();
        Ordered { shared, threads }
    }
}

fn serve<T>(shared: &Shared<T>, work: &dyn Fn(u64) -> T) {
    loop {
        let mut state = shared.lock();
        while !state.over && state.next >= state.wanted + shared.ahead {
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.over {
            return;
        }
        let number = state.next;
        state.next += 1;
        drop(state);
        let result = catch_unwind(AssertUnwindSafe(|| work(number)));
        shared.lock().done.insert(number, result);
        shared.ready.notify_all();
    }
}

impl<T> Iterator for Ordered<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        let wanted = state.wanted;
        let result = loop {
            match state.done.remove(&wanted) {
                Some(result) => break result,
                None => state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        state.wanted += 1;
        drop(state);
        self.shared.room.notify_all();
        Some(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<T> Drop for Ordered<T> {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // What it panicked with was kept for whoever asks.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn in_order_and_not_too_far_ahead() {
        let (begun, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (ours, seen) = (begun.clone(), taken.clone());
        let work = move |i: u64| {
            ours.fetch_add(1, Ordering::SeqCst);
            assert!(i < 10 + seen.load(Ordering::SeqCst) + 1 + 4, "{i} is too far ahead");
            std::thread::sleep(Duration::from_micros(i * 7919 % 500));
            i * i
        };
        let mut results = Ordered::new(10, 3, 4, work);
        for i in 10..200 {
            taken.store(i - 10, Ordering::SeqCst);
            assert_eq!(results.next(), Some(i * i));
        }
        drop(results);
        let after = begun.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(begun.load(Ordering::SeqCst), after, "threads go on");
        assert!(after <= 190 + 4);
    }

    #[test]
    fn a_panic_reaches_whoever_asks_for_it() {
        let mut results = Ordered::new(0, 2, 8, |i| if i == 3 { panic!("three") } else { i });
        for i in [0, 1, 2] {
            assert_eq!(results.next(), Some(i));
        }
        let caught = catch_unwind(AssertUnwindSafe(|| results.next()));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"three"));
        assert_eq!(results.next(), Some(4));
    }
}
