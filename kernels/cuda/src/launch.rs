//! A kernel with its grid and arguments, ready to run as often as one likes.

use crate::{CudaError, Info};

/// An address on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct Ptr(pub u64);

impl Ptr {
    /// The null pointer: an optional operand that is not there.
    pub const NULL: Ptr = Ptr(0);

    /// The address some bytes further on.
    #[must_use]
    pub fn at(self, bytes: usize) -> Ptr {
        Ptr(self.0 + bytes as u64)
    }
}

/// How rows of a tile lie in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum Swizzle {
    /// As in memory.
    None = 0,
    /// 32-byte rows.
    B32 = 32,
    /// 64-byte rows.
    B64 = 64,
    /// 128-byte rows.
    B128 = 128,
}

/// What a tensor map for TMA describes: a box that moves over a matrix or a higher array. The first dimension
/// is the one whose values are neighbours. Outside the array a box reads zeros and writes nothing.
#[derive(Clone, PartialEq, Debug)]
pub struct Tile {
    /// The first value.
    pub base: Ptr,
    /// Bytes of a value: 1, 2 or 4.
    pub element: u32,
    /// Values along each dimension, 2 to 5 of them.
    pub sizes: Vec<u64>,
    /// Bytes from one index to the next, for every dimension but the first; multiples of 16.
    pub strides: Vec<u64>,
    /// Values of the box along each dimension, at most 256.
    pub box_sizes: Vec<u32>,
    /// How it lies in shared memory.
    pub swizzle: Swizzle,
    /// What the values are.
    pub kind: TileKind,
}

/// What the values of a [`Tile`] are: only additions ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(u8)]
pub enum TileKind {
    /// Unsigned integers of the element's size, which also copies everything else.
    #[default]
    Bits = 0,
    /// `f32`.
    F32 = 1,
    /// `bf16`.
    Bf16 = 2,
    /// `f16`.
    F16 = 3,
}

impl Tile {
    /// A box over an array of bits, in one dimension more than there are strides.
    pub fn new(base: Ptr, element: u32, sizes: &[u64], strides: &[u64], box_sizes: &[u32], swizzle: Swizzle) -> Tile {
        let (sizes, strides, box_sizes) = (sizes.to_vec(), strides.to_vec(), box_sizes.to_vec());
        Tile { base, element, sizes, strides, box_sizes, swizzle, kind: TileKind::Bits }
    }

    /// What the driver asks of a tensor map.
    ///
    /// # Errors
    /// Names what it refuses.
    pub fn check(&self) -> Result<(), CudaError> {
        let rank = self.sizes.len();
        let row = self.box_sizes.first().map_or(0, |b| *b as u64 * self.element as u64);
        let span = if self.swizzle == Swizzle::None { u64::MAX } else { self.swizzle as u64 };
        let wrong = if !(2..=5).contains(&rank) || self.strides.len() != rank - 1 || self.box_sizes.len() != rank {
            format!("{rank} sizes, {} strides, {} box sizes", self.strides.len(), self.box_sizes.len())
        } else if !matches!(self.element, 1 | 2 | 4 | 8) {
            format!("values of {} bytes", self.element)
        } else if self.base == Ptr::NULL || !self.base.0.is_multiple_of(16) {
            format!("the base {:#x}: expected a place, a multiple of 16", self.base.0)
        } else if let Some(s) = self.strides.iter().find(|s| !s.is_multiple_of(16) || !(16..1 << 40).contains(*s)) {
            format!("a stride of {s} bytes: expected a multiple of 16 from 16 on, below 2^40")
        } else if let Some(n) = self.sizes.iter().find(|n| **n == 0 || **n > 1 << 32) {
            format!("a size of {n}: expected 1 to 2^32")
        } else if let Some(n) = self.box_sizes.iter().find(|n| **n == 0 || **n > 256) {
            format!("a box size of {n}: expected 1 to 256")
        } else if !row.is_multiple_of(16) {
            format!("a row of the box of {row} bytes: expected a multiple of 16")
        } else if row > span {
            format!("a row of the box of {row} bytes, wider than its swizzle of {span}")
        } else {
            return Ok(());
        };
        Err(CudaError::Refused { kernel: "tensor map", message: wrong })
    }
}

