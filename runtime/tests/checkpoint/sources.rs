//! Models from sources that are no safetensors files, and in part.

use super::Scratch;
use mobilis::checkpoint::{Blocks, Checkpoint, CheckpointError, Encoding, Raw, Source, TensorInfo, Writer};
use mobilis::graph::DType;
use mobilis::module::store::Data;
use mobilis::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

axes! {
    pub Wide = 64;
    pub Narrow;
}

#[neural_module]
struct Layer {
    weight: Param<(Narrow, Wide)>,
}

#[neural_module]
struct Encoder {
    layers: Vec<Layer>,
    scale: Param<(Narrow,)>,
}

#[neural_module]
struct Net {
    encoder: Encoder,
    head: Param<(Narrow,)>,
}

fn net() -> Net {
    Net {
        encoder: Encoder { layers: vec![Layer::default(), Layer::default()], ..Encoder::default() },
        ..Net::default()
    }
}

/// Tensors in memory, as they would be stored.
#[derive(Debug, Default)]
struct Held(BTreeMap<String, (TensorInfo, Vec<u8>)>);

impl Held {
    fn with(mut self, name: &str, encoding: Encoding, sizes: &[usize], bytes: Vec<u8>) -> Held {
        let info = TensorInfo { encoding, sizes: sizes.to_vec() };
        assert_eq!(info.bytes(), bytes.len() as u64);
        self.0.insert(name.into(), (info, bytes));
        self
    }
    fn reals(self, name: &str, values: &[f32]) -> Held {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.with(name, Encoding::F32, &[values.len()], bytes)
    }
}

impl Source for Held {
    fn path(&self) -> &Path {
        Path::new("memory")
    }
    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.0.get(name).map(|t| t.0.clone())
    }
    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.find(name)?;
        Ok(Raw::Bytes(self.0[name].1.clone()))
    }
}

/// Two Q8_0 blocks a row: scale 0.5, then whole numbers.
fn quantized(rows: usize) -> Vec<u8> {
    let block = |b: usize| [0x00, 0x38].into_iter().chain((0..32).map(move |i| (b + i) as u8));
    (0..2 * rows).flat_map(block).collect()
}

fn source() -> Held {
    let blocks = Encoding::Blocks(Blocks::Q8_0);
    Held::default()
        .with("encoder.layers.0.weight", blocks, &[3, 64], quantized(3))
        .with("encoder.layers.1.weight", blocks, &[3, 64], quantized(3))
        .reals("encoder.scale", &[1.0, 2.0, 3.0])
        .reals("head", &[4.0, 5.0, 6.0])
}

fn value(model: &Model<Net>, name: &str) -> Vec<f64> {
    let id = model.catalog().get(name).expect("a parameter").id;
    model.store().lock().get(id).expect("it has a value").data.to_f64()
}

#[test]
fn quantized_tensors_are_read_as_their_values() {
    let source = source();
    let model = Model::load(net(), &source as &dyn Source).expect("it fits");
    let weight = value(&model, "encoder.layers.1.weight");
    assert_eq!((weight.len(), weight[0], weight[33], weight[191]), (192, 0.0, 1.0, 18.0));
    assert!(matches!(source.read("head", DType::F32, true), Ok(Data::F64(v)) if v == [4.0, 5.0, 6.0]));
    let wide = source.read("encoder.layers.0.weight", DType::F32, true).expect("readable");
    assert_eq!(wide.to_f64(), weight);
    let error = source.read("encoder.layers.0.weight", DType::I32, false).expect_err("reals are no indices");
    assert!(error.to_string().contains("stored as Q8_0"), "{error}");
    let error = source.read("encoder.scal", DType::F32, false).expect_err("no such tensor");
    assert!(error.to_string().contains("did you mean `encoder.scale`?"), "{error}");
}

#[test]
fn bytes_that_end_early_are_an_error() {
    let mut source = source();
    source.0.get_mut("encoder.layers.0.weight").expect("there").1.pop();
    assert!(source.read("encoder.layers.0.weight", DType::F32, false).is_err());
    // Five values are no block.
    let info = TensorInfo { encoding: Encoding::Blocks(Blocks::Q4_K), sizes: vec![5] };
    source.0.insert("odd".into(), (info, vec![0; 144]));
    let error = source.read("odd", DType::F32, false).expect_err("no whole block");
    assert!(error.to_string().contains("no whole number of Q4_K blocks"), "{error}");
}

#[test]
fn checkpoints_hand_out_their_bytes() {
    let scratch = Scratch::new();
    let path = scratch.path("m.safetensors");
    Writer::new()
        .add("a", &[2], &Data::I32(vec![1, 2]))
        .and_then(|w| w.add("b", &[1], &Data::F32(vec![0.5]))?.save(&path))
        .expect("written");
    let checkpoint = Checkpoint::open(&path).expect("opened");
    let raw = Source::raw(&checkpoint, "a").expect("there");
    assert!(matches!(&raw, Raw::File { len: 8, .. }));
    assert_eq!(raw.clone().into_bytes().expect("read"), [1, 0, 0, 0, 2, 0, 0, 0]);
    std::fs::write(&path, b"short").expect("written");
    assert!(raw.into_bytes().is_err());
}

#[test]
fn a_part_of_a_model() {
    for pattern in ["encoder", "encoder.*", "encoder.**", "enc*"] {
        let model = Model::init_with(net(), 1, Sizes::new().with::<Narrow>(3)).expect("made");
        let head = value(&model, "head");
        let options = LoadOptions::new().only(pattern);
        options.load_into(&model, &source() as &dyn Source).expect("it fits");
        assert_eq!(value(&model, "head"), head, "{pattern}");
        assert_eq!(value(&model, "encoder.scale"), [1.0, 2.0, 3.0], "{pattern}");
        // New values where there are none yet.
        let model = options.load(net(), &source() as &dyn Source).expect("it fits");
        assert_eq!(value(&model, "encoder.scale"), [1.0, 2.0, 3.0]);
        assert_ne!(value(&model, "head"), [4.0, 5.0, 6.0]);
    }
    let options = LoadOptions::new().only("encoder.layers.1").only("head");
    let model = options.load(net(), &source() as &dyn Source).expect("it fits");
    assert_eq!(value(&model, "head"), [4.0, 5.0, 6.0]);
}

#[test]
fn a_part_is_as_strict_as_the_whole() {
    let mut source = source();
    source.0.remove("encoder.scale");
    source = source.reals("encoder.shift", &[0.0]).reals("pooler", &[0.0]);
    let text = |options: LoadOptions| match options.load(net(), &source as &dyn Source) {
        Ok(_) => panic!("it does not fit"),
        Err(e) => e.to_string(),
    };
    let error = text(LoadOptions::new().only("encoder"));
    assert!(error.contains("encoder.scale") && error.contains("encoder.shift") && !error.contains("pooler"), "{error}");
    let error = text(LoadOptions::new().only("encodr"));
    assert!(error.contains("no parameter matches `encodr`; did you mean `encoder`?"), "{error}");
}
