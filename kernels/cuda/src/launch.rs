//! A kernel with its grid and arguments, ready to run as often as one likes.

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
    /// `const __grid_constant__ TensorMap`, which the device makes of it.
    Tile(Tile),
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
    /// The arguments, in the kernel's order and exactly of its types.
    pub args: Vec<Arg>,
}

impl Launch {
    /// A launch on one-dimensional blocks.
    pub fn new(kernel: &'static str, grid: [u32; 3], threads: u32, args: Vec<Arg>) -> Launch {
        Launch { kernel, grid, block: [threads, 1, 1], shared: 0, args }
    }

    /// The same with dynamic shared memory.
    #[must_use]
    pub fn shared(mut self, bytes: u32) -> Launch {
        self.shared = bytes;
        self
    }
}

/// The arguments of a launch: `args![x, y, n as i32]`.
#[macro_export]
macro_rules! args {
    ($($e:expr),* $(,)?) => { vec![$($crate::Arg::from($e)),*] };
}