/// An argument of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub enum Arg {
    /// An address.
    Ptr(Ptr),
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// A structure of up to 128 bytes, by value: its words, the first field in the lowest bytes.
    Block([u64; 16]),
    /// A structure of [`Arg::TABLE`] words, by value: addresses, and counts below 2⁶³; zeros behind them.
    Table(Vec<Ptr>),
    /// `const __grid_constant__ TensorMap`, which the device makes of it.
    Tile(Tile),
}

impl Arg {
    /// Words of a [`Table`](Arg::Table): all of the arguments that every device takes but 512 bytes.
    pub const TABLE: usize = 448;
}

macro_rules! arg_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Arg {
            fn from(v: $from) -> Arg {
                Arg::$variant(v)
            }
        })*
    };
}
arg_from!(Ptr => Ptr, i32 => I32, u32 => U32, i64 => I64, f32 => F32, Tile => Tile);

/// A kernel with its grid and arguments.
#[derive(Clone, PartialEq, Debug)]
pub struct Launch {
    /// The kernel's name, found by [`sources::of`](crate::sources::of) or [`generated::of`](crate::generated::of).
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Blocks of a cluster along each dimension, as the kernel's `CLUSTER` states them; `[1, 1, 1]` for none.
    pub cluster: [u32; 3],
    /// Whether all blocks must run at once, for `grid_sync`.
    pub cooperative: bool,
    /// The arguments, in the kernel's order and exactly of its types.
    pub args: Vec<Arg>,
}

impl Launch {
    /// A launch on one-dimensional blocks.
    pub fn new(kernel: &'static str, grid: [u32; 3], threads: u32, args: Vec<Arg>) -> Launch {
        Launch { kernel, grid, block: [threads, 1, 1], shared: 0, cluster: [1, 1, 1], cooperative: false, args }
    }

    /// The same with dynamic shared memory.
    #[must_use]
    pub fn shared(mut self, bytes: u32) -> Launch {
        self.shared = bytes;
        self
    }

    /// The same in clusters of blocks.
    #[must_use]
    pub fn cluster(mut self, blocks: [u32; 3]) -> Launch {
        self.cluster = blocks;
        self
    }

    /// The same with all blocks at once.
    #[must_use]
    pub fn cooperative(mut self) -> Launch {
        self.cooperative = true;
        self
    }

    /// Whether every device of a kind takes its grid, whatever the kernel is.
    ///
    /// # Errors
    /// Names what it refuses.
    pub fn check(&self, info: &Info) -> Result<(), CudaError> {
        let product = |n: &[u32; 3]| n.iter().map(|n| *n as u64).product::<u64>();
        let (threads, cluster) = (product(&self.block), product(&self.cluster));
        let divides = self.grid.iter().zip(&self.cluster).all(|(grid, n)| *n > 0 && grid % n == 0);
        let wrong = if self.grid[0] >= 1 << 31 || self.grid[1..].iter().any(|n| *n > 65_535) {
            format!("a grid of {:?} blocks, expected less than 2^31, 2^16, 2^16", self.grid)
        } else if !(1..=1024).contains(&threads) || self.block[2] > 64 {
            format!("blocks of {:?} threads, expected 1 to 1024 in all, at most 64 along the last", self.block)
        } else if self.shared > info.shared {
            format!("{} bytes of shared memory, a block has at most {}", self.shared, info.shared)
        } else if !divides || cluster > 8 {
            format!("clusters of {:?} in a grid of {:?} blocks: expected divisors, 8 at most", self.cluster, self.grid)
        } else if self.cluster != [1, 1, 1] && info.capability < 90 {
            format!("clusters of {:?} blocks on a device of capability {}", self.cluster, info.capability)
        } else {
            return Ok(());
        };
        Err(CudaError::Refused { kernel: self.kernel, message: wrong })
    }
}

/// The arguments of a launch: `args![x, y, n as i32]`.
#[macro_export]
macro_rules! args {
    ($($e:expr),* $(,)?) => { vec![$($crate::Arg::from($e)),*] };
}
