//! A model's tensors under GGUF's names, as llama.cpp's converter lays them out: the tables of
//! [`import::gguf::tables`](crate::import::gguf::tables) read the other way round.

use crate::import::ImportError;
use crate::import::gguf::change::{split, to_pairs, transposed};
use crate::import::gguf::tables::{Architecture, Change, fill, fit};
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Encoding, Raw, TensorInfo};
use mobilis_runtime::graph::DType;
use std::collections::BTreeMap;
use std::path::Path;

/// What the layout depends on beside the tensors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Of Mamba 2.
    pub(super) groups: usize,
    /// Of DeepSeek: features of a key that do not rotate.
    pub(super) nope: usize,
}

/// One tensor of the file that is to be written.
#[derive(Clone, Debug)]
struct Piece {
    /// Of what it is made: several experts, or one tensor.
    from: Vec<String>,
    change: Change,
    info: TensorInfo,
    /// The values' half of what is split.
    values: bool,
}

/// The tensors as they stand in a GGUF file, in encodings of their own where they are moved as they are.
#[derive(Debug)]
pub(super) struct Outgoing<'s> {
    source: &'s dyn Source,
    sizes: Sizes,
    pieces: BTreeMap<String, Piece>,
    extra: BTreeMap<String, Vec<f32>>,
}

/// Tensors that GGUF leaves out: copies of others, or parts of other uses.
fn left_out(architecture: Architecture, name: &str) -> bool {
    match architecture {
        Architecture::Bert => ["pooler.", "cls.", "embeddings.position_ids"].iter().any(|p| name.starts_with(p)),
        Architecture::T5 => matches!(name, "encoder.embed_tokens.weight" | "decoder.embed_tokens.weight"),
        Architecture::Gpt2 => name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
        Architecture::Gemma2 => name == "lm_head.weight",
        _ => name.ends_with(".rotary_emb.inv_freq"),
    }
}

impl<'s> Outgoing<'s> {
    /// Matches tensors with their places in a GGUF file.
    ///
    /// # Errors
    /// Tensors that have no place, all of them listed; experts that are missing.
    pub(super) fn new(source: &'s dyn Source, architecture: Architecture, sizes: Sizes) -> Result<Self, ImportError> {
        let rows = architecture.rows();
        let mut out = Outgoing { source, sizes, pieces: BTreeMap::new(), extra: BTreeMap::new() };
        let mut homeless = Vec::new();
        let mut stacks: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
        for name in source.names() {
            // Models without a head have no prefix.
            let plain = name.strip_prefix("bert.").filter(|_| architecture == Architecture::Bert).unwrap_or(name);
            if left_out(architecture, plain) {
                continue;
            }
            let spellings = [
                plain.to_string(),
                format!("model.{plain}"),
                format!("transformer.{plain}"),
                format!("backbone.{plain}"),
            ];
            let place = spellings.iter().find_map(|n| {
                // Files of today stack experts.
                let rows = rows.iter().filter(|r| r.gguf.matches("{}").count() < 2);
                rows.filter_map(|row| fit(row.hf, n).map(|(numbers, suffix)| (row, numbers, suffix.to_string()))).next()
            });
            let Some((row, mut numbers, suffix)) = place else {
                homeless.push(name.to_string());
                continue;
            };
            let info = source.find(name)?;
            let change = match row.change {
                Change::Transposed if info.sizes.len() < 2 => Change::Same,
                change => change,
            };
            if change == Change::Stacked {
                let expert = numbers.pop().unwrap_or(0);
                stacks.entry(fill(row.gguf, &numbers, &suffix)).or_default().insert(expert, name.into());
                continue;
            }
            let target = fill(row.gguf, &numbers, &suffix);
            for (target, piece) in out.made(name, target, change, info)? {
                out.pieces.insert(target, piece);
            }
        }
        if !homeless.is_empty() {
            let more = if homeless.len() > 10 { format!(" and {} more", homeless.len() - 10) } else { String::new() };
            homeless.truncate(10);
            return Err(ImportError::Export(format!(
                "a GGUF file of architecture `{}` has no place for the tensors `{}`{more}",
                architecture.name(),
                homeless.join("`, `")
            )));
        }
        for (target, experts) in stacks {
            out.stack(target, experts)?;
        }
        Ok(out)
    }

    /// Adds a tensor that no file has: frequencies of rotations.
    pub(super) fn add(&mut self, name: &str, values: Vec<f32>) {
        let info = TensorInfo { encoding: Encoding::F32, sizes: vec![values.len()] };
        self.pieces.insert(name.into(), Piece { from: Vec::new(), change: Change::Same, info, values: false });
        self.extra.insert(name.into(), values);
    }

    fn stack(&mut self, target: String, experts: BTreeMap<usize, String>) -> Result<(), ImportError> {
        let gap = experts.keys().enumerate().find(|(i, expert)| i != *expert);
        if let Some((missing, _)) = gap {
            return Err(ImportError::Export(format!("`{target}` lacks expert {missing}")));
        }
        let from: Vec<String> = experts.into_values().collect();
        let first = self.source.find(&from[0])?;
        for name in &from {
            if self.source.find(name)? != first {
                return Err(ImportError::Export(format!("`{name}` is not of the shape and type of `{}`", from[0])));
            }
        }
        let sizes = [&[from.len()][..], &first.sizes].concat();
        let info = TensorInfo { encoding: first.encoding, sizes };
        self.pieces.insert(target, Piece { from, change: Change::Stacked, info, values: false });
        Ok(())
    }

