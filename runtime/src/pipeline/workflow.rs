//! Workflows: several pipelines over one device and one budget of memory, asynchronously.
//!
//! A server has a recognizer, a translator and a synthesizer, and more requests than memory. A
//! [`Workflow`] lets a job start when its memory fits beside those that run, the most urgent first: by
//! priority, then by deadline, then by age. A job waits behind a more urgent one even if it would fit, so
//! large jobs are not starved by small ones. A job that can never fit is refused at once; one whose
//! deadline passes gets an error, waiting or running.
//!
//! Stages are not asynchronous: they compute. A job runs on tokio's threads for blocking work. Nothing
//! can interrupt a stage, so a job whose deadline passes while it runs, or whose future is dropped, keeps
//! its memory until its pipeline returns, and what that gives is dropped.
//!
//! A job's memory is what its stages know ([`Stage::memory`]): the arenas of its programs for the sizes
//! of their last run. Programs that have not run know nothing yet: say what they need with
//! [`Job::memory`].

use super::Stage;
use super::error::{Failure, panic_message};
use crate::devices::Device;
use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What the pipelines share.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The device that all programs of the jobs run on.
    pub device: Device,
    /// Bytes for all jobs that run at once.
    pub memory: usize,
    /// How many jobs run at once; at least 1.
    pub jobs: usize,
}

/// How a job is to be treated.
#[derive(Clone, Debug, Default)]
pub struct Job {
    name: String,
    priority: i32,
    deadline: Option<Instant>,
    memory: Option<usize>,
}

impl Job {
    /// A job of this name, for messages; priority 0, no deadline.
    pub fn new(name: impl Into<String>) -> Job {
        Job { name: name.into(), ..Job::default() }
    }
    /// More urgent than jobs of a lower number.
    #[must_use]
    pub fn priority(self, priority: i32) -> Job {
        Job { priority, ..self }
    }
    /// It must be done within this time from now.
    #[must_use]
    pub fn within(self, time: Duration) -> Job {
        // Beyond what the clock can tell there is no deadline.
        Job { deadline: Instant::now().checked_add(time), ..self }
    }
    /// Bytes that it needs, instead of what its stages know.
    #[must_use]
    pub fn memory(self, bytes: usize) -> Job {
        Job { memory: Some(bytes), ..self }
    }
}

/// Why a job gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorkflowError {
    /// It needs more memory than there is for all jobs together.
    #[error("job `{job}` needs {needs} bytes, and the budget is {budget}: raise the budget, or make batches smaller")]
    TooLarge {
        /// The job.
        job: String,
        /// What it needs.
        needs: usize,
        /// What there is.
        budget: usize,
    },
    /// One of its programs is for another device.
    #[error("job `{job}` has a program for `{found}`, and this workflow runs on `{expected}`")]
    Device {
        /// The job.
        job: String,
        /// The workflow's.
        expected: Device,
        /// The program's.
        found: Device,
    },
    /// Its deadline passed.
    #[error("job `{job}` passed its deadline while it {state}")]
    Deadline {
        /// The job.
        job: String,
        /// `waited` or `ran`.
        state: &'static str,
    },
    /// It failed.
    #[error("job `{job}`: {source}")]
    Failed {
        /// The job.
        job: String,
        /// What its stage said.
        source: Failure,
    },
    /// It panicked outside a pipeline's stages, which turn panics into errors.
    #[error("job `{job}` panicked: {message}")]
    Panic {
        /// The job.
        job: String,
        /// What it said.
        message: String,
    },
    /// The tokio runtime is shutting down.
    #[error("job `{job}` was not run: the runtime is shutting down")]
    Shutdown {
        /// The job.
        job: String,
    },
}

/// What a workflow holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the jobs that run.
    pub memory: usize,
    /// How many run.
    pub running: usize,
    /// How many wait.
    pub waiting: usize,
}

