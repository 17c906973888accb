//! A session's sequences as rows of its states: copied, left out, given more room.

use mobilis_runtime::module::store::{Data, Entry};

/// The rows `from` of a state. Of those with `lengths` only so many positions are copied.
pub(super) fn select(entry: &mut Entry, from: &[usize], lengths: Option<&Vec<usize>>) {
    fn rows<T: Copy + Default>(all: &mut Vec<T>, sizes: &[usize], from: &[usize], lengths: Option<&Vec<usize>>) {
        let (each, slot) = extents(sizes);
        let used = |row: usize| lengths.map_or(each, |lengths| (lengths[row] * slot).min(each));
        if from.len() == sizes[0] {
            let moved = from.iter().copied().enumerate().filter(|(to, row)| to != row);
            let moved: Vec<(usize, Vec<T>)> =
                moved.map(|(to, row)| (to, all[row * each..][..used(row)].to_vec())).collect();
            moved.iter().for_each(|(to, row)| all[to * each..][..row.len()].copy_from_slice(row));
        } else {
            let mut new = vec![T::default(); from.len() * each];
            for (to, row) in from.iter().enumerate() {
                new[to * each..][..used(*row)].copy_from_slice(&all[row * each..][..used(*row)]);
            }
            *all = new;
        }
    }
    match &mut entry.data {
        Data::F32(v) => rows(v, &entry.sizes, from, lengths),
        Data::F64(v) => rows(v, &entry.sizes, from, lengths),
        Data::I32(v) => rows(v, &entry.sizes, from, lengths),
        Data::Bool(v) => rows(v, &entry.sizes, from, lengths),
        Data::Encoded(_) => unreachable!("caches are computed, not loaded"),
    }
    entry.sizes[0] = from.len();
}

/// A state with another number of slots, of which so many are used.
pub(super) fn relay(entry: &mut Entry, slots: usize, lengths: &[usize]) {
    fn rows<T: Copy + Default>(all: &mut Vec<T>, sizes: &[usize], slots: usize, lengths: &[usize]) {
        let (each, slot) = extents(sizes);
        let mut new = vec![T::default(); sizes[0] * slots * slot];
        for (row, length) in lengths.iter().enumerate() {
            let used = (length * slot).min(each);
            new[row * slots * slot..][..used].copy_from_slice(&all[row * each..][..used]);
        }
        *all = new;
    }
    match &mut entry.data {
        Data::F32(v) => rows(v, &entry.sizes, slots, lengths),
        Data::F64(v) => rows(v, &entry.sizes, slots, lengths),
        Data::I32(v) => rows(v, &entry.sizes, slots, lengths),
        Data::Bool(v) => rows(v, &entry.sizes, slots, lengths),
        Data::Encoded(_) => unreachable!("states are written by programs"),
    }
    entry.sizes[1] = slots;
}

/// How many values a sequence of a state has, and one of its positions.
fn extents(sizes: &[usize]) -> (usize, usize) {
    (sizes[1..].iter().product(), sizes.get(2..).unwrap_or_default().iter().product())
}
