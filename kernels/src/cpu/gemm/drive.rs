//! The driver: slabs and tasks.
//!
//! A *region* is one slab of K, some rows and some panels of columns. Its tasks are handed out from
//! a counter: packing B, packing A, then the blocks of C. Whoever gets a block waits until all
//! packing is done; as tasks are begun in order, every packing task is then in somebody's hands, and
//! on one thread nobody ever waits.

use super::cut::{Cut, Sizes, Slab, any_plain, grid, panels, part, threads};
use super::micro::{LARGEST, Micro, Tile, micro};
use super::pack::{Source, pack_panels, pack_tiles};
use super::{Columns, Finished, Job, Matrix, Right};
use crate::pool::Pool;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) fn scratch_len(m: usize, k: usize, n: impl IntoIterator<Item = usize>, plain: bool) -> usize {
    let micro = micro();
    let panels = n.into_iter().map(|n| n.div_ceil(micro.nr)).sum();
    Sizes::new(micro, m, k, panels, plain).scratch(micro)
}

/// A part of a product that is packed and multiplied at once.
struct Region<'a> {
    micro: &'a Micro,
    x: Job<'a>,
    slab: Slab,
    /// The first row, and rows.
    rows: (usize, usize),
    /// The first panel of all columns, and panels.
    panels: (usize, usize),
    /// Parts of the rows and of the panels.
    grid: (usize, usize),
    /// Whether the panels of B are packed by this region.
    packs: bool,
    /// Whether the rows of A are packed already.
    kept: bool,
    /// Whether plain right sides are read where they lie.
    direct: bool,
    a: *mut f32,
    b: *mut f32,
}
// SAFETY: tasks write disjoint parts of the packed matrices and of C, and read what is packed only
// after all packing.
unsafe impl Sync for Region<'_> {}

/// A panel of one of the results.
struct Panel<'a> {
    result: usize,
    of: &'a Columns<'a>,
    /// Its number there.
    q: usize,
    /// The first column, and columns.
    j: usize,
    w: usize,
    /// Packed columns of the region before it.
    spot: usize,
}

/// Computes `x`.
///
/// # Safety
/// All elements lie in their allocations, and those of the results are distinct and touched by
/// nobody else. The processor has the kernels' instructions.
pub(super) unsafe fn drive(pool: &Pool, micro: &Micro, x: &Job, scratch: &mut [f32]) {
    let (all, n) = (panels(micro, x.right), x.right.iter().map(|c| c.n).sum::<usize>());
    if x.m == 0 || all == 0 {
        return;
    }
    let k = x.left.iter().map(|l| l.k).sum::<usize>();
    let direct = x.right.iter().all(|c| reads_in_place(x, c));
    let sizes = Sizes::new(micro, x.m, k, all, any_plain(x.right) && !direct);
    assert!(scratch.len() >= sizes.scratch(micro), "a product needs {} floats of scratch", sizes.scratch(micro));
    let b = scratch.as_mut_ptr();
    let b = b.wrapping_add(b.align_offset(64).min(16));
    let a = b.wrapping_add(sizes.b(micro));
    let threads = threads(pool.threads(), x.m, n, k);
    for q in (0..all).step_by(sizes.panels) {
        let panels = (q, sizes.panels.min(all - q));
        let mut first = 0;
        loop {
            let slab = Slab::from(x.left, first);
            for i in (0..x.m).step_by(sizes.rows) {
                let rows = (i, sizes.rows.min(x.m - i));
                let mut grid = grid(micro, rows.1, sizes.panels, slab.k, threads);
                grid.1 = grid.1.min(panels.1);
                let packs = sizes.packs && i == 0;
                // All of A may still lie packed from the first panels.
                let kept = q > 0 && sizes.rows >= x.m && first == 0 && slab.last;
                // SAFETY: the caller's promise is passed on, and the scratch was measured.
                unsafe {
                    Region { micro, x: *x, slab, rows, panels, grid, packs, kept, direct, a, b }.run(pool, threads)
                };
            }
            if slab.last {
                break;
            }
            first += slab.count;
        }
    }
}

/// Whether a result's right sides are small enough to be read where they lie: packing them would
/// cost more than reading rows that are apart, and they fit into the second cache as they are.
fn reads_in_place(x: &Job, of: &Columns) -> bool {
    let small = |at: &Matrix, k: usize| at.col == 1 && at.row <= 512 && k * of.n <= 1 << 15 && x.m <= 256;
    of.b.iter().zip(x.left).all(|(b, left)| matches!(b, Right::Plain(_, at) if small(at, left.k)))
}

