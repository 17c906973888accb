//! Encoders: texts in, a vector for each token and for each text out.
//!
//! A family implements [`TextEncoder`]. [`Encoder`] adds programs over it, and [`EncoderModel`] is
//! what the rest of the world sees: the family's type is gone. Texts of unequal lengths are padded
//! to one length ([`TextBatch`]); a mask says which tokens count.

use super::block::Stream;
use super::config::Config;
use super::context::{Context, PerRow};
use super::family::Values;
use super::{Batch, Ids, Time};
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::ops::attention::Attending;
use mobilis_runtime::ops::elementwise::{self as ew, CompareKind};
use mobilis_runtime::ops::{leaf, movement, reduce};
use mobilis_runtime::prelude::*;
use std::cell::{OnceCell, RefCell};

/// Which tokens of each text count: the others are not seen.
pub enum Visible<T: Axis> {
    /// All of them.
    All,
    /// The first so many.
    Lengths(PerRow),
    /// Those where the mask is true.
    Mask(Tensor<(Batch, T), Mask>),
}

impl<T: Axis> Clone for Visible<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Axis> Copy for Visible<T> {}

impl<S: Axis> Visible<S> {
    /// Attention that sees only what counts.
    pub fn limit<Q: Shape, L: Shape, N: Axis, T: Axis>(
        self,
        attention: Attending<Q, L, Batch, N, T, S>,
    ) -> Attending<Q, L, Batch, N, T, S> {
        match self {
            Visible::All => attention,
            Visible::Lengths(lengths) => attention.lengths(lengths),
            Visible::Mask(mask) => attention.mask(mask),
        }
    }

    /// Attention that sees only what counts, with a bias for each head, query and key.
    pub fn limit_biased<Q: Shape, L: Shape, N: Axis, T: Axis>(
        self,
        attention: Attending<Q, L, Batch, N, T, S>,
        bias: Tensor<(N, T, S)>,
    ) -> Attending<Q, L, Batch, N, T, S> {
        match self {
            Visible::All => attention.bias(bias),
            Visible::Lengths(lengths) => attention.lengths(lengths).bias(bias),
            Visible::Mask(mask) => {
                let ty = Tensor::<(Batch, N, T, S)>::type_of();
                let mask = reduce::restore(mask.raw(), &ty.dims, &[1, 2]);
                let bias = movement::broadcast(bias.raw(), ty.dims.clone());
                let hidden = ew::select(mask, bias, leaf::fill(f64::NEG_INFINITY, ty));
                attention.bias(Tensor::<(Batch, N, T, S)>::from_raw(hidden))
            }
        }
    }

    /// The mask itself.
    pub fn mask(self) -> Tensor<(Batch, S), Mask> {
        let ty = Tensor::<(Batch, S), Index>::type_of();
        match self {
            Visible::All => Tensor::ones(),
            Visible::Mask(mask) => mask,
            Visible::Lengths(lengths) => {
                let lengths = reduce::restore(lengths.raw(), &ty.dims, &[1]);
                Tensor::from_raw(ew::compare(CompareKind::Lt, leaf::iota(1, &ty), lengths))
            }
        }
    }
}

/// What an encoder is given.
pub struct Texts {
    /// The tokens.
    pub ids: Ids,
    /// Their types: first text, second text. Type 0 where none are given.
    pub types: Option<Ids>,
    /// Which tokens count.
    pub visible: Visible<Time>,
}

/// What a head of an encoder says: of each token `[Batch, Time, _]` or of each text `[Batch, _]`.
pub struct HeadOutput {
    /// Hugging Face's name of it.
    pub name: &'static str,
    value: Handle,
}

impl HeadOutput {
    /// A head's result.
    pub fn new<S: Shape>(name: &'static str, value: Tensor<S>) -> HeadOutput {
        HeadOutput { name, value: value.raw() }
    }
}

/// An encoder with its heads.
pub trait TextEncoder: Module + 'static {
    /// The width of the stream.
    type Hidden: Axis;

    /// How many tokens a text may have, by the sizes of the model's axes.
    fn positions(&self, sizes: &Sizes) -> usize;

    /// The stream after the last layer, `[Batch, Time, Hidden]`; those before it are noted.
    fn encode(&self, texts: &Texts, cx: &Context) -> Stream<Self::Hidden>;

    /// What the heads say of it.
    fn heads(&self, x: Stream<Self::Hidden>) -> Vec<HeadOutput>;
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pooling {
    /// The mean of those that count.
    #[default]
    Mean,
    /// The first.
    Cls,
    /// The last that counts.
    Last,
    /// The largest value of each feature among those that count.
    Max,
}

