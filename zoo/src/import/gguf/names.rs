//! The tensors of a GGUF file under Hugging Face's names and in its layout.

use super::change::{joined, to_halves, transposed};
use super::tables::{Architecture, Change, Row, fill, fit};
use super::{Gguf, config};
use crate::import::ImportError;
use mobilis_runtime::Source;
use mobilis_runtime::checkpoint::{CheckpointError, Encoding, Raw, TensorInfo};
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use std::collections::BTreeMap;
use std::path::Path;

/// No model has more experts in a layer.
const EXPERTS: usize = 1 << 16;

/// One of Hugging Face's tensors, and what of the file it is made of.
#[derive(Clone, Debug)]
struct Piece {
    from: String,
    change: Change,
    /// Which expert of a stack.
    index: usize,
    info: TensorInfo,
}

/// A GGUF file as a [`Source`] under Hugging Face's names. Tensors that have no counterpart keep their
/// name.
#[derive(Clone, Debug)]
pub struct Renamed {
    gguf: Gguf,
    architecture: Architecture,
    heads: [usize; 2],
    pieces: BTreeMap<String, Piece>,
}

/// Which architecture a file says that it has.
///
/// # Errors
/// None, or one that is not known here.
pub fn architecture(gguf: &Gguf) -> Result<Architecture, ImportError> {
    let name = gguf.metadata().text("general.architecture").map_err(|f| gguf.fault(f))?;
    let name = name.ok_or_else(|| gguf.fault("its metadata lacks `general.architecture`".into()))?;
    Architecture::parse(name).ok_or_else(|| ImportError::Architecture {
        path: gguf.path().into(),
        architecture: name.into(),
        hint: mobilis_runtime::suggest::did_you_mean(name, Architecture::ALL.iter().map(|(_, n)| *n)),
    })
}

impl Renamed {
    /// Matches the tensors of a file with their counterparts.
    ///
    /// # Errors
    /// An architecture that is not known; tensors whose shapes contradict the metadata.
    pub fn new(gguf: Gguf) -> Result<Renamed, ImportError> {
        let architecture = architecture(&gguf)?;
        let fault = |f: String| gguf.fault(f);
        let head = |key: &str| gguf.metadata().count(&format!("{}.attention.{key}", architecture.name()));
        let queries = head("head_count").map_err(fault)?.unwrap_or(0) as usize;
        let keys = head("head_count_kv").map_err(fault)?.map_or(queries, |n| n as usize);
        let rows = architecture.rows();
        let mut renamed = Renamed { architecture, heads: [queries, keys], pieces: BTreeMap::new(), gguf: gguf.clone() };
        for name in gguf.names() {
            let info = gguf.find(name)?;
            for (hf, piece) in renamed.counterparts(&rows, name, info).map_err(fault)? {
                if renamed.pieces.insert(hf.clone(), piece).is_some() {
                    return Err(fault(format!("two of its tensors are `{hf}`")).into());
                }
            }
        }
        Ok(renamed)
    }

    /// The file.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// What kind of model it is.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The configuration in Hugging Face's spelling.
    ///
    /// # Errors
    /// Metadata that is missing or of another kind.
    pub fn config(&self) -> Result<serde_json::Value, ImportError> {
        config::config(&self.gguf, self.architecture)
    }

