//! What an encoder's configuration says, in the words of NeMo (`model_config.yaml`, `encoder`) and of
//! Hugging Face (`encoder_config` of Parakeet).

use super::axes::{ConformerAxes, Stack};
use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::graph::Sizes;
use serde_json::Value;

/// How frames are made fewer before the first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsampling {
    /// Full convolutions (`striding`).
    Striding,
    /// Convolutions of each channel with its own filter, then of one position (`dw_striding`).
    DwStriding,
    /// Frames side by side and a linear layer (`stacking`), with a norm of each frame before (`stacking_norm`).
    Stacking {
        /// Whether there is the norm.
        norm: bool,
    },
    /// A linear layer of each frame: no fewer frames.
    Linear,
}

/// How attention knows where frames lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// By their distance, within attention (`rel_pos`, `rel_pos_local_attn`).
    Relative,
    /// By vectors that are added to the stream before the first layer (`abs_pos`).
    Absolute,
}

/// Frames that all frames attend to, and that attend to all (Longformer: Beltagy et al. 2020,
/// <https://arxiv.org/abs/2004.05150>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Globals {
    /// How many there are.
    pub count: usize,
    /// From one to the next; the first is frame 0.
    pub spacing: usize,
    /// Whether they have products for queries, keys and values of their own.
    pub separate: bool,
}

/// How frames are halved once more behind a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduction {
    /// Whether it is the larger of two frames; a convolution as of `striding` if not.
    pub pooling: bool,
    /// Layers before it.
    pub layers: usize,
}

/// Which frames a frame attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// All of the recording.
    Whole,
    /// So many before it and behind it; all on a side where nothing is said.
    Near {
        /// Frames before it.
        left: Option<usize>,
        /// Frames behind it.
        right: Option<usize>,
    },
    /// Those of its own chunk, and of the chunks before (`chunked_limited`).
    Chunks {
        /// Frames of a chunk.
        size: usize,
        /// Chunks before it; all where nothing is said.
        left: Option<usize>,
    },
}

impl Context {
    /// NeMo's pair `att_context_size` in a style: -1 is all.
    fn of(left: i64, right: i64, chunked: bool) -> Option<Context> {
        let side = |n: i64| match n {
            -1 => Some(None),
            n => usize::try_from(n).ok().filter(|n| *n < 1 << 20).map(Some),
        };
        let (left, right) = (side(left)?, side(right)?);
        Some(match (left, right) {
            (None, None) => Context::Whole,
            (left, Some(right)) if chunked => {
                Context::Chunks { size: right + 1, left: left.map(|left| left / (right + 1)) }
            }
            // NeMo: chunks without an end are one chunk, so the left side is all that limits.
            (left, right) => Context::Near { left, right },
        })
    }
}

/// The norm of the convolution module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvNorm {
    /// Of each channel over batch and time.
    Batch,
    /// Of each frame over channels.
    Layer,
    /// None: each channel times a factor, and a bias (`fused_batch_norm`).
    Scale,
}

/// Probabilities of dropping while training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropouts {
    /// In the feed-forward layers and behind each part of a layer.
    pub layer: f64,
    /// Before the first layer.
    pub pre_encoder: f64,
    /// Of the positions.
    pub embedding: f64,
    /// Of the attention's weights.
    pub attention: f64,
    /// Of the last layer as a whole.
    pub depth: f64,
    /// Whether layers before it are dropped less (`linear`) or as often (`uniform`).
    pub depth_linear: bool,
    /// The first layer that may be dropped, counted from 1.
    pub depth_start: usize,
}

/// An encoder's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Features of a frame.
    pub mels: usize,
    /// The width of the stream.
    pub hidden: usize,
    /// Heads of attention.
    pub heads: usize,
    /// The width between the feed-forward products.
    pub ffn: usize,
    /// Layers.
    pub layers: usize,
    /// Frames that the convolution sees before the present one, and behind.
    pub conv: [usize; 2],
    /// The norm behind it.
    pub conv_norm: ConvNorm,
    /// How frames are made fewer.
    pub subsampling: Subsampling,
    /// How many become one before the first layer: [`Settings::rate`] tells how many do in all.
    pub factor: usize,
    /// How frames are made fewer between layers.
    pub reduction: Option<Reduction>,
    /// How attention knows where frames lie.
    pub positions: Positions,
    /// Frames that all attend to.
    pub globals: Option<Globals>,
    /// Whether the convolutions that do it see nothing later.
    pub causal: bool,
    /// Their channels.
    pub channels: usize,
    /// Whether the stream is scaled by the root of its width before the first layer.
    pub xscaling: bool,
    /// Whether each layer has its own biases of attention.
    pub untie_biases: bool,
    /// Whether products have biases.
    pub bias: bool,
    /// What frames see, for each look-ahead that the model was trained for; the first is what holds
    /// unless another is asked for.
    pub contexts: Vec<Context>,
    /// How often each of them is trained.
    pub probabilities: Vec<f64>,
    /// What is dropped while training.
    pub dropouts: Dropouts,
}

