//! The untyped half of a pipeline: which stage is fed by which values, and how they run.
//!
//! A pipeline is a list of values (its inputs first, then what each call of a stage gives) and a list of
//! calls in an order in which every value is there before it is used. [`Wiring`] is that list, the same
//! for all instances; [`Core`] joins it with the stages at hand. `pipeline!` writes both.

use super::error::panic_message;
use super::timing::Clock;
use super::{Failure, PipelineError, Stage, StageTime, Timing};
use crate::devices::Device;
use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A value between stages.
pub type Value = Box<dyn Any + Send>;

/// What one item has become so far, by the number of the value; empty where it is not yet there or used up.
pub(super) type Row = Vec<Option<Value>>;

/// A value as it travels.
pub fn erase<T: Send + 'static>(value: T) -> Value {
    Box::new(value)
}

/// A value as it was before [`erase`].
///
/// # Panics
/// When it was of another type, which the macro has excluded.
pub fn restore<T: 'static>(value: Value) -> T {
    *value.downcast().unwrap_or_else(|_| panic!("an edge carries `{}`", std::any::type_name::<T>()))
}

/// A look at a value, for a copy.
///
/// # Panics
/// As [`restore`].
pub fn peek<T: 'static>(value: &Value) -> &T {
    value.downcast_ref().unwrap_or_else(|| panic!("an edge carries `{}`", std::any::type_name::<T>()))
}

/// Where a port gets its value from.
#[derive(Clone, Copy)]
pub enum Edge {
    /// From a value that nobody else needs after this.
    Move(usize, fn(Value) -> Value),
    /// From a value that others need too.
    Copy(usize, fn(&Value) -> Value),
    /// From nowhere: an optional port that is left open.
    Open(fn() -> Value),
}

impl Edge {
    fn take(&self, row: &mut Row) -> Value {
        const THERE: &str = "the macro orders calls so that a value is there until its last use";
        match self {
            Edge::Move(value, convert) => convert(row[*value].take().expect(THERE)),
            Edge::Copy(value, copy) => copy(row[*value].as_ref().expect(THERE)),
            Edge::Open(make) => make(),
        }
    }

    /// The value's number, unless the port is open.
    pub fn value(&self) -> Option<usize> {
        match self {
            Edge::Move(value, _) | Edge::Copy(value, _) => Some(*value),
            Edge::Open(_) => None,
        }
    }
}

/// A name and a type, as the user wrote them.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The name.
    pub name: &'static str,
    /// The type.
    pub ty: &'static str,
}

/// A call of a stage.
pub struct Call {
    /// Which stage.
    pub slot: usize,
    /// What feeds its ports.
    pub inputs: Vec<Edge>,
    /// The first of the values that it gives.
    pub first: usize,
    /// How many it gives.
    pub count: usize,
}

/// Which stage is fed by which values.
pub struct Wiring {
    /// The pipeline's name.
    pub name: &'static str,
    /// The stages' names and signatures.
    pub slots: Vec<Label>,
    /// How many of the values are inputs.
    pub inputs: usize,
    /// Every value.
    pub values: Vec<Label>,
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// What the pipeline gives.
    pub outputs: Vec<Edge>,
    /// What it calls them.
    pub results: Vec<Label>,
}

/// Several ports as one value and as many: `(A,)` is `A`, `(A, B)` is the tuple.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot flow between stages",
    label = "what this stage takes and gives must be `Send + 'static`",
    note = "stages run on threads of their own; `Arc` can be sent where `Rc` cannot"
)]
pub trait Ports: Sized {
    /// What a stage takes or gives.
    type Whole;
    /// The ports one by one.
    fn pack(whole: Self::Whole) -> Vec<Value>;
    /// All in one.
    fn unpack(values: Vec<Value>) -> Self::Whole;
}

macro_rules! ports {
    ($($($t:ident $v:ident),*;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($t: Send + 'static),*> Ports for ($($t,)*) {
            // Parentheses around one type are no tuple.
            #[allow(unused_parens)]
            type Whole = ($($t),*);
            #[allow(unused_parens)]
            fn pack(($($v),*): Self::Whole) -> Vec<Value> {
                vec![$(erase($v)),*]
            }
            #[allow(unused_mut, unused_variables, clippy::unused_unit)]
            fn unpack(values: Vec<Value>) -> Self::Whole {
                let mut values = values.into_iter();
                ($(restore::<$t>(values.next().expect("as many values as ports"))),*)
            }
        }
    )*};
}
ports! {
    ;
    A a;
    A a, B b;
    A a, B b, C c;
    A a, B b, C c, D d;
    A a, B b, C c, D d, E e;
    A a, B b, C c, D d, E e, F f;
    A a, B b, C c, D d, E e, F f, G g;
    A a, B b, C c, D d, E e, F f, G g, H h;
}

