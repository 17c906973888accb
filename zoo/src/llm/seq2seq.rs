//! Encoder-decoders: a text in, another one out (translation, summaries), or a recording in.
//!
//! A family implements [`Seq2Seq`], which is its decoder, and where sources are texts [`TextSeq2Seq`].
//! The source is encoded once; of the result every layer of the decoder needs keys and values only
//! ([`Seq2Seq::memory`]). A session over a source lays them into its caches, and from there on it is an
//! ordinary [`Session`]: sampling, beams and stop conditions need not know where its tokens come from.
//! [`Seq2SeqModel`] is what the rest of the world sees of a family for texts: its type is gone.

use super::block::Stream;
use super::config::{Config, ConfigError};
use super::context::{Caches, Context};
use super::encoder::{TextBatch, Visible};
use super::family::Values;
use super::session::{Session, SessionError, SessionOptions, Sessions};
use super::{Batch, CausalLm, Ids, Time};
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::module::store::{self, Data, Entry};
use mobilis_runtime::module::{AnyVar, Visitor};
use mobilis_runtime::nn::cache::KvCache;
use mobilis_runtime::ops::movement;
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::Results;
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

axes! {
    /// The positions of the source that a decoder looks at.
    pub Source;
    /// The second axis of a result.
    Inner;
    /// The last axis of a result.
    Width;
}

/// The ids of a source's tokens.
pub type SourceIds = Tensor<(Batch, Source), Index>;

/// Keys and values of a source for each layer of a decoder with `N` heads of `D` features.
pub type Memory<N, D, S = Source> = Vec<KvCache<Batch, S, N, D>>;

/// A decoder that looks at a source.
pub trait Seq2Seq: Module + 'static {
    /// Whether the sources of a batch may differ in length, so that the decoder must be told which of
    /// their positions count.
    const MASKED: bool = true;

    /// The width of the stream.
    type Hidden: Axis;
    /// The tokens.
    type Vocab: Axis;
    /// Heads of the decoder's attention to the source.
    type Heads: Axis;
    /// Features of such a head.
    type HeadDim: Axis;

    /// Keys and values of an encoded source for each layer of the decoder.
    fn memory<S: Axis>(&self, source: Tensor<(Batch, S, Self::Hidden)>) -> Memory<Self::Heads, Self::HeadDim, S>;

    /// How many layers the decoder has.
    fn depth(&self) -> usize;

    /// The decoder's stream, `[Batch, Time, Hidden]`, after the last norm.
    fn decode(
        &self,
        ids: Ids,
        memory: &Memory<Self::Heads, Self::HeadDim>,
        visible: Visible<Source>,
        cx: &Context,
    ) -> Stream<Self::Hidden>;

    /// Logits of a stream.
    fn head<T: Axis>(&self, stream: Tensor<(Batch, T, Self::Hidden)>) -> Tensor<(Batch, T, Self::Vocab)>;
}

/// A decoder beside an encoder of texts.
pub trait TextSeq2Seq: Seq2Seq {
    /// The source's stream after the encoder's last norm, `[Batch, Source, Hidden]`.
    fn encode(&self, ids: SourceIds, visible: Visible<Source>, cx: &Context) -> Tensor<(Batch, Source, Self::Hidden)>;
}

/// A model's decoder as one that continues texts: what it remembers of the source lies in the
/// caches.
pub(crate) struct Conditional<M>(pub(crate) M);

impl<M: Module> Module for Conditional<M> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        self.0.visit(visitor);
    }
}

/// The states of a memory in caches: keys and values of a layer. What a head reads in every step lies together.
type Kept<M> = State<(Batch, <M as Seq2Seq>::Heads, Source, <M as Seq2Seq>::HeadDim)>;

fn kept<M: Seq2Seq>(caches: &Caches, layer: usize) -> [Kept<M>; 2] {
    ["keys", "values"].map(|part| caches.state(&format!("source.{layer}.{part}"), false))
}

/// What lies in caches, as a decoder wants it.
fn remembered<M: Seq2Seq>(decoder: &M, caches: &Caches) -> Memory<M::Heads, M::HeadDim> {
    let layer = |i| {
        let [keys, values] = kept::<M>(caches, i);
        let by_position = |x: Handle| Tensor::from_raw(movement::permute(x, &[0, 2, 1, 3]));
        KvCache::new(by_position(keys.get().raw()), by_position(values.get().raw()))
    };
    (0..decoder.depth()).map(layer).collect()
}

