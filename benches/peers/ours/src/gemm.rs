//! Matrix products: `gemm M K N` as a function of two matrices, `packed M K N` with the right side
//! packed beforehand, as a program's weights are.

use crate::aligned::Aligned;
use mobilis_kernels::cpu::gemm::{self, Columns, Left, Matrix, Panels, Product, Right};
use mobilis_kernels::pool::Pool;
use protocol::{Case, Refusal, case, number, uniform};

struct Sides {
    a: Aligned,
    b: Aligned,
    c: Aligned,
    scratch: Aligned,
}

pub fn plain(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    let (m, k, n) = (number(words, 1)?, number(words, 2)?, number(words, 3)?);
    let state = Sides {
        a: Aligned::new(&uniform("a", m * k, 1.0)),
        b: Aligned::new(&uniform("b", k * n, 1.0)),
        c: Aligned::zeros(m * n),
        scratch: Aligned::zeros(gemm::gemm_scratch((m, n, k))),
    };
    let run = move |s: &mut Sides| {
        let (a, b, c) = (Matrix::rows(k), Matrix::rows(n), Matrix::rows(n));
        gemm::gemm(Pool::global(), (m, n, k), &s.a, a, &s.b, b, &mut s.c, c, false, &mut s.scratch);
    };
    Ok(case(state, run, |s| s.c.to_vec()))
}

pub fn packed(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    let (m, k, n) = (number(words, 1)?, number(words, 2)?, number(words, 3)?);
    let mut b = Aligned::zeros(gemm::packed_len(n, k));
    gemm::pack_b(Pool::global(), (n, k), &uniform("b", k * n, 1.0), Matrix::rows(n), &mut b);
    let state = Sides {
        a: Aligned::new(&uniform("a", m * k, 1.0)),
        b,
        c: Aligned::zeros(m * n),
        scratch: Aligned::zeros(gemm::scratch_len(m, k, [n], false)),
    };
    let run = move |s: &mut Sides| {
        let right = [Right::Packed(Panels::new(&s.b, n, k))];
        let left = [Left { k, data: &s.a, at: Matrix::rows(k) }];
        let mut columns = [Columns::new(n, &right, &mut s.c, Matrix::rows(n))];
        let mut product = Product { m, left: &left, right: &mut columns, accumulate: false, alike: false, after: None };
        gemm::product(Pool::global(), &mut product, &mut s.scratch);
    };
    Ok(case(state, run, |s| s.c.to_vec()))
}

/// `gemv FORMAT K N`: one row times weights in some format, through a program of one layer.
pub fn vector(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    use mobilis::nn::Linear;
    use mobilis::prelude::*;
    axes! { pub Rows; pub Inner; pub Columns; }
    let (k, n) = (number(words, 2)?, number(words, 3)?);
    let sizes = Sizes::new().with::<Inner>(k).with::<Columns>(n);
    let model = Model::init_with(<Linear<Inner, Columns>>::new().no_bias(), 1, sizes)?;
    crate::run::fill(&model)?;
    let program = model.compile(|m, x: Tensor![Rows, Inner]| m.forward(x))?;
    let program = program.with_weights(crate::run::format(words[1])?)?;
    let x = <Array![Rows, Inner]>::new([1, k], uniform("x", k, 1.0))?;
    Ok(Box::new(crate::run::Fixed { program, arrays: x }))
}