struct Waiting {
    /// Urgency: the least goes first.
    key: (Reverse<i32>, bool, Option<Instant>, u64),
    needs: usize,
    start: oneshot::Sender<Permit>,
}

#[derive(Default)]
struct State {
    memory: usize,
    running: usize,
    waiting: Vec<Waiting>,
    count: u64,
}

struct Shared {
    budget: Budget,
    state: Mutex<State>,
}

/// A job's place and memory, given back when it is dropped.
struct Permit {
    shared: Arc<Shared>,
    needs: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.memory -= self.needs;
        state.running -= 1;
        drop(state);
        Shared::admit(&self.shared);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what may start.
    fn admit(shared: &Arc<Shared>) {
        loop {
            let mut state = shared.lock();
            // Whoever gave up waits no more.
            state.waiting.retain(|w| !w.start.is_closed());
            let Some(first) = (0..state.waiting.len()).min_by_key(|i| state.waiting[*i].key) else { return };
            let needs = state.waiting[first].needs;
            let fits = state.running < shared.budget.jobs.max(1)
                && state.memory.checked_add(needs).is_some_and(|sum| sum <= shared.budget.memory);
            if !fits {
                return;
            }
            let next = state.waiting.swap_remove(first);
            state.memory += needs;
            state.running += 1;
            drop(state);
            // A receiver that is gone drops the permit, which gives back and admits again.
            let _ = next.start.send(Permit { shared: shared.clone(), needs });
        }
    }
}

/// Several pipelines over one budget: see [the module](self). Clones share it.
#[derive(Clone)]
pub struct Workflow(Arc<Shared>);

/// A place in the queue, left when it is dropped.
struct Place<'a>(&'a Arc<Shared>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        Shared::admit(self.0);
    }
}

impl Workflow {
    /// A workflow without jobs.
    pub fn new(budget: Budget) -> Workflow {
        Workflow(Arc::new(Shared { budget, state: Mutex::default() }))
    }

    /// What it holds at the moment.
    pub fn usage(&self) -> Usage {
        let state = self.0.lock();
        let waiting = state.waiting.iter().filter(|w| !w.start.is_closed()).count();
        Usage { memory: state.memory, running: state.running, waiting }
    }

    /// A place among those that wait.
    fn queue(&self, priority: i32, deadline: Option<Instant>, needs: usize) -> oneshot::Receiver<Permit> {
        let (start, started) = oneshot::channel();
        let mut state = self.0.lock();
        state.count += 1;
        let key = (Reverse(priority), deadline.is_none(), deadline, state.count);
        state.waiting.push(Waiting { key, needs, start });
        started
    }

    /// Runs a pipeline, or any stage, on one input when its memory fits. To be awaited within a tokio
    /// runtime that keeps time (`enable_time`). Drop the future to give the job up.
    ///
    /// # Errors
    /// A job that can never fit or is for another device, at once; a deadline that passes; what the
    /// stage says.
    pub async fn run<S, In>(&self, job: Job, stage: Arc<S>, input: In) -> Result<S::Output, WorkflowError>
    where
        S: Stage<In> + Send + Sync + ?Sized + 'static,
        S::Output: Send + 'static,
        In: Send + 'static,
    {
        let Job { name, priority, deadline, memory } = job;
        let budget = &self.0.budget;
        let needs = memory.unwrap_or_else(|| stage.memory());
        if needs > budget.memory {
            return Err(WorkflowError::TooLarge { job: name, needs, budget: budget.memory });
        }
        if let Some(found) = stage.devices().into_iter().find(|d| *d != budget.device) {
            return Err(WorkflowError::Device { job: name, expected: budget.device, found });
        }
        let started = self.queue(priority, deadline, needs);
        // Before the receiver, which is dropped first: then those behind this one are looked at again.
        let place = Place(&self.0);
        Shared::admit(&self.0);
        let Ok(permit) = by(deadline, started).await else {
            drop(place);
            return Err(WorkflowError::Deadline { job: name, state: "waited" });
        };
        let Ok(permit) = permit else { return Err(WorkflowError::Shutdown { job: name }) };
        let work = tokio::task::spawn_blocking(move || {
            let result = stage.run(input).map_err(Into::<Failure>::into);
            drop(permit);
            result
        });
        match by(deadline, work).await {
            Err(()) => Err(WorkflowError::Deadline { job: name, state: "ran" }),
            Ok(Ok(result)) => result.map_err(|source| WorkflowError::Failed { job: name, source }),
            Ok(Err(e)) => match e.try_into_panic() {
                Ok(payload) => Err(WorkflowError::Panic { job: name, message: panic_message(&*payload) }),
                Err(_) => Err(WorkflowError::Shutdown { job: name }),
            },
        }
    }
}

