//! Running sums, places of extremes and sorting.

use crate::memory::Plain;
use crate::pool::Pool;
use std::cmp::Ordering;

const GRAIN: usize = 4096;
/// How many columns running sums work on at once.
const COLUMNS: usize = 64;

/// Running sums along the middle of `[outer, n, inner]`, from the end when `reverse`, with
/// accumulators of another type: `f64` for real numbers.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn cumsum<T: Plain, A: Copy + Default>(
    pool: &Pool,
    (n, inner): (usize, usize),
    reverse: bool,
    x: &[T],
    y: &mut [T],
    add: impl Fn(A, T) -> A + Sync,
    store: impl Fn(A) -> T + Sync,
) {
    assert_eq!(x.len(), y.len(), "running sums are as many as values");
    if y.is_empty() {
        return;
    }
    let line = n * inner;
    pool.rows(y, line, (GRAIN / line).max(1), |first, block| {
        for (o, y) in block.chunks_exact_mut(line).enumerate() {
            let x = &x[(first + o) * line..][..line];
            for start in (0..inner).step_by(COLUMNS) {
                let width = COLUMNS.min(inner - start);
                let mut sums = [A::default(); COLUMNS];
                for k in 0..n {
                    let row = if reverse { n - 1 - k } else { k } * inner + start;
                    let values = y[row..row + width].iter_mut().zip(&x[row..row + width]);
                    for (sum, (y, v)) in sums.iter_mut().zip(values) {
                        *sum = add(*sum, *v);
                        *y = store(*sum);
                    }
                }
            }
        }
    });
}

/// The position of the first value along the middle of `[outer, n, inner]` that no other beats.
/// `beats(a, b)` must be false for equal values.
///
/// # Panics
/// When the slices do not have these sizes, or `n` is 0.
pub fn arg_extreme<T: Plain>(
    pool: &Pool,
    (n, inner): (usize, usize),
    x: &[T],
    y: &mut [i32],
    beats: impl Fn(T, T) -> bool + Sync,
) {
    if y.is_empty() {
        return;
    }
    assert!(n > 0 && x.len() == y.len() * n, "an extreme of each line");
    pool.rows(y, 1, (GRAIN / n).max(1), |first, y| {
        for (r, y) in y.iter_mut().enumerate() {
            let (o, c) = ((first + r) / inner, (first + r) % inner);
            let line = x[o * n * inner + c..].iter().step_by(inner).take(n);
            let mut best = (0, x[o * n * inner + c]);
            for (i, v) in line.enumerate() {
                if beats(*v, best.1) {
                    best = (i, *v);
                }
            }
            *y = best.0 as i32;
        }
    });
}

/// Whether `a` is a larger value than `b`; NaN is larger than everything else.
pub fn larger(a: f32, b: f32) -> bool {
    a > b || (a.is_nan() && !b.is_nan())
}

/// Whether `a` is a smaller value than `b`; NaN is smaller than everything else.
pub fn smaller(a: f32, b: f32) -> bool {
    a < b || (a.is_nan() && !b.is_nan())
}

/// The order of real numbers in a sort: NaN last in both directions.
pub fn real_order(a: f32, b: f32, descending: bool) -> Ordering {
    match a.partial_cmp(&b) {
        Some(up) if descending => up.reverse(),
        Some(up) => up,
        None => a.is_nan().cmp(&b.is_nan()),
    }
}

/// The positions of the `k` first values of each row of `n` in order, equal ones by position, at
/// the beginning of each row of `places`.
///
/// # Panics
/// When `places` is not as long as `x`, or `k` is larger than `n`.
pub fn sort<T: Plain>(
    pool: &Pool,
    (n, k): (usize, usize),
    x: &[T],
    places: &mut [i32],
    order: impl Fn(T, T) -> Ordering + Sync,
) {
    assert!(x.len() == places.len() && k <= n, "a place for every value");
    if places.is_empty() || k == 0 {
        return;
    }
    pool.rows(places, n, (GRAIN / n / 8).max(1), |first, block| {
        for (r, places) in block.chunks_exact_mut(n).enumerate() {
            let row = &x[(first + r) * n..][..n];
            places.iter_mut().enumerate().for_each(|(i, p)| *p = i as i32);
            // Positions break ties, so an unstable sort, which needs no memory, is stable.
            let by = |a: &i32, b: &i32| order(row[*a as usize], row[*b as usize]).then(a.cmp(b));
            if k < n {
                places.select_nth_unstable_by(k - 1, by);
            }
            places[..k].sort_unstable_by(by);
        }
    });
}

