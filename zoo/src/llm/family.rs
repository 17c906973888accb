//! The families, by the `model_type` of their `config.json`, and models whose type is gone.

use super::block::{Decoder, Layer};
use super::config::{Config, ConfigError};
use super::context::Context;
use super::llama::{self, AnyLlama, LlamaAxes};
use super::names::Fitted;
use super::session::{Session, SessionOptions, Sessions};
use super::{Batch, CausalLm, Ids, Time};
use super::{deepseek, gemma, gpt2, mamba, mamba2, mistral, mixtral, moe, phi3, qwen, qwen_moe};
use mobilis_runtime::array::HostOf;
use mobilis_runtime::checkpoint::{Raw, Source};
use mobilis_runtime::graph::trace::{self, Handle};
use mobilis_runtime::graph::{VarDecl, VarKind};
use mobilis_runtime::module::catalog::{Catalog, Declared};
use mobilis_runtime::ops::{elementwise as ew, reduce};
use mobilis_runtime::prelude::*;
use mobilis_runtime::suggest::did_you_mean;
use mobilis_runtime::transforms::grad::gradients;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A configuration that makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A family that is not known.
    #[error("`{model_type}` is not one of the families that are known ({known}){hint}")]
    Family {
        /// What the configuration says.
        model_type: String,
        /// All that are known.
        known: String,
        /// The nearest, in words.
        hint: String,
    },
    /// Tensors that do not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// A family.
pub struct Family {
    /// Its `model_type`s.
    pub model_types: &'static [&'static str],
    /// Builds the module and loads the tensors.
    pub open: fn(&Config, &dyn Source) -> Result<Box<dyn TextModel>, OpenError>,
}

/// All families.
pub const FAMILIES: &[Family] = &[
    Family { model_types: &["llama"], open: |c, t| like_llama(c, llama::llama::<AnyLlama>(c)?, t) },
    Family { model_types: &["mistral"], open: |c, t| like_llama(c, mistral::mistral::<AnyLlama>(c)?, t) },
    Family { model_types: &["qwen2"], open: |c, t| like_llama(c, qwen::qwen2::<AnyLlama>(c)?, t) },
    Family { model_types: &["qwen3"], open: |c, t| like_llama(c, qwen::qwen3::<AnyLlama>(c)?, t) },
    Family { model_types: &["gemma2"], open: open_gemma2 },
    Family { model_types: &["gemma3", "gemma3_text"], open: open_gemma3 },
    Family { model_types: &["phi3"], open: open_phi3 },
    Family { model_types: &["gpt2"], open: open_gpt2 },
    Family { model_types: &["mixtral"], open: open_mixtral },
    Family { model_types: &["qwen2_moe", "qwen3_moe"], open: open_qwen_moe },
    Family { model_types: &["deepseek_v3"], open: open_deepseek },
    Family { model_types: &["mamba"], open: open_mamba },
    Family { model_types: &["mamba2"], open: open_mamba2 },
];

/// A decoder over Llama's axes.
fn like_llama<L: Layer<<AnyLlama as LlamaAxes>::Hidden> + 'static>(
    config: &Config,
    module: Decoder<<AnyLlama as LlamaAxes>::Vocab, <AnyLlama as LlamaAxes>::Hidden, L>,
    tensors: &dyn Source,
) -> Result<Box<dyn TextModel>, OpenError> {
    causal(config, module, llama::sizes::<AnyLlama>(config)?, tensors)
}

fn open_gemma2(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    let config = gemma::gemma2_config(config.clone());
    like_llama(&config, gemma::gemma2::<AnyLlama>(&config)?, tensors)
}

fn open_gemma3(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    let config = gemma::gemma3_config(config.clone());
    like_llama(&config, gemma::gemma3::<AnyLlama>(&config)?, tensors)
}

fn open_phi3(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    let config = phi3::phi3_config(config.clone());
    like_llama(&config, phi3::phi3::<AnyLlama>(&config)?, tensors)
}

fn open_gpt2(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    type A = gpt2::AnyGpt2;
    causal(config, gpt2::gpt2::<A>(config)?, gpt2::sizes::<A>(config)?, tensors)
}

fn open_mixtral(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    type A = mixtral::AnyMixtral;
    moe::check_count(config, &mixtral::EXPERTS, config.layers()?, tensors.names().len())?;
    causal(config, mixtral::mixtral::<A>(config)?, mixtral::sizes::<A>(config)?, tensors)
}