    /// What becomes of one of the file's tensors: one of Hugging Face's, or one for each expert, or
    /// none.
    fn counterparts(&self, rows: &[Row], name: &str, info: TensorInfo) -> Result<Vec<(String, Piece)>, String> {
        // Frequencies belong to the configuration; values are joined with their keys.
        let aside =
            ["rope_freqs", "rope_factors_long", "rope_factors_short", "blk.{}.attn_rot_embd", "blk.{}.attn_v_b"];
        if aside.iter().any(|p| fit(p, name).is_some()) {
            return Ok(Vec::new());
        }
        let found = rows.iter().find_map(|row| {
            let (numbers, suffix) = fit(row.gguf, name)?;
            self.is_meant(row, &numbers).then_some((row, numbers, suffix))
        });
        let Some((row, mut numbers, suffix)) = found else {
            let piece = Piece { from: name.into(), change: Change::Same, index: 0, info };
            return Ok(vec![(name.into(), piece)]);
        };
        // A bias is a row of its own, whatever happened to the weight beside it.
        let change = match row.change {
            Change::Transposed | Change::Stacked if info.sizes.len() < 2 => Change::Same,
            change => change,
        };
        let shape = self.shape(name, change, &info)?;
        let piece = |index| Piece { from: name.into(), change, index, info: shape.clone() };
        if change != Change::Stacked {
            return Ok(vec![(fill(row.hf, &numbers, suffix), piece(0))]);
        }
        let mut out = Vec::new();
        for expert in 0..info.sizes[0] {
            numbers.push(expert);
            out.push((fill(row.hf, &numbers, suffix), piece(expert)));
            numbers.pop();
        }
        Ok(out)
    }

    /// T5's `ffn_up` is `wi_1` beside a gate, and `wi` without one.
    fn is_meant(&self, row: &Row, numbers: &[usize]) -> bool {
        let gated = || {
            let gate = row.gguf.replace("ffn_up", "ffn_gate");
            self.gguf.entry(&fill(&gate, numbers, ".weight")).is_some()
        };
        match self.architecture {
            Architecture::T5 if row.hf.ends_with(".wi") => !gated(),
            Architecture::T5 if row.hf.ends_with(".wi_1") => gated(),
            _ => true,
        }
    }

    /// Encoding and sizes after the change is undone.
    fn shape(&self, name: &str, change: Change, info: &TensorInfo) -> Result<TensorInfo, String> {
        let TensorInfo { encoding, sizes } = info;
        let rank = |n: usize| match sizes.len() == n {
            true => Ok(()),
            false => Err(format!("tensor `{name}` of sizes {sizes:?} should have {n} dimensions")),
        };
        let as_f32 = |sizes: Vec<usize>| TensorInfo { encoding: Encoding::F32, sizes };
        let count = || info.count();
        // What is neither whole bytes nor moved in whole rows passes through `f32`.
        let movable = |e: Encoding| if matches!(e, Encoding::Blocks(_)) { Encoding::F32 } else { e };
        Ok(match change {
            Change::Same => info.clone(),
            Change::Queries | Change::Keys => {
                let heads = self.heads[usize::from(change == Change::Keys)];
                let rows = sizes.first().copied().unwrap_or(0);
                if heads == 0 || !rows.is_multiple_of(2 * heads) {
                    return Err(format!("tensor `{name}` has {rows} rows, which are no pairs for {heads} heads"));
                }
                info.clone()
            }
            Change::Shifted | Change::NegatedExp => as_f32(sizes.clone()),
            Change::Stacked => {
                rank(3)?;
                if sizes[0] > EXPERTS {
                    return Err(format!("tensor `{name}` has {} experts, which is more than is believed", sizes[0]));
                }
                TensorInfo { encoding: *encoding, sizes: sizes[1..].to_vec() }
            }
            Change::Squeezed => {
                rank(2)?;
                TensorInfo { encoding: *encoding, sizes: vec![sizes[0], 1, sizes[1]] }
            }
            Change::Column | Change::Grouped => TensorInfo { encoding: movable(*encoding), sizes: vec![count()] },
            Change::NegatedExpColumn => as_f32(vec![count()]),
            Change::OneRow => TensorInfo { encoding: *encoding, sizes: vec![1, count()] },
            Change::Transposed => {
                rank(2)?;
                TensorInfo { encoding: movable(*encoding), sizes: vec![sizes[1], sizes[0]] }
            }
            Change::SplitKeysValues => {
                rank(3)?;
                let values = self.gguf.info(&values_of(name));
                let values = values.ok_or_else(|| format!("it has `{name}`, but not `{}`", values_of(name)))?;
                let [heads, latent, nope] = sizes[..] else {
                    return Err(format!("tensor `{name}` has no three sizes"));
                };
                match values.sizes[..] {
                    [h, value, l] if (h, l) == (heads, latent) => {
                        let both = if values.encoding == *encoding { movable(*encoding) } else { Encoding::F32 };
                        let rows = nope.checked_add(value).and_then(|n| n.checked_mul(heads));
                        let rows = rows.ok_or_else(|| format!("tensor `{name}` is larger than can be counted"))?;
                        TensorInfo { encoding: both, sizes: vec![rows, latent] }
                    }
                    _ => {
                        return Err(format!(
                            "tensor `{name}` of sizes {sizes:?} does not go with values of {:?}",
                            values.sizes
                        ));
                    }
                }
            }
        })
    }