/// Frames of the longest chunk, and the largest width that is believed.
const MOST: usize = 1 << 20;

impl Settings {
    /// NeMo's `ConformerEncoder`.
    ///
    /// # Errors
    /// Settings that are missing, make no sense, or that this encoder does not have.
    pub fn nemo(config: &Config) -> Result<Settings, ConfigError> {
        let hidden = config.size("d_model")?;
        let factor = config.count("subsampling_factor")?.unwrap_or(4);
        let subsampling = match config.word("subsampling")?.unwrap_or("striding") {
            _ if factor == 1 => Subsampling::Linear,
            "striding" => Subsampling::Striding,
            "dw_striding" => Subsampling::DwStriding,
            "stacking" => Subsampling::Stacking { norm: false },
            "stacking_norm" => Subsampling::Stacking { norm: true },
            _ => return Err(config.wrong("subsampling", "striding, dw_striding, stacking or stacking_norm")),
        };
        let given = |key: &str| config.get(key).and_then(Value::as_i64).filter(|n| *n != -1);
        let channels = match given("subsampling_conv_channels") {
            Some(_) => config.size("subsampling_conv_channels")?,
            None => hidden,
        };
        if given("feat_out").is_some_and(|n| n > 0 && n != hidden as i64) {
            return Err(config.wrong("feat_out", "-1: the encoder's own width"));
        }
        let (positions, local) = match config.word("self_attention_model")?.unwrap_or("rel_pos") {
            "rel_pos" => (Positions::Relative, false),
            "rel_pos_local_attn" => (Positions::Relative, true),
            "abs_pos" => (Positions::Absolute, false),
            _ => return Err(config.wrong("self_attention_model", "rel_pos, rel_pos_local_attn or abs_pos")),
        };
        let style = config.word("att_context_style")?.unwrap_or("regular");
        let chunked = match style {
            "regular" => false,
            "chunked_limited" if !local => true,
            // Masks of these models are drawn while they are trained; whole recordings have none.
            "chunked_limited_with_rc" if !local => false,
            _ => {
                let expected = "regular, or without rel_pos_local_attn chunked_limited or chunked_limited_with_rc";
                return Err(config.wrong("att_context_style", expected));
            }
        };
        let contexts = match style {
            "chunked_limited_with_rc" => vec![Context::Whole],
            _ => contexts(config, chunked, local)?,
        };
        let kernel = config.count("conv_kernel_size")?.unwrap_or(31);
        let dropout = config.number("dropout", 0.1)?;
        let depth = config.number("stochastic_depth_drop_prob", 0.0)?;
        let settings = Settings {
            mels: config.size("feat_in")?,
            hidden,
            heads: config.count("n_heads")?.unwrap_or(4),
            ffn: hidden.saturating_mul(config.count("ff_expansion_factor")?.unwrap_or(4)),
            layers: config.size("n_layers")?,
            conv: conv_context(config, kernel)?,
            conv_norm: match config.word("conv_norm_type")?.unwrap_or("batch_norm") {
                "batch_norm" => ConvNorm::Batch,
                "layer_norm" => ConvNorm::Layer,
                "fused_batch_norm" => ConvNorm::Scale,
                _ => return Err(config.wrong("conv_norm_type", "batch_norm, layer_norm or fused_batch_norm")),
            },
            subsampling,
            factor,
            reduction: reduction(config)?,
            positions,
            globals: if local { globals(config)? } else { None },
            causal: config.flag("causal_downsampling", false)?,
            channels,
            xscaling: config.flag("xscaling", true)?,
            // Only layers of rel_pos share them.
            untie_biases: local || config.flag("untie_biases", true)?,
            bias: config.flag("use_bias", true)?,
            probabilities: probabilities(config, contexts.len())?,
            contexts,
            dropouts: Dropouts {
                layer: dropout,
                pre_encoder: config.number("dropout_pre_encoder", 0.1)?,
                embedding: config.number("dropout_emb", 0.1)?,
                attention: config.number("dropout_att", 0.0)?,
                depth,
                depth_linear: config.word("stochastic_depth_mode")?.unwrap_or("linear") == "linear",
                depth_start: config.count("stochastic_depth_start_layer")?.unwrap_or(1).max(1),
            },
        };
        settings.checked(config, "n_heads")
    }

