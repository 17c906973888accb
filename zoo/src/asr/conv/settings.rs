//! What a configuration says of an encoder: `encoder` of NeMo's `model_config.yaml`.

use crate::llm::config::{Config, ConfigError};
use mobilis_runtime::nn::Activation;
use mobilis_runtime::nn::listed::Steps;
use serde_json::Value;

/// No encoder has more blocks, repetitions, channels or taps: what is larger is a mistake or an attack.
const MOST_BLOCKS: usize = 1000;
const MOST: usize = 1 << 16;

/// How a residual joins its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidualMode {
    /// It is added.
    Add,
    /// It is added, and strides as the block does (Citrinet).
    StrideAdd,
    /// The larger value of both counts.
    Max,
}

/// One block: `repeat` convolutions with their norms, a residual around them.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSettings {
    /// Channels that come out.
    pub filters: u64,
    /// How many convolutions follow each other.
    pub repeat: usize,
    /// How each of them moves.
    pub steps: Steps,
    /// Whether only the last of them strides.
    pub stride_last: bool,
    /// The probability of dropping while training.
    pub dropout: f64,
    /// Whether there is a residual.
    pub residual: bool,
    /// Whether the inputs of all blocks before are residuals too (Jasper's `dr`).
    pub dense: bool,
    /// How it joins.
    pub residual_mode: ResidualMode,
    /// Whether convolutions are of each channel, and then of one position.
    pub separable: bool,
    /// What squeeze and excitation divides the channels by, where there is any.
    pub squeeze: Option<u64>,
}

/// An encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvSettings {
    /// Features of a frame.
    pub features: u64,
    /// What is between convolutions.
    pub activation: Activation,
    /// Whether frames beyond a recording's length are made zero before each convolution.
    pub masked: bool,
    /// The blocks in order.
    pub blocks: Vec<BlockSettings>,
}

impl ConvSettings {
    /// NeMo's `ConvASREncoder`.
    ///
    /// # Errors
    /// Settings that are missing or make no sense, and those that no published model uses: other norms, shared
    /// heads of convolutions, groups, squeezes over a window.
    pub fn nemo(config: &Config) -> Result<ConvSettings, ConfigError> {
        let only = |key: &str, expected: &str| match config.word(key)? {
            Some(word) if word != expected => Err(config.wrong(key, expected)),
            _ => Ok(()),
        };
        only("normalization_mode", "batch")?;
        let splicing = config.count("frame_splicing")?.unwrap_or(1);
        let features = within(config, "feat_in", config.size("feat_in")?)?.saturating_mul(splicing as u64);
        let activation = match config.word("activation")?.unwrap_or("relu") {
            "relu" => Activation::Relu,
            "swish" | "silu" => Activation::Silu,
            "gelu" => Activation::Gelu,
            _ => return Err(config.wrong("activation", "relu, swish, silu or gelu")),
        };
        let list = config.get("jasper").ok_or_else(|| config.missing("jasper"))?;
        let list = list.as_array().ok_or_else(|| config.wrong("jasper", "a list of blocks"))?;
        if list.is_empty() || list.len() > MOST_BLOCKS {
            return Err(config.wrong("jasper", format!("a list of 1 to {MOST_BLOCKS} blocks")));
        }
        // A block's mode holds for those behind it that name none, as in NeMo.
        let mut mode = config.word("residual_mode")?.unwrap_or("add").to_string();
        let mut blocks = Vec::with_capacity(list.len());
        for (i, value) in list.iter().enumerate() {
            let block = Config::new(format!("block {i} of `jasper`"), value.clone());
            if let Some(own) = block.word("residual_mode")? {
                mode = own.to_string();
            }
            blocks.push(BlockSettings::nemo(&block, &mode)?);
        }
        let masked = config.flag("conv_mask", true)?;
        Ok(ConvSettings { features, activation, masked, blocks })
    }

    /// The width of what comes out.
    pub fn hidden(&self) -> u64 {
        self.blocks.last().map_or(self.features, |b| b.filters)
    }

