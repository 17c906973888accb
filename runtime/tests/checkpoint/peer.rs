//! The reference implementation of the format, both ways.

use super::Scratch;
use mobilis::checkpoint::{Checkpoint, Encoding, Writer};
use mobilis::graph::DType;
use mobilis::module::store::Data;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

fn bytes<const N: usize, T: Copy>(values: &[T], of: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|v| of(*v)).collect()
}

#[test]
fn reads_what_the_crate_writes() {
    let reals = [0.5f32, -1.25, 3.0, 1e-20, 7.0, 8.0];
    let f32s = bytes(&reals, f32::to_le_bytes);
    let halves = bytes(&reals[..3], |v| half::f16::from_f32(v).to_le_bytes());
    let brains = bytes(&reals[..3], |v| half::bf16::from_f32(v).to_le_bytes());
    let longs = bytes(&[1i64, -2, 3], i64::to_le_bytes);
    let views: Vec<(&str, TensorView)> = vec![
        ("w", TensorView::new(Dtype::F32, vec![2, 3], &f32s).unwrap()),
        ("half", TensorView::new(Dtype::F16, vec![3], &halves).unwrap()),
        ("brain", TensorView::new(Dtype::BF16, vec![1, 3], &brains).unwrap()),
        ("ids", TensorView::new(Dtype::I64, vec![3], &longs).unwrap()),
        ("mask", TensorView::new(Dtype::BOOL, vec![2], &[1, 0]).unwrap()),
        ("none", TensorView::new(Dtype::F32, vec![0, 5], &[]).unwrap()),
        ("one", TensorView::new(Dtype::U8, vec![], &[9]).unwrap()),
    ];
    let scratch = Scratch::new();
    let path = scratch.path("theirs.safetensors");
    let meta = [("format".to_string(), "pt".to_string())].into_iter().collect();
    std::fs::write(&path, safetensors::serialize(views.clone(), Some(meta)).unwrap()).unwrap();
    let ours = Checkpoint::open(&path).unwrap();
    assert_eq!(ours.parts()[0].metadata.get("format").map(String::as_str), Some("pt"));
    assert_eq!(ours.tensors().len(), views.len());
    for (name, view) in &views {
        let stored = ours.find(name).unwrap();
        assert_eq!(stored.sizes, view.shape(), "{name}");
        assert_eq!(stored.encoding.name(), view.dtype().to_string(), "{name}");
        assert_eq!(stored.bytes() as usize, view.data().len(), "{name}");
    }
    let read = |name: &str, dtype| ours.read(name, dtype).unwrap();
    assert_eq!(read("w", DType::F32), Data::F32(reals.to_vec()));
    assert_eq!(read("half", DType::F32), Data::F32(reals[..3].to_vec()));
    assert_eq!(read("brain", DType::F32), Data::F32(reals[..3].to_vec()));
    assert_eq!(read("ids", DType::I32), Data::I32(vec![1, -2, 3]));
    assert_eq!(read("mask", DType::Bool), Data::Bool(vec![1, 0]));
    assert_eq!(read("none", DType::F32), Data::F32(vec![]));
    assert_eq!(read("one", DType::I32), Data::I32(vec![9]));
}

/// One file of several storages.
fn write(out: &mut Vec<u8>) {
    let (reals, wide) = (Data::F32(vec![1.5; 6]), Data::F64(vec![0.1, 0.2]));
    let (ids, mask) = (Data::I32(vec![4, 5, 6]), Data::Bool(vec![0, 1, 1]));
    let writer = Writer::new()
        .add("z.weight", &[2, 3], &reals)
        .and_then(|w| w.add("a \"quoted\" näme\n", &[3], &ids))
        .and_then(|w| w.add("wide", &[2], &wide))
        .and_then(|w| w.add("mask", &[3, 1], &mask))
        .and_then(|w| w.add_as("b.weight", &[6], &reals, Encoding::BF16))
        .and_then(|w| {
            w.add("empty", &[0], &Data::F32(vec![])).map(|w| w.metadata("format", "pt")).map(|w| w.write_to(out))
        });
    writer.unwrap().unwrap();
}

#[test]
fn the_crate_reads_what_we_write() {
    let mut ours = Vec::new();
    write(&mut ours);
    let theirs = SafeTensors::deserialize(&ours).unwrap();
    let (_, header) = SafeTensors::read_metadata(&ours).unwrap();
    assert_eq!(header.metadata().as_ref().and_then(|m| m.get("format").cloned()), Some("pt".into()));
    assert_eq!(theirs.len(), 6);
    let view = |name: &str| theirs.tensor(name).unwrap();
    assert_eq!(view("z.weight").shape(), [2, 3]);
    assert_eq!(view("z.weight").data(), bytes(&[1.5f32; 6], f32::to_le_bytes));
    assert_eq!(view("a \"quoted\" näme\n").data(), bytes(&[4i32, 5, 6], i32::to_le_bytes));
    assert_eq!(view("wide").data(), bytes(&[0.1f64, 0.2], f64::to_le_bytes));
    assert_eq!((view("mask").dtype(), view("mask").data()), (Dtype::BOOL, &[0u8, 1, 1][..]));
    assert_eq!(view("b.weight").data(), bytes(&[half::bf16::from_f32(1.5); 6], |v| v.to_le_bytes()));
    assert!(view("empty").data().is_empty());
    // The very same bytes as the crate's, where it is given the same tensors.
    let again: Vec<(String, TensorView)> = theirs.tensors();
    let meta = [("format".to_string(), "pt".to_string())].into_iter().collect();
    assert_eq!(safetensors::serialize(again, Some(meta)).unwrap(), ours);
}

#[test]
fn both_agree_on_which_files_are_whole() {
    let mut ours = Vec::new();
    write(&mut ours);
    let scratch = Scratch::new();
    let path = scratch.path("x.safetensors");
    for cut in [0, 4, 8, 20, ours.len() / 2, ours.len() - 1, ours.len()] {
        std::fs::write(&path, &ours[..cut]).unwrap();
        assert_eq!(Checkpoint::open(&path).is_ok(), SafeTensors::deserialize(&ours[..cut]).is_ok(), "{cut}");
    }
}
