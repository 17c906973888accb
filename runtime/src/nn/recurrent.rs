//! Recurrent layers over `[Batch, Time, I]`: LSTM and GRU, stacked and in both directions.
//!
//! Names and layout of parameters are those of `torch.nn.LSTM` and `torch.nn.GRU` with
//! `batch_first=True`: `weight_ih_l0 [gates * H, I]`, `weight_hh_l0 [gates * H, H]`, `bias_ih_l0`,
//! `bias_hh_l0`, `.._l1` for the second layer, `.._reverse` for the other direction. All start
//! uniform in `±1/sqrt(H)`, as there.
//!
//! States are `[Layers, Batch, H]`, or `[2 * Layers, Batch, H]` in both directions (forward,
//! backward, layer by layer). With lengths, steps beyond a sequence's length give zeros and leave
//! its state alone: what PyTorch does with packed sequences.

use crate::Param;
use crate::graph::trace::{self, Handle, type_of};
use crate::graph::{DType, Dim, Extent, TensorType};
use crate::language::axis::{Axis, Const, Prod};
use crate::language::element::{Float, Is};
use crate::language::elements::Lengths;
use crate::module::init::Init;
use crate::module::{Module, NeuralModule, Visitor};
use crate::ops::recurrent::{Direction, gru, input_gates, lstm, zero_state};
use crate::ops::{elementwise, leaf, movement, slice};
use crate::tensor::Tensor;

/// Parameters of one layer in one direction with `G` gates, from `I` to `H` values.
pub struct Weights<G: Axis, I: Axis, H: Axis> {
    /// `[G * H, I]`
    pub weight_ih: Param<(Prod<G, H>, I)>,
    /// `[G * H, H]`
    pub weight_hh: Param<(Prod<G, H>, H)>,
    /// `[G * H]`
    pub bias_ih: Option<Param<(Prod<G, H>,)>>,
    /// `[G * H]`
    pub bias_hh: Option<Param<(Prod<G, H>,)>>,
}

impl<G: Axis, I: Axis, H: Axis> Default for Weights<G, I, H> {
    fn default() -> Self {
        // Without a static `H`: by fans, and biases at zero.
        let uniform = |otherwise| match H::SIZE {
            Some(n) if n > 0 => {
                let bound = 1.0 / (n as f64).sqrt();
                Init::Uniform { low: -bound, high: bound }
            }
            _ => otherwise,
        };
        Weights {
            weight_ih: Param::new(uniform(Init::default())),
            weight_hh: Param::new(uniform(Init::default())),
            bias_ih: Some(Param::new(uniform(Init::Zeros))),
            bias_hh: Some(Param::new(uniform(Init::Zeros))),
        }
    }
}

impl<G: Axis, I: Axis, H: Axis> Weights<G, I, H> {
    fn visit<'a>(&'a self, suffix: &str, visitor: &mut dyn Visitor<'a>) {
        visitor.var(&format!("weight_ih_{suffix}"), &self.weight_ih);
        visitor.var(&format!("weight_hh_{suffix}"), &self.weight_hh);
        if let Some(bias) = &self.bias_ih {
            visitor.var(&format!("bias_ih_{suffix}"), bias);
        }
        if let Some(bias) = &self.bias_hh {
            visitor.var(&format!("bias_hh_{suffix}"), bias);
        }
    }

    fn no_bias(&mut self) {
        self.bias_ih = None;
        self.bias_hh = None;
    }

    fn handles(&self) -> Untyped {
        Untyped {
            weight_ih: self.weight_ih.get().raw(),
            weight_hh: self.weight_hh.get().raw(),
            bias_ih: self.bias_ih.as_ref().map(|b| b.get().raw()),
            bias_hh: self.bias_hh.as_ref().map(|b| b.get().raw()),
        }
    }
}

/// [`Weights`] in the function being traced.
struct Untyped {
    weight_ih: Handle,
    weight_hh: Handle,
    bias_ih: Option<Handle>,
    bias_hh: Option<Handle>,
}

/// Which recurrence a layer applies.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Lstm,
    Gru,
}

