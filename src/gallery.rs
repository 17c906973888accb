//! Models that `mobilis graph` draws: those of the examples and of the zoo, and the larger layers.
//!
//! The examples' sources are compiled into this module, so what is drawn is what the tutorial
//! shows. To add a model see `CONTRIBUTING.md`.

use mobilis_runtime::graph::trace::Mode;
use mobilis_runtime::graph::{Graph, Value, VarKind};
use mobilis_runtime::nn;
use mobilis_runtime::ops::Op;
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::{Arguments, Results, trace_function};
use mobilis_runtime::transforms::{grad::grad, prune::prune};
use mobilis_zoo::llm::{CausalLm, Ids};
use std::error::Error;

#[path = "../examples/02-module.rs"]
#[allow(dead_code, missing_docs)]
mod module;

#[path = "../examples/06-lstm.rs"]
#[allow(dead_code, missing_docs)]
mod lstm;

#[path = "../examples/07-convolutional-classifier.rs"]
#[allow(dead_code, missing_docs)]
mod convolutional;

mod layers {
    //! The axes of the layers, of about the sizes of a small transformer.

    use mobilis_runtime::prelude::*;

    axes! {
        /// Sequences.
        pub Batch;
        /// Positions.
        pub Time;
        /// Positions of what is attended to.
        pub Source;
        /// Features.
        pub Hidden = 512;
        /// Attention heads.
        pub Heads = 8;
        /// Key-value heads that several query heads share.
        pub KvHeads = 2;
        /// Query heads for each of them.
        pub Groups = Heads / KvHeads;
        /// Features of a head.
        pub HeadDim = Hidden / Heads;
        /// Features inside the feed-forward layer.
        pub Ffn = 4 * Hidden;
    }

    /// What goes through the layers.
    pub type Sequence = Tensor![Batch, Time, Hidden];
}
use layers::*;

mod smollm2 {
    //! SmolLM2-135M: a Llama of sizes that the compiler knows.

    use mobilis_runtime::prelude::*;
    use mobilis_zoo::llm::config::{Config, ConfigError};
    use mobilis_zoo::llm::llama::{Llama, LlamaAxes, llama};

    axes! {
        /// SmolLM2-135M's.
        pub struct SmolLm2: LlamaAxes {
            Vocab = 49152, Hidden = 576, KvHeads = 3, Groups = 3, HeadDim = 64, Ffn = 1536
        }
    }

    /// The model, without values.
    pub fn model() -> Result<Llama<SmolLm2>, ConfigError> {
        llama::<SmolLm2>(&Config::new(
            "SmolLM2-135M",
            serde_json::json!({
                "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
                "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": true,
            }),
        ))
    }
}

type Picture = Tensor![convolutional::Batch, convolutional::Grey, convolutional::Height, convolutional::Width];
type Text = Tensor![crate::demo::Batch, crate::demo::Time; Index];
type Symbols = Tensor![lstm::Batch, lstm::Time; TokenId];
type Counts = Tensor![lstm::Batch; Lengths<lstm::Time>];
type Traced = Result<Graph, Box<dyn Error>>;

/// A model that can be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawable {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Traces inference.
    pub forward: fn() -> Traced,
    /// Traces the loss in training mode, with its gradients by every trained parameter.
    pub training: Option<fn() -> Traced>,
}

/// A layer, and for training the mean square of its output.
macro_rules! layer {
    ($name:literal, $about:literal, $module:expr, |$m:ident, $x:ident: $input:ty| $forward:expr) => {
        Drawable {
            name: $name,
            about: $about,
            forward: || forward(&$module, |$m, $x: $input| $forward),
            training: Some(|| training(&$module, |$m, $x: $input| $forward.square().mean_all())),
        }
    };
}