/// A stage without its types.
pub trait Erased: Send + Sync {
    /// One item: a value for each port.
    ///
    /// # Errors
    /// The stage's.
    fn run(&self, ports: Vec<Value>) -> Result<Vec<Value>, Failure>;
    /// Several items.
    fn run_batch(&self, items: Vec<Vec<Value>>) -> Vec<Result<Vec<Value>, Failure>>;
    /// As [`Stage::kind`].
    fn kind(&self) -> String;
    /// As [`Stage::memory`].
    fn memory(&self) -> usize;
    /// As [`Stage::devices`].
    fn devices(&self) -> Vec<Device>;
    /// As [`Stage::inside`].
    fn inside(&self) -> Option<&Core>;
}

struct Erase<S, I, O>(S, PhantomData<fn(I) -> O>);

/// Forgets the types of a stage whose ports are `I` and `O`.
pub fn slot<I: Ports + 'static, O: Ports + 'static>(
    stage: impl Stage<I::Whole, Output = O::Whole> + Send + Sync + 'static,
) -> Arc<dyn Erased> {
    Arc::new(Erase(stage, PhantomData::<fn(I) -> O>))
}

impl<S, I: Ports, O: Ports> Erased for Erase<S, I, O>
where
    S: Stage<I::Whole, Output = O::Whole> + Send + Sync,
{
    fn run(&self, ports: Vec<Value>) -> Result<Vec<Value>, Failure> {
        self.0.run(I::unpack(ports)).map(O::pack).map_err(Into::into)
    }
    fn run_batch(&self, items: Vec<Vec<Value>>) -> Vec<Result<Vec<Value>, Failure>> {
        let results = self.0.run_batch(items.into_iter().map(I::unpack).collect());
        results.into_iter().map(|r| r.map(O::pack).map_err(Into::into)).collect()
    }
    fn kind(&self) -> String {
        self.0.kind()
    }
    fn memory(&self) -> usize {
        self.0.memory()
    }
    fn devices(&self) -> Vec<Device> {
        self.0.devices()
    }
    fn inside(&self) -> Option<&Core> {
        self.0.inside()
    }
}

/// A pipeline without types: its wiring, its stages, its clocks. A pipeline dereferences to it, for
/// [`timing`](Core::timing), `draw` and [`memory`](Core::memory).
#[derive(Clone)]
pub struct Core {
    wiring: Arc<Wiring>,
    slots: Vec<Arc<dyn Erased>>,
    clocks: Arc<[Clock]>,
}

impl Core {
    /// Joins wiring and stages.
    pub fn new(wiring: Wiring, slots: Vec<Arc<dyn Erased>>) -> Core {
        let clocks = wiring.calls.iter().map(|_| Clock::default()).collect();
        Core { wiring: Arc::new(wiring), slots, clocks }
    }

    /// Puts another stage in the place of one. Streams that run keep the old one.
    pub fn replace(&mut self, slot: usize, stage: Arc<dyn Erased>) {
        self.slots[slot] = stage;
    }

