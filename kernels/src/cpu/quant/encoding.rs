//! How files store weights: as 16-bit numbers, or in the blocks of GGUF.

use super::ggml::{self, Blocks};
use super::half::{from_bf16, from_f16};
use crate::pool::Pool;

/// A storage of real numbers in a file, in fewer than 32 bits each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[allow(missing_docs)]
pub enum Encoding {
    F16,
    Bf16,
    Blocks(Blocks),
}

impl From<Blocks> for Encoding {
    fn from(blocks: Blocks) -> Encoding {
        Encoding::Blocks(blocks)
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Encoding::F16 => "F16",
            Encoding::Bf16 => "BF16",
            Encoding::Blocks(blocks) => blocks.name(),
        })
    }
}

impl Encoding {
    /// All encodings.
    pub fn all() -> impl Iterator<Item = Encoding> {
        [Encoding::F16, Encoding::Bf16].into_iter().chain(Blocks::ALL.map(Encoding::Blocks))
    }

    /// Values of a block, and the bytes that it takes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Encoding::F16 | Encoding::Bf16 => (1, 2),
            Encoding::Blocks(blocks) => (blocks.values(), blocks.bytes()),
        }
    }

    /// The bytes of so many values, where they are whole blocks.
    pub fn bytes(self, count: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        if count.is_multiple_of(values) { (count / values).checked_mul(bytes) } else { None }
    }

    /// The values from number `first` on, as many as `out` holds.
    ///
    /// # Panics
    /// When the bytes end before.
    pub fn widen(self, bytes: &[u8], first: usize, out: &mut [f32]) {
        match self {
            Encoding::F16 => halves(&bytes[2 * first..], out, from_f16),
            Encoding::Bf16 => halves(&bytes[2 * first..], out, from_bf16),
            Encoding::Blocks(blocks) => ggml::widen(blocks, bytes, first, out),
        }
    }

    /// All values, by all threads.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn widen_all(self, pool: &Pool, bytes: &[u8], out: &mut [f32]) {
        pool.rows(out, 1, 1 << 14, |first, part| self.widen(bytes, first, part));
    }
}

fn halves(bytes: &[u8], out: &mut [f32], of: impl Fn(u16) -> f32) {
    let (pairs, _) = bytes.as_chunks::<2>();
    let pairs = &pairs[..out.len()];
    for (o, h) in out.iter_mut().zip(pairs) {
        *o = of(u16::from_le_bytes(*h));
    }
}

#[cfg(test)]
pub(super) mod tests;
