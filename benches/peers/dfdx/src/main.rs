//! dfdx: matrix products. Its models fix every size at compile time, and it has no attention.

use dfdx::prelude::*;
use protocol::{Case, Refusal, case, number, uniform};

fn load(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    if !matches!(words[0], "gemm" | "packed") {
        return Err("only matrix products".into());
    }
    let (m, k, n) = (number(words, 1)?, number(words, 2)?, number(words, 3)?);
    let device: Cpu = Default::default();
    let a = device.tensor_from_vec(uniform("a", m * k, 1.0), (m, k));
    let b = device.tensor_from_vec(uniform("b", k * n, 1.0), (k, n));
    let run = move |c: &mut Vec<Tensor<(usize, usize), f32, Cpu>>| *c = vec![a.clone().matmul(b.clone())];
    Ok(case(vec![], run, |c| c.iter().flat_map(|c| c.as_vec()).collect()))
}

fn main() {
    protocol::serve(load);
}
