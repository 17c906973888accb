//! What goes wrong in a pipeline, and where.

/// The error of a stage, whatever its type.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why a pipeline gave no result. Every kind names the stage.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A stage refused its input or failed. In a nested pipeline the source names the inner stage.
    #[error("stage `{stage}` of `{pipeline}`: {source}")]
    Stage {
        /// The pipeline.
        pipeline: &'static str,
        /// The stage, as the pipeline calls it.
        stage: &'static str,
        /// What the stage said.
        source: Failure,
    },
    /// A stage panicked: a fault in the stage, not in its input.
    #[error("stage `{stage}` of `{pipeline}` panicked: {message}")]
    Panic {
        /// The pipeline.
        pipeline: &'static str,
        /// The stage, as the pipeline calls it.
        stage: &'static str,
        /// What it said.
        message: String,
    },
    /// A stage's `run_batch` gave another number of results than it was given items.
    #[error("stage `{stage}` of `{pipeline}` was given a batch of {expected} items and gave {found} results")]
    Count {
        /// The pipeline.
        pipeline: &'static str,
        /// The stage, as the pipeline calls it.
        stage: &'static str,
        /// How many items there were.
        expected: usize,
        /// How many results came.
        found: usize,
    },
    /// The iterator that a stream reads from panicked.
    #[error("the input of `{pipeline}` panicked: {message}")]
    Input {
        /// The pipeline.
        pipeline: &'static str,
        /// What it said.
        message: String,
    },
    /// A stream was cancelled before its input ended.
    #[error("`{pipeline}` was cancelled")]
    Cancelled {
        /// The pipeline.
        pipeline: &'static str,
    },
    /// The system gave no thread for a stage.
    #[error("no thread for stage `{stage}` of `{pipeline}`: {source}; a stream takes one thread for each stage")]
    Thread {
        /// The pipeline.
        pipeline: &'static str,
        /// The stage.
        stage: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The words of a panic.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}