fn open_qwen_moe(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    type A = qwen_moe::AnyQwenMoe;
    let sparse = (0..config.layers()?).map(|i| moe::is_sparse(config, i)).collect::<Result<Vec<_>, _>>()?;
    let sparse = sparse.into_iter().filter(|s| *s).count();
    moe::check_count(config, &qwen_moe::EXPERTS, sparse, tensors.names().len())?;
    causal(config, qwen_moe::qwen_moe::<A>(config)?, qwen_moe::sizes::<A>(config)?, tensors)
}

fn open_deepseek(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    type A = deepseek::AnyDeepseek;
    let sparse = config.layers()?.saturating_sub(deepseek::dense_layers(config)?);
    moe::check_count(config, &deepseek::EXPERTS, sparse, tensors.names().len())?;
    causal(config, deepseek::deepseek::<A>(config)?, deepseek::sizes::<A>(config)?, tensors)
}

fn open_mamba(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    type A = mamba::AnyMamba;
    causal(config, mamba::mamba::<A>(config)?, mamba::sizes::<A>(config)?, tensors)
}

fn open_mamba2(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    type A = mamba2::AnyMamba2;
    causal(config, mamba2::mamba2::<A>(config)?, mamba2::sizes::<A>(config)?, tensors)
}

/// Opens the model that a configuration describes, with the tensors of a source.
///
/// # Errors
/// A family that is not known, settings that make no sense, tensors that do not fit.
pub fn open(config: &Config, tensors: &dyn Source) -> Result<Box<dyn TextModel>, OpenError> {
    let wanted = config.model_type()?;
    let all = || FAMILIES.iter().flat_map(|f| f.model_types).copied();
    match FAMILIES.iter().find(|f| f.model_types.contains(&wanted)) {
        Some(family) if own_head(config, tensors)? => {
            let config = config.clone().with("tie_word_embeddings", false.into());
            (family.open)(&config, tensors)
        }
        Some(family) => (family.open)(config, tensors),
        None => Err(OpenError::Family {
            model_type: wanted.into(),
            known: all().collect::<Vec<_>>().join(", "),
            hint: did_you_mean(wanted, all()),
        }),
    }
}

/// The head of a causal model, and what it may be tied to.
const HEAD: &str = "lm_head.weight";
const EMBEDDINGS: [&str; 2] = ["model.embed_tokens.weight", "transformer.wte.weight"];

/// Whether a file that does not say that its head is untied has one that is another matrix than the
/// embedding: transformers 5 does not tie them then.
fn own_head(config: &Config, tensors: &dyn Source) -> Result<bool, OpenError> {
    let tied = config.flag("tie_word_embeddings", true)?;
    let Some(embedding) = EMBEDDINGS.iter().find(|e| tensors.info(e).is_some()) else { return Ok(false) };
    if !tied || tensors.info(HEAD).is_none() || !tensors.has_values() {
        return Ok(false);
    }
    let read = |name: &str| tensors.raw(name).and_then(Raw::into_bytes).map_err(ModelError::from);
    Ok(tensors.info(HEAD) != tensors.info(embedding) || read(HEAD)? != read(embedding)?)
}

/// Loads a causal model's tensors; matrices stay as the file stores them.
///
/// # Errors
/// Tensors that do not fit.
pub fn causal<M: CausalLm>(
    config: &Config,
    module: M,
    sizes: Sizes,
    tensors: &dyn Source,
) -> Result<Box<dyn TextModel>, OpenError> {
    let catalog = Catalog::of(&module)?;
    let names: BTreeSet<&str> = catalog.names().into_iter().collect();
    let mut tensors = Fitted::new(tensors, &names);
    if !names.contains(HEAD) {
        tensors = tensors.without(HEAD);
    }
    let model = LoadOptions::new().sizes(sizes).as_stored().load(module, &tensors as &dyn Source)?;
    Ok(text_model(config, model))
}

/// A causal model as one of texts, wherever its values come from.
pub fn text_model<M: CausalLm>(config: &Config, model: Model<M>) -> Box<dyn TextModel> {
    Box::new(Causal { config: config.clone(), model: Rc::new(model) })
}

/// Values with their sizes, the last axis fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// The size of each axis.
    pub sizes: Vec<usize>,
    /// The values.
    pub data: Vec<f32>,
}

/// What a model computes for whole texts.
#[derive(Clone, Debug)]
pub struct Scores {
    /// `[Batch, Time, Vocab]`
    pub logits: Values,
    /// The streams before the first layer and after each, `[Batch, Time, Hidden]`, the last after
    /// the last norm.
    pub hidden: Vec<Values>,
}

