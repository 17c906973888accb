use super::*;

/// Deterministic values of both signs.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 17;
        s ^= s << 5;
        s as f32 / u32::MAX as f32 * 4.0 - 2.0
    };
    (0..n).map(|_| next()).collect()
}

fn at(sizes: &[usize], strides: &[usize], mut i: usize) -> usize {
    let mut at = 0;
    for (n, s) in sizes.iter().zip(strides).rev() {
        at += i % n * s;
        i /= n;
    }
    at
}

/// A chain with inputs of every layout, two results, one of them in place of an input.
struct Case {
    sizes: [usize; 2],
    strides: [[usize; 2]; 5],
    code: Code,
    data: [Vec<f32>; 4],
    mask: Vec<u8>,
}

impl Case {
    fn new(rows: usize, cols: usize) -> Case {
        let strides = [[cols, 1], [0, 1], [2, 0], [1, rows], [0, 0]];
        let mut code = Code::new(&[Kind::F32, Kind::F32, Kind::F32, Kind::F32, Kind::F32, Kind::U8]);
        let input = Arg::input;
        let half = code.float(0.5).expect("few constants");
        code.push(Ins::PairF(Pair::MulAdd, 0, input(0), input(1), input(2)));
        code.push(Ins::Iota { dst: 0, div: cols.max(1), modulus: rows.max(1) });
        code.push(Ins::IntToFloat(1, Arg::int(0)));
        code.push(Ins::PairF(Pair::SubThenMul, 2, Arg::float(0), Arg::float(1), half));
        code.push(Ins::SelF(3, input(5), Arg::float(2), input(3)));
        code.push(Ins::BinF(BinaryOp::Mul, 0, Arg::float(3), input(4)));
        code.push(Ins::CmpF(CompareOp::Gt, 1, Arg::float(0), half));
        let code = code
            .finish(&[(Arg::float(3), Kind::F32), (Arg::int(1), Kind::U8), (Arg::float(0), Kind::F32)])
            .expect("the code is right");
        let n = rows * cols;
        let data = [noise(cols, 2), noise(2 * rows, 3), noise(n, 4), noise(1, 5)];
        let mask = noise(n, 6).iter().map(|v| (*v > 0.0) as u8).collect();
        Case { sizes: [rows, cols], strides, code, data, mask }
    }

    fn expected(&self, own: &[f32]) -> (Vec<f32>, Vec<u8>, Vec<f32>) {
        let [rows, cols] = self.sizes;
        let mut out = (vec![], vec![], vec![]);
        for i in 0..rows * cols {
            let get = |k: usize| self.data[k - 1][at(&self.sizes, &self.strides[k], i)];
            let x = (own[i] * get(1) + get(2) - (i / cols) as f32) * 0.5;
            let x = if self.mask[i] != 0 { x } else { get(3) };
            let y = x * get(4);
            out.0.push(x);
            out.1.push((y > 0.5) as u8);
            out.2.push(y);
        }
        out
    }

    fn layouts(&self) -> Vec<Layout> {
        let mut layouts: Vec<_> = self.strides.iter().map(|s| Layout::new(&self.sizes, s, 0)).collect();
        layouts.push(Layout::new(&self.sizes, &self.strides[0], 0));
        layouts
    }

    fn sources(&self) -> [Source<'_>; 6] {
        let [a, b, c, d] = self.data.each_ref().map(|d| Source::F32(d));
        [Source::Out(0), a, b, c, d, Source::U8(&self.mask)]
    }
}

#[test]
fn layouts_of_every_kind_and_several_results() {
    for (rows, cols) in [(37, 311), (1, 5), (5, 1), (3, 512), (2, 1500), (600, 16), (40, 1024), (0, 3)] {
        let case = Case::new(rows, cols);
        let own = noise(rows * cols, 1);
        let expected = case.expected(&own);
        let layouts = case.layouts();
        for threads in [1, 3] {
            let (mut x, mut m, mut y) = (own.clone(), vec![9; own.len()], vec![9.0; own.len()]);
            let targets = &mut [Target::F32(&mut x), Target::U8(&mut m), Target::F32(&mut y)];
            run(&Pool::new(threads), &case.code, &layouts, &case.sources(), targets);
            assert!(x == expected.0 && m == expected.1 && y == expected.2, "{rows} x {cols}");
        }
    }
}

#[test]
fn tiles_give_what_the_whole_gives() {
    for (rows, cols, high, wide) in [(37, 311, 5, 100), (64, 96, 16, 96), (9, 2000, 4, 700), (30, 7, 8, 3)] {
        let case = Case::new(rows, cols);
        let own = noise(rows * cols, 1);
        let expected = case.expected(&own);
        let layouts = case.layouts();
        let (mut x, mut m, mut y) = (own.clone(), vec![9; own.len()], vec![9.0; own.len()]);
        let targets = &mut [Target::F32(&mut x), Target::U8(&mut m), Target::F32(&mut y)];
        let chain = Chain::new(&case.code, &layouts, &case.sources(), targets);
        let (down, across) = (rows.div_ceil(high), cols.div_ceil(wide));
        Pool::new(2).run(down * across, &|t| {
            let (r, c) = (t / across * high, t % across * wide);
            // SAFETY: tiles are disjoint.
            unsafe { chain.tile(r..(r + high).min(rows), c..(c + wide).min(cols), cols) };
        });
        assert!(x == expected.0 && m == expected.1 && y == expected.2, "{rows} x {cols}");
    }
}

