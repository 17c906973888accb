//! How a product is cut.
//!
//! K falls into *blocks* of at most [`KC`], by its size alone: each element of C is the sum of its
//! blocks' sums, whatever else is decided. As many blocks as fit make a *slab*; slabs of A and B
//! are packed whole, rows and columns cut so that both stay within the last cache, and then all
//! threads take blocks of C from a *grid*.

use super::micro::Micro;
use super::{Columns, Left, Right};

/// The largest block of K: a panel of A (8 x 384 floats) stays in the first cache, a panel of B and
/// a task's block of A in the second.
pub(super) const KC: usize = 384;
/// The depth of a slab, at most: what is packed is read again while it is near (measured against 1152
/// and 2048, which are some percent slower where B is large).
pub(super) const SLAB: usize = 768;
/// Floats of packed A at most: 4 MiB.
const A_FLOATS: usize = 1 << 20;
/// Floats of packed B at most: 4 MiB.
const B_FLOATS: usize = 1 << 20;
/// Rows of a task: their block of A takes a fifth of a second cache of 1 MiB.
const TASK_ROWS: usize = 128;
/// Columns of a task.
const TASK_COLUMNS: usize = 384;
/// Multiply-adds below which a task is not worth splitting further (some ten microseconds).
const TASK_WORK: usize = 1 << 18;

/// The blocks of one K: where each begins, and its length. A K of 0 has one empty block.
pub(super) fn blocks(k: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = k.div_ceil(k.div_ceil(KC).max(1)).next_multiple_of(8).max(1);
    (0..k.div_ceil(size).max(1)).map(move |b| (b * size, size.min(k - b * size)))
}

/// A block of K of one of several summed products.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// The product.
    pub term: usize,
    /// The first row of its right side.
    pub k0: usize,
    /// The length.
    pub k: usize,
    /// Distance from the slab's beginning.
    pub at: usize,
}

/// A slab: some blocks of K.
#[derive(Clone, Copy)]
pub(super) struct Slab {
    pub first: usize,
    pub count: usize,
    /// The sum of their lengths.
    pub k: usize,
    /// Whether it is the last.
    pub last: bool,
}

impl Slab {
    /// The blocks.
    pub fn cuts<'a>(&self, left: &'a [Left<'a>]) -> impl Iterator<Item = Cut> + 'a {
        let all = left.iter().enumerate().flat_map(|(term, l)| blocks(l.k).map(move |(k0, k)| (term, k0, k)));
        let mut at = 0;
        all.skip(self.first).take(self.count).map(move |(term, k0, k)| {
            at += k;
            Cut { term, k0, k, at: at - k }
        })
    }

    /// The slab from block `first` on.
    pub fn from(left: &[Left], first: usize) -> Slab {
        let all = left.iter().flat_map(|l| blocks(l.k));
        let (mut slab, mut total) = (Slab { first, count: 0, k: 0, last: true }, 0);
        for (_, k) in all.skip(first) {
            if slab.count > 0 && total + k > SLAB {
                slab.last = false;
                break;
            }
            slab.count += 1;
            total += k;
        }
        slab.k = total;
        slab
    }
}

/// The sizes of what is packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// The deepest slab.
    pub k: usize,
    /// Rows of A packed at once.
    pub rows: usize,
    /// Panels of B taken at once.
    pub panels: usize,
    /// Whether any of B is packed here.
    pub packs: bool,
}

impl Sizes {
    pub fn new(micro: &Micro, m: usize, k: usize, panels: usize, packs: bool) -> Sizes {
        let k = k.min(SLAB);
        let rows = (A_FLOATS / k.max(1)).max(micro.mr).min(m);
        let all = panels;
        // In equal parts: a last one of few panels would pay for all of A.
        let windows = if packs { all.div_ceil((B_FLOATS / (k.max(1) * micro.nr)).max(1)) } else { 1 };
        let panels = all.div_ceil(windows.max(1));
        Sizes { k, rows, panels: panels.min(all).max(1), packs }
    }

    /// Floats of packed B.
    pub fn b(&self, micro: &Micro) -> usize {
        if self.packs { self.k * self.panels * micro.nr } else { 0 }
    }

    /// Floats of both, and some for whole cache lines.
    pub fn scratch(&self, micro: &Micro) -> usize {
        self.b(micro) + self.k * self.rows + 16 * self.rows.clamp(1, 8)
    }
}

/// Panels of all columns.
pub(super) fn panels(micro: &Micro, right: &[Columns]) -> usize {
    right.iter().map(|c| c.n.div_ceil(micro.nr)).sum()
}

/// Whether a right side is packed on the way.
pub(super) fn any_plain(right: &[Columns]) -> bool {
    right.iter().any(|c| c.b.iter().any(|b| matches!(b, Right::Plain(..))))
}

/// Part `i` of `count` nearly equal parts of `n`: its beginning and length.
pub(super) fn part(n: usize, count: usize, i: usize) -> (usize, usize) {
    let (size, longer) = (n / count, n % count);
    (i * size + i.min(longer), size + (i < longer) as usize)
}

/// The grid of tasks: parts of the rows and of the panels. It shapes the work and no result.
pub(super) fn grid(micro: &Micro, rows: usize, panels: usize, k: usize, threads: usize) -> (usize, usize) {
    let mut by_rows = rows.div_ceil(TASK_ROWS);
    let mut by_panels = panels.div_ceil(TASK_COLUMNS / micro.nr);
    if threads == 1 {
        return (by_rows, by_panels);
    }
    let work = rows * panels * micro.nr * k;
    while by_rows * by_panels < 4 * threads && work / (by_rows * by_panels) > 2 * TASK_WORK {
        // Rows first, while a panel of B still serves four tiles.
        if rows / by_rows >= 8 * micro.mr {
            by_rows *= 2;
        } else if panels / by_panels >= 2 {
            by_panels *= 2;
        } else if rows / by_rows >= 2 * micro.mr {
            by_rows *= 2;
        } else {
            break;
        }
    }
    // Equal tasks in whole rounds of the threads.
    if !(by_rows * by_panels).is_multiple_of(threads) && by_rows * by_panels > 1 {
        if rows / by_rows.next_multiple_of(threads) >= 2 * micro.mr {
            by_rows = by_rows.next_multiple_of(threads);
        } else {
            by_panels = by_panels.next_multiple_of(threads).min(panels);
        }
    }
    (by_rows, by_panels)
}

/// The number of threads that a region pays for: a quarter of a million multiply-adds each.
pub(super) fn threads(available: usize, m: usize, n: usize, k: usize) -> usize {
    available.min(m.saturating_mul(n).saturating_mul(k) >> 18).max(1)
}
