//! The typed shell of programs: arrays in, arrays out.

use super::host::{self, HostRef};
use super::{Executable, ProgramError};
use crate::array::Array;
use crate::graph::trace::{self, Mode, TraceError};
use crate::graph::{Graph, TensorType};
use crate::language::element::{Element, Host, Is};
use crate::language::shape::Shape;
use crate::module::Module;
use crate::module::store::Data;
use crate::tensor::Tensor;
use crate::transforms::precision::{Precision, PrecisionReport};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a compiled function may take: a tensor, or a tuple of them.
#[diagnostic::on_unimplemented(
    message = "a compiled function cannot take `{Self}`",
    note = "it takes a tensor or a tuple of up to eight tensors: `|m, (x, y): (Tensor![..], Tensor![..])| ..`"
)]
pub trait Arguments: Sized {
    /// Declares the arguments in the trace, numbered from `first`.
    fn declare(first: &mut usize) -> Self;
}

/// Arrays that fit the arguments `A`, owned or borrowed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what this program takes",
    label = "the program takes arrays for `{A}`",
    note = "give one array for each tensor, in a tuple if there are several, with the same axes and element"
)]
pub trait Feed<A> {
    /// Shows the arrays in order.
    fn feed<'a>(&'a self, to: &mut Vec<HostRef<'a>>);
}

/// What a compiled function may return: a tensor, a tuple of them, or a vector.
#[diagnostic::on_unimplemented(
    message = "a compiled function cannot return `{Self}`",
    note = "it returns a tensor, a tuple of up to eight, or a `Vec` of tensors"
)]
pub trait Results: Sized {
    /// The arrays that a run gives.
    type Arrays;
    /// Marks the outputs in the trace, and how long each `Vec` among them is.
    fn declare(&self);
    /// Takes its arrays from those of a run.
    fn collect(run: &mut Collected) -> Self::Arrays;
}

/// What a run gave and is yet to be taken: sizes and values of the outputs, in order.
#[derive(Debug)]
pub struct Collected<'g> {
    values: std::vec::IntoIter<(Vec<usize>, Data)>,
    /// [`Graph::lists`].
    lists: std::slice::Iter<'g, usize>,
}

impl<S: Shape, E: Element> Arguments for Tensor<S, E> {
    fn declare(first: &mut usize) -> Self {
        *first += 1;
        Tensor::from_raw(trace::input(format!("argument {first}"), Self::type_of(), E::NAME))
    }
}

impl Arguments for () {
    fn declare(_: &mut usize) -> Self {}
}
impl Feed<()> for () {
    fn feed<'a>(&'a self, _: &mut Vec<HostRef<'a>>) {}
}

impl<S: Shape, E: Is<F>, F: Element> Feed<Tensor<S, F>> for Array<S, E> {
    fn feed<'a>(&'a self, to: &mut Vec<HostRef<'a>>) {
        to.push(HostRef { sizes: self.sizes(), values: Host::slice(self.data()) });
    }
}
impl<A, T: Feed<A>> Feed<A> for &T {
    fn feed<'a>(&'a self, to: &mut Vec<HostRef<'a>>) {
        (**self).feed(to);
    }
}

impl<S: Shape, E: Element> Results for Tensor<S, E> {
    type Arrays = Array<S, E>;
    fn declare(&self) {
        trace::output(self.raw());
    }
    fn collect(run: &mut Collected) -> Array<S, E> {
        let (sizes, data) = run.values.next().expect("a run gives every output");
        to_array(&sizes, data)
    }
}

/// Values of a run as a typed array.
fn to_array<S: Shape, E: Element>(sizes: &[usize], data: Data) -> Array<S, E> {
    Array::from_parts(sizes, Host::from_data(data))
}

impl<R: Results> Results for Vec<R> {
    type Arrays = Vec<R::Arrays>;
    fn declare(&self) {
        trace::list(self.len());
        self.iter().for_each(R::declare);
    }
    fn collect(run: &mut Collected) -> Self::Arrays {
        if let Some(length) = run.lists.next() {
            return (0..*length).map(|_| R::collect(run)).collect();
        }
        // A graph that was made otherwise does not tell: the list has all that is left.
        let mut out = vec![];
        while run.values.len() > 0 {
            out.push(R::collect(run));
        }
        out
    }
}