fn kept_mask(caches: &Caches) -> State<(Batch, Source), Mask> {
    caches.state("source.mask", false)
}

impl<M: Seq2Seq> CausalLm for Conditional<M> {
    type Hidden = M::Hidden;
    type Vocab = M::Vocab;

    fn stream(&self, ids: Ids, cx: &Context) -> Stream<M::Hidden> {
        let caches = cx.caches().expect("sessions have caches, and nothing else sees this type");
        let memory = remembered(&self.0, caches);
        let visible = if M::MASKED { Visible::Mask(kept_mask(caches).get()) } else { Visible::All };
        self.0.decode(ids, &memory, visible, cx)
    }

    fn head<T: Axis>(&self, x: Tensor<(Batch, T, M::Hidden)>) -> Tensor<(Batch, T, M::Vocab)> {
        self.0.head(x)
    }
}

/// Keys and values of sources, as a program gives them: of each layer `[Batch, Heads, Source, HeadDim]`
/// twice.
pub(crate) type Kvs<M, S = Source> = Vec<Tensor<(Batch, <M as Seq2Seq>::Heads, S, <M as Seq2Seq>::HeadDim)>>;

/// A memory head by head, as sessions keep it.
pub(crate) fn by_heads<M: Seq2Seq, S: Axis>(memory: &Memory<M::Heads, M::HeadDim, S>) -> Kvs<M, S> {
    let each = memory.iter().flat_map(|kv| [kv.keys, kv.values]);
    each.map(|x| Tensor::from_raw(movement::permute(x.raw(), &[0, 2, 1, 3]))).collect()
}

impl<M: Seq2Seq> Session<Conditional<M>> {
    /// A session over sources, without tokens yet. With `options.batch` a multiple of the sources, each
    /// of them is there for several sequences that lie side by side. `mask` says which positions of the
    /// sources count, where the model wants to know.
    pub(crate) fn over(
        model: Rc<Model<Conditional<M>>>,
        options: SessionOptions,
        memory: &[KeysOrValues<M>],
        mask: Option<&Array<(Batch, Source), Mask>>,
    ) -> Result<Self, SessionError> {
        let caches = Caches::default();
        let time = lay(&model, &caches, options.batch, memory, mask)?;
        let sizes = Sizes::new().with::<Source>(time);
        Ok(Session::new(model, options).remembering(caches, &sizes))
    }

    /// Begins anew over other sources of the same length, one for each of `batch` sequences: programs
    /// and room stay.
    pub(crate) fn hear(&mut self, batch: usize, memory: &[KeysOrValues<M>]) -> Result<(), SessionError> {
        for row in 0..self.lengths().len() {
            self.rewind(row, 0)?;
        }
        if self.lengths().len() != batch {
            self.select(&vec![0; batch])?;
        }
        lay(self.model(), self.caches(), batch, memory, None)?;
        Ok(())
    }

    /// A program over whole texts, of its own, that sees the sources of the session.
    pub(crate) fn beside<O: Results>(
        &self,
        f: impl FnOnce(&M, Ids, &Memory<M::Heads, M::HeadDim>) -> O,
    ) -> Result<Program<Ids, O>, ProgramError> {
        let caches = self.caches();
        self.model().compile_with(self.sizes(), |m, ids| f(&m.0, ids, &remembered(&m.0, caches)))
    }
}

/// Keys or values of a layer.
pub(crate) type KeysOrValues<M> = Array<(Batch, <M as Seq2Seq>::Heads, Source, <M as Seq2Seq>::HeadDim)>;

