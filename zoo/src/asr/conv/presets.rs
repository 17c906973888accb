//! The published encoders as NeMo's configurations: `encoder` and `decoder` of `examples/asr/conf/*/*.yaml`.

use serde_json::{Value, json};

/// One entry of `jasper`.
fn block(filters: u64, kernel: u64, repeat: u64, dropout: f64) -> Value {
    json!({
        "filters": filters, "repeat": repeat, "kernel": [kernel], "stride": [1], "dilation": [1],
        "dropout": dropout, "residual": true, "separable": true,
    })
}

fn with(mut block: Value, settings: Value) -> Value {
    if let (Some(block), Value::Object(settings)) = (block.as_object_mut(), settings) {
        block.extend(settings);
    }
    block
}

fn encoder(features: u64, blocks: Vec<Value>) -> Value {
    json!({
        "_target_": "nemo.collections.asr.modules.ConvASREncoder",
        "feat_in": features, "activation": "relu", "conv_mask": true, "jasper": blocks,
    })
}

/// Jasper 10x5dr (`jasper/jasper_10x5dr.yaml`).
pub fn jasper() -> Value {
    let full =
        |filters, kernel, repeat, dropout| with(block(filters, kernel, repeat, dropout), json!({"separable": false}));
    let dense = |filters, kernel, dropout| with(full(filters, kernel, 5, dropout), json!({"residual_dense": true}));
    let mut blocks = vec![with(full(256, 11, 1, 0.2), json!({"stride": [2], "residual": false}))];
    for (filters, kernel, dropout) in [(256, 11, 0.2), (384, 13, 0.2), (512, 17, 0.2), (640, 21, 0.3), (768, 25, 0.3)] {
        blocks.extend([dense(filters, kernel, dropout), dense(filters, kernel, dropout)]);
    }
    blocks.push(with(full(896, 29, 1, 0.4), json!({"dilation": [2], "residual": false})));
    blocks.push(with(full(1024, 1, 1, 0.4), json!({"residual": false})));
    encoder(64, blocks)
}

/// QuartzNet 15x5 (`quartznet/quartznet_15x5.yaml`).
pub fn quartznet() -> Value {
    let mut blocks = vec![with(block(256, 33, 1, 0.0), json!({"stride": [2], "residual": false}))];
    for (filters, kernel) in [(256, 33), (256, 39), (512, 51), (512, 63), (512, 75)] {
        blocks.extend((0..3).map(|_| block(filters, kernel, 5, 0.0)));
    }
    blocks.push(with(block(512, 87, 1, 0.0), json!({"dilation": [2], "residual": false})));
    blocks.push(with(block(1024, 1, 1, 0.0), json!({"residual": false, "separable": false})));
    encoder(64, blocks)
}

/// Citrinet (`citrinet/citrinet_{384,512,1024}.yaml`; 256 is published as a checkpoint alone). The 1024 has kernels
/// of a quarter's length and 1024 filters in the last block, others 640.
pub fn citrinet(filters: u64) -> Value {
    let dropout = if filters > 384 { 0.1 } else { 0.0 };
    let last = if filters >= 1024 { 1024 } else { 640 };
    let own = json!({
        "se": true, "se_context_size": -1, "se_reduction_ratio": 8,
        "kernel_size_factor": if filters >= 1024 { 0.25 } else { 1.0 },
    });
    let block = |filters, kernel, repeat| with(block(filters, kernel, repeat, dropout), own.clone());
    let alone = |b| with(b, json!({"residual": false}));
    let mut blocks = vec![with(alone(block(filters, 5, 1)), json!({"dropout": 0.0, "kernel_size_factor": 1.0}))];
    for kernels in [&[11u64, 13, 15, 17, 19, 21][..], &[13, 15, 17, 19, 21, 23, 25], &[25, 27, 29, 31, 33, 35, 37, 39]]
    {
        for (i, kernel) in kernels.iter().enumerate() {
            let plain = block(filters, *kernel, 5);
            blocks.push(match i {
                0 => with(plain, json!({"stride": [2], "stride_last": true, "residual_mode": "stride_add"})),
                _ => with(plain, json!({"residual_mode": "add"})),
            });
        }
    }
    blocks.push(with(alone(block(last, 41, 1)), json!({"dropout": 0.0})));
    encoder(80, blocks)
}

