//! Random values on threads: every position is computed from itself (see [`crate::philox`]).

use crate::philox::Stream;
use crate::pool::Pool;

/// Fills `y` with the values of a stream that `f` makes of each four words.
pub fn fill<T: Copy + Send>(
    pool: &Pool,
    stream: Stream,
    y: &mut [T],
    f: impl Fn([u32; 4]) -> [f64; 4] + Sync,
    store: impl Fn(f64) -> T + Sync,
) {
    pool.rows(y, 1, 2048, |first, y| {
        stream.fill(first, y.len(), &f, |i, v| y[i - first] = store(v));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::uniform;

    #[test]
    fn threads_do_not_change_the_numbers() {
        let stream = Stream { seed: 1, step: 2, stream: 3 };
        let draw = |threads| {
            let mut y = vec![0.0; 50_001];
            fill(&Pool::new(threads), stream, &mut y, uniform, |v| v as f32);
            y
        };
        assert_eq!(draw(1), draw(3));
    }
}
