//! A reader of safetensors for whole small files, apart from the one under test.

use mobilis::devices::reference::RefArray;
use std::collections::HashMap;
use std::path::Path;

/// Every tensor of a file.
pub struct File(HashMap<String, RefArray>);

impl File {
    /// Reads a file of f32 and i64 tensors.
    pub fn read(path: &Path) -> File {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("the header is JSON");
        let body = &bytes[8 + length..];
        let mut tensors = HashMap::new();
        for (name, entry) in header.as_object().expect("the header is an object") {
            if name == "__metadata__" {
                continue;
            }
            let numbers = |key: &str| -> Vec<usize> {
                let list = entry[key].as_array().expect("a list");
                list.iter().map(|n| n.as_u64().expect("a whole number") as usize).collect()
            };
            let offsets = numbers("data_offsets");
            let data = &body[offsets[0]..offsets[1]];
            let values: Vec<f64> = match entry["dtype"].as_str() {
                Some("F32") => {
                    let (words, _) = data.as_chunks::<4>();
                    words.iter().map(|b| f32::from_le_bytes(*b) as f64).collect()
                }
                Some("I64") => {
                    let (words, _) = data.as_chunks::<8>();
                    words.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
                }
                other => panic!("{name} is {other:?}"),
            };
            tensors.insert(name.clone(), RefArray::new(&numbers("shape"), values));
        }
        File(tensors)
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> RefArray {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}")).clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