/// Lays the memory of sources into the caches of `batch` sequences. Gives the sources' length.
fn lay<M: Seq2Seq>(
    model: &Model<Conditional<M>>,
    caches: &Caches,
    batch: usize,
    memory: &[KeysOrValues<M>],
    mask: Option<&Array<(Batch, Source), Mask>>,
) -> Result<usize, SessionError> {
    let (rows, time) = memory.first().map_or((0, 0), |keys| (keys.sizes()[0], keys.sizes()[2]));
    if rows == 0 || !batch.is_multiple_of(rows) {
        return Err(SessionError::Rows { batch, found: rows });
    }
    let mut values = model.store().lock();
    let keep = |values: &mut store::Values, name: String, id, sizes: &[usize], data: Data| {
        let sizes: Vec<usize> = std::iter::once(batch).chain(sizes[1..].iter().copied()).collect();
        values.insert(id, Entry::new(name, &sizes, data));
    };
    for (i, pair) in memory.chunks_exact(2).enumerate() {
        for (state, array) in kept::<M>(caches, i).iter().zip(pair) {
            let again = values.device() == Device::Cpu
                && values
                    .get(state.id())
                    .is_some_and(|old| old.sizes[0] == batch && old.sizes[1..] == array.sizes()[1..]);
            // Recordings come window by window: there is room for the next where the last one lies.
            let old = if again { values.get_mut(state.id()) } else { None };
            match old.map(|entry| &mut entry.data) {
                Some(Data::F32(old)) => repeat(array.data(), rows, batch / rows, old),
                _ => {
                    let mut data = vec![0.0; array.data().len() * (batch / rows)];
                    repeat(array.data(), rows, batch / rows, &mut data);
                    keep(&mut values, format!("source {i}"), state.id(), array.sizes(), Data::F32(data));
                }
            }
        }
    }
    if let Some(mask) = mask {
        let bits: Vec<u8> = mask.data().iter().map(|m| u8::from(*m)).collect();
        let mut all = vec![0; bits.len() * (batch / rows)];
        repeat(&bits, rows, batch / rows, &mut all);
        keep(&mut values, "source mask".into(), kept_mask(caches).id(), mask.sizes(), Data::Bool(all));
    }
    Ok(time)
}

/// What an encoder-decoder computes for whole texts.
#[derive(Clone, Debug)]
pub struct Seq2SeqScores {
    /// `[Batch, Time, Vocab]`
    pub logits: Values,
    /// The encoder's streams before the first layer and after each, `[Batch, Source, Hidden]`, the
    /// last after the last norm.
    pub encoder: Vec<Values>,
    /// The decoder's, `[Batch, Time, Hidden]`.
    pub decoder: Vec<Values>,
}

/// Special tokens of an encoder-decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// What the decoder starts with.
    pub start: u32,
    /// What fills up shorter texts.
    pub padding: u32,
    /// What must come behind the start, if anything.
    pub forced_first: Option<u32>,
}

impl SpecialTokens {
    /// Those of a configuration, or of a `generation_config.json`, before others.
    ///
    /// # Errors
    /// Values that are no tokens.
    pub fn of(config: &Config, others: SpecialTokens) -> Result<SpecialTokens, ConfigError> {
        let token = |key: &str| match config.count(key)?.map(u32::try_from) {
            Some(Err(_)) => Err(config.wrong(key, "a token")),
            Some(Ok(id)) => Ok(Some(id)),
            None => Ok(None),
        };
        Ok(SpecialTokens {
            start: token("decoder_start_token_id")?.unwrap_or(others.start),
            padding: token("pad_token_id")?.unwrap_or(others.padding),
            forced_first: token("forced_bos_token_id")?.or(others.forced_first),
        })
    }

    /// What a decoder is given so that it says the labels, `rows` texts of one length: each begins
    /// with the start, and lacks its last. Labels below 0, which do not count, become padding.
    pub fn behind_start(&self, rows: usize, labels: &[i32]) -> Vec<u32> {
        let time = labels.len().checked_div(rows).unwrap_or(0);
        let token = |label: i32| u32::try_from(label).unwrap_or(self.padding);
        let before = |i: usize| if i.is_multiple_of(time) { self.start } else { token(labels[i - 1]) };
        (0..rows * time).map(before).collect()
    }
}

/// An encoder-decoder whose family's type is gone.
pub trait Seq2SeqModel {
    /// Runs it on another device from now on, for whatever is not compiled yet.
    fn set_device(&self, device: Device);
    /// The configuration.
    fn config(&self) -> &Config;
    /// The sizes of its run-time axes.
    fn sizes(&self) -> &Sizes;
    /// How many values the parameters hold.
    fn parameter_count(&self) -> usize;
    /// The tokens that a decoder begins with.
    fn special(&self) -> SpecialTokens;
    /// Logits of whole targets, each token given those before and the source, and hidden states.
    ///
    /// # Errors
    /// Tokens or positions that the model does not have; another number of targets than sources.
    fn score(&self, sources: &TextBatch, targets: &TextBatch) -> Result<Seq2SeqScores, ProgramError>;
    /// Encodes sources and gives a session over them, without tokens yet: the first to be fed is
    /// [`SpecialTokens::start`]. With `options.batch` a multiple of the sources, each of them is
    /// there for several sequences that lie side by side.
    ///
    /// # Errors
    /// Tokens or positions that the model does not have; a batch that is no multiple.
    fn session(&self, sources: &TextBatch, options: SessionOptions) -> Result<Box<dyn Sessions>, SessionError>;
}