impl Cell {
    /// All steps of one layer in one direction: `y` and the final states (one, or two with the
    /// LSTM's cell).
    fn run(
        self,
        w: &Untyped,
        x: Handle,
        states: &[Handle],
        lengths: Option<Handle>,
        d: Direction,
    ) -> (Handle, Vec<Handle>) {
        match self {
            Cell::Lstm => {
                // Both biases are added to the same sum.
                let bias = match (w.bias_ih, w.bias_hh) {
                    (Some(a), Some(b)) => Some(elementwise::add(a, b)),
                    (a, b) => a.or(b),
                };
                let gates = input_gates(x, w.weight_ih, bias);
                let zero = || zero_state(gates, w.weight_hh);
                let start = if states.is_empty() { [zero(), zero()] } else { [states[0], states[1]] };
                let [y, h, c] = lstm(gates, w.weight_hh, start, lengths, d);
                (y, vec![h, c])
            }
            Cell::Gru => {
                let gates = input_gates(x, w.weight_ih, w.bias_ih);
                let start = states.first().copied().unwrap_or_else(|| zero_state(gates, w.weight_hh));
                let no_bias = || leaf::fill(0.0, TensorType::new(type_of(w.weight_hh).dims[..1].to_vec(), DType::F32));
                let [y, h] = gru(gates, w.weight_hh, w.bias_hh.unwrap_or_else(no_bias), start, lengths, d);
                (y, vec![h])
            }
        }
    }
}

/// A stack of layers, in one direction or in both, as a list of layers of directions. Gives the
/// last layer's steps and the final states, each `[layers * directions, batch, hidden]`.
fn run_stack(
    cell: Cell,
    layers: &[Vec<Untyped>],
    x: Handle,
    states: &[Handle],
    lengths: Option<Handle>,
    [joined, stacked]: [Dim; 2],
) -> (Handle, Vec<Handle>) {
    let mut finals: Vec<Vec<Handle>> = vec![];
    let mut steps = x;
    let mut index = 0;
    for layer in layers {
        let mut both = vec![];
        for (w, direction) in layer.iter().zip([Direction::Forward, Direction::Backward]) {
            let start: Vec<Handle> = states.iter().map(|s| row(*s, index)).collect();
            let (y, end) = cell.run(w, steps, &start, lengths, direction);
            both.push(y);
            finals.push(end);
            index += 1;
        }
        steps = if both.len() == 1 { both[0] } else { slice::concat(&both, 2, joined.clone()) };
    }
    let kinds = finals.first().map_or(0, Vec::len);
    let state = |kind: usize| {
        let rows: Vec<Handle> = finals.iter().map(|f| lifted(f[kind], stacked.clone(), finals.len())).collect();
        if rows.len() == 1 { rows[0] } else { slice::concat(&rows, 0, stacked.clone()) }
    };
    (steps, (0..kinds).map(state).collect())
}

/// `[layers, batch, hidden]` to the state `[batch, hidden]` of one layer.
fn row(states: Handle, index: u64) -> Handle {
    let one = slice::slice(states, 0, Extent::constant(index), 1, Dim::fixed(1));
    movement::reshape(one, type_of(states).dims[1..].to_vec())
}

/// `[batch, hidden]` to `[1, batch, hidden]`; the first dimension has the stack's name where it is
/// all of it.
fn lifted(state: Handle, stacked: Dim, count: usize) -> Handle {
    let first = if count == 1 { stacked } else { Dim::fixed(1) };
    let dims = std::iter::once(first).chain(type_of(state).dims).collect();
    movement::reshape(state, dims)
}

const fn some_layers(layers: u64) {
    assert!(layers >= 1, "a recurrent layer has at least one layer");
}

