//! Every operation: values against literals or an independent formula, gradients against
//! central differences in `f64`, devices against the reference, sizes 0, 1 and odd, inputs that
//! are views. One file a family, as in `runtime/src/ops`.

extern crate mobilis_runtime as mobilis;

mod attention;
mod cache;
mod contraction;
mod conv;
mod ctc;
mod elementwise;
mod embedding;
mod experts;
mod gather;
mod loss;
mod movement;
mod norm;
mod order;
mod pool;
mod quantize;
mod random;
mod reduce;
mod rope;
mod slice;
mod softmax;
mod ssm;
mod typed;
mod window;

use mobilis_runtime::devices::reference::RefArray;
use std::collections::HashMap;

/// The tensors of real and of whole numbers of `<golden data>/<folder>/golden.safetensors`; `None`, with the reason printed,
/// where the data is absent.
fn golden(folder: &str) -> Option<HashMap<String, RefArray>> {
    let root = std::env::var("MOBILIS_GOLDEN")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden").to_string());
    let path = format!("{root}/{folder}/golden.safetensors");
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: {path} is absent; set MOBILIS_GOLDEN to the folder of reference data");
        return None;
    };
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let (header, data) = bytes[8..].split_at(header);
    let header: serde_json::Value = serde_json::from_slice(header).expect("a JSON header");
    let number = |v: &serde_json::Value| v.as_u64().expect("a number") as usize;
    let tensors =
        header.as_object().expect("an object").iter().filter(|(_, t)| t["dtype"] == "F32" || t["dtype"] == "I64");
    let read = tensors.map(|(name, t)| {
        let sizes: Vec<usize> = t["shape"].as_array().expect("sizes").iter().map(number).collect();
        let range = number(&t["data_offsets"][0])..number(&t["data_offsets"][1]);
        let real = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes")) as f64;
        let whole = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes")) as f64;
        let values = match t["dtype"] == "F32" {
            true => data[range].chunks(4).map(real).collect(),
            false => data[range].chunks(8).map(whole).collect(),
        };
        (name.clone(), RefArray::new(&sizes, values))
    });
    Some(read.collect())
}
mod recurrent;
mod stft;
mod transducer;
