//! Places in the arena, from lifetimes.
//!
//! Buffers are placed in the order in which they come to life, each in the smallest gap that
//! holds it; gaps that touch are joined. A buffer may take over the place of one that dies where
//! it is made (an operation in place). Where that leaves many gaps, buffers are placed anew, the
//! largest first (as by Pisarchyk and Lee 2020), and the smaller arena is taken.

use mobilis_kernels::memory::ALIGN;

/// A buffer's size and life, in node numbers, both ends included.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its size.
    pub bytes: usize,
    /// Where it is made.
    pub first: usize,
    /// Where it is last used.
    pub last: usize,
    /// A buffer whose place it may take if that one dies where this one is made.
    pub heir_of: Option<usize>,
}

/// Where every buffer lies.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Offset and bytes of each buffer.
    pub places: Vec<(usize, usize)>,
    /// The size of the arena.
    pub total: usize,
    /// The largest sum of bytes alive at once.
    pub lower_bound: usize,
}

/// How much larger than its bound an arena may be, in percent, before another order is tried.
const SLACK: usize = 3;

/// Finds places for all buffers.
pub fn plan(lives: &[Life]) -> Plan {
    let plan = by_time(lives);
    if plan.total <= plan.lower_bound + plan.lower_bound * SLACK / 100 {
        return plan;
    }
    let (places, total) = by_size(lives);
    if total < plan.total { Plan { places, total, ..plan } } else { plan }
}

fn round(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Places for the largest buffers first, each in the smallest gap between those that are alive
/// with it; and the size of the arena.
fn by_size(lives: &[Life]) -> (Vec<(usize, usize)>, usize) {
    // A buffer and what takes its place over are one, with the lives of both.
    let mut owner: Vec<usize> = (0..lives.len()).collect();
    let mut spans: Vec<(usize, usize)> = lives.iter().map(|l| (l.first, l.last)).collect();
    let mut inherited = vec![false; lives.len()];
    for (i, life) in lives.iter().enumerate() {
        let same = |p: &usize| lives[*p].last == life.first && round(lives[*p].bytes) == round(life.bytes);
        if let Some(p) = life.heir_of.filter(|p| *p < i && same(p) && !inherited[*p]) {
            inherited[p] = true;
            owner[i] = owner[p];
            spans[owner[p]].1 = spans[owner[p]].1.max(life.last);
        }
    }
    let mut order: Vec<usize> = (0..lives.len()).filter(|i| owner[*i] == *i && lives[*i].bytes > 0).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(round(lives[*i].bytes)), lives[*i].first));
    let mut offsets = vec![0usize; lives.len()];
    // What has a place, by offset.
    let mut placed: Vec<usize> = vec![];
    let mut total = 0;
    for i in order {
        let need = round(lives[i].bytes);
        let (mut best, mut end) = (None, 0usize);
        for j in placed.iter().copied().filter(|j| spans[*j].0 <= spans[i].1 && spans[i].0 <= spans[*j].1) {
            let gap = offsets[j].saturating_sub(end);
            if gap >= need && best.is_none_or(|(size, _)| gap < size) {
                best = Some((gap, end));
            }
            end = end.max(offsets[j] + round(lives[j].bytes));
        }
        offsets[i] = best.map_or(end, |(_, at)| at);
        total = total.max(offsets[i] + need);
        placed.insert(placed.partition_point(|j| offsets[*j] <= offsets[i]), i);
    }
    ((0..lives.len()).map(|i| (offsets[owner[i]], lives[i].bytes)).collect(), total)
}