impl Pooling {
    /// One vector of each text: `[Batch, H]` of `[Batch, Time, H]`, of which the first `lengths`
    /// count.
    pub fn apply<H: Axis>(self, x: Stream<H>, lengths: PerRow) -> Tensor<(Batch, H)> {
        let dims = Stream::<H>::type_of().dims;
        let over = |h: Handle| reduce::restore(h, &dims, &[2]);
        let mask = over(Visible::<Time>::Lengths(lengths).mask().raw());
        let only = |mask: Handle, other: f64| {
            Stream::<H>::from_raw(ew::select(mask, x.raw(), leaf::fill(other, type_of(x.raw()))))
        };
        match self {
            Pooling::Cls => x.slice(Time, Const::<1>, 0).reshape(),
            Pooling::Mean => {
                let one = leaf::fill(1.0, type_of(lengths.raw()));
                let count: Tensor<(Batch,), Index> = Tensor::from_raw(ew::maximum(lengths.raw(), one));
                only(mask, 0.0).sum(Time) / count.to_real().repeat_last::<H>()
            }
            Pooling::Max => only(mask, f64::NEG_INFINITY).max(Time),
            Pooling::Last => {
                let place = leaf::iota(1, &Ids::type_of());
                let next = ew::add(place, ew::constant_like(place, 1.0));
                let lengths = reduce::restore(lengths.raw(), &Ids::type_of().dims, &[1]);
                only(over(ew::compare(CompareKind::Eq, next, lengths)), 0.0).sum(Time)
            }
        }
    }
}

/// Texts of one length, padded where they are shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextBatch {
    rows: usize,
    ids: Vec<u32>,
    types: Option<Vec<u32>>,
    mask: Option<Vec<bool>>,
}

/// A batch that does not hang together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rows} texts of {time} tokens have {expected} {what}, {found} are given")]
pub struct BatchError {
    /// Texts.
    pub rows: usize,
    /// Tokens of each.
    pub time: usize,
    /// What was counted.
    pub what: &'static str,
    /// How many there should be.
    pub expected: usize,
    /// How many there are.
    pub found: usize,
}

impl TextBatch {
    /// `rows` texts of one length, one after the other.
    ///
    /// # Errors
    /// Ids that do not fill the rows.
    pub fn new(rows: usize, ids: Vec<u32>) -> Result<TextBatch, BatchError> {
        let batch = TextBatch { rows, ids, types: None, mask: None };
        batch.fits("tokens", batch.ids.len())?;
        Ok(batch)
    }

    /// Texts of any lengths, filled up behind with a padding token that does not count.
    pub fn padded(texts: &[&[u32]], padding: u32) -> TextBatch {
        let time = texts.iter().map(|t| t.len()).max().unwrap_or(0);
        let each = |text: &&[u32]| {
            let behind = time - text.len();
            text.iter().copied().chain(std::iter::repeat_n(padding, behind)).collect::<Vec<_>>()
        };
        let mask = texts.iter().flat_map(|t| (0..time).map(|i| i < t.len()));
        TextBatch {
            rows: texts.len(),
            ids: texts.iter().flat_map(each).collect(),
            types: None,
            mask: Some(mask.collect()),
        }
    }

    /// The same with a type for each token.
    ///
    /// # Errors
    /// Another number of types than of tokens.
    pub fn types(mut self, types: Vec<u32>) -> Result<TextBatch, BatchError> {
        self.fits("token types", types.len())?;
        self.types = Some(types);
        Ok(self)
    }

    /// The same with a mask: only tokens where it is true count.
    ///
    /// # Errors
    /// Another number of truth values than of tokens.
    pub fn mask(mut self, mask: Vec<bool>) -> Result<TextBatch, BatchError> {
        self.fits("truth values in the mask", mask.len())?;
        self.mask = Some(mask);
        Ok(self)
    }

    /// How many texts there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of the longest text.
    pub fn time(&self) -> usize {
        self.ids.len().checked_div(self.rows).unwrap_or(0)
    }