/// MatchboxNet 3x1x64 (`matchboxnet/matchboxnet_3x1x64_v*.yaml`) and, with two convolutions in a block, MarbleNet
/// 3x2x64 (`marblenet/marblenet_3x2x64.yaml`).
pub fn matchboxnet(repeat: u64) -> Value {
    let mut blocks = vec![with(block(128, 11, 1, 0.0), json!({"residual": false}))];
    blocks.extend([13, 15, 17].map(|kernel| block(64, kernel, repeat, 0.0)));
    blocks.push(with(block(128, 29, 1, 0.0), json!({"dilation": [2], "residual": false})));
    blocks.push(with(block(128, 1, 1, 0.0), json!({"residual": false, "separable": false})));
    encoder(64, blocks)
}

/// MarbleNet for frames of 20 ms (`marblenet/marblenet_3x2x64_20ms.yaml`): the first block strides.
pub fn marblenet_frames() -> Value {
    let mut value = with(matchboxnet(2), json!({"feat_in": 80}));
    value["jasper"][0]["stride"] = json!([2]);
    value
}

#[cfg(test)]
mod tests {
    use super::super::{AnyConv, Classifier, ConvAxes, ConvEncoder, ConvSettings, CtcHead};
    use super::*;
    use crate::llm::config::Config;
    use mobilis_runtime::graph::VarKind;
    use mobilis_runtime::module::Module;
    use mobilis_runtime::module::catalog::Catalog;
    use mobilis_runtime::prelude::*;

    fn count(module: &dyn Module, sizes: &Sizes) -> usize {
        let catalog = Catalog::of(module).expect("names differ");
        let params = catalog.vars().iter().filter(|v| v.kind == VarKind::Param);
        params.map(|v| v.ty.sizes(sizes).expect("bound").iter().product::<usize>()).sum()
    }

    fn counts(value: Value, classes: usize) -> [usize; 3] {
        let settings = ConvSettings::nemo(&Config::new("encoder", value)).unwrap_or_else(|e| panic!("{e}"));
        let sizes = ConvEncoder::<AnyConv>::sizes(&settings).with::<<AnyConv as ConvAxes>::Classes>(classes);
        let encoder = ConvEncoder::<AnyConv>::new(&settings);
        [
            count(&encoder, &sizes),
            count(&CtcHead::<AnyConv>::default(), &sizes),
            count(&Classifier::<AnyConv>::default(), &sizes),
        ]
    }

    #[test]
    fn parameters_are_as_many_as_published() {
        let [encoder, head, _] = counts(quartznet(), 29);
        assert_eq!((encoder, encoder + head), (18_894_656, 18_924_381));
        for (filters, expected) in [(384, 21_472_529), (512, 36_994_321), (1024, 141_224_337)] {
            let [encoder, head, _] = counts(citrinet(filters), 1025);
            assert_eq!(encoder + head, expected, "{filters}");
        }
        for (labels, expected) in [(30, 77_214), (35, 77_859)] {
            let [encoder, _, head] = counts(matchboxnet(1), labels);
            assert_eq!(encoder + head, expected, "{labels}");
        }
    }

    #[test]
    fn strides() {
        let stride = |value| ConvSettings::nemo(&Config::new("encoder", value)).expect("read").stride();
        assert_eq!(
            [jasper(), quartznet(), citrinet(256), matchboxnet(1), marblenet_frames()].map(stride),
            [2, 2, 8, 1, 2]
        );
    }
}