    /// The pipeline's name.
    pub fn name(&self) -> &'static str {
        self.wiring.name
    }

    /// How the stages are joined.
    pub fn wiring(&self) -> &Wiring {
        &self.wiring
    }

    /// The stage of this number, without its types.
    pub fn stage(&self, slot: usize) -> &dyn Erased {
        &*self.slots[slot]
    }

    /// Where the time of all runs so far went. Clones of a pipeline count together.
    pub fn timing(&self) -> Timing {
        Timing(self.times())
    }

    fn times(&self) -> Vec<StageTime> {
        (0..self.clocks.len()).map(|call| self.clocks[call].read(self.stage_name(call))).collect()
    }

    /// Starts counting anew.
    pub fn reset_timing(&self) {
        self.clocks.iter().for_each(Clock::clear);
    }

    /// Bytes that the stages hold while they run, as far as they know ([`Stage::memory`]): a stage that
    /// is called twice counts once.
    pub fn memory(&self) -> usize {
        self.slots.iter().map(|s| s.memory()).sum()
    }

    /// The devices that the stages' programs run on.
    pub fn devices(&self) -> Vec<Device> {
        self.slots.iter().flat_map(|s| s.devices()).collect()
    }

    pub(super) fn stage_name(&self, call: usize) -> &'static str {
        self.wiring.slots[self.wiring.calls[call].slot].name
    }

    pub(super) fn clock(&self, call: usize) -> &Clock {
        &self.clocks[call]
    }

    /// The beginning of an item.
    pub(super) fn row(&self, inputs: Vec<Value>) -> Row {
        let mut row: Row = inputs.into_iter().map(Some).collect();
        row.resize_with(self.wiring.values.len(), || None);
        row
    }

    /// The end of an item.
    pub(super) fn outputs(&self, mut row: Row) -> Vec<Value> {
        self.wiring.outputs.iter().map(|edge| edge.take(&mut row)).collect()
    }

    /// One call for several items. Items that failed before stay as they are.
    pub(super) fn step(&self, call: usize, rows: &mut [Result<Row, PipelineError>]) -> Duration {
        let Call { slot, inputs, first, .. } = &self.wiring.calls[call];
        let mut items: Vec<Vec<Value>> =
            rows.iter_mut().flatten().map(|row| inputs.iter().map(|edge| edge.take(row)).collect()).collect();
        let expected = items.len();
        if expected == 0 {
            return Duration::ZERO;
        }
        let stage = &*self.slots[*slot];
        let (pipeline, name) = (self.wiring.name, self.stage_name(call));
        let start = Instant::now();
        // What a stage shares between runs is behind its own locks, which know of panics.
        let results = catch_unwind(AssertUnwindSafe(|| match items.pop() {
            Some(only) if expected == 1 => vec![stage.run(only)],
            last => {
                items.extend(last);
                stage.run_batch(items)
            }
        }));
        let took = start.elapsed();
        self.clocks[call].ran(expected, took);
        let results = match results {
            Ok(results) if results.len() == expected => results
                .into_iter()
                .map(|r| r.map_err(|source| PipelineError::Stage { pipeline, stage: name, source }))
                .collect(),
            Ok(results) => {
                let found = results.len();
                let wrong = || Err(PipelineError::Count { pipeline, stage: name, expected, found });
                std::iter::repeat_with(wrong).take(expected).collect::<Vec<_>>()
            }
            Err(payload) => {
                let message = panic_message(&*payload);
                let wrong = || Err(PipelineError::Panic { pipeline, stage: name, message: message.clone() });
                std::iter::repeat_with(wrong).take(expected).collect()
            }
        };
        for (row, result) in rows.iter_mut().filter(|r| r.is_ok()).zip(results) {
            match (row, result) {
                (Ok(row), Ok(values)) => {
                    for (i, value) in values.into_iter().enumerate() {
                        row[first + i] = Some(value);
                    }
                }
                (row, Err(e)) => *row = Err(e),
                (Err(_), Ok(_)) => {}
            }
        }
        took
    }

    /// Runs one item.
    ///
    /// # Errors
    /// The first stage that failed or panicked.
    pub fn run(&self, inputs: Vec<Value>) -> Result<Vec<Value>, PipelineError> {
        let mut rows = [Ok(self.row(inputs))];
        for call in 0..self.wiring.calls.len() {
            self.step(call, &mut rows);
        }
        let [row] = rows;
        Ok(self.outputs(row?))
    }

    /// Runs several items, each stage on all of them at once; a result for each, in order.
    pub fn run_batch(&self, items: Vec<Vec<Value>>) -> Vec<Result<Vec<Value>, PipelineError>> {
        let mut rows: Vec<_> = items.into_iter().map(|inputs| Ok(self.row(inputs))).collect();
        for call in 0..self.wiring.calls.len() {
            self.step(call, &mut rows);
        }
        rows.into_iter().map(|row| row.map(|row| self.outputs(row))).collect()
    }

    /// Runs one item, and copies every value that `keep` knows how to copy.
    ///
    /// # Errors
    /// As [`Core::run`].
    pub fn run_traced(&self, inputs: Vec<Value>, keep: &[(usize, fn(&Value) -> Value)]) -> Result<Kept, PipelineError> {
        let mut rows = [Ok(self.row(inputs))];
        let mut kept = Vec::with_capacity(keep.len());
        let mut times = vec![];
        for (number, call) in self.wiring.calls.iter().enumerate() {
            times.push((self.stage_name(number), self.step(number, &mut rows)));
            let [Ok(row)] = &rows else { break };
            for (value, copy) in keep.iter().filter(|(v, _)| (call.first..call.first + call.count).contains(v)) {
                kept.extend(row[*value].as_ref().map(copy));
            }
        }
        let [row] = rows;
        Ok(Kept { outputs: self.outputs(row?), kept, times })
    }
}

/// What [`Core::run_traced`] gives.
pub struct Kept {
    /// The results.
    pub outputs: Vec<Value>,
    /// The copies, in the order of values.
    pub kept: Vec<Value>,
    /// The time of each call.
    pub times: Vec<(&'static str, Duration)>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stages: Vec<_> = self.wiring.slots.iter().map(|s| s.name).collect();
        f.debug_struct(self.wiring.name).field("stages", &stages).finish()
    }
}