    /// Bytes of a tensor of the file in an encoding: its own, or `F32`.
    fn bytes(&self, name: &str, encoding: Encoding) -> Result<Vec<u8>, CheckpointError> {
        if self.gguf.find(name)?.encoding == encoding {
            return self.gguf.raw(name)?.into_bytes();
        }
        Ok(self.reals(name)?.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn reals(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        match self.gguf.read(name, DType::F32, false)? {
            Data::F32(values) => Ok(values),
            other => Ok(other.to_f64().into_iter().map(|v| v as f32).collect()),
        }
    }

    fn mapped(&self, name: &str, of: impl Fn(f32) -> f32) -> Result<Raw, CheckpointError> {
        Ok(Raw::Bytes(self.reals(name)?.into_iter().flat_map(|v| of(v).to_le_bytes()).collect()))
    }
}

fn values_of(keys: &str) -> String {
    keys.replace("attn_k_b", "attn_v_b")
}

impl Source for Renamed {
    fn path(&self) -> &Path {
        self.gguf.path()
    }

    fn names(&self) -> Vec<&str> {
        self.pieces.keys().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.pieces.get(name).map(|p| p.info.clone())
    }

    fn raw(&self, name: &str) -> Result<Raw, CheckpointError> {
        self.find(name)?;
        let Piece { from, change, index, info } = &self.pieces[name];
        let width = info.encoding.block().1 as usize;
        match change {
            Change::Stacked => {
                let len = info.bytes();
                Ok(match self.gguf.raw(from)? {
                    Raw::File { path, begin, .. } => Raw::File { path, begin: begin + *index as u64 * len, len },
                    Raw::Bytes(bytes) => Raw::Bytes(bytes[index * len as usize..][..len as usize].to_vec()),
                })
            }
            Change::Queries | Change::Keys => {
                let heads = self.heads[usize::from(*change == Change::Keys)];
                let bytes = self.gguf.raw(from)?.into_bytes()?;
                Ok(Raw::Bytes(to_halves(&bytes, info.sizes[0], heads)))
            }
            Change::Shifted => self.mapped(from, |v| v - 1.0),
            Change::NegatedExp | Change::NegatedExpColumn => self.mapped(from, |v| (-v).ln()),
            Change::Transposed => {
                let bytes = self.bytes(from, info.encoding)?;
                Ok(Raw::Bytes(transposed(&bytes, info.sizes[1], info.sizes[0], width)))
            }
            Change::SplitKeysValues => {
                let [heads, latent, nope] = self.gguf.find(from)?.sizes[..] else { return self.gguf.raw(from) };
                let (keys, values) = (self.bytes(from, info.encoding)?, self.bytes(&values_of(from), info.encoding)?);
                Ok(Raw::Bytes(if heads == 0 {
                    Vec::new()
                } else {
                    joined(&keys, &values, heads, [latent, nope], width)
                }))
            }
            Change::Same | Change::Squeezed | Change::Column | Change::Grouped | Change::OneRow => {
                match self.gguf.find(from)?.encoding == info.encoding {
                    true => self.gguf.raw(from),
                    false => self.bytes(from, info.encoding).map(Raw::Bytes),
                }
            }
        }
    }
}
