//! The `gemm` crate: matrix products only.

use gemm::{Parallelism, gemm};
use protocol::{Case, Refusal, case, number, uniform};

fn load(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    if !matches!(words[0], "gemm" | "packed") {
        return Err("only matrix products".into());
    }
    let (m, k, n) = (number(words, 1)?, number(words, 2)?, number(words, 3)?);
    let threads: usize = std::env::var("RAYON_NUM_THREADS").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    let parallelism = if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) };
    let state = (uniform("a", m * k, 1.0), uniform("b", k * n, 1.0), vec![0f32; m * n]);
    let run = move |(a, b, c): &mut (Vec<f32>, Vec<f32>, Vec<f32>)| {
        let (k1, n1) = (k as isize, n as isize);
        // SAFETY: the three matrices have the sizes and strides given.
        unsafe {
            gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n1,
                false,
                a.as_ptr(),
                1,
                k1,
                b.as_ptr(),
                1,
                n1,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    };
    Ok(case(state, run, |s| s.2.clone()))
}

fn main() {
    protocol::serve(load);
}
