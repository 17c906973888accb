//! Values picked and added by indices along the middle of `[outer, n, inner]`.
//!
//! All indices are checked before anything is written. Adding is parallel over the places that
//! are added to, never over what is added, so sums are taken in the order of the indices and do
//! not depend on the number of threads.

use crate::memory::Plain;
use crate::pool::Pool;

/// The first index that is not in `0..n`, in words.
///
/// # Errors
/// An index out of range.
pub fn check(ids: &[i32], n: usize) -> Result<(), String> {
    // Negative indices become large ones.
    let outside = |i: &&i32| **i as u32 as usize >= n || **i < 0;
    match ids.iter().find(outside) {
        Some(i) => Err(format!("index {i} is out of range for an axis of {n} values")),
        None => Ok(()),
    }
}

const GRAIN: usize = 4096;

/// `y[o, j, :] = x[o, ids[j], :]`
///
/// # Errors
/// An index out of range.
pub fn take<T: Plain>(
    pool: &Pool,
    (n, inner): (usize, usize),
    x: &[T],
    ids: &[i32],
    y: &mut [T],
) -> Result<(), String> {
    check(ids, n)?;
    if y.is_empty() {
        return Ok(());
    }
    pool.rows(y, inner, (GRAIN / inner).max(1), |first, block| {
        for (r, row) in block.chunks_exact_mut(inner).enumerate() {
            let (o, j) = ((first + r) / ids.len(), (first + r) % ids.len());
            row.copy_from_slice(&x[(o * n + ids[j] as usize) * inner..][..inner]);
        }
    });
    Ok(())
}

/// `y[o, j, i] = x[o, ids[o, j, i], i]`, where `j` runs over `picks` places.
///
/// # Errors
/// An index out of range.
pub fn gather<T: Plain>(
    pool: &Pool,
    (n, picks, inner): (usize, usize, usize),
    x: &[T],
    ids: &[i32],
    y: &mut [T],
) -> Result<(), String> {
    check(ids, n)?;
    if y.is_empty() {
        return Ok(());
    }
    pool.rows(y, inner, (GRAIN / inner).max(1), |first, block| {
        for (r, row) in block.chunks_exact_mut(inner).enumerate() {
            let x = &x[(first + r) / picks * n * inner..][..n * inner];
            let ids = &ids[(first + r) * inner..];
            for (c, (y, id)) in row.iter_mut().zip(ids).enumerate() {
                *y = x[*id as usize * inner + c];
            }
        }
    });
    Ok(())
}

/// Calls `f(o, places, rows)` with blocks of rows of `y[outer, n, inner]`: the rows `places` of
/// outer number `o`.
fn targets(
    pool: &Pool,
    (n, inner): (usize, usize),
    y: &mut [f32],
    f: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync,
) {
    if y.is_empty() {
        return;
    }
    pool.rows(y, inner, (GRAIN / inner).max(1), |first, block| {
        let (mut row, mut rest) = (first, block);
        while !rest.is_empty() {
            let (o, i) = (row / n, row % n);
            let count = (rest.len() / inner).min(n - i);
            let (now, later) = rest.split_at_mut(count * inner);
            f(o, i..i + count, now);
            (row, rest) = (row + count, later);
        }
    });
}

/// `y[o, ids[j], :] += source[o, j, :]`
///
/// # Errors
/// An index out of range; nothing is added then.
pub fn take_add(
    pool: &Pool,
    (n, inner): (usize, usize),
    ids: &[i32],
    source: &[f32],
    y: &mut [f32],
) -> Result<(), String> {
    check(ids, n)?;
    targets(pool, (n, inner), y, |o, places, rows| {
        for (j, id) in ids.iter().enumerate() {
            if places.contains(&(*id as usize)) {
                let row = &mut rows[(*id as usize - places.start) * inner..][..inner];
                let source = &source[(o * ids.len() + j) * inner..];
                row.iter_mut().zip(source).for_each(|(y, v)| *y += v);
            }
        }
    });
    Ok(())
}

/// `y[o, ids[o, j, i], i] += source[o, j, i]`, where `j` runs over `picks` places.
///
/// # Errors
/// An index out of range; nothing is added then.
pub fn scatter_add(
    pool: &Pool,
    (n, picks, inner): (usize, usize, usize),
    ids: &[i32],
    source: &[f32],
    y: &mut [f32],
) -> Result<(), String> {
    check(ids, n)?;
    targets(pool, (n, inner), y, |o, places, rows| {
        let block = o * picks * inner..(o + 1) * picks * inner;
        for (k, (id, v)) in ids[block.clone()].iter().zip(&source[block]).enumerate() {
            if places.contains(&(*id as usize)) {
                rows[(*id as usize - places.start) * inner + k % inner] += v;
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, modulus: usize) -> Vec<i32> {
        (0..n).map(|i| ((i * 7919 + 13) % 1_000_003 % modulus) as i32).collect()
    }

    #[test]
    fn picking_and_adding() {
        let pool = Pool::new(2);
        for (outer, n, picks, inner) in [(1, 5, 3, 1), (3, 4, 9, 2), (1, 2000, 5000, 3), (2, 3, 0, 4), (2, 1, 2, 1)] {
            let x: Vec<f32> = (0..outer * n * inner).map(|i| i as f32).collect();
            let source: Vec<f32> = numbers(outer * picks * inner, 50).iter().map(|v| *v as f32).collect();
            let at = |o: usize, i: usize, c: usize| (o * n + i) * inner + c;
            // One list of indices.
            let ids = numbers(picks, n);
            let (mut y, mut z) = (vec![0.0; source.len()], x.clone());
            take(&pool, (n, inner), &x, &ids, &mut y).expect("indices are in range");
            take_add(&pool, (n, inner), &ids, &source, &mut z).expect("indices are in range");
            let mut expected = x.clone();
            for (k, v) in source.iter().enumerate() {
                let (c, j, o) = (k % inner, k / inner % picks, k / inner / picks);
                assert_eq!(y[k], x[at(o, ids[j] as usize, c)]);
                expected[at(o, ids[j] as usize, c)] += v;
            }
            assert_eq!(z, expected);
            // An index for every value.
            let ids = numbers(source.len(), n);
            let mut z = x.clone();
            gather(&pool, (n, picks, inner), &x, &ids, &mut y).expect("indices are in range");
            scatter_add(&pool, (n, picks, inner), &ids, &source, &mut z).expect("indices are in range");
            let mut expected = x.clone();
            for (k, v) in source.iter().enumerate() {
                let (c, o) = (k % inner, k / inner / picks);
                assert_eq!(y[k], x[at(o, ids[k] as usize, c)]);
                expected[at(o, ids[k] as usize, c)] += v;
            }
            assert_eq!(z, expected);
        }
    }

    #[test]
    fn indices_out_of_range_change_nothing() {
        let pool = Pool::new(1);
        let mut y = [1.0, 2.0];
        for wrong in [-1, 2, i32::MIN] {
            let message = take_add(&pool, (2, 1), &[0, wrong], &[5.0, 5.0], &mut y);
            assert_eq!(message, Err(format!("index {wrong} is out of range for an axis of 2 values")));
        }
        assert_eq!(y, [1.0, 2.0]);
    }
}