    /// How many tokens of each text count, where they are the first ones; nothing where others do.
    pub fn lengths(&self) -> Option<Vec<usize>> {
        let Some(mask) = &self.mask else { return Some(vec![self.time(); self.rows]) };
        let of = |row: &[bool]| {
            let length = row.iter().take_while(|m| **m).count();
            row[length..].iter().all(|m| !m).then_some(length)
        };
        match self.time() {
            0 => Some(vec![0; self.rows]),
            time => mask.chunks_exact(time).map(of).collect(),
        }
    }

    fn fits(&self, what: &'static str, found: usize) -> Result<(), BatchError> {
        let (rows, time) = (self.rows, self.time());
        let expected = rows * time;
        match found == expected {
            true => Ok(()),
            false => Err(BatchError { rows, time, what, expected, found }),
        }
    }

    /// The tokens as an array over any two axes.
    pub(crate) fn ids<T: Axis>(&self) -> Array<(Batch, T), Index> {
        whole(self.rows, &self.ids)
    }

    pub(super) fn type_array<T: Axis>(&self) -> Array<(Batch, T), Index> {
        match &self.types {
            Some(types) => whole(self.rows, types),
            None => Array::from_parts(&[self.rows, self.time()], vec![0; self.ids.len()]),
        }
    }

    pub(super) fn mask_array<T: Axis>(&self) -> Array<(Batch, T), Mask> {
        let mask = self.mask.clone().unwrap_or_else(|| vec![true; self.ids.len()]);
        Array::from_parts(&[self.rows, self.time()], mask)
    }
}

/// Whole numbers `[rows, _]`; those beyond what programs hold become -1, which no table has.
fn whole<T: Axis>(rows: usize, values: &[u32]) -> Array<(Batch, T), Index> {
    let time = values.len().checked_div(rows).unwrap_or(0);
    Array::from_parts(&[rows, time], values.iter().map(|v| i32::try_from(*v).unwrap_or(-1)).collect())
}

/// All that an encoder says of texts.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The streams before the first layer and after each, `[Batch, Time, Hidden]`.
    pub hidden: Vec<Values>,
    /// What the heads say, by Hugging Face's names: `pooled`, `logits`, `prediction_logits`, ...
    pub heads: Vec<(&'static str, Values)>,
}

impl Encoded {
    /// What a head says.
    pub fn head(&self, name: &str) -> Option<&Values> {
        self.heads.iter().find(|(n, _)| *n == name).map(|(_, values)| values)
    }
}

/// An encoder whose family's type is gone.
pub trait EncoderModel {
    /// Runs it on another device from now on, for whatever is not compiled yet.
    fn set_device(&self, device: Device);
    /// The configuration.
    fn config(&self) -> &Config;
    /// The sizes of its run-time axes.
    fn sizes(&self) -> &Sizes;
    /// How many values the parameters hold.
    fn parameter_count(&self) -> usize;
    /// How many tokens a text may have.
    fn positions(&self) -> usize;
    /// Hidden states and what the heads say.
    ///
    /// # Errors
    /// Tokens, types or positions that the model does not have.
    fn encode(&self, texts: &TextBatch) -> Result<Encoded, ProgramError>;
    /// One vector of each text, `[texts, Hidden]`: the pooled stream after the last layer, of length
    /// 1 with `normalize`. Tokens all have type 0.
    ///
    /// # Errors
    /// Tokens or positions that the model does not have.
    fn embed(&self, texts: &[&[u32]], pooling: Pooling, normalize: bool) -> Result<Values, ProgramError>;
}

axes! {
    /// The second axis of a result, whatever it is.
    Inner;
    /// The last axis of a result.
    Width;
}

type Everything = Program<(Ids, Ids, Tensor<(Batch, Time), Mask>), Vec<Tensor<(Batch, Inner, Width)>>>;
type Embedding = Program<(Ids, PerRow), Tensor<(Batch, Width)>>;