/// The structs and everything but their states, which differ between LSTM and GRU.
macro_rules! recurrent {
    (
        $(#[$doc:meta])* $one:ident,
        $(#[$both_doc:meta])* $both:ident,
        $cell:expr, $gates:literal,
        state $state:ident($states:ident) = $to:expr, $from:expr;
    ) => {
        $(#[$doc])*
        pub struct $one<I: Axis, H: Axis, const LAYERS: u64 = 1> {
            /// The first layer.
            pub first: Weights<Const<$gates>, I, H>,
            /// The layers above it.
            pub rest: Vec<Weights<Const<$gates>, H, H>>,
        }

        $(#[$both_doc])*
        pub struct $both<I: Axis, H: Axis, const LAYERS: u64 = 1> {
            /// The first layer, forward and backward.
            pub first: [Weights<Const<$gates>, I, H>; 2],
            /// The layers above it, forward and backward.
            pub rest: Vec<[Weights<Const<$gates>, Prod<Const<2>, H>, H>; 2]>,
        }

        impl<I: Axis, H: Axis, const LAYERS: u64> Default for $one<I, H, LAYERS> {
            fn default() -> Self {
                const { some_layers(LAYERS) }
                $one { first: Weights::default(), rest: (1..LAYERS).map(|_| Weights::default()).collect() }
            }
        }

        impl<I: Axis, H: Axis, const LAYERS: u64> Default for $both<I, H, LAYERS> {
            fn default() -> Self {
                const { some_layers(LAYERS) }
                $both { first: Default::default(), rest: (1..LAYERS).map(|_| Default::default()).collect() }
            }
        }

        impl<I: Axis, H: Axis, const LAYERS: u64> Module for $one<I, H, LAYERS> {
            fn kind(&self) -> &'static str {
                stringify!($one)
            }
            fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
                self.first.visit("l0", visitor);
                for (i, layer) in self.rest.iter().enumerate() {
                    layer.visit(&format!("l{}", i + 1), visitor);
                }
            }
        }

        impl<I: Axis, H: Axis, const LAYERS: u64> Module for $both<I, H, LAYERS> {
            fn kind(&self) -> &'static str {
                stringify!($both)
            }
            fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
                self.first[0].visit("l0", visitor);
                self.first[1].visit("l0_reverse", visitor);
                for (i, [forward, backward]) in self.rest.iter().enumerate() {
                    forward.visit(&format!("l{}", i + 1), visitor);
                    backward.visit(&format!("l{}_reverse", i + 1), visitor);
                }
            }
        }

        impl<I: Axis, H: Axis, const LAYERS: u64> $one<I, H, LAYERS> {
            /// A new layer with biases.
            pub fn new() -> Self {
                Self::default()
            }

            /// The same without biases.
            #[must_use]
            pub fn no_bias(mut self) -> Self {
                self.first.no_bias();
                self.rest.iter_mut().for_each(Weights::no_bias);
                self
            }

            fn run<B: Axis, T: Axis>(
                &self,
                x: Handle,
                state: Option<$state<Const<LAYERS>, B, H>>,
                lengths: Option<Handle>,
            ) -> (Tensor<(B, T, H)>, $state<Const<LAYERS>, B, H>) {
                let _scope = trace::scope(self);
                trace::name_argument("x", x);
                let layers: Vec<Vec<Untyped>> = std::iter::once(self.first.handles())
                    .chain(self.rest.iter().map(Weights::handles))
                    .map(|w| vec![w])
                    .collect();
                let start: Vec<Handle> = state.map($to).unwrap_or_default();
                let dims = [H::dim(), Const::<LAYERS>::dim()];
                let (y, $states) = run_stack($cell, &layers, x, &start, lengths, dims);
                (Tensor::from_raw(y), $from)
            }

            /// `[Batch, Time, I]` to the states after each step `[Batch, Time, H]` and the final
            /// state, starting from zeros.
            pub fn forward<B: Axis, T: Axis, E: Float>(
                &self,
                x: Tensor<(B, T, I), E>,
            ) -> (Tensor<(B, T, H)>, $state<Const<LAYERS>, B, H>) {
                self.run(x.raw(), None, None)
            }

            /// The same from a given state: to go on where an earlier run ended.
            pub fn forward_from<B: Axis, T: Axis, E: Float>(
                &self,
                x: Tensor<(B, T, I), E>,
                state: $state<Const<LAYERS>, B, H>,
            ) -> (Tensor<(B, T, H)>, $state<Const<LAYERS>, B, H>) {
                self.run(x.raw(), Some(state), None)
            }

            /// The same for sequences of different lengths, padded to one: beyond its length a
            /// sequence gives zeros and its state stays as it is.
            pub fn forward_padded<B: Axis, T: Axis, E: Float, N: Is<Lengths<T>>>(
                &self,
                x: Tensor<(B, T, I), E>,
                lengths: Tensor<(B,), N>,
                state: Option<$state<Const<LAYERS>, B, H>>,
            ) -> (Tensor<(B, T, H)>, $state<Const<LAYERS>, B, H>) {
                self.run(x.raw(), state, Some(lengths.raw()))
            }
        }

        impl<I: Axis, H: Axis, const LAYERS: u64> $both<I, H, LAYERS> {
            /// A new layer with biases.
            pub fn new() -> Self {
                Self::default()
            }

            /// The same without biases.
            #[must_use]
            pub fn no_bias(mut self) -> Self {
                self.first.iter_mut().for_each(Weights::no_bias);
                self.rest.iter_mut().flatten().for_each(Weights::no_bias);
                self
            }

            #[allow(clippy::type_complexity)]
            fn run<B: Axis, T: Axis>(
                &self,
                x: Handle,
                state: Option<$state<Prod<Const<2>, Const<LAYERS>>, B, H>>,
                lengths: Option<Handle>,
            ) -> (Tensor<(B, T, Prod<Const<2>, H>)>, $state<Prod<Const<2>, Const<LAYERS>>, B, H>) {
                let _scope = trace::scope(self);
                trace::name_argument("x", x);
                let layers: Vec<Vec<Untyped>> = std::iter::once(self.first.iter().map(Weights::handles).collect())
                    .chain(self.rest.iter().map(|pair| pair.iter().map(Weights::handles).collect()))
                    .collect();
                let start: Vec<Handle> = state.map($to).unwrap_or_default();
                let dims = [<Prod<Const<2>, H>>::dim(), <Prod<Const<2>, Const<LAYERS>>>::dim()];
                let (y, $states) = run_stack($cell, &layers, x, &start, lengths, dims);
                (Tensor::from_raw(y), $from)
            }

            /// `[Batch, Time, I]` to the states after each step, those of the forward direction
            /// before those of the backward one, `[Batch, Time, 2 * H]`, and the final states.
            #[allow(clippy::type_complexity)]
            pub fn forward<B: Axis, T: Axis, E: Float>(
                &self,
                x: Tensor<(B, T, I), E>,
            ) -> (Tensor<(B, T, Prod<Const<2>, H>)>, $state<Prod<Const<2>, Const<LAYERS>>, B, H>) {
                self.run(x.raw(), None, None)
            }

            /// The same for sequences of different lengths, padded to one: each is read backwards
            /// from its own end.
            #[allow(clippy::type_complexity)]
            pub fn forward_padded<B: Axis, T: Axis, E: Float, N: Is<Lengths<T>>>(
                &self,
                x: Tensor<(B, T, I), E>,
                lengths: Tensor<(B,), N>,
                state: Option<$state<Prod<Const<2>, Const<LAYERS>>, B, H>>,
            ) -> (Tensor<(B, T, Prod<Const<2>, H>)>, $state<Prod<Const<2>, Const<LAYERS>>, B, H>) {
                self.run(x.raw(), state, Some(lengths.raw()))
            }
        }

        impl<I: Axis, H: Axis, B: Axis, T: Axis, E: Float, const LAYERS: u64> NeuralModule<Tensor<(B, T, I), E>>
            for $one<I, H, LAYERS>
        {
            type Output = (Tensor<(B, T, H)>, $state<Const<LAYERS>, B, H>);
            fn call(&self, x: Tensor<(B, T, I), E>) -> Self::Output {
                self.forward(x)
            }
        }

        impl<I: Axis, H: Axis, B: Axis, T: Axis, E: Float, const LAYERS: u64> NeuralModule<Tensor<(B, T, I), E>>
            for $both<I, H, LAYERS>
        {
            type Output = (Tensor<(B, T, Prod<Const<2>, H>)>, $state<Prod<Const<2>, Const<LAYERS>>, B, H>);
            fn call(&self, x: Tensor<(B, T, I), E>) -> Self::Output {
                self.forward(x)
            }
        }
    };
}