    /// The `encoder_config` of Hugging Face's Parakeet.
    ///
    /// # Errors
    /// Settings that are missing or make no sense.
    pub fn parakeet(config: &Config) -> Result<Settings, ConfigError> {
        let only = |key: &str, value: u64| match config.get(key).map(|v| v.as_u64() == Some(value)) {
            Some(false) => Err(config.wrong(key, value.to_string())),
            _ => Ok(()),
        };
        only("subsampling_conv_kernel_size", 3)?;
        only("subsampling_conv_stride", 2)?;
        if config.word("hidden_act")?.is_some_and(|word| word != "silu") {
            return Err(config.wrong("hidden_act", "silu"));
        }
        let heads = config.size("num_attention_heads")?;
        if config.count("num_key_value_heads")?.is_some_and(|kv| kv != heads) {
            return Err(config.wrong("num_key_value_heads", format!("as many as heads, {heads}")));
        }
        let bias = config.flag("attention_bias", true)?;
        if config.flag("convolution_bias", true)? != bias {
            return Err(config.wrong("convolution_bias", "the same as `attention_bias`"));
        }
        let kernel = config.count("conv_kernel_size")?.unwrap_or(9);
        let settings = Settings {
            mels: config.count("num_mel_bins")?.unwrap_or(80),
            hidden: config.size("hidden_size")?,
            heads,
            ffn: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            conv: conv_context(config, kernel)?,
            conv_norm: ConvNorm::Batch,
            subsampling: Subsampling::DwStriding,
            factor: config.count("subsampling_factor")?.unwrap_or(8),
            reduction: None,
            positions: Positions::Relative,
            globals: None,
            causal: false,
            channels: config.count("subsampling_conv_channels")?.unwrap_or(256),
            xscaling: config.flag("scale_input", true)?,
            untie_biases: true,
            bias,
            contexts: vec![Context::Whole],
            probabilities: vec![1.0],
            dropouts: Dropouts {
                layer: config.number("activation_dropout", 0.1)?,
                pre_encoder: config.number("dropout", 0.1)?,
                embedding: config.number("dropout_positions", 0.0)?,
                attention: config.number("attention_dropout", 0.1)?,
                depth: 0.0,
                depth_linear: true,
                depth_start: 1,
            },
        };
        settings.checked(config, "num_attention_heads")
    }

    fn checked(self, config: &Config, heads: &str) -> Result<Settings, ConfigError> {
        if self.heads == 0 || !self.hidden.is_multiple_of(self.heads) {
            return Err(config.wrong(heads, format!("a divisor of the width, {}", self.hidden)));
        }
        if self.layers > 1000 || self.hidden > MOST || self.ffn > 64 * MOST || self.channels > MOST || self.mels > MOST
        {
            return Err(config.wrong("the encoder", "at most 1000 layers and widths of at most 2^20"));
        }
        if self.reduction.is_some_and(|r| r.layers > self.layers) {
            return Err(config.wrong("reduction_position", format!("-1, or a layer of the {}", self.layers)));
        }
        if !(1..=1000).contains(&self.factor) {
            return Err(config.wrong("subsampling_factor", "at least 1 and at most 1000"));
        }
        if self.causal && matches!(self.subsampling, Subsampling::Stacking { .. } | Subsampling::Linear) {
            return Err(config.wrong("causal_downsampling", "false without convolutions before the first layer"));
        }
        let probability = |p: f64| (0.0..1.0).contains(&p);
        let d = &self.dropouts;
        if ![d.layer, d.pre_encoder, d.embedding, d.attention, d.depth].into_iter().all(probability) {
            return Err(config.wrong("dropout", "probabilities of at least 0 and below 1"));
        }
        Ok(self)
    }

    /// How many frames of features become one in all.
    pub fn rate(&self) -> usize {
        self.factor * if self.reduction.is_some() { 2 } else { 1 }
    }

    /// How many frames of the stream there are for `n` of features.
    pub fn count(&self, n: usize) -> usize {
        let halvings = 0..self.factor.max(1).ilog2();
        let n = match self.subsampling {
            Subsampling::Linear => n,
            // Whole stacks alone.
            Subsampling::Stacking { .. } => n / self.factor,
            _ if self.causal => halvings.fold(n, |n, _| n / 2 + 1),
            _ => halvings.fold(n, |n, _| n.div_ceil(2)),
        };
        match self.reduction {
            None => n,
            Some(Reduction { pooling: true, .. }) => n / 2,
            Some(Reduction { pooling: false, .. }) => n.div_ceil(2),
        }
    }

    /// The sizes of the encoder's axes.
    pub fn sizes<A: ConformerAxes>(&self) -> Sizes {
        Sizes::new()
            .with::<A::Mels>(self.mels)
            .with::<Stack>(self.factor)
            .with::<A::Channels>(self.channels)
            .with::<A::Hidden>(self.hidden)
            .with::<A::Heads>(self.heads)
            .with::<A::HeadDim>(self.hidden / self.heads)
            .with::<A::Ffn>(self.ffn)
            .with::<A::Before>(self.conv[0])
            .with::<A::After>(self.conv[1])
    }
}