type SourceMask = Tensor<(Batch, Source), Mask>;
type Everything = Program<(SourceIds, SourceMask, Ids), Vec<Tensor<(Batch, Inner, Width)>>>;
type Remember<M> = Program<(SourceIds, SourceMask), Kvs<M>>;

/// An encoder-decoder, what it was made from, and its programs.
pub struct EncoderDecoder<M: TextSeq2Seq> {
    config: Config,
    special: SpecialTokens,
    model: Rc<Model<Conditional<M>>>,
    /// How many streams the encoder notes, besides the program.
    everything: OnceCell<(Everything, usize)>,
    remember: OnceCell<Remember<M>>,
}

impl<M: TextSeq2Seq> EncoderDecoder<M> {
    /// Loads a module's tensors as the options say.
    ///
    /// # Errors
    /// Tensors that do not fit.
    pub fn load(
        config: &Config,
        special: SpecialTokens,
        module: M,
        options: &LoadOptions,
        tensors: &dyn mobilis_runtime::checkpoint::Source,
    ) -> Result<EncoderDecoder<M>, ModelError> {
        let model = Rc::new(options.load(Conditional(module), tensors)?);
        let (everything, remember) = (OnceCell::new(), OnceCell::new());
        Ok(EncoderDecoder { config: config.clone(), special, model, everything, remember })
    }

    fn everything(&self) -> Result<&(Everything, usize), ProgramError> {
        if let Some(made) = self.everything.get() {
            return Ok(made);
        }
        let mut encoder = 0;
        let program = self.model.compile(|m, (source, mask, ids): (SourceIds, SourceMask, Ids)| {
            let notes = RefCell::new(vec![]);
            let cx = Context::whole().noting(&notes);
            let visible = Visible::Mask(mask);
            let memory = m.0.memory(m.0.encode(source, visible, &cx));
            encoder = notes.borrow().len();
            let logits = m.0.head(m.0.decode(ids, &memory, visible, &cx));
            let all = std::iter::once(logits.raw()).chain(notes.take());
            all.map(Tensor::from_raw).collect::<Vec<_>>()
        })?;
        Ok(self.everything.get_or_init(|| (program, encoder)))
    }

    fn remember(&self) -> Result<&Remember<M>, ProgramError> {
        if let Some(made) = self.remember.get() {
            return Ok(made);
        }
        let program = self.model.compile(|m, (source, mask): (SourceIds, SourceMask)| {
            let memory = m.0.memory(m.0.encode(source, Visible::Mask(mask), &Context::whole()));
            by_heads::<M, Source>(&memory)
        })?;
        Ok(self.remember.get_or_init(|| program))
    }
}

impl<M: TextSeq2Seq> Seq2SeqModel for EncoderDecoder<M> {
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

    fn special(&self) -> SpecialTokens {
        self.special
    }

    fn score(&self, sources: &TextBatch, targets: &TextBatch) -> Result<Seq2SeqScores, ProgramError> {
        let (program, encoder) = self.everything()?;
        let found = program.run((sources.ids::<Source>(), sources.mask_array::<Source>(), targets.ids::<Time>()))?;
        let mut all = found.into_iter().map(|a| Values { sizes: a.sizes().to_vec(), data: a.into_vec() });
        let logits = all.next().expect("the program gives logits first");
        let encoder = all.by_ref().take(*encoder).collect();
        Ok(Seq2SeqScores { logits, encoder, decoder: all.collect() })
    }

    fn session(&self, sources: &TextBatch, options: SessionOptions) -> Result<Box<dyn Sessions>, SessionError> {
        let (rows, batch) = (sources.rows(), options.batch);
        if rows == 0 || !batch.is_multiple_of(rows) {
            return Err(SessionError::Rows { batch, found: rows });
        }
        let mask = sources.mask_array::<Source>();
        let found = self.remember()?.run((sources.ids::<Source>(), mask.clone()))?;
        Ok(Box::new(Session::over(self.model.clone(), options, &found, Some(&mask))?))
    }
}

/// Each row so many times, side by side.
fn repeat<T: Copy>(all: &[T], rows: usize, times: usize, out: &mut [T]) {
    let each = (all.len() / rows).max(1);
    let copies = all.chunks(each).flat_map(|row| std::iter::repeat_n(row, times));
    out.chunks_mut(each).zip(copies).for_each(|(out, row)| out.copy_from_slice(row));
}