fn one(code: Code, result: (Arg, Kind), sources: &[Source], target: Target) {
    let n = match &target {
        Target::F32(t) => t.len(),
        Target::I32(t) => t.len(),
        Target::U8(t) => t.len(),
    };
    let layouts = vec![Layout::new(&[n], &[1], 0); sources.len()];
    let code = code.finish(&[result]).expect("the code is right");
    run(&Pool::new(1), &code, &layouts, sources, &mut [target]);
}

#[test]
fn masks_choose() {
    let x = [1.0, -2.0, f32::NAN, 4.0];
    let mut out = [0u8; 4];
    let mut code = Code::new(&[Kind::F32]);
    let zero = code.float(0.0).expect("one constant");
    code.push(Ins::CmpF(CompareOp::Gt, 0, Arg::input(0), zero));
    code.push(Ins::Not(1, Arg::int(0)));
    one(code, (Arg::int(1), Kind::U8), &[Source::F32(&x)], Target::U8(&mut out));
    assert_eq!(out, [0, 1, 1, 0]);
}

#[test]
fn every_function_of_two_numbers() {
    let special = [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, 3e38];
    let (mut x, mut y) = (noise(600, 1), noise(600, 2));
    for a in special {
        for b in special {
            x.push(a);
            y.push(b);
        }
    }
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    let wins = |a: f32, b: f32, first: bool| if first || a.is_nan() { a } else { b };
    type Case = (BinaryOp, fn(f32, f32) -> f32);
    let cases: [Case; 6] = [
        (BinaryOp::Add, |a, b| a + b),
        (BinaryOp::Sub, |a, b| a - b),
        (BinaryOp::Mul, |a, b| a * b),
        (BinaryOp::Div, |a, b| a / b),
        (BinaryOp::Pow, f32::powf),
        (BinaryOp::Rem, |a, b| a - b * (a / b).floor()),
    ];
    let run = |op, f: &dyn Fn(f32, f32) -> f32| {
        let mut code = Code::new(&[Kind::F32, Kind::F32]);
        code.push(Ins::BinF(op, 0, Arg::input(0), Arg::input(1)));
        let mut out = vec![0.0; x.len()];
        one(code, (Arg::float(0), Kind::F32), &[Source::F32(&x), Source::F32(&y)], Target::F32(&mut out));
        for i in 0..x.len() {
            assert!(same(out[i], f(x[i], y[i])), "{op:?}({}, {}) = {}", x[i], y[i], out[i]);
        }
    };
    for (op, f) in cases {
        run(op, &f);
    }
    run(BinaryOp::Min, &|a, b| wins(a, b, a < b));
    run(BinaryOp::Max, &|a, b| wins(a, b, a > b));
}

#[test]
fn large_angles_use_the_library() {
    let x = [1.0f32, 1e6, -3e8, 0.5];
    let mut out = [0.0; 4];
    let mut code = Code::new(&[Kind::F32]);
    code.push(Ins::UnF(UnaryF::Sin, 0, Arg::input(0)));
    one(code, (Arg::float(0), Kind::F32), &[Source::F32(&x)], Target::F32(&mut out));
    for (x, y) in x.iter().zip(out) {
        assert!((f64::from(*x).sin() - f64::from(y)).abs() < 1e-6);
    }
}

#[test]
fn code_that_reads_nonsense_is_refused() {
    let unwritten = Ins::UnF(UnaryF::Neg, 0, Arg::float(1));
    let wrong_kind = Ins::UnF(UnaryF::Neg, 0, Arg::input(1));
    let itself = Ins::UnF(UnaryF::Neg, 0, Arg::float(0));
    for ins in [unwritten, wrong_kind, itself] {
        let mut code = Code::new(&[Kind::F32, Kind::I32]);
        code.push(ins);
        assert!(code.finish(&[(Arg::float(0), Kind::F32)]).is_err());
    }
    assert!(Code::new(&[]).finish(&[(Arg::float(0), Kind::F32)]).is_err());
    assert!(Code::new(&[Kind::F32]).finish(&[(Arg::input(0), Kind::F32)]).is_err(), "inputs are no results");
}

#[test]
fn whole_numbers_divide_towards_minus_infinity() {
    for (x, y) in [(7, 2), (-7, 2), (7, -2), (-7, -2), (6, 3), (-6, 3), (1, 0)] {
        let expected = if y == 0 { 0 } else { (x as f64 / y as f64).floor() as i32 };
        assert_eq!(ops::div_floor(x, y), expected);
    }
}