/// An encoder, what it was made from, and its programs.
pub struct Encoder<M> {
    config: Config,
    model: Model<M>,
    /// The program for everything, and the names and ranks of the heads' results.
    everything: OnceCell<(Everything, Vec<(&'static str, usize)>)>,
    embeddings: RefCell<Vec<((Pooling, bool), Embedding)>>,
}

impl<M: TextEncoder> Encoder<M> {
    /// An encoder over a loaded model.
    pub fn new(config: Config, model: Model<M>) -> Encoder<M> {
        Encoder { config, model, everything: OnceCell::new(), embeddings: RefCell::default() }
    }

    fn everything(&self) -> Result<&(Everything, Vec<(&'static str, usize)>), ProgramError> {
        if let Some(made) = self.everything.get() {
            return Ok(made);
        }
        let mut said = vec![];
        let program = self.model.compile(|m, (ids, types, mask): (Ids, Ids, Tensor<(Batch, Time), Mask>)| {
            let notes = RefCell::new(vec![]);
            let texts = Texts { ids, types: Some(types), visible: Visible::Mask(mask) };
            let stream = m.encode(&texts, &Context::whole().noting(&notes));
            let mut all = vec![];
            for head in m.heads(stream) {
                let mut dims = type_of(head.value).dims;
                said.push((head.name, dims.len()));
                if dims.len() == 2 {
                    dims.insert(1, Const::<1>::dim());
                }
                all.push(movement::reshape(head.value, dims));
            }
            all.extend(notes.take());
            all.into_iter().map(Tensor::from_raw).collect::<Vec<_>>()
        })?;
        Ok(self.everything.get_or_init(|| (program, said)))
    }
}

impl<M: TextEncoder> EncoderModel for Encoder<M> {
    fn set_device(&self, device: Device) {
        self.model.store().set_device(device);
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn sizes(&self) -> &Sizes {
        self.model.sizes()
    }

    fn parameter_count(&self) -> usize {
        self.model.parameter_count()
    }

    fn positions(&self) -> usize {
        self.model.positions(self.model.sizes())
    }

    fn encode(&self, texts: &TextBatch) -> Result<Encoded, ProgramError> {
        let (program, said) = self.everything()?;
        let found = program.run((texts.ids::<Time>(), texts.type_array::<Time>(), texts.mask_array::<Time>()))?;
        let mut all = found.into_iter().map(|a| Values { sizes: a.sizes().to_vec(), data: a.into_vec() });
        let heads = said.iter().zip(all.by_ref()).map(|((name, rank), mut values)| {
            if *rank == 2 {
                values.sizes.remove(1);
            }
            (*name, values)
        });
        let heads = heads.collect();
        Ok(Encoded { hidden: all.collect(), heads })
    }

    fn embed(&self, texts: &[&[u32]], pooling: Pooling, normalize: bool) -> Result<Values, ProgramError> {
        let mut programs = self.embeddings.borrow_mut();
        let key = (pooling, normalize);
        let place = match programs.iter().position(|(k, _)| *k == key) {
            Some(place) => place,
            None => {
                let program = self.model.compile(|m, (ids, lengths): (Ids, PerRow)| {
                    let texts = Texts { ids, types: None, visible: Visible::Lengths(lengths) };
                    let stream = m.encode(&texts, &Context::whole());
                    let pooled = pooling.apply(stream, lengths);
                    let vectors = if normalize { normalized(pooled) } else { pooled };
                    Tensor::from_raw(vectors.raw())
                })?;
                programs.push((key, program));
                programs.len() - 1
            }
        };
        let padding = self.config.count("pad_token_id").ok().flatten().unwrap_or(0);
        let batch = TextBatch::padded(texts, padding as u32);
        let lengths = texts.iter().map(|t| t.len() as i32).collect();
        let lengths: Array<(Batch,), Index> = Array::from_parts(&[texts.len()], lengths);
        let found = programs[place].1.run((batch.ids::<Time>(), lengths))?;
        Ok(Values { sizes: found.sizes().to_vec(), data: found.into_vec() })
    }
}

/// Rows of length 1; rows of zeros stay. PyTorch: `F.normalize(x)`.
pub fn normalized<H: Axis>(x: Tensor<(Batch, H)>) -> Tensor<(Batch, H)> {
    let length = reduce::sum_squares(x.raw(), &[1]);
    let length = ew::unary(ew::UnaryKind::Sqrt, length);
    let length = ew::maximum(length, leaf::fill(1e-12, type_of(length)));
    x / Tensor::<(Batch,)>::from_raw(length).repeat_last::<H>()
}
