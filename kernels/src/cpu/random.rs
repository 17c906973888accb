//! Random values on threads: every position is computed from itself (see [`crate::philox`]).
//!
//! Words are drawn for many counters at once, so that a vector holds the same word of each, and turned
//! into the order of their positions in a buffer that stays in the nearest cache. What is made of them
//! by comparing and scaling alone is made in vectors too; other distributions word by word, in `f64`
//! as everywhere.

use crate::philox::{Stream, philox4x32_wide};
use crate::pool::Pool;

/// Counters at once: a vector of the widest processors.
const WIDE: usize = 16;
/// Blocks of four words in a buffer.
const BUFFER: usize = 64;
/// Positions that a task has at least.
const LEAST: usize = 2048;

#[inline(always)]
fn draw_body(stream: Stream, block: u64, out: &mut [[u32; 4]]) {
    for (i, out) in out.chunks_mut(WIDE).enumerate() {
        let mut counter = [[0; WIDE]; 4];
        for l in 0..WIDE {
            let at = block.wrapping_add((i * WIDE + l) as u64);
            (counter[0][l], counter[1][l]) = (at as u32, (at >> 32) as u32);
        }
        (counter[2], counter[3]) = ([stream.stream; WIDE], [stream.step; WIDE]);
        let words = philox4x32_wide(counter, [stream.seed, 0]);
        for (l, out) in out.iter_mut().enumerate() {
            *out = [words[0][l], words[1][l], words[2][l], words[3][l]];
        }
    }
}
crate::dispatch! {
    /// The words of the blocks from `block` on, as [`Stream::block`] gives them.
    fn draw(stream: Stream, block: u64, out: &mut [[u32; 4]]) = draw_body;
}

/// Calls `each(values, words)` for parts of `y` and the blocks that their positions lie in, and where in
/// the first block they begin.
fn parts<T: Copy + Send>(
    pool: &Pool,
    stream: Stream,
    y: &mut [T],
    each: impl Fn(&mut [T], &mut [[u32; 4]], usize) + Sync,
) {
    pool.rows(y, 1, LEAST, |first, y| {
        let (mut rest, mut at, mut words) = (y, first, [[0; 4]; BUFFER]);
        while !rest.is_empty() {
            let (block, skip) = (at / 4, at % 4);
            let count = rest.len().min(4 * BUFFER - skip);
            let words = &mut words[..(skip + count).div_ceil(4)];
            draw(stream, block as u64, words);
            let (part, others) = rest.split_at_mut(count);
            each(part, words, skip);
            (rest, at) = (others, at + count);
        }
    });
}

/// Fills `y` with the values of a stream that `f` makes of each four words.
pub fn fill<T: Copy + Send>(
    pool: &Pool,
    stream: Stream,
    y: &mut [T],
    f: impl Fn([u32; 4]) -> [f64; 4] + Sync,
    store: impl Fn(f64) -> T + Sync,
) {
    parts(pool, stream, y, |y, words, skip| {
        let mut at = 0;
        for (i, words) in words.iter().enumerate() {
            let skip = if i == 0 { skip } else { 0 };
            for v in f(*words).into_iter().skip(skip).take(y.len() - at) {
                y[at] = store(v);
                at += 1;
            }
        }
    });
}

#[inline(always)]
fn uniform_body(words: &[u32], y: &mut [f32]) {
    for (y, word) in y.iter_mut().zip(words) {
        *y = (word >> 8) as f32 / 16_777_216.0;
    }
}
crate::dispatch! {
    fn uniform_of(words: &[u32], y: &mut [f32]) = uniform_body;
}

#[inline(always)]
fn below_body(words: &[u32], limit: u32, y: &mut [u8]) {
    for (y, word) in y.iter_mut().zip(words) {
        *y = u8::from(word >> 8 < limit);
    }
}
crate::dispatch! {
    fn below(words: &[u32], limit: u32, y: &mut [u8]) = below_body;
}

/// Fills `y` with [`philox::uniform`](crate::philox::uniform) values.
pub fn uniform(pool: &Pool, stream: Stream, y: &mut [f32]) {
    parts(pool, stream, y, |y, words, skip| uniform_of(&words.as_flattened()[skip..], y));
}

/// Fills `y` with [`philox::bernoulli`](crate::philox::bernoulli) values.
pub fn bernoulli(pool: &Pool, stream: Stream, p: f64, y: &mut [u8]) {
    // Whole numbers below the product are those below the next whole number; so are none of what is none.
    let limit = (p * 16_777_216.0).ceil() as u32;
    parts(pool, stream, y, |y, words, skip| below(&words.as_flattened()[skip..], limit, y));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox;

    const STREAM: Stream = Stream { seed: 1, step: 2, stream: 3 };

    /// The values one by one.
    fn single<T: Copy + Default>(n: usize, f: impl Fn([u32; 4]) -> [f64; 4], store: impl Fn(f64) -> T) -> Vec<T> {
        let mut all = vec![T::default(); n];
        STREAM.fill(0, n, f, |i, v| all[i] = store(v));
        all
    }

    #[test]
    fn neither_threads_nor_vectors_change_the_numbers() {
        for n in [0, 1, 5, 255, 257, 50_001] {
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let mut y = vec![0.0; n];
                fill(&pool, STREAM, &mut y, philox::normal, |v| v as f32);
                assert_eq!(y, single(n, philox::normal, |v| v as f32));
                uniform(&pool, STREAM, &mut y);
                assert_eq!(y, single(n, philox::uniform, |v| v as f32));
                for p in [0.0, 0.1, 1.0 / 3.0, 0.5, 1.0, -1.0, 2.0, f64::NAN] {
                    let mut y = vec![9; n];
                    bernoulli(&pool, STREAM, p, &mut y);
                    assert_eq!(y, single(n, |w| philox::bernoulli(w, p), |v| v as u8), "{p}");
                }
            }
        }
    }
}