/// The state of an LSTM: hidden values and cells, each `[N, Batch, H]`.
pub type LstmState<N, B, H> = (Tensor<(N, B, H)>, Tensor<(N, B, H)>);
/// The state of a GRU, `[N, Batch, H]`.
pub type GruState<N, B, H> = Tensor<(N, B, H)>;

recurrent! {
    /// A long short-term memory from `I` to `H` values, `LAYERS` deep (Hochreiter and Schmidhuber
    /// 1997). PyTorch: `nn.LSTM(I, H, LAYERS, batch_first=True)`.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::nn::Lstm;
    /// use mobilis::prelude::*;
    ///
    /// axes! { Batch; Time; Features = 8; Hidden = 16; }
    ///
    /// #[neural_module]
    /// struct Reader {
    ///     lstm: Lstm<Features, Hidden>,
    /// }
    ///
    /// #[neural_module]
    /// impl Reader {
    ///     /// What is remembered at the end.
    ///     fn forward(&self, x: Tensor![Batch, Time, Features]) -> Tensor![Batch, Hidden] {
    ///         let (_, (h, _)) = self.lstm.forward(x);
    ///         h.squeeze(Const::<1>)
    ///     }
    /// }
    /// ```
    Lstm,
    /// An LSTM in both directions (Graves and Schmidhuber 2005). PyTorch: `nn.LSTM(I, H, LAYERS,
    /// batch_first=True, bidirectional=True)`.
    BiLstm,
    Cell::Lstm, 4,
    state LstmState(states) = |s| vec![s.0.raw(), s.1.raw()],
        (Tensor::from_raw(states[0]), Tensor::from_raw(states[1]));
}

recurrent! {
    /// A gated recurrent unit from `I` to `H` values, `LAYERS` deep (Cho et al. 2014). PyTorch:
    /// `nn.GRU(I, H, LAYERS, batch_first=True)`.
    Gru,
    /// A GRU in both directions. PyTorch: `nn.GRU(I, H, LAYERS, batch_first=True,
    /// bidirectional=True)`.
    BiGru,
    Cell::Gru, 3,
    state GruState(states) = |s| vec![s.raw()], Tensor::from_raw(states[0]);
}
