//! Streams: the stages of a pipeline overlap, each on a thread of its own.
//!
//! While the search works on the first item, the encoder works on the second and the features on the
//! third. Between two threads lies a bounded queue: a fast stage waits for a slow one, so memory is
//! bounded by the queues whatever the input. Items pass every stage in one order, so results keep it.
//!
//! An item that fails gives its error in its place and the others go on. Dropping the stream, or
//! [`Canceller::cancel`] from elsewhere, closes every queue: each stage ends the call it is in and
//! stops. The thread that reads the input may sit in the input's own `next`, which nothing can
//! interrupt; it is not waited for, and stops when that returns.

use super::core::{Row, Value};
use super::error::panic_message;
use super::{Core, PipelineError};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// How a stream runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// How many groups may wait between two stages; at least 1.
    pub capacity: usize,
    /// How many items go through a stage at once, as `run_batch` does; at least 1. The last group holds
    /// what is left.
    pub batch: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions { capacity: 2, batch: 1 }
    }
}

type Group = Vec<Result<Row, PipelineError>>;

struct State {
    groups: VecDeque<Group>,
    /// No more will come.
    ended: bool,
    /// Nobody wants more.
    closed: bool,
}

/// A queue between two threads.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

impl Queue {
    fn new(capacity: usize) -> Queue {
        let state = State { groups: VecDeque::new(), ended: false, closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), capacity: capacity.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. `false` when nobody wants the group any more.
    fn push(&self, group: Group) -> bool {
        let full = |s: &mut State| s.groups.len() >= self.capacity && !s.closed;
        let mut state = self.changed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return false;
        }
        state.groups.push_back(group);
        self.changed.notify_all();
        true
    }

    /// Waits for a group. Nothing when no more will come, or the queue is closed.
    fn pop(&self) -> Option<Group> {
        let empty = |s: &mut State| s.groups.is_empty() && !s.ended && !s.closed;
        let mut state = self.changed.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        let group = state.groups.pop_front();
        self.changed.notify_all();
        group
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // What waits is dropped outside the lock: it is the user's.
        let rest = std::mem::take(&mut state.groups);
        drop(state);
        self.changed.notify_all();
        drop(rest);
    }
}

/// Ends a queue when its thread ends, however it ends.
struct Ends<'a>(&'a Queue);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Shared {
    queues: Vec<Queue>,
    cancelled: AtomicBool,
}

impl Shared {
    fn close(&self) {
        self.cancelled.store(true, Relaxed);
        self.queues.iter().for_each(Queue::close);
    }
}

/// Stops a stream from elsewhere: the stream then gives one [`PipelineError::Cancelled`] and ends.
#[derive(Clone)]
pub struct Canceller(Arc<Shared>);

impl Canceller {
    /// Stops the stream. Each stage ends the call it is in.
    pub fn cancel(&self) {
        self.0.close();
    }
}

/// The results of a pipeline for the items of an iterator, in their order, computed on one thread a
/// stage. See [the module](self).
pub struct Stream<T> {
    core: Core,
    shared: Arc<Shared>,
    stages: Vec<JoinHandle<()>>,
    ready: VecDeque<Result<Row, PipelineError>>,
    finish: fn(Vec<Value>) -> T,
    done: bool,
}

impl<T> Stream<T> {
    /// Starts the threads. `finish` makes the typed result.
    pub fn new<I>(core: &Core, options: StreamOptions, inputs: I, finish: fn(Vec<Value>) -> T) -> Stream<T>
    where
        I: Iterator<Item = Vec<Value>> + Send + 'static,
    {
        let calls = core.wiring().calls.len();
        let queues = (0..=calls).map(|_| Queue::new(options.capacity)).collect();
        let shared = Arc::new(Shared { queues, cancelled: AtomicBool::new(false) });
        let (stages, ready) = (Vec::with_capacity(calls), VecDeque::new());
        let mut stream = Stream { core: core.clone(), shared, stages, ready, finish, done: false };
        if let Err(e) = stream.start(options.batch.max(1), inputs) {
            stream.shared.close();
            stream.done = true;
            stream.ready.push_back(Err(e));
        }
        stream
    }

    fn start<I>(&mut self, batch: usize, inputs: I) -> Result<(), PipelineError>
    where
        I: Iterator<Item = Vec<Value>> + Send + 'static,
    {
        let pipeline = self.core.name();
        let spawn = |stage: &'static str, work: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(format!("{pipeline}.{stage}"));
            thread.spawn(work).map_err(|source| PipelineError::Thread { pipeline, stage, source })
        };
        for call in 0..self.core.wiring().calls.len() {
            let (core, shared) = (self.core.clone(), self.shared.clone());
            let work = move || work(&core, call, &shared);
            self.stages.push(spawn(self.core.stage_name(call), Box::new(work))?);
        }
        let (core, shared) = (self.core.clone(), self.shared.clone());
        // Not waited for: see the module's description.
        spawn("input", Box::new(move || feed(&core, inputs, batch, &shared.queues[0])))?;
        Ok(())
    }

    /// A handle that stops this stream from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.shared.clone())
    }
}

/// Reads the input, in groups.
fn feed(core: &Core, mut inputs: impl Iterator<Item = Vec<Value>>, batch: usize, to: &Queue) {
    let _end = Ends(to);
    let mut group = Vec::with_capacity(batch);
    loop {
        let next = catch_unwind(AssertUnwindSafe(|| inputs.next()));
        let stop = !matches!(next, Ok(Some(_)));
        match next {
            Ok(Some(item)) => group.push(Ok(core.row(item))),
            Ok(None) => {}
            Err(payload) => {
                let message = panic_message(&*payload);
                group.push(Err(PipelineError::Input { pipeline: core.name(), message }));
            }
        }
        if (stop && !group.is_empty()) || group.len() == batch {
            let full = std::mem::replace(&mut group, Vec::with_capacity(batch));
            if !to.push(full) {
                return;
            }
        }
        if stop {
            return;
        }
    }
}

/// The thread of one call.
fn work(core: &Core, call: usize, shared: &Shared) {
    let (from, to) = (&shared.queues[call], &shared.queues[call + 1]);
    let _end = Ends(to);
    let clock = core.clock(call);
    loop {
        let waiting = Instant::now();
        let Some(mut group) = from.pop() else { return };
        clock.starved(waiting.elapsed());
        core.step(call, &mut group);
        let waiting = Instant::now();
        if !to.push(group) {
            return;
        }
        clock.blocked(waiting.elapsed());
    }
}

impl<T> Iterator for Stream<T> {
    type Item = Result<T, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.shared.cancelled.load(Relaxed) && !self.done {
                self.done = true;
                self.ready.clear();
                return Some(Err(PipelineError::Cancelled { pipeline: self.core.name() }));
            }
            if let Some(row) = self.ready.pop_front() {
                return Some(row.map(|row| (self.finish)(self.core.outputs(row))));
            }
            if self.done {
                return None;
            }
            match self.shared.queues.last().and_then(Queue::pop) {
                Some(group) => self.ready.extend(group),
                // Ended, or closed: then the flag is seen above.
                None if self.shared.cancelled.load(Relaxed) => {}
                None => self.done = true,
            }
        }
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        self.shared.close();
        for stage in self.stages.drain(..) {
            // A stage's panic was caught and is an item's error; the thread itself has nothing to say.
            let _ = stage.join();
        }
    }
}
