//! Launches that run again as one: CUDA graphs. They are captured on a stream of their own, by one thread at a time, and only
//! what that thread asks for: what other threads do on the device meanwhile happens as always. (Captured on the device's
//! stream, their launches would become part of the graph and not run.)

use super::{Cuda, Recent, enter};
use crate::CudaError;
use crate::driver::{Driver, Replay, lock};
use cudarc::driver::{result, sys};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Once};

/// The stream of recordings.
pub(super) struct Tape(pub sys::CUstream);

/// What this thread records.
struct Recording {
    /// The device's stream, and the one that stands in for it.
    of: sys::CUstream,
    to: sys::CUstream,
    kernels: BTreeSet<&'static str>,
}

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// A kernel was recorded.
pub(super) fn note(kernel: &'static str) {
    RECORDING.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.kernels.insert(kernel);
        }
    });
}

impl Cuda {
    /// The stream for what this thread asks for.
    pub(super) fn target(&self) -> sys::CUstream {
        RECORDING.with_borrow(|r| r.as_ref().filter(|r| r.of == self.stream).map_or(self.stream, |r| r.to))
    }
}

/// Ends a recording, also where the body panics.
struct End(sys::CUstream);

impl End {
    fn now(&self) -> (BTreeSet<&'static str>, Option<Result<sys::CUgraph, cudarc::driver::DriverError>>) {
        let Some(recording) = RECORDING.take() else { return (BTreeSet::new(), None) };
        // SAFETY: the capture was begun before the recording was noted.
        (recording.kernels, Some(unsafe { result::stream::end_capture(self.0) }))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let (_, Some(Ok(graph))) = self.now() {
            // SAFETY: nobody else has it.
            let _ = unsafe { result::graph::destroy(graph) };
        }
    }
}

/// What `body` asks for as a graph; nothing, with words on stderr, where the driver does not make one.
pub(super) fn record(
    cuda: &Cuda,
    body: &mut dyn FnMut() -> Result<(), CudaError>,
) -> Result<Option<Box<dyn Replay>>, CudaError> {
    static SAID: Once = Once::new();
    let tape = lock(&cuda.tape);
    // Kernels may be loaded on the way, which the stricter modes forbid.
    let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: the stream lives as long as the device.
    unsafe { result::stream::begin_capture(tape.0, mode) }.map_err(cuda.failed("cuStreamBeginCapture"))?;
    RECORDING.set(Some(Recording { of: cuda.stream, to: tape.0, kernels: BTreeSet::new() }));
    let end = End(tape.0);
    body()?;
    let (kernels, graph) = end.now();
    let ready = graph.unwrap_or_else(|| unreachable!("it was begun above")).and_then(|graph| {
        // SAFETY: the graph is whole; what is instantiated does not need it.
        unsafe {
            let ready = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags_enum(0));
            let _ = result::graph::destroy(graph);
            ready
        }
    });
    let ready = match ready.map_err(cuda.failed("a graph of launches")) {
        Ok(ready) => ready,
        Err(e @ CudaError::Driver { .. }) => {
            SAID.call_once(|| eprintln!("mobilis: launches run one by one: {e}"));
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    Ok(Some(Box::new(Graph {
        ready,
        kernels,
        context: cuda.context,
        stream: cuda.stream,
        recent: cuda.recent.clone(),
    })))
}

/// A CUDA graph.
struct Graph {
    ready: sys::CUgraphExec,
    kernels: BTreeSet<&'static str>,
    context: sys::CUcontext,
    stream: sys::CUstream,
    recent: Arc<Recent>,
}

// SAFETY: as for `Cuda`, which a `Recorded` keeps alive.
unsafe impl Send for Graph {}

impl Replay for Graph {
    fn replay(&self, _: &dyn Driver) -> Result<(), CudaError> {
        enter(self.context)?;
        // SAFETY: context and stream live as long as the device, which `Recorded` holds.
        unsafe { result::graph::launch(self.ready, self.stream) }.map_err(|e| self.recent.error("cuGraphLaunch", e))?;
        self.recent.extend(&self.kernels);
        Ok(())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if enter(self.context).is_ok() {
            // SAFETY: as above; it is destroyed once, when it does not run.
            unsafe {
                let _ = result::stream::synchronize(self.stream);
                let _ = result::graph::exec_destroy(self.ready);
            }
        }
    }
}