/// A loss and the gradient of each parameter by it, in two numbers.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// The mean cross-entropy of each token given those before.
    pub loss: f64,
    /// By parameter name: the sum of the gradient's squares, and its sum.
    pub of: Vec<(String, f64, f64)>,
}

/// A model that continues texts, whose family's type is gone.
pub trait TextModel {
    /// Runs it on another device from now on, for whatever is not compiled yet.
    fn set_device(&self, device: Device);
    /// The configuration.
    fn config(&self) -> &Config;
    /// The sizes of its run-time axes.
    fn sizes(&self) -> &Sizes;
    /// How many values the parameters hold.
    fn parameter_count(&self) -> usize;
    /// A session without tokens.
    fn session(&self, options: SessionOptions) -> Box<dyn Sessions>;
    /// Logits and hidden states of texts `[batch, time]` of one length.
    ///
    /// # Errors
    /// Ids that the model does not have.
    fn score(&self, batch: usize, ids: &[u32]) -> Result<Scores, ProgramError>;
    /// The mean cross-entropy of texts of one length, each token given those before, and the
    /// gradients by it.
    ///
    /// # Errors
    /// Ids that the model does not have.
    fn gradients(&self, batch: usize, ids: &[u32]) -> Result<Gradients, ProgramError>;
}

/// A causal model and what it was made from.
struct Causal<M> {
    config: Config,
    model: Rc<Model<M>>,
}

axes! {
    /// The width of a stream or of logits.
    Width;
}

fn rows(batch: usize, ids: &[u32]) -> Array<(Batch, Time), Index> {
    let time = ids.len().checked_div(batch).unwrap_or(0);
    Array::from_parts(&[batch, time], ids[..batch * time].iter().map(|id| *id as HostOf<Index>).collect())
}

impl<M: CausalLm> TextModel for Causal<M> {
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

    fn session(&self, options: SessionOptions) -> Box<dyn Sessions> {
        Box::new(Session::new(self.model.clone(), options))
    }

    fn score(&self, batch: usize, tokens: &[u32]) -> Result<Scores, ProgramError> {
        let program = self.model.compile(|m, ids: Ids| {
            let notes = RefCell::new(vec![]);
            let stream = m.stream(ids, &Context::whole().noting(&notes));
            let logits = m.head(stream).raw();
            let all = std::iter::once(logits).chain(notes.take());
            all.map(Tensor::from_raw).collect::<Vec<Tensor<(Batch, Time, Width)>>>()
        })?;
        let found = program.run(rows(batch, tokens))?;
        let mut all = found.into_iter().map(|a| Values { sizes: a.sizes().to_vec(), data: a.into_vec() });
        let logits = all.next().expect("the program gives logits first");
        Ok(Scores { logits, hidden: all.collect() })
    }

    fn gradients(&self, batch: usize, tokens: &[u32]) -> Result<Gradients, ProgramError> {
        let declared: Vec<_> = self.model.catalog().vars().iter().filter(|d| d.kind == VarKind::Param).collect();
        let program = self.model.compile(|m, (ids, next): (Ids, Ids)| {
            let loss: Tensor<()> = m.logits(ids).cross_entropy(next);
            let parameters: Vec<_> = declared.iter().map(|d| trace::variable(|| decl(d), d.id)).collect();
            let sum = |x: Handle| {
                let all: Vec<usize> = (0..trace::type_of(x).rank()).collect();
                Tensor::from_raw(reduce::reduce(x, reduce::Kind::Sum, &all))
            };
            let mut out = vec![loss];
            for g in gradients(loss.raw(), &parameters) {
                out.extend([sum(ew::mul(g, g)), sum(g)]);
            }
            out
        })?;
        let ids = rows(batch, tokens);
        let time = ids.sizes()[1];
        let label = |i: usize| if (i + 1).is_multiple_of(time) { -100 } else { ids.data()[i + 1] };
        let next: Array<(Batch, Time), Index> =
            Array::from_parts(&[batch, time], (0..batch * time).map(label).collect());
        let values: Vec<f64> = program.run((ids, next))?.iter().map(|a| f64::from(a.data()[0])).collect();
        let of = declared.iter().zip(values[1..].chunks_exact(2));
        let of = of.map(|(d, v)| (d.name().to_string(), v[0].sqrt(), v[1])).collect();
        Ok(Gradients { loss: values[0], of })
    }
}

/// The declaration of a variable of a model, as the trace takes it.
pub(crate) fn decl(d: &Declared) -> VarDecl {
    let (name, ty, init) = (d.name().to_string(), d.ty.clone(), d.init.clone());
    VarDecl { id: d.id, name, ty, kind: d.kind, init, frozen: false }
}