    /// How many frames become one.
    pub fn stride(&self) -> u64 {
        let strides = |b: &BlockSettings| match b.stride_last {
            true => b.steps.stride,
            false => b.steps.stride.saturating_pow(b.repeat as u32),
        };
        self.blocks.iter().map(strides).fold(1, u64::saturating_mul)
    }
}

fn within(config: &Config, key: &str, n: usize) -> Result<u64, ConfigError> {
    match n {
        1..=MOST => Ok(n as u64),
        _ => Err(config.wrong(key, format!("a number of 1 to {MOST}"))),
    }
}

/// A number, or a list of one.
fn one(config: &Config, key: &str, default: Option<u64>) -> Result<u64, ConfigError> {
    let value = match (config.get(key), default) {
        (Some(Value::Array(list)), _) if list.len() == 1 => list[0].as_u64(),
        (Some(value), _) => value.as_u64(),
        (None, Some(default)) => Some(default),
        (None, None) => return Err(config.missing(key)),
    };
    match value {
        Some(n) if (1..=MOST as u64).contains(&n) => Ok(n),
        _ => Err(config.wrong(key, format!("a number of 1 to {MOST}, or a list of one"))),
    }
}

impl BlockSettings {
    fn nemo(config: &Config, mode: &str) -> Result<BlockSettings, ConfigError> {
        for (key, none) in [("groups", 1), ("heads", -1)] {
            if config.get(key).is_some_and(|v| v.as_i64() != Some(none)) {
                return Err(config.wrong(key, none.to_string()));
            }
        }
        let squeeze = match config.flag("se", false)? {
            false => None,
            true if config.get("se_context_size").is_some_and(|v| v.as_i64().is_none_or(|n| n >= 0)) => {
                return Err(config.wrong("se_context_size", "-1: the whole recording"));
            }
            true => Some(within(config, "se_reduction_ratio", config.count("se_reduction_ratio")?.unwrap_or(8))?),
        };
        let filters = within(config, "filters", config.size("filters")?)?;
        if squeeze.is_some_and(|ratio| filters / ratio == 0) {
            return Err(config.wrong("se_reduction_ratio", format!("at most the filters, {filters}")));
        }
        let kernel = one(config, "kernel", None)?;
        let factor = config.number("kernel_size_factor", 1.0)?;
        if !(0.0..=64.0).contains(&factor) {
            return Err(config.wrong("kernel_size_factor", "a number of 0 to 64"));
        }
        // NeMo's `compute_new_kernel_size`: an even kernel grows by one.
        let kernel = ((kernel as f64 * factor) as u64).max(1) | 1;
        let (stride, dilation) = (one(config, "stride", Some(1))?, one(config, "dilation", Some(1))?);
        if stride > 1 && dilation > 1 {
            return Err(config.wrong("dilation", "1 where the block strides"));
        }
        let mut steps = Steps::same(kernel, stride, dilation);
        if let Some(future) = config.get("future_context").filter(|v| v.as_i64() != Some(-1)) {
            let future = future.as_u64().ok_or_else(|| config.wrong("future_context", "-1, or a number of frames"))?;
            // A kernel no longer than the frames that it may see ahead stays in the middle.
            if kernel > future {
                steps.padding = [dilation * (kernel - 1 - future), dilation * future];
            }
        }
        let repeat = config.count("repeat")?.unwrap_or(3);
        if !(1..=MOST_BLOCKS).contains(&repeat) {
            return Err(config.wrong("repeat", format!("a number of 1 to {MOST_BLOCKS}")));
        }
        let dropout = config.number("dropout", 0.2)?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(config.wrong("dropout", "a probability below 1"));
        }
        Ok(BlockSettings {
            filters,
            repeat,
            steps,
            stride_last: config.flag("stride_last", false)?,
            dropout,
            residual: config.flag("residual", true)?,
            dense: config.flag("residual_dense", false)?,
            residual_mode: match mode {
                "add" => ResidualMode::Add,
                "stride_add" => ResidualMode::StrideAdd,
                "max" => ResidualMode::Max,
                _ => return Err(config.wrong("residual_mode", "add, stride_add or max")),
            },
            separable: config.flag("separable", false)?,
            squeeze,
        })
    }
}