/// `conv_context_size`: nothing, `causal`, or frames before and behind.
fn conv_context(config: &Config, kernel: usize) -> Result<[usize; 2], ConfigError> {
    const KEY: &str = "conv_context_size";
    if kernel == 0 || kernel > MOST {
        return Err(config.wrong("conv_kernel_size", "at least 1"));
    }
    match config.get(KEY) {
        None if kernel % 2 == 1 => Ok([kernel / 2; 2]),
        None => Err(config.wrong("conv_kernel_size", "an odd number")),
        Some(Value::String(word)) if word == "causal" => Ok([kernel - 1, 0]),
        Some(Value::Array(sides)) if sides.len() == 2 => {
            let side = |i: usize| sides[i].as_u64().and_then(|n| usize::try_from(n).ok());
            match (side(0), side(1)) {
                (Some(a), Some(b)) if a.checked_add(b) == Some(kernel - 1) => Ok([a, b]),
                _ => Err(config.wrong(KEY, format!("two numbers that add up to {}", kernel - 1))),
            }
        }
        Some(_) => Err(config.wrong(KEY, "null, \"causal\", or frames before and behind")),
    }
}

/// `reduction`, `reduction_position`, `reduction_factor`.
fn reduction(config: &Config) -> Result<Option<Reduction>, ConfigError> {
    let (Some(kind), Some(factor @ 2..)) = (config.word("reduction")?, config.count("reduction_factor")?) else {
        return Ok(None);
    };
    if factor != 2 {
        return Err(config.wrong("reduction_factor", "1 or 2"));
    }
    let pooling = match kind {
        "pooling" => true,
        "striding" => false,
        _ => return Err(config.wrong("reduction", "null, pooling or striding")),
    };
    let layers = match config.get("reduction_position").and_then(Value::as_i64) {
        Some(-1) => config.size("n_layers")?,
        Some(at @ 0..) => usize::try_from(at).unwrap_or(usize::MAX).saturating_add(1),
        _ => return Err(config.wrong("reduction_position", "-1, or the number of a layer")),
    };
    Ok(Some(Reduction { pooling, layers }))
}

/// `global_tokens`, `global_tokens_spacing`, `global_attn_separate`.
fn globals(config: &Config) -> Result<Option<Globals>, ConfigError> {
    let count = config.count("global_tokens")?.unwrap_or(0);
    let spacing = config.count("global_tokens_spacing")?.unwrap_or(1);
    if count > 0 && (spacing == 0 || count.saturating_mul(spacing) > MOST) {
        return Err(config.wrong("global_tokens_spacing", format!("at least 1, and {count} times it at most {MOST}")));
    }
    let separate = config.flag("global_attn_separate", false)?;
    Ok((count > 0).then_some(Globals { count, spacing, separate }))
}

/// `att_context_size`: one pair, or one for each look-ahead.
fn contexts(config: &Config, chunked: bool, local: bool) -> Result<Vec<Context>, ConfigError> {
    const KEY: &str = "att_context_size";
    let wrong = || config.wrong(KEY, "a pair of numbers of at least -1, or a list of such pairs");
    let pair = |v: &Value| -> Option<Context> {
        let [left, right] = v.as_array()?.as_slice() else { return None };
        Context::of(left.as_i64()?, right.as_i64()?, chunked)
    };
    let found = match config.get(KEY) {
        None => vec![Context::Whole],
        Some(value) => match value.as_array() {
            Some(list) if list.first().is_some_and(Value::is_array) => {
                list.iter().map(|v| pair(v).ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            _ => vec![pair(value).ok_or_else(wrong)?],
        },
    };
    let both = |c: &Context| matches!(c, Context::Near { left: Some(_), right: Some(_) });
    if local && !found.iter().all(both) {
        return Err(config.wrong(KEY, "frames on both sides, which rel_pos_local_attn needs"));
    }
    Ok(found)
}

/// `att_context_probs`: one for each look-ahead; all alike where nothing is said.
fn probabilities(config: &Config, count: usize) -> Result<Vec<f64>, ConfigError> {
    const KEY: &str = "att_context_probs";
    match config.numbers(KEY)?.filter(|list| !list.is_empty()) {
        None => Ok(vec![1.0 / count.max(1) as f64; count]),
        Some(list) => {
            let right = list.len() == count && list.iter().all(|p| (0.0..=1.0).contains(p));
            let one = (list.iter().sum::<f64>() - 1.0).abs() < 1e-6;
            let wrong =
                || config.wrong(KEY, format!("{count} probabilities, as many as `att_context_size`, that add up to 1"));
            if right && one { Ok(list) } else { Err(wrong()) }
        }
    }
}