/// Places for buffers as they come to life.
fn by_time(lives: &[Life]) -> Plan {
    let end = lives.iter().map(|l| l.first + 1).max().unwrap_or(0);
    let mut born: Vec<Vec<usize>> = vec![vec![]; end];
    for (i, life) in lives.iter().enumerate() {
        born[life.first].push(i);
    }
    let mut places = vec![(0, 0); lives.len()];
    // Free ranges, by offset; everything beyond `total` is free too.
    let mut free: Vec<(usize, usize)> = vec![];
    let mut total = 0;
    let mut alive: Vec<usize> = vec![];
    let mut lower_bound = 0;
    for (time, born) in born.iter().enumerate() {
        for i in born {
            let need = round(lives[*i].bytes);
            let parent = lives[*i]
                .heir_of
                .filter(|p| lives[*p].last == time && round(lives[*p].bytes) == need && alive.contains(p));
            let offset = match parent {
                Some(p) => {
                    alive.retain(|a| *a != p);
                    places[p].0
                }
                None => take(&mut free, &mut total, need),
            };
            places[*i] = (offset, lives[*i].bytes);
            alive.push(*i);
        }
        lower_bound = lower_bound.max(alive.iter().map(|a| round(lives[*a].bytes)).sum());
        alive.retain(|a| {
            let lives_on = lives[*a].last > time;
            if !lives_on {
                give(&mut free, places[*a].0, round(lives[*a].bytes));
            }
            lives_on
        });
    }
    Plan { places, total, lower_bound }
}

/// The smallest free range that holds `need`, else one at the end.
fn take(free: &mut Vec<(usize, usize)>, total: &mut usize, need: usize) -> usize {
    if need == 0 {
        return 0;
    }
    let best = (0..free.len()).filter(|i| free[*i].1 >= need).min_by_key(|i| free[*i].1);
    if let Some(i) = best {
        let (offset, size) = free[i];
        if size == need {
            free.remove(i);
        } else {
            free[i] = (offset + need, size - need);
        }
        return offset;
    }
    // A gap that ends at the arena's end grows.
    if let Some((offset, size)) = free.last().copied()
        && offset + size == *total
    {
        free.pop();
        *total = offset + need;
        return offset;
    }
    *total += need;
    *total - need
}

fn give(free: &mut Vec<(usize, usize)>, offset: usize, size: usize) {
    if size == 0 {
        return;
    }
    let at = free.partition_point(|f| f.0 < offset);
    free.insert(at, (offset, size));
    if at + 1 < free.len() && free[at].0 + free[at].1 == free[at + 1].0 {
        free[at].1 += free.remove(at + 1).1;
    }
    if at > 0 && free[at - 1].0 + free[at - 1].1 == free[at].0 {
        free[at - 1].1 += free.remove(at).1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(bytes: usize, first: usize, last: usize) -> Life {
        Life { bytes, first, last, heir_of: None }
    }

    #[test]
    fn lives_that_overlap_have_places_that_do_not() {
        // A reproducible jumble of lives.
        let lives: Vec<Life> =
            (0..200usize).map(|i| life((i * 7919) % 1000, (i * 31) % 50, (i * 31) % 50 + (i * 17) % 9)).collect();
        let (first, sized) = (by_time(&lives), by_size(&lives));
        for places in [&first.places, &sized.0] {
            for (i, a) in lives.iter().enumerate() {
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    let together = a.first <= b.last && b.first <= a.last && a.bytes > 0 && b.bytes > 0;
                    let (p, q) = (places[i], places[j]);
                    assert!(!together || p.0 + p.1 <= q.0 || q.0 + q.1 <= p.0, "{i} and {j} overlap");
                }
            }
        }
        let best = plan(&lives);
        assert_eq!(best.total, first.total.min(sized.1));
        let (total, bound) = (best.total, best.lower_bound);
        assert!(
            total >= bound && 100 * total <= 115 * bound,
            "{total} bytes, {} in time, at least {bound}",
            first.total
        );
    }

    #[test]
    fn the_largest_first_leaves_no_hole_for_what_comes_late() {
        // In the order of time, what is small stands where what is large could have come back.
        let lives = [life(640, 0, 1), life(64, 1, 5), life(704, 2, 5), life(640, 2, 2)];
        assert!(plan(&lives).total <= by_time(&lives).total);
        let heirs = [life(640, 0, 2), Life { heir_of: Some(0), ..life(640, 2, 4) }, life(64, 1, 4)];
        let (places, total) = by_size(&heirs);
        assert_eq!((places[0].0, places[1].0, total), (0, 0, 704));
    }

    #[test]
    fn a_chain_needs_two_buffers_and_in_place_one() {
        let chain = |heirs: bool| -> Vec<Life> {
            (0..10).map(|i| Life { heir_of: (heirs && i > 0).then(|| i - 1), ..life(64, i, i + 1) }).collect()
        };
        assert_eq!(plan(&chain(false)).total, 128);
        assert_eq!(plan(&chain(true)).total, 64);
    }
}
