//! Global frames of attention in windows (Longformer: Beltagy et al. 2020, <https://arxiv.org/abs/2004.05150>), as
//! NeMo's `RelPositionMultiHeadAttentionLongformer` with `global_tokens`.
//!
//! A few frames at the beginning, each `spacing` behind the one before, are seen by all frames of the recording, in one
//! softmax with those of the window and without positions; and they attend to the whole recording, which replaces
//! what they saw in their window. For both they may have products of their own (`global_attn_separate`).
//!
//! Two peculiarities are kept, since models are trained with them. A global frame that lies in a window, too, is seen
//! twice. And where there are several, NeMo lays out their queries by frames and reads them by heads: result
//! `(head, frame)` is the one of query number `head * frames + frame`, counted over frames and then heads. (In a batch NeMo
//! mixes recordings in that way; here it is always as of one alone.)

use super::attention::{scaled, where_seen};
use super::mask::{both, indices, number, over_rows, within};
use super::settings::Globals;
use mobilis_runtime::graph::trace::{Handle, type_of};
use mobilis_runtime::graph::{Dim, Extent};
use mobilis_runtime::ops::attention::{Extras, Settings, attend};
use mobilis_runtime::ops::elementwise::{self as ew, BinaryKind, CompareKind};
use mobilis_runtime::ops::pad::pad_zeros;
use mobilis_runtime::ops::{contraction, leaf, movement, reduce, slice};

/// What attention needs of a batch's global frames.
pub(super) struct Global {
    globals: Globals,
    /// `[Batch, T, Heads, HeadDim]`: of all frames, to meet global ones; of global ones, to meet all.
    queries: Handle,
    keys: Handle,
    values: Handle,
    /// `[Batch, G, Heads, HeadDim]`: keys of the global frames, and what others see of them.
    theirs: [Handle; 2],
    /// `[Batch, G]`: which of them there are.
    there: Handle,
}

/// What a window sees beside its own keys.
pub(super) struct Beside {
    /// `[rows, Heads, queries, G]`: whole scores.
    bias: Handle,
    /// `[rows, G, Heads, HeadDim]`
    values: Handle,
}

impl Global {
    /// Queries, keys and values of all frames as global frames meet them, and the values that windows see, each `[Batch,
    /// T, Heads, HeadDim]`.
    pub(super) fn new(globals: Globals, [queries, keys, values]: [Handle; 3], seen: Handle, lengths: Handle) -> Global {
        let dims = vec![type_of(seen).dims[0].clone(), Dim::fixed(globals.count as u64)];
        let place = ew::mul(leaf::iota(1, &indices(&dims)), number(globals.spacing as i64, &dims));
        let there = ew::compare(CompareKind::Lt, place, over_rows(lengths, &dims));
        let theirs = [keys, seen].map(|x| picked(&globals, x));
        Global { globals, queries, keys, values, theirs, there }
    }

    /// Beside whole recordings.
    pub(super) fn beside_all(&self) -> Beside {
        beside(self.queries, self.theirs, self.there)
    }

    /// Beside windows: queries in blocks `[rows, queries, ..]`, `count` of them of each recording.
    pub(super) fn beside(&self, blocks: &dyn Fn(Handle) -> Handle, count: &Dim, rows: &Dim) -> Beside {
        let each = |x: Handle| {
            let mut dims = type_of(x).dims;
            dims.insert(1, count.clone());
            let wide = reduce::restore(x, &dims, &[1]);
            dims.splice(0..2, [rows.clone()]);
            movement::reshape(wide, dims)
        };
        beside(blocks(self.queries), self.theirs.map(each), each(self.there))
    }

    /// What frames saw, `[Batch, T, Heads, HeadDim]`, with what global frames see of the whole in their places.
    pub(super) fn over(&self, seen: Handle, lengths: Handle, dropped: (Settings, Extras<Handle>)) -> Handle {
        let dims = type_of(seen).dims;
        let [batch, frames, heads, width] = [0, 1, 2, 3].map(|i| dims[i].clone());
        let Globals { count, spacing, .. } = self.globals;
        let [few, step] = [count, spacing].map(|n| Dim::fixed(n as u64));
        let queries = picked(&self.globals, self.queries);
        let by_heads = vec![batch.clone(), heads.clone(), few.clone(), width.clone()];
        let queries = movement::permute(movement::reshape(queries, by_heads), &[0, 2, 1, 3]);
        let (settings, mut extras) = dropped;
        let keys = vec![batch.clone(), Dim::anonymous(frames.extent.clone())];
        extras.mask = Some((within(lengths, &keys, 1), vec![0, 3]));
        let own = attend(queries, self.keys, self.values, settings, extras).0;
        // Each at its place, zeros behind it.
        let constant = |n: usize| Extent::constant(n as u64);
        let spread = vec![batch.clone(), few.clone(), Dim::fixed(1), heads.clone(), width.clone()];
        let own = pad_zeros(movement::reshape(own, spread), 2, constant(0), constant(spacing - 1), step);
        let all = Dim::fixed((count * spacing) as u64);
        let own = movement::reshape(own, vec![batch, all.clone(), heads, width]);
        let long = Dim::anonymous(Extent::add(all.extent, frames.extent.clone()));
        let own = pad_zeros(own, 1, constant(0), frames.extent.clone(), long);
        let own = slice::slice(own, 1, constant(0), 1, frames);
        let place = leaf::iota(1, &indices(&dims));
        let at = ew::binary(BinaryKind::Rem, place, number(spacing as i64, &dims));
        let first = ew::compare(CompareKind::Lt, place, number((count * spacing) as i64, &dims));
        let global = both(ew::compare(CompareKind::Eq, at, number(0, &dims)), first);
        ew::select(global, own, seen)
    }
}

/// The global frames of `[Batch, T, ..]`: zeros where a recording has none.
fn picked(globals: &Globals, x: Handle) -> Handle {
    let frames = type_of(x).dims[1].extent.clone();
    let reach = Extent::constant(((globals.count - 1) * globals.spacing + 1) as u64);
    let long = Dim::anonymous(Extent::add(frames, reach.clone()));
    let long = pad_zeros(x, 1, Extent::constant(0), reach, long);
    slice::slice(long, 1, Extent::constant(0), globals.spacing as u64, Dim::fixed(globals.count as u64))
}

fn beside(queries: Handle, [keys, values]: [Handle; 2], there: Handle) -> Beside {
    let width = type_of(keys).dims[3].extent.clone();
    let scores = contraction::einsum(&[queries, keys], &[b"bthd", b"bghd"], b"bhtg");
    Beside { bias: where_seen(there, scaled(scores, width), &[1, 2]), values }
}

impl Beside {
    /// Keys, values and biases with these before them: keys of zeros, so that the bias alone is the score.
    pub(super) fn before(self, k: Handle, v: Handle, bias: Handle) -> (Handle, Handle, Handle) {
        let joined = |own: Handle, others: Handle, axis: usize| {
            let [a, b] = [own, others].map(|h| type_of(h).dims[axis].extent.clone());
            slice::concat(&[own, others], axis, Dim::anonymous(Extent::add(a, b)))
        };
        let zeros = leaf::fill(0.0, type_of(self.values));
        (joined(zeros, k, 1), joined(self.values, v, 1), joined(self.bias, bias, 3))
    }
}
