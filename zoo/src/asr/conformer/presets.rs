//! The sizes that NeMo publishes: `conformer_ctc_bpe.yaml`, `fast-conformer_ctc_bpe.yaml`,
//! `fast-conformer_transducer_bpe.yaml` and the tables in them.

use super::model::{HeadSettings, ModelSettings, Reduction};
use super::settings::{Context, ConvNorm, Dropouts, Positions, Settings, Subsampling};
use mobilis_runtime::nn::Activation;

/// A published size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 13 or 14 million parameters.
    Small,
    /// About 30 million.
    Medium,
    /// About 115 million.
    Large,
    /// About 600 million.
    XLarge,
    /// About 1.2 billion; of FastConformer alone.
    XxLarge,
}

impl Size {
    /// Width, heads, layers of a Conformer; of a FastConformer where `fast`.
    fn of(self, fast: bool) -> [usize; 3] {
        match (self, fast) {
            (Size::Small, _) => [176, 4, 16],
            (Size::Medium, false) => [256, 4, 18],
            (Size::Medium, true) => [256, 4, 16],
            (Size::Large, false) => [512, 8, 18],
            (Size::Large, true) => [512, 8, 17],
            (Size::XLarge, _) => [1024, 8, 24],
            (Size::XxLarge, _) => [1024, 8, 42],
        }
    }
}

const DROPOUTS: Dropouts = Dropouts {
    layer: 0.1,
    pre_encoder: 0.1,
    embedding: 0.0,
    attention: 0.1,
    depth: 0.0,
    depth_linear: true,
    depth_start: 1,
};

/// A Conformer's encoder: a quarter of the frames, wide convolutions.
pub fn conformer(size: Size) -> Settings {
    let [hidden, heads, layers] = size.of(false);
    // The largest have a kernel of 5, the others of 31.
    let reach = if hidden == 1024 { 2 } else { 15 };
    Settings {
        mels: 80,
        hidden,
        heads,
        ffn: 4 * hidden,
        layers,
        conv: [reach; 2],
        conv_norm: ConvNorm::Batch,
        subsampling: Subsampling::Striding,
        factor: 4,
        reduction: None,
        positions: Positions::Relative,
        globals: None,
        causal: false,
        channels: hidden,
        xscaling: true,
        untie_biases: true,
        bias: true,
        contexts: vec![Context::Whole],
        probabilities: vec![1.0],
        dropouts: DROPOUTS,
    }
}

/// A FastConformer's encoder: an eighth of the frames, narrow convolutions.
pub fn fast_conformer(size: Size) -> Settings {
    let [hidden, heads, layers] = size.of(true);
    let reach = if size == Size::XxLarge { 2 } else { 4 };
    Settings {
        hidden,
        heads,
        ffn: 4 * hidden,
        layers,
        conv: [reach; 2],
        subsampling: Subsampling::DwStriding,
        factor: 8,
        channels: 256,
        ..conformer(Size::Large)
    }
}

/// The same for streams: nothing later is seen but a chunk's rest, for each look-ahead that published models
/// have (0, 80, 480 and 1040 ms).
pub fn streaming_fast_conformer(size: Size) -> Settings {
    let plain = fast_conformer(size);
    let chunk = |ahead: usize| Context::Chunks { size: ahead + 1, left: Some(70 / (ahead + 1)) };
    Settings {
        causal: true,
        conv: [plain.conv[0] + plain.conv[1], 0],
        conv_norm: ConvNorm::Layer,
        contexts: [13, 6, 1, 0].map(chunk).to_vec(),
        probabilities: vec![0.25; 4],
        ..plain
    }
}

/// A model with CTC over so many tokens.
pub fn ctc(encoder: Settings, tokens: usize) -> ModelSettings {
    let (head, reduction) = (HeadSettings::Ctc, Reduction::MeanBatch);
    ModelSettings { encoder, classes: tokens + 1, blank: tokens, head, reduction, hugging_face: false }
}

/// A transducer over so many tokens, TDT with durations, and a hybrid with a CTC head beside it.
pub fn transducer(encoder: Settings, tokens: usize, durations: Vec<usize>, hybrid: bool) -> ModelSettings {
    let width = if encoder.hidden <= 176 { 320 } else { 640 };
    let head = HeadSettings::Transducer {
        pred: width,
        layers: 1,
        pred_dropout: 0.2,
        zero_start: true,
        joint: width,
        activation: Activation::Relu,
        joint_dropout: 0.2,
        durations,
        max_symbols: 10,
        hybrid,
    };
    let reduction = Reduction::MeanVolume;
    ModelSettings { encoder, classes: tokens + 1, blank: tokens, head, reduction, hugging_face: false }
}

#[cfg(test)]
mod tests {
    use super::super::axes::{AnyConformer, CausalEighth, Eighth, Quarter, Rate};
    use super::*;
    use mobilis_runtime::graph::VarKind;
    use mobilis_runtime::module::catalog::Catalog;

    /// How many values the parameters hold whose names begin so.
    fn count<R: Rate>(settings: &ModelSettings, prefix: &str) -> usize {
        let module = settings.module::<AnyConformer, R>();
        let catalog = Catalog::of(&module).expect("names are unlike");
        let sizes = settings.sizes::<AnyConformer>();
        let parameters = catalog.vars().iter().filter(|d| d.kind == VarKind::Param && d.name().starts_with(prefix));
        parameters.map(|d| d.ty.sizes(&sizes).expect("all axes have sizes").iter().product::<usize>()).sum()
    }

    #[test]
    fn parameters_are_as_many_as_nemos() {
        for (size, expected) in [(Size::Small, 12_995_441), (Size::Medium, 30_538_625), (Size::Large, 121_501_313)] {
            assert_eq!(count::<Quarter>(&ctc(conformer(size), 128), ""), expected, "{size:?}");
        }
        assert_eq!(count::<Quarter>(&ctc(conformer(Size::Large), 128), "encoder."), 121_435_136);
        let seventeen = fast_conformer(Size::Large);
        let eighteen = Settings { layers: 18, ..seventeen.clone() };
        assert_eq!(count::<Eighth>(&ctc(eighteen, 1024), ""), 115_600_385);
        assert_eq!(count::<Eighth>(&ctc(seventeen.clone(), 1024), ""), 109_287_937);
        assert_eq!(count::<Eighth>(&transducer(seventeen, 1024, vec![], false), ""), 114_095_617);
    }

    #[test]
    fn the_large_ones_are_as_large_as_published() {
        let near = |found: usize, millions: f64| (found as f64 / 1e6 / millions - 1.0).abs() < 0.04;
        let ctc_of = |encoder| ctc(encoder, 1024);
        assert!(near(count::<Quarter>(&ctc(conformer(Size::XLarge), 128), ""), 635.0));
        assert!(near(count::<Eighth>(&ctc_of(fast_conformer(Size::XLarge)), ""), 616.0));
        assert!(near(count::<Eighth>(&ctc_of(fast_conformer(Size::XxLarge)), ""), 1_070.0));
        // Streams have a norm of other statistics and one band more.
        let streaming = count::<CausalEighth>(&ctc_of(streaming_fast_conformer(Size::Large)), "");
        assert!(near(streaming, 109.0), "{streaming}");
    }
}
