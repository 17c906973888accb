//! Stages: things that take a value and give a value.

use super::Failure;
use crate::devices::Device;
use crate::program::{Arguments, Feed, Program, ProgramError, Results};
use std::convert::Infallible;
use std::sync::Arc;

/// One step of a pipeline on the host: a tokenizer, a feature extractor, a search. A compiled
/// [`Program`] is a stage as well, and so are a pipeline, an `Arc` of a stage, and any closure that gives
/// a `Result`; [`pure`] makes one of a closure that cannot fail.
///
/// Several inputs are a tuple. What an input means is part of its type, as everywhere:
/// `Array![Samples; AudioSignal<16000>]` is not `Array![Samples; AudioSignal<8000>]`.
///
/// ```
/// # extern crate mobilis_runtime as mobilis;
/// use mobilis::prelude::*;
/// axes! { Samples; }
///
/// /// Makes a recording louder.
/// struct Gain(f32);
///
/// impl Stage<Array![Samples; AudioSignal<16000>]> for Gain {
///     type Output = Array![Samples; AudioSignal<16000>];
///     type Error = ArrayError;
///     fn run(&self, audio: Array![Samples; AudioSignal<16000>]) -> Result<Self::Output, ArrayError> {
///         Ok(audio.map(|x| self.0 * x))
///     }
/// }
/// let audio = Array::from_vec(vec![0.25, -0.5])?;
/// assert_eq!(Gain(2.0).run(audio)?.data(), [0.5, -1.0]);
/// # Ok::<(), ArrayError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stage that takes `{In}`",
    label = "this stage does not take `{In}`",
    note = "a stage is a `Program` of tensors of the same axes and elements, or its `per_item()`, a pipeline, a closure `|x: {In}| -> Result<_, _>`, `pure(closure)` where nothing can fail, or a type with `impl Stage<..>`"
)]
pub trait Stage<In> {
    /// What comes out.
    type Output;
    /// Why nothing comes out.
    type Error: Into<Failure>;

    /// Takes one input.
    ///
    /// # Errors
    /// What the stage refuses: each says what.
    fn run(&self, input: In) -> Result<Self::Output, Self::Error>;

    /// Takes several inputs at once and gives one result for each, in order. An item's result must not
    /// depend on those beside it. A stage that gains nothing from a batch leaves this as it is: one after
    /// the other.
    fn run_batch(&self, inputs: Vec<In>) -> Vec<Result<Self::Output, Self::Error>> {
        inputs.into_iter().map(|input| self.run(input)).collect()
    }

    /// What drawings call it: the type's name.
    fn kind(&self) -> String {
        short_name(std::any::type_name::<Self>())
    }

    /// Bytes that it holds while it runs, as far as it knows: a program's arena for the sizes of its last
    /// run. What a workflow's budget counts.
    fn memory(&self) -> usize {
        0
    }

    /// The devices that its programs run on; none for a stage of the host.
    fn devices(&self) -> Vec<Device> {
        vec![]
    }

    /// The stages inside, if it is a pipeline.
    fn inside(&self) -> Option<&super::Core> {
        None
    }
}

/// `LogMel` of `my_crate::audio::LogMel<A>`; `closure` of a closure.
fn short_name(path: &str) -> String {
    let plain = path.split('<').next().unwrap_or(path);
    let last = plain.rsplit("::").next().unwrap_or(plain);
    if last.starts_with("{{closure}}") { "closure".into() } else { last.into() }
}

#[diagnostic::do_not_recommend]
impl<F, In, Out, E> Stage<In> for F
where
    F: Fn(In) -> Result<Out, E>,
    E: Into<Failure>,
{
    type Output = Out;
    type Error = E;
    fn run(&self, input: In) -> Result<Out, E> {
        self(input)
    }
}

/// A closure that cannot fail, as a stage: see [`pure`].
pub struct Pure<F>(F);

/// Makes a stage of a closure that cannot fail: `pure(|x: f32| 2.0 * x)`.
pub fn pure<In, Out, F: Fn(In) -> Out>(f: F) -> Pure<F> {
    Pure(f)
}

impl<F: Fn(In) -> Out, In, Out> Stage<In> for Pure<F> {
    type Output = Out;
    type Error = Infallible;
    fn run(&self, input: In) -> Result<Out, Infallible> {
        Ok(self.0(input))
    }
    fn kind(&self) -> String {
        "closure".into()
    }
}

/// A stage that several pipelines share.
#[diagnostic::do_not_recommend]
impl<In, S: Stage<In> + ?Sized> Stage<In> for Arc<S> {
    type Output = S::Output;
    type Error = S::Error;
    fn run(&self, input: In) -> Result<S::Output, S::Error> {
        (**self).run(input)
    }
    fn run_batch(&self, inputs: Vec<In>) -> Vec<Result<S::Output, S::Error>> {
        (**self).run_batch(inputs)
    }
    fn kind(&self) -> String {
        (**self).kind()
    }
    fn memory(&self) -> usize {
        (**self).memory()
    }
    fn devices(&self) -> Vec<Device> {
        (**self).devices()
    }
    fn inside(&self) -> Option<&super::Core> {
        (**self).inside()
    }
}

/// A compiled module: arrays of its arguments' axes and elements (or sub-elements) in, arrays out.
impl<I: Arguments, O: Results, In: Feed<I>> Stage<In> for Program<I, O> {
    type Output = O::Arrays;
    type Error = ProgramError;
    fn run(&self, input: In) -> Result<O::Arrays, ProgramError> {
        Program::run(self, input)
    }
    fn kind(&self) -> String {
        self.module_kind()
    }
    fn memory(&self) -> usize {
        self.executable().memory().map_or(0, |(arena, _)| arena)
    }
    fn devices(&self) -> Vec<Device> {
        vec![self.executable().device()]
    }
}

impl<I: Arguments, O: Results> Program<I, O> {
    /// The name of the module that was compiled, for drawings.
    pub(crate) fn module_kind(&self) -> String {
        self.executable().graph().scopes.first().map_or_else(|| "Program".into(), |root| root.kind.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    axes! { Batch; Hidden = 2; }

    #[test]
    fn closures_programs_and_shared_stages_are_stages() {
        fn give<In, S: Stage<In>>(stage: &S, input: In) -> S::Output {
            stage.run(input).map_err(Into::into).expect("it runs")
        }
        fn crosses_threads<T: Send + Sync + 'static>(_: &T) {}
        let parse = |text: &str| text.parse::<i32>();
        assert_eq!(give(&parse, "3"), 3);
        assert!(Stage::run(&parse, "x").is_err());
        assert_eq!(give(&Arc::new(pure(|x: i32| x + 1)), 3), 4);
        let model = Model::init((), 0).expect("no parameters");
        let double = model.compile(|(), x: Tensor![Batch, Hidden; Logits]| x * 2.0).expect("it compiles");
        crosses_threads(&double);
        let x: Array![Batch, Hidden; Logits] = Array::from_vec(vec![1.0, 2.0]).expect("one row");
        assert_eq!(give(&double, x).data(), [2.0, 4.0]);
        assert!(Stage::<<Tensor![Batch, Hidden; Logits] as Results>::Arrays>::memory(&double) > 0);
    }

    #[test]
    fn names_are_short() {
        assert_eq!(short_name("a::b::LogMel<a::Axes>"), "LogMel");
        assert_eq!(short_name("a::f::{{closure}}"), "closure");
    }
}