/// `y[r, i] = x[r, places[r, i]]` for the first `k` of each row of `n` places.
///
/// # Panics
/// When the slices do not have these sizes.
pub fn pick_sorted<T: Plain>(pool: &Pool, (n, k): (usize, usize), x: &[T], places: &[i32], y: &mut [T]) {
    if y.is_empty() {
        return;
    }
    pool.rows(y, k, (GRAIN / k).max(1), |first, block| {
        for (r, y) in block.chunks_exact_mut(k).enumerate() {
            let row = (first + r) * n;
            y.iter_mut().zip(&places[row..]).for_each(|(y, p)| *y = x[row + *p as usize]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_sums_both_ways() {
        let pool = Pool::new(2);
        for (outer, n, inner) in [(1, 5, 1), (3, 4, 2), (2, 3, 70), (1, 0, 2), (700, 9, 1)] {
            let x: Vec<i32> = (0..(outer * n * inner) as i32).map(|i| i * 37 % 11).collect();
            for reverse in [false, true] {
                let mut y = vec![0; x.len()];
                cumsum(&pool, (n, inner), reverse, &x, &mut y, |a: i32, v| a + v, |a| a);
                for (i, y) in y.iter().enumerate() {
                    let (c, k, o) = (i % inner, i / inner % n, i / inner / n);
                    let range = if reverse { k..n } else { 0..k + 1 };
                    assert_eq!(*y, range.map(|k| x[(o * n + k) * inner + c]).sum::<i32>());
                }
            }
        }
    }

    #[test]
    fn running_sums_keep_their_precision() {
        let x = vec![0.1f32; 1_000_000];
        let mut y = vec![0.0; x.len()];
        cumsum(&Pool::new(1), (x.len(), 1), false, &x, &mut y, |a: f64, v| a + f64::from(v), |a| a as f32);
        assert!((y[999_999] as f64 - 1e6 * 0.1f32 as f64).abs() < 1e-2);
    }

    #[test]
    fn extremes_are_the_first_and_nan_wins() {
        let pool = Pool::new(1);
        let x = [1.0, 3.0, 3.0, 2.0, f32::NAN, 5.0];
        let mut y = [9; 2];
        arg_extreme(&pool, (3, 1), &x, &mut y, larger);
        assert_eq!(y, [1, 1]);
        arg_extreme(&pool, (3, 1), &x, &mut y, smaller);
        assert_eq!(y, [0, 1]);
        let mut y = [9; 3];
        arg_extreme(&pool, (2, 3), &x, &mut y, larger);
        assert_eq!(y, [1, 1, 1]);
    }

    #[test]
    fn sorting_is_stable_with_nan_last() {
        let pool = Pool::new(2);
        let nan = f32::NAN;
        let x = [2.0, nan, 1.0, 2.0, -1.0, nan, 1.0];
        let mut places = [0; 7];
        sort(&pool, (7, 7), &x, &mut places, |a, b| real_order(a, b, false));
        assert_eq!(places, [4, 2, 6, 0, 3, 1, 5]);
        sort(&pool, (7, 7), &x, &mut places, |a, b| real_order(a, b, true));
        assert_eq!(places, [0, 3, 2, 6, 4, 1, 5]);
        sort(&pool, (7, 3), &x, &mut places, |a, b| real_order(a, b, true));
        assert_eq!(places[..3], [0, 3, 2]);
        let mut y = [0.0; 3];
        pick_sorted(&pool, (7, 3), &x, &places, &mut y);
        assert_eq!(y, [2.0, 2.0, 1.0]);
    }

    #[test]
    fn rows_are_sorted_apart() {
        let pool = Pool::new(2);
        let x: Vec<i32> = (0..3000).map(|i| (i * 7919) % 1009 % 50).collect();
        for k in [0, 1, 17, 30] {
            let mut places = vec![0; x.len()];
            sort(&pool, (30, k), &x, &mut places, |a: i32, b| a.cmp(&b));
            for (x, places) in x.chunks(30).zip(places.chunks(30)) {
                let mut pairs: Vec<(i32, i32)> = x.iter().copied().zip(0..).collect();
                pairs.sort();
                assert_eq!(places[..k], pairs.iter().map(|p| p.1).collect::<Vec<_>>()[..k]);
            }
        }
    }
}
