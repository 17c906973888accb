//! When threads were busy, for profiles: off unless asked for, and then a note at the end of each
//! thread's share of a parallel region.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

static ON: AtomicBool = AtomicBool::new(false);
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());

/// A thread's share of a region.
#[derive(Clone, Debug)]
pub struct Span {
    /// The thread's name.
    pub thread: String,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
}

/// Notes a span when it is dropped, if it was begun while recording.
pub(super) struct Begun(Option<Instant>);

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(start) = self.0 {
            let thread = std::thread::current().name().unwrap_or("caller").to_string();
            let span = Span { thread, start, end: Instant::now() };
            SPANS.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }
}

pub(super) fn begin() -> Begun {
    Begun(ON.load(Ordering::Relaxed).then(Instant::now))
}

/// Calls `f` and gives what all pools' threads did meanwhile, other programs' regions included. One
/// recording at a time: a second one that begins before the first ends would take its spans.
pub fn recorded<R>(f: impl FnOnce() -> R) -> (R, Vec<Span>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let take = || std::mem::take(&mut *SPANS.lock().unwrap_or_else(PoisonError::into_inner));
    drop(take());
    ON.store(true, Ordering::Relaxed);
    // Whatever happens in `f`, recording ends.
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.store(false, Ordering::Relaxed);
        }
    }
    let off = Off;
    let result = f();
    drop(off);
    (result, take())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;

    #[test]
    fn shares_are_noted_only_while_recording() {
        let pool = Pool::new(2);
        pool.run(4, &|_| ());
        let mark = Instant::now();
        let (seven, spans) = recorded(|| {
            pool.run(4, &|_| std::thread::sleep(std::time::Duration::from_millis(2)));
            7
        });
        assert_eq!(seven, 7);
        // Other tests' pools may be recorded too.
        assert!(spans.iter().any(|s| s.thread == "mobilis-1"), "{spans:?}");
        assert!(spans.iter().all(|s| s.end >= s.start && s.end >= mark));
        assert!(begin().0.is_none());
    }
}
