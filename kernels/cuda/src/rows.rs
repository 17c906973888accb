//! How kernels over rows (`include/rows.cuh`) are chosen: as many threads a row as its values ask for.

use crate::{CudaError, Ptr};

/// Numbers as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Number {
    /// 32 bits.
    F32,
    /// The upper 16 bits of them.
    Bf16,
    /// IEEE 754's 16 bits.
    F16,
}

impl Number {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        if self == Number::F32 { 4 } else { 2 }
    }

    /// Values in 16 bytes.
    pub(crate) fn lanes(self) -> usize {
        16 / self.bytes()
    }

    /// One of three, in the order of the variants.
    pub(crate) fn pick<T: Copy>(self, of: [T; 3]) -> T {
        of[self as usize]
    }
}

/// A kernel for rows of up to `vectors` times 16 bytes a thread.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// The part of the kernel's name.
    pub name: &'static str,
    /// Threads that share a row.
    pub group: usize,
    /// Vectors that each of them holds; none where it holds no row.
    pub vectors: usize,
    /// Threads of a block.
    pub threads: usize,
}

impl Shape {
    pub const G8: Shape = Shape { name: "g8", group: 8, vectors: 1, threads: 256 };
    pub const W1: Shape = Shape { name: "w1", group: 32, vectors: 1, threads: 256 };
    pub const W4: Shape = Shape { name: "w4", group: 32, vectors: 4, threads: 256 };
    pub const B4: Shape = Shape { name: "b4", group: 256, vectors: 4, threads: 256 };
    pub const X4: Shape = Shape { name: "x4", group: 1024, vectors: 4, threads: 1024 };
    pub const STREAM: Shape = Shape { name: "s", group: 512, vectors: 0, threads: 512 };

    /// The first of `shapes` that holds rows of `n`, else the last.
    pub fn choose(shapes: &[Shape], n: usize, number: Number) -> Shape {
        let fits = |s: &&Shape| s.group * s.vectors * number.lanes() >= n;
        *shapes.iter().find(fits).unwrap_or(&shapes[shapes.len() - 1])
    }

    /// Rows that a block works on at once.
    pub fn rows(self) -> usize {
        self.threads / self.group
    }

    /// Blocks for so many rows.
    pub fn grid(self, family: &'static str, rows: usize) -> Result<u32, CudaError> {
        count(family, "blocks", rows.div_ceil(self.rows())).map(|n| n as u32)
    }
}

/// The kernel `{prefix}_{number}_{shape}` of a family's list.
pub(crate) fn kernel(prefix: &str, number: Number, part: &str) -> &'static str {
    let name = format!("{prefix}_{}_{part}", number.pick(["f32", "bf16", "f16"]));
    let of = |s: &'static crate::sources::Source| s.kernels.iter().find(|k| **k == name).copied();
    crate::sources::SOURCES.iter().find_map(of).unwrap_or_else(|| panic!("no kernel is called {name}"))
}

/// Whether rows of `n` values can be read 16 bytes at a time from all these places.
pub(crate) fn even(n: usize, number: Number, at: &[Ptr]) -> i32 {
    let fits = n.is_multiple_of(number.lanes()) && at.iter().all(|p| p.0.is_multiple_of(16));
    i32::from(fits)
}

/// A count as the kernels' `int`.
pub(crate) fn count(family: &'static str, what: &str, n: usize) -> Result<i32, CudaError> {
    i32::try_from(n).map_err(|_| CudaError::Refused {
        kernel: family,
        message: format!("{n} {what}, at most {} are taken", i32::MAX),
    })
}