impl<'a> Region<'a> {
    /// # Safety
    /// As of [`drive`].
    unsafe fn run(&self, pool: &Pool, threads: usize) {
        // Panels of B are packed some at a time, blocks of A as the grid has them.
        let each = self.panels.1.div_ceil(4 * threads).clamp(1, 8);
        let b_tasks = if self.packs { self.panels.1.div_ceil(each) } else { 0 };
        let packing = b_tasks + if self.kept { 0 } else { self.grid.0 };
        let tasks = packing + self.grid.0 * self.grid.1;
        let (next, packed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        pool.run(threads, &|_| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                // SAFETY: by the caller's promise; each task is begun once.
                unsafe {
                    if task < b_tasks {
                        self.pack_b(task * each, self.panels.1.min((task + 1) * each));
                    } else if task < packing {
                        self.pack_a(task - b_tasks);
                    } else {
                        wait(&packed, packing);
                        self.block((task - packing) / self.grid.1, (task - packing) % self.grid.1);
                    }
                }
                if task < packing {
                    packed.fetch_add(1, Ordering::Release);
                }
            }
        });
    }

    /// Where a panel of all columns lies.
    fn panel(&self, q: usize) -> Panel<'a> {
        let (mut before, q, nr) = (0, self.panels.0 + q, self.micro.nr);
        for (result, of) in self.x.right.iter().enumerate() {
            let count = of.n.div_ceil(nr);
            if q < before + count {
                let q = q - before;
                let (j, w) = self.micro.panel(of.n, q);
                // Packed columns follow those of the matrix's first panel in the region.
                let first = self.panels.0.saturating_sub(before);
                let spot = (before + first - self.panels.0) * nr + j - self.micro.panel(of.n, first).0;
                return Panel { result, of, q, j, w, spot };
            }
            before += count;
        }
        unreachable!("panels are numbered through the results")
    }

    /// Packs the panels `q..end` of the region for all blocks of the slab.
    ///
    /// # Safety
    /// As of [`drive`]; each panel once.
    unsafe fn pack_b(&self, mut q: usize, end: usize) {
        while q < end {
            let panel = self.panel(q);
            let n = panel.of.n;
            let count = (n.div_ceil(self.micro.nr) - panel.q).min(end - q);
            for cut in self.slab.cuts(self.x.left) {
                let Right::Plain(data, at) = panel.of.b[cut.term] else { continue };
                let from = data.as_ptr().wrapping_add(cut.k0 * at.row + panel.j * at.col);
                let from = Source { at: from, deep: at.row, wide: at.col };
                // SAFETY: the panels lie in their matrix and in the scratch.
                unsafe { pack_panels(self.micro, from, cut.k, n, panel.q, panel.q + count, self.spot(&panel, &cut)) };
            }
            q += count;
        }
    }

    /// Where a block of a panel is packed.
    fn spot(&self, panel: &Panel, cut: &Cut) -> *mut f32 {
        self.b.wrapping_add(cut.at * self.panels.1 * self.micro.nr + panel.spot * cut.k)
    }

    /// Packs a part of the rows for all blocks of the slab, tile by tile.
    ///
    /// # Safety
    /// As of [`drive`]; each part once.
    unsafe fn pack_a(&self, index: usize) {
        let (i0, rows) = part(self.rows.1, self.grid.0, index);
        for cut in self.slab.cuts(self.x.left) {
            let left = &self.x.left[cut.term];
            let to = self.a.wrapping_add(i0 * self.slab.k + rows * cut.at);
            let at = (self.rows.0 + i0) * left.at.row + cut.k0 * left.at.col;
            let from = Source { at: left.data.as_ptr().wrapping_add(at), deep: left.at.col, wide: left.at.row };
            // SAFETY: the rows lie in their matrix and in the scratch.
            unsafe { pack_tiles(self.micro, from, cut.k, rows, to) };
        }
    }

    /// Computes a block of the grid.
    ///
    /// # Safety
    /// As of [`drive`]; each block once, after all packing.
    unsafe fn block(&self, row: usize, column: usize) {
        let (i0, rows) = part(self.rows.1, self.grid.0, row);
        let (q0, count) = part(self.panels.1, self.grid.1, column);
        for cut in self.slab.cuts(self.x.left) {
            let a = self.a.wrapping_add(i0 * self.slab.k + rows * cut.at);
            let fresh = !self.x.accumulate && self.slab.first == 0 && cut.term == 0 && cut.k0 == 0;
            for q in q0..q0 + count {
                let panel = self.panel(q);
                let mut b_row = self.micro.row(panel.w);
                let b = match panel.of.b[cut.term] {
                    Right::Packed(p) => p.data.as_ptr().wrapping_add(cut.k0 * self.micro.row(p.n) + panel.j * cut.k),
                    Right::Plain(data, at) if self.direct => {
                        b_row = at.row;
                        data.as_ptr().wrapping_add(cut.k0 * at.row + panel.j)
                    }
                    Right::Plain(..) => self.spot(&panel, &cut),
                    Right::Rounded(_) => unreachable!("`product` gives those to `quant`"),
                };
                for t in 0..rows.div_ceil(self.micro.mr) {
                    let (i, h) = self.micro.rows(rows, t);
                    // The first tiles fetch the next panel.
                    let next = b.wrapping_add(cut.k * self.micro.nr + (16 * t * cut.k).min(cut.k * self.micro.nr));
                    let a = a.wrapping_add(i * cut.k);
                    let (c, from) = (std::ptr::null_mut(), std::ptr::null());
                    let tile = Tile {
                        h,
                        w: panel.w,
                        k: cut.k,
                        a,
                        b,
                        b_row,
                        whole: !self.direct,
                        next,
                        c,
                        c_row: 0,
                        from,
                        from_row: 0,
                    };
                    // SAFETY: the tile lies in the block.
                    unsafe { self.tile(&panel, self.rows.0 + i0 + i, tile, fresh) };
                }
            }
        }
        if let Some(after) = self.x.after.filter(|_| self.slab.last) {
            let rows = self.rows.0 + i0..self.rows.0 + i0 + rows;
            let mut q = q0;
            while q < q0 + count {
                let panel = self.panel(q);
                let panels = (panel.of.n.div_ceil(self.micro.nr) - panel.q).min(q0 + count - q);
                let last = self.micro.panel(panel.of.n, panel.q + panels - 1);
                let columns = panel.j..last.0 + last.1;
                let (at, result) = (panel.of.at, panel.result);
                let c = panel.of.c.wrapping_add(rows.start * at.row + columns.start * at.col);
                after(&mut Finished { result, rows: rows.clone(), columns, c, at, life: PhantomData });
                q += panels;
            }
        }
    }

    /// Computes a tile that begins at row `i` of a panel's columns; its place in C is found here.
    ///
    /// # Safety
    /// As of [`drive`]; the tile is this task's.
    #[inline]
    unsafe fn tile(&self, panel: &Panel, i: usize, t: Tile, fresh: bool) {
        let Columns { at, bias, .. } = *panel.of;
        let c = panel.of.c.wrapping_add(i * at.row + panel.j * at.col);
        let bias = bias.map_or(std::ptr::null(), |b| b.as_ptr().wrapping_add(panel.j));
        let (h, w) = (t.h, t.w);
        // SAFETY: by the caller's promise.
        unsafe {
            if at.col == 1 || w == 1 {
                let (from, from_row) = if fresh { (bias, 0) } else { (c.cast_const(), at.row) };
                return (self.micro.tile)(&Tile { c, c_row: at.row, from, from_row, ..t });
            }
            // A result whose rows are not vectors is written from a copy.
            let mut copy = [0f32; LARGEST];
            let from = if fresh { bias } else { std::ptr::null() };
            (self.micro.tile)(&Tile { c: copy.as_mut_ptr(), c_row: w, from, from_row: 0, ..t });
            scatter(&copy, h, w, c, at, !fresh);
        }
    }
}

/// Writes or adds `h` rows of `w` values to elements with strides.
///
/// # Safety
/// The elements can be written.
unsafe fn scatter(copy: &[f32], h: usize, w: usize, c: *mut f32, at: Matrix, add: bool) {
    for j in 0..w {
        for i in 0..h {
            // SAFETY: by the caller's promise.
            unsafe {
                let to = c.add(i * at.row + j * at.col);
                *to = if add { *to + copy[i * w + j] } else { copy[i * w + j] };
            }
        }
    }
}

/// Waits until `count` tasks are done.
fn wait(done: &AtomicUsize, count: usize) {
    let mut spins = 0usize;
    while done.load(Ordering::Acquire) < count {
        spins += 1;
        if spins > 2_000 { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}