macro_rules! tuples {
    ($($($t:ident $a:ident $i:tt),+;)+) => {$(
        impl<$($t: Arguments),+> Arguments for ($($t,)+) {
            fn declare(first: &mut usize) -> Self {
                ($($t::declare(first),)+)
            }
        }
        impl<$($t, $a: Feed<$t>),+> Feed<($($t,)+)> for ($($a,)+) {
            fn feed<'a>(&'a self, to: &mut Vec<HostRef<'a>>) {
                $(self.$i.feed(to);)+
            }
        }
        impl<$($t: Results),+> Results for ($($t,)+) {
            type Arrays = ($($t::Arrays,)+);
            fn declare(&self) {
                $(self.$i.declare();)+
            }
            fn collect(run: &mut Collected) -> Self::Arrays {
                ($($t::collect(run),)+)
            }
        }
    )+};
}
tuples! {
    A A2 0;
    A A2 0, B B2 1;
    A A2 0, B B2 1, C C2 2;
    A A2 0, B B2 1, C C2 2, D D2 3;
    A A2 0, B B2 1, C C2 2, D D2 3, E E2 4;
    A A2 0, B B2 1, C C2 2, D D2 3, E E2 4, F F2 5;
    A A2 0, B B2 1, C C2 2, D D2 3, E E2 4, F F2 5, G G2 6;
    A A2 0, B B2 1, C C2 2, D D2 3, E E2 4, F F2 5, G G2 6, H H2 7;
}

/// A compiled function from arrays for `I` to arrays for `O`.
pub struct Program<I, O> {
    executable: Executable,
    report: PrecisionReport,
    check: AtomicBool,
    types: PhantomData<fn(I) -> O>,
}

impl<I: Arguments, O: Results> Program<I, O> {
    /// The typed shell of an executable whose graph was traced from a function of these types.
    pub fn new(executable: Executable) -> Self {
        Program { executable, report: PrecisionReport::default(), check: AtomicBool::new(false), types: PhantomData }
    }

    /// Runs on arrays, owned or borrowed: `program.run(&x)`, `program.run((&x, y))`.
    ///
    /// # Errors
    /// Sizes that disagree (naming the axis and both arguments), data that an operation refuses
    /// (an index out of range), and, if asked for by [`check_finite`](Self::check_finite), the
    /// first value that is not finite.
    pub fn run(&self, arrays: impl Feed<I>) -> Result<O::Arrays, ProgramError> {
        let mut inputs = Vec::with_capacity(self.executable.graph().inputs.len());
        arrays.feed(&mut inputs);
        let values = self.run_raw(&inputs)?.into_iter();
        Ok(O::collect(&mut Collected { values, lists: self.executable.graph().lists.iter() }))
    }

    /// Runs on arrays without types; gives sizes and values of every result.
    pub(crate) fn run_raw(&self, inputs: &[HostRef]) -> Result<Vec<(Vec<usize>, Data)>, ProgramError> {
        if self.check.load(Ordering::Relaxed) {
            self.executable.check_finite(inputs)?;
        }
        let mut results = Vec::with_capacity(self.executable.graph().outputs.len());
        self.executable.run(inputs, |_, sizes, out| {
            results.push((sizes.to_vec(), host::data(out)));
        })?;
        Ok(results)
    }

    /// Before every run, looks for the first value that is NaN or infinite although everything
    /// it was computed from is finite, and names its operation and module instead of running.
    /// Costs another, unfused run.
    pub fn check_finite(&self, on: bool) {
        self.check.store(on, Ordering::Relaxed);
    }