/// Every model, sorted by name.
pub const ALL: &[Drawable] = &[
    Drawable {
        name: "bytes",
        about: "the language model of the demonstration (examples/08-language-model.rs)",
        forward: || forward(&crate::demo::ByteModel::default(), |m, x: Text| m.forward(x)),
        training: Some(|| training(&crate::demo::ByteModel::default(), |m, (x, y): (Text, Text)| m.loss(x, y))),
    },
    Drawable {
        name: "classifier",
        about: "a convolutional classifier of drawn shapes (examples/07-convolutional-classifier.rs)",
        forward: || forward(&convolutional::Classifier::default(), |m, x: Picture| m.call(x)),
        training: Some(|| {
            type Example = (Picture, Tensor![convolutional::Batch; Labels]);
            training(&convolutional::Classifier::default(), |m, (x, y): Example| m.call(x).cross_entropy(y))
        }),
    },
    layer!(
        "cross-attention",
        "attention to a memory, 8 heads (nn::CrossAttention)",
        nn::CrossAttention::<Hidden, Hidden, Heads, HeadDim>::default(),
        |m, x: (Sequence, Tensor![Batch, Source, Hidden])| m.forward(x.0, x.1)
    ),
    Drawable {
        name: "dense",
        about: "two dense layers that classify images (examples/02-module.rs)",
        forward: || forward(&module::Net::default(), |m, x| m.forward(x)),
        training: Some(|| {
            training(&module::Net::default(), |m, (x, y): (_, Tensor![module::Batch; Labels])| m.loss(x, y))
        }),
    },
    layer!(
        "grouped-attention",
        "causal self-attention, 8 query heads on 2 key-value heads (nn::GroupedSelfAttention)",
        nn::GroupedSelfAttention::<Hidden, KvHeads, Groups, HeadDim>::default().causal(),
        |m, x: Sequence| m.forward(x)
    ),
    Drawable {
        name: "lstm",
        about: "an LSTM that reads padded sequences (examples/06-lstm.rs)",
        forward: || forward(&lstm::Reader::default(), |m, (x, n): (Symbols, Counts)| m.forward(x, n)),
        training: Some(|| {
            type Example = (Symbols, Counts, Tensor![lstm::Batch; Labels]);
            training(&lstm::Reader::default(), |m, (x, n, y): Example| m.forward(x, n).cross_entropy(y))
        }),
    },
    layer!(
        "mlp",
        "two linear layers with gelu between (nn::Mlp)",
        nn::Mlp::<Hidden, Ffn>::default(),
        |m, x: Sequence| { m.forward(x) }
    ),
    layer!(
        "post-norm-block",
        "a transformer block as in BERT (nn::PostNormBlock)",
        nn::PostNormBlock::<Hidden, Heads, HeadDim, Ffn>::default(),
        |m, x: Sequence| m.forward(x)
    ),
    layer!(
        "pre-norm-block",
        "a causal transformer block as in GPT-2 (nn::PreNormBlock)",
        nn::PreNormBlock::<Hidden, Heads, HeadDim, Ffn>::default().causal(),
        |m, x: Sequence| m.forward(x)
    ),
    layer!(
        "self-attention",
        "attention of a sequence to itself, 8 heads (nn::SelfAttention)",
        nn::SelfAttention::<Hidden, Heads, HeadDim>::default(),
        |m, x: Sequence| m.forward(x)
    ),
    Drawable {
        name: "smollm2",
        about: "SmolLM2-135M, a Llama of 30 layers (mobilis::zoo::llm::llama)",
        forward: || forward(&smollm2::model()?, |m, ids: Ids| m.logits(ids)),
        training: Some(|| training(&smollm2::model()?, |m, (ids, next): (Ids, Ids)| m.logits(ids).cross_entropy(next))),
    },
    layer!(
        "swiglu",
        "a gated feed-forward layer as in Llama (nn::SwiGlu)",
        nn::SwiGlu::<Hidden, Ffn>::default(),
        |m, x: Sequence| m.forward(x)
    ),
];

/// The model of that name.
pub fn find(name: &str) -> Option<&'static Drawable> {
    ALL.iter().find(|d| d.name == name)
}

/// Traces inference.
fn forward<M: Module, I: Arguments, O: Results>(module: &M, f: impl FnOnce(&M, I) -> O) -> Traced {
    Ok(trace_function(module, Mode::Eval, &|_| false, f)?)
}

/// Traces a loss and its gradients by every trained parameter.
fn training<M: Module, I: Arguments>(module: &M, loss: impl FnOnce(&M, I) -> Tensor![]) -> Traced {
    let mut graph = trace_function(module, Mode::Train, &|_| false, loss)?;
    let (names, wrt): (Vec<String>, Vec<Value>) = (0u32..)
        .zip(&graph.nodes)
        .filter_map(|(node, n)| match &n.op {
            Op::Var(v) => Some((&graph.vars[v.index as usize], Value { node, port: 0 })),
            _ => None,
        })
        .filter(|(var, _)| var.kind == VarKind::Param)
        .map(|(var, value)| (format!("gradient of {}", var.name), value))
        .unzip();
    let loss = graph.outputs[0];
    let gradients = grad(&mut graph, loss, &wrt)?;
    // Readable by name, as a trainer would see them; the loss stays the only result.
    graph.taps.extend(names.into_iter().zip(gradients));
    Ok(prune(graph))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobilis_runtime::graph::print::{Format, Options, print};

    #[test]
    fn names_are_sorted_and_short() {
        assert!(ALL.windows(2).all(|w| w[0].name < w[1].name));
        assert!(ALL.iter().all(|d| d.name.len() <= 24 && !d.about.is_empty()));
    }

    #[test]
    fn every_model_is_drawn_in_every_format() {
        for model in ALL {
            for trace in [Some(model.forward), model.training].into_iter().flatten() {
                let graph = trace().unwrap_or_else(|e| panic!("{}: {e}", model.name));
                assert!(graph.scopes.len() > 1, "{} has no modules in it", model.name);
                for format in [Format::Text, Format::Mermaid, Format::Html] {
                    assert!(print(&graph, format, &Options::default()).len() > 200, "{}", model.name);
                }
            }
        }
    }
}