/// What a future gives, unless its time passes before.
async fn by<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, ()> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.map_err(|_| ()),
        None => Ok(future.await),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pure;
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    fn block<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("no job hangs") })
    }

    fn workflow(memory: usize, jobs: usize) -> Workflow {
        Workflow::new(Budget { device: Device::Cpu, memory, jobs })
    }

    /// A stage that waits until it is let go.
    fn gate() -> (mpsc::Sender<()>, Arc<impl Stage<usize, Output = usize> + Send + Sync>) {
        let (open, closed) = mpsc::channel();
        let closed = Mutex::new(closed);
        let wait = pure(move |x: usize| {
            let _ = closed.lock().map(|c| c.recv_timeout(Duration::from_secs(30)));
            x
        });
        (open, Arc::new(wait))
    }

    #[test]
    fn what_never_fits_is_refused_with_the_numbers() {
        block(async {
            let stage = Arc::new(pure(|x: usize| x));
            let e = workflow(100, 1).run(Job::new("big").memory(101), stage, 1).await.expect_err("too large");
            assert!(e.to_string().starts_with("job `big` needs 101 bytes, and the budget is 100"), "{e}");
        });
    }

    #[test]
    fn memory_is_never_exceeded_and_every_job_ends() {
        static USED: AtomicUsize = AtomicUsize::new(0);
        block(async {
            let all = workflow(10, 8);
            let jobs: Vec<_> = (0..40usize)
                .map(|i| {
                    let (all, needs) = (all.clone(), 1 + (i * 7) % 10);
                    tokio::spawn(async move {
                        let stage = pure(move |x: usize| {
                            let used = USED.fetch_add(needs, SeqCst) + needs;
                            assert!(used <= 10, "{used} of 10");
                            std::thread::sleep(Duration::from_millis(1));
                            USED.fetch_sub(needs, SeqCst);
                            x
                        });
                        all.run(Job::new("job").memory(needs), Arc::new(stage), i).await
                    })
                })
                .collect();
            for (i, job) in jobs.into_iter().enumerate() {
                assert_eq!(job.await.expect("no panic").expect("it fits"), i);
            }
            assert_eq!(all.usage(), Usage { memory: 0, running: 0, waiting: 0 });
        });
    }

    #[test]
    fn the_urgent_go_first_and_the_large_are_not_overtaken() {
        block(async {
            let all = workflow(10, 8);
            let (open, first) = gate();
            let order = Arc::new(Mutex::new(vec![]));
            let start = |name: &'static str, job: Job| {
                let (all, order) = (all.clone(), order.clone());
                tokio::spawn(async move {
                    let note = pure(move |()| order.lock().expect("sound").push(name));
                    all.run(job, Arc::new(note), ()).await
                })
            };
            let running = {
                let all = all.clone();
                tokio::spawn(async move { all.run(Job::new("first").memory(6), first, 1).await })
            };
            tokio::task::yield_now().await;
            let rest = [
                start("small", Job::new("small").memory(1)),
                start("urgent and large", Job::new("urgent").memory(10).priority(5)),
                start("soon", Job::new("soon").memory(10).within(Duration::from_secs(50))),
            ];
            // The first of them to arrive fits beside the one that runs; the others wait.
            while all.usage().waiting < 2 {
                tokio::task::yield_now().await;
            }
            let late = start("late and small", Job::new("late").memory(1));
            while all.usage().waiting < 3 {
                tokio::task::yield_now().await;
            }
            open.send(()).expect("it waits");
            for job in rest.into_iter().chain([late]) {
                job.await.expect("no panic").expect("it runs");
            }
            assert_eq!(running.await.expect("no panic").expect("it runs"), 1);
            let order = order.lock().expect("sound").clone();
            assert_eq!(order, ["small", "urgent and large", "soon", "late and small"]);
        });
    }

    #[test]
    fn a_deadline_ends_waiting_and_running() {
        block(async {
            let all = workflow(10, 1);
            let (open, slow) = gate();
            let soon = Duration::from_millis(30);
            let e = all.run(Job::new("slow").memory(10).within(soon), slow, 1).await.expect_err("it never ends");
            assert_eq!(e.to_string(), "job `slow` passed its deadline while it ran");
            // It still holds its memory, since nothing can interrupt it.
            assert_eq!(all.usage().memory, 10);
            let quick = Arc::new(pure(|x: usize| x));
            let e = all.run(Job::new("next").memory(1).within(soon), quick.clone(), 1).await.expect_err("no place");
            assert_eq!(e.to_string(), "job `next` passed its deadline while it waited");
            assert_eq!(all.usage().waiting, 0);
            open.send(()).expect("it waits");
            assert_eq!(all.run(Job::new("last").memory(10), quick, 7).await.expect("there is a place"), 7);
        });
    }

    #[test]
    fn who_gives_up_lets_others_pass() {
        block(async {
            let all = workflow(10, 8);
            let (open, first) = gate();
            let running = {
                let all = all.clone();
                tokio::spawn(async move { all.run(Job::new("first").memory(5), first, 1).await })
            };
            while all.usage().running < 1 {
                tokio::task::yield_now().await;
            }
            let quick = Arc::new(pure(|x: usize| x));
            let large = {
                let (all, quick) = (all.clone(), quick.clone());
                tokio::spawn(async move { all.run(Job::new("large").memory(10), quick, 2).await })
            };
            while all.usage().waiting < 1 {
                tokio::task::yield_now().await;
            }
            let small = {
                let (all, quick) = (all.clone(), quick.clone());
                tokio::spawn(async move { all.run(Job::new("small").memory(5), quick, 3).await })
            };
            while all.usage().waiting < 2 {
                tokio::task::yield_now().await;
            }
            large.abort();
            // The first still runs: the small one passes because the large one is gone.
            assert_eq!(small.await.expect("no panic").expect("it runs"), 3);
            open.send(()).expect("it waits");
            assert_eq!(running.await.expect("no panic").expect("it runs"), 1);
        });
    }

    #[test]
    fn failures_panics_and_other_devices_are_told() {
        block(async {
            let all = workflow(10, 1);
            let fails = Arc::new(|x: &'static str| x.parse::<i32>());
            let e = all.run(Job::new("parse"), fails, "x").await.expect_err("no number");
            assert_eq!(e.to_string(), "job `parse`: invalid digit found in string");
            let panics = Arc::new(pure(|x: i32| assert!(x > 1, "too small")));
            let e = all.run(Job::new("bad"), panics, 1).await.expect_err("a panic");
            assert_eq!(e.to_string(), "job `bad` panicked: too small");
            let model = crate::Model::init((), 0).expect("no parameters").on(Device::Reference);
            let program = model.compile(|(), x: crate::Tensor<()>| x + 1.0).expect("it compiles");
            let e = all.run(Job::new("far"), Arc::new(program), crate::Array::<()>::scalar(1.0)).await;
            let e = e.expect_err("another device");
            assert_eq!(e.to_string(), "job `far` has a program for `reference`, and this workflow runs on `cpu`");
            assert_eq!(all.usage().running, 0);
        });
    }
}
