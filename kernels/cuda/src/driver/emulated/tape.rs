//! Recordings on the emulator: what a thread asks for is noted and later asked for again, so that programs which a GPU runs as a
//! graph take the same way here. What cannot be part of a graph is refused as the driver refuses it.

use crate::driver::{Driver, Replay};
use crate::{CudaError, Launch, Ptr};
use std::cell::RefCell;

/// What can be recorded.
pub(super) enum Step {
    Launch(Launch),
    /// From, to, bytes.
    Copy(Ptr, Ptr, usize),
    /// To, the byte, bytes.
    Fill(Ptr, u8, usize),
}

thread_local! {
    static TAPE: RefCell<Option<Vec<Step>>> = const { RefCell::new(None) };
}

/// Notes a step where this thread records.
pub(super) fn note(step: impl FnOnce() -> Step) -> bool {
    TAPE.with_borrow_mut(|tape| match tape {
        Some(steps) => {
            steps.push(step());
            true
        }
        None => false,
    })
}

/// Refuses what is no step.
pub(super) fn not_now(call: &'static str) -> Result<(), CudaError> {
    match TAPE.with_borrow(Option::is_none) {
        true => Ok(()),
        false => Err(CudaError::Driver { call, message: "it was called while launches are recorded".into() }),
    }
}

/// Ends a recording, also where the body panics.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        TAPE.take();
    }
}

pub(super) fn record(body: &mut dyn FnMut() -> Result<(), CudaError>) -> Result<Box<dyn Replay>, CudaError> {
    not_now("record")?;
    TAPE.set(Some(vec![]));
    let _end = End;
    body()?;
    Ok(Box::new(Steps(TAPE.take().unwrap_or_default())))
}

struct Steps(Vec<Step>);

impl Replay for Steps {
    fn replay(&self, driver: &dyn Driver) -> Result<(), CudaError> {
        self.0.iter().try_for_each(|step| match step {
            Step::Launch(launch) => driver.launch(launch),
            Step::Copy(from, to, bytes) => driver.copy(*from, *to, *bytes),
            Step::Fill(to, byte, bytes) => driver.fill(*to, *byte, *bytes),
        })
    }
}