    /// What becomes of one tensor.
    fn made(
        &self,
        name: &str,
        target: String,
        change: Change,
        info: TensorInfo,
    ) -> Result<Vec<(String, Piece)>, ImportError> {
        let fault = |expected: &str| {
            Err(ImportError::Export(format!("`{name}` of sizes {:?} should be {expected}", info.sizes)))
        };
        let count = info.count();
        let shape = info.sizes.clone();
        let movable = |e: Encoding| if matches!(e, Encoding::Blocks(_)) { Encoding::F32 } else { e };
        let (encoding, sizes) = match (change, &shape[..]) {
            (Change::Same, _) => (info.encoding, shape.clone()),
            (Change::Queries | Change::Keys, [rows, ..]) => {
                let heads = if change == Change::Keys { self.sizes.kv_heads } else { self.sizes.heads };
                if heads == 0 || !rows.is_multiple_of(2 * heads) {
                    return fault(&format!("pairs of rows for {heads} heads"));
                }
                (info.encoding, shape.clone())
            }
            (Change::Shifted | Change::NegatedExp, _) => (Encoding::F32, shape.clone()),
            (Change::NegatedExpColumn, [n]) => (Encoding::F32, vec![*n, 1]),
            (Change::Column, [n]) => (movable(info.encoding), vec![*n, 1]),
            (Change::Grouped, [n]) if self.sizes.groups > 0 && n.is_multiple_of(self.sizes.groups) => {
                (movable(info.encoding), vec![self.sizes.groups, n / self.sizes.groups])
            }
            (Change::OneRow, [1, n]) => (info.encoding, vec![*n]),
            (Change::Squeezed, [d, 1, k]) => (movable(info.encoding), vec![*d, *k]),
            (Change::Transposed, [a, b]) => (movable(info.encoding), vec![*b, *a]),
            (Change::SplitKeysValues, [rows, latent]) => {
                let (heads, nope) = (self.sizes.heads, self.sizes.nope);
                if heads == 0 || !rows.is_multiple_of(heads) || rows / heads < nope || nope == 0 {
                    return fault(&format!("keys of {nope} features and values for {heads} heads"));
                }
                let piece = |values: bool, sizes: Vec<usize>| Piece {
                    from: vec![name.into()],
                    change,
                    info: TensorInfo { encoding: movable(info.encoding), sizes },
                    values,
                };
                let values = target.replace("attn_k_b", "attn_v_b");
                return Ok(vec![
                    (target, piece(false, vec![heads, *latent, nope])),
                    (values, piece(true, vec![heads, rows / heads - nope, *latent])),
                ]);
            }
            _ => return fault(&format!("of another rank ({count} values)")),
        };
        let info = TensorInfo { encoding, sizes };
        Ok(vec![(target, Piece { from: vec![name.into()], change, info, values: false })])
    }

    /// Bytes of a tensor in an encoding: its own, or `F32`.
    fn bytes(&self, name: &str, encoding: Encoding) -> Result<Vec<u8>, CheckpointError> {
        if self.source.find(name)?.encoding == encoding {
            return self.source.raw(name)?.into_bytes();
        }
        Ok(self.reals(name)?.into_iter().flat_map(|v| (v as f32).to_le_bytes()).collect())
    }

    fn reals(&self, name: &str) -> Result<Vec<f64>, CheckpointError> {
        Ok(self.source.read(name, DType::F32, false)?.to_f64())
    }

    fn mapped(&self, name: &str, of: impl Fn(f32) -> f32) -> Result<Raw, CheckpointError> {
        Ok(Raw::Bytes(self.reals(name)?.into_iter().flat_map(|v| of(v as f32).to_le_bytes()).collect()))
    }
}

impl Source for Outgoing<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<&str> {
        self.pieces.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.pieces.get(name).map(|p| p.info.clone())
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.find(name)?;
        if let Some(values) = self.extra.get(name) {
            return Ok(Raw::Bytes(values.iter().flat_map(|v| v.to_le_bytes()).collect()));
        }
        let Piece { from, change, info, values } = &self.pieces[name];
        let first = &from[0];
        let width = info.encoding.block().1 as usize;
        Ok(match change {
            Change::Stacked => {
                let mut bytes = Vec::with_capacity(info.bytes() as usize);
                for expert in from {
                    bytes.extend(self.source.raw(expert)?.into_bytes()?);
                }
                Raw::Bytes(bytes)
            }
            Change::Queries | Change::Keys => {
                let heads = if *change == Change::Keys { self.sizes.kv_heads } else { self.sizes.heads };
                Raw::Bytes(to_pairs(&self.source.raw(first)?.into_bytes()?, info.sizes[0], heads))
            }
            Change::Shifted => self.mapped(first, |v| v + 1.0)?,
            Change::NegatedExp | Change::NegatedExpColumn => self.mapped(first, |v| -v.exp())?,
            Change::Transposed => {
                Raw::Bytes(transposed(&self.bytes(first, info.encoding)?, info.sizes[1], info.sizes[0], width))
            }
            Change::SplitKeysValues => {
                let latent = if *values { info.sizes[2] } else { info.sizes[1] };
                let parts =
                    split(&self.bytes(first, info.encoding)?, self.sizes.heads, [latent, self.sizes.nope], width);
                Raw::Bytes(if *values { parts.1 } else { parts.0 })
            }
            _ => match self.source.find(first)?.encoding == info.encoding {
                true => self.source.raw(first)?,
                false => Raw::Bytes(self.bytes(first, info.encoding)?),
            },
        })
    }
}