    /// The value that [`Tensor::tap`] named, as the last run left it.
    ///
    /// # Errors
    /// No such tap, no run yet, or another shape or element base.
    pub fn tap<S: Shape, E: Element>(&self, name: &str) -> Result<Array<S, E>, ProgramError> {
        let graph = self.executable.graph();
        let Some((_, value)) = graph.taps.iter().find(|t| t.0 == name) else {
            let hint = crate::suggest::did_you_mean(name, graph.taps.iter().map(|t| t.0.as_str()));
            return Err(ProgramError::NoTap { name: name.into(), hint });
        };
        let (found, expected) = (graph.ty(*value), Tensor::<S, E>::type_of());
        if *found != expected {
            return Err(ProgramError::TapType {
                name: name.into(),
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
        let hint = ": the program has not run yet".to_string();
        let tapped = self.executable.tap(name).ok_or(ProgramError::NoTap { name: name.into(), hint })?;
        Ok(to_array(&tapped.sizes, tapped.data))
    }

    /// The same program with its weights stored in another format, for smaller memory and, where
    /// reading weights is what takes the time, speed: one [`WeightFormat`](super::WeightFormat) for
    /// all, or a [`Weights`](super::Weights) with exceptions. Weights are the matrices among the
    /// parameters that inputs are multiplied by, with 16 output channels of 32 values or more; an
    /// embedding table that is the head as well stays `f32` where rows are looked up. The model's
    /// own values stay as they are: training goes on in `f32`, and shows in the next run.
    ///
    /// llama.cpp: `llama-quantize model.gguf q8_0`. PyTorch: `torch.ao.quantization.quantize_dynamic`.
    ///
    /// ```
    /// use mobilis_runtime::nn::Linear;
    /// use mobilis_runtime::prelude::*;
    /// use mobilis_runtime::program::{WeightFormat, Weights};
    /// # extern crate mobilis_runtime as mobilis;
    /// axes! { pub Batch; pub Hidden = 64; pub Out = 32; }
    /// #[neural_module]
    /// struct Net { up: Linear<Hidden, Hidden>, head: Linear<Hidden, Out> }
    /// let model = Model::init(Net::default(), 0)?;
    /// let weights = Weights::new(WeightFormat::Q4_0).except("head.**", WeightFormat::F16);
    /// let program = model
    ///     .compile(|m, x: Tensor![Batch, Hidden]| m.head.forward(m.up.forward(x).relu()))?
    ///     .with_weights(weights)?;
    /// program.run(<Array![Batch, Hidden]>::full([1, 64], 0.5)?)?;
    /// let stored: Vec<_> = program.weights().into_iter().map(|w| (w.name, w.format, w.bytes)).collect();
    /// assert_eq!(stored[0], ("head.weight".into(), WeightFormat::F16, 32 * 64 * 2));
    /// assert_eq!(stored[1], ("up.weight".into(), WeightFormat::Q4_0, 64 * 64 * 9 / 16));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An exception whose pattern matches no parameter or buffer of the program.
    pub fn with_weights(self, weights: impl Into<super::Weights>) -> Result<Self, ProgramError> {
        Ok(Program { executable: self.executable.with_weights(weights.into())?, ..self })
    }

    /// The same program with every sum on the CPU in one order, however many rows, columns or queries a run has,
    /// so that what it gives for an item is the same to the bit with any other items beside it, and behind
    /// any padding that the module masks. [`per_item`](Self::per_item) asks for it. Products of up to eight rows
    /// are slower for it, which is why other programs, such as a step of a language model, do without.
    #[must_use]
    pub fn alike(self) -> Self {
        Program { executable: self.executable.alike(), ..self }
    }

    /// The same program with its products computed with fewer bits: a
    /// [`Compute`](crate::precision::Compute) for all, or a [`Precision`] with
    /// exceptions. The CPU emulates what tensor cores compute, bit for bit and for study: it takes
    /// longer, not less. For training see
    /// [`TrainOptions::precision`](crate::train::TrainOptions::precision).
    ///
    /// ```
    /// use mobilis_runtime::nn::Linear;
    /// use mobilis_runtime::precision::{Number, Precision, Recipe};
    /// use mobilis_runtime::prelude::*;
    /// # extern crate mobilis_runtime as mobilis;
    /// axes! { pub Batch; pub Hidden = 64; }
    /// #[neural_module]
    /// struct Net { up: Linear<Hidden, Hidden> }
    /// let model = Model::init(Net::default(), 0)?;
    /// let program = model
    ///     .compile(|m, x: Tensor![Batch, Hidden]| m.up.forward(x))?
    ///     .with_precision(Precision::fp8(Recipe::current()))?;
    /// assert_eq!(program.precision_report().in_eight_bits().count(), 1);
    /// // 12 rows are no multiple of 16.
    /// let few = program.precision_report().at(&Sizes::new().with::<Batch>(12));
    /// assert_eq!(few.gemms[0].operands, [Number::Bf16; 2]);
    /// program.run(<Array![Batch, Hidden]>::full([16, 64], 0.5)?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A setting out of range, or an exception whose pattern matches no parameter of the program.
    pub fn with_precision(self, precision: impl Into<Precision>) -> Result<Self, ProgramError> {
        let (executable, report) = self.executable.with_precision(&precision.into())?;
        Ok(Program { executable, report, ..self })
    }

    /// How each product is computed, and why, if [`with_precision`](Self::with_precision) was asked.
    pub fn precision_report(&self) -> &PrecisionReport {
        &self.report
    }

    /// What became of the weights, for the sizes of the runs so far, by name.
    pub fn weights(&self) -> Vec<super::StoredWeight> {
        self.executable.weights()
    }

    /// The untyped half: graph, memory, taps.
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The types of the arguments and results, for drawings.
    pub fn signature(&self) -> (Vec<TensorType>, Vec<TensorType>) {
        let graph = self.executable.graph();
        let inputs = graph.inputs.iter().map(|i| i.ty.clone()).collect();
        (inputs, graph.outputs.iter().map(|v| graph.ty(*v).clone()).collect())
    }
}

/// Traces `f`, a function of a module and symbolic arguments, into a graph. `frozen` tells which
/// parameters training leaves alone.
///
/// # Errors
/// The first mistake made while tracing that the type system could not see.
pub fn trace_function<M: Module, I: Arguments, O: Results>(
    module: &M,
    mode: Mode,
    frozen: &dyn Fn(&str) -> bool,
    f: impl FnOnce(&M, I) -> O,
) -> Result<Graph, TraceError> {
    let (graph, _) = trace::trace(Some(module), mode, frozen, || {
        let arguments = I::declare(&mut 0);
        f(module, arguments).declare()
    })?;
    Ok(graph)
}
