//! Elementwise chains: every function, every way of lying in memory, in one pass each.

use mobilis_cuda::chain::{Input, Kind, Member, Op, Output, Step, chain, many};
use mobilis_cuda::testing::{devices, download, upload, values};
use mobilis_cuda::{Buffer, Gpu, Ptr};

fn call(name: &'static str, args: &[u16], kind: Kind) -> Step {
    Step { op: Op::Call(name), args: args.to_vec(), kind }
}

fn step(op: Op, args: &[u16], kind: Kind) -> Step {
    Step { op, args: args.to_vec(), kind }
}

/// Values of an input as the test sees them.
#[derive(Clone)]
enum Data {
    F(Vec<f32>),
    I(Vec<i32>),
    U(Vec<u8>),
}

impl Data {
    fn upload(&self, gpu: &Gpu) -> Buffer {
        match self {
            Data::F(v) => upload(gpu, v),
            Data::I(v) => upload(gpu, v),
            Data::U(v) => upload(gpu, v),
        }
    }
    fn kind(&self) -> Kind {
        match self {
            Data::F(_) => Kind::F32,
            Data::I(_) => Kind::I32,
            Data::U(_) => Kind::U8,
        }
    }
    fn at(&self, i: usize) -> f64 {
        match self {
            Data::F(v) => f64::from(v[i]),
            Data::I(v) => f64::from(v[i]),
            Data::U(v) => f64::from(v[i]),
        }
    }
}

/// What a function gives, from its definition.
fn expected(name: &str, whole: bool, a: f64, b: f64) -> f64 {
    match name {
        "neg" => -a,
        "exp" => a.exp(),
        "expm1" => a.exp_m1(),
        "log" => a.ln(),
        "log1p" => a.ln_1p(),
        "sqrt" => a.sqrt(),
        "rsqrt" => 1.0 / a.sqrt(),
        "recip" => 1.0 / a,
        "abs" => a.abs(),
        "sign" if a == 0.0 => a,
        "sign" => a.signum(),
        "sin" => a.sin(),
        "cos" => a.cos(),
        "tanh" => a.tanh(),
        // erf(1), erf(0.5), erf(-0.25), erf(2): Abramowitz and Stegun, table 7.1.
        "erf" => *[(1.0, 0.842_700_792_9), (0.5, 0.520_499_877_8), (-0.25, -0.276_326_390_2), (2.0, 0.995_322_265_0)]
            .iter()
            .find(|p| p.0 == a)
            .map_or(&f64::NAN, |p| &p.1),
        "sigmoid" => 1.0 / (1.0 + (-a).exp()),
        "floor" => a.floor(),
        "ceil" => a.ceil(),
        "round" => a.round_ties_even(),
        "not" => 1.0 - a,
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "div" if whole && b == 0.0 => 0.0,
        "div" if whole => (a / b).floor(),
        "div" => a / b,
        "pow" => a.powf(b),
        "min" | "max" if a.is_nan() || b.is_nan() => f64::NAN,
        "min" => a.min(b),
        "max" => a.max(b),
        "rem" if whole && b == 0.0 => 0.0,
        "rem" => a - b * (a / b).floor(),
        "and" => a * b,
        "or" => a.max(b),
        "xor" => (a != b) as u8 as f64,
        "eq" => (a == b) as u8 as f64,
        "ne" => (a != b) as u8 as f64,
        "lt" => (a < b) as u8 as f64,
        "le" => (a <= b) as u8 as f64,
        "gt" => (a > b) as u8 as f64,
        "ge" => (a >= b) as u8 as f64,
        other => panic!("{other}"),
    }
}

fn near(found: f64, expected: f64) -> bool {
    let expected = f64::from(expected as f32);
    found == expected
        || (found.is_nan() && expected.is_nan())
        || (found - expected).abs() <= 1e-6 * expected.abs().max(1e-6)
}

/// All functions of one class in one chain, a result each.
fn all_functions(names: &[&'static str], data: [Data; 2], result: impl Fn(&str) -> Kind) {
    let whole = data[0].kind() != Kind::F32;
    let n = match &data[0] {
        Data::F(v) => v.len(),
        Data::I(v) => v.len(),
        Data::U(v) => v.len(),
    };
    let unary = |name: &str| expected_arity(name) == 1;
    let steps: Vec<Step> = names.iter().map(|f| call(f, if unary(f) { &[0] } else { &[0, 1] }, result(f))).collect();
    let check = |names: &[&'static str], steps: &[Step], outs: &[Buffer]| {
        for ((name, s), out) in names.iter().zip(steps).zip(outs) {
            let found: Vec<f64> = match s.kind {
                Kind::F32 => download::<f32>(out, n).into_iter().map(f64::from).collect(),
                Kind::I32 => download::<i32>(out, n).into_iter().map(f64::from).collect(),
                Kind::U8 => download::<u8>(out, n).into_iter().map(f64::from).collect(),
                other => panic!("no function gives {other:?}"),
            };
            for (i, f) in found.into_iter().enumerate() {
                let (a, b) = (data[0].at(i), data[1].at(i));
                let e = expected(name, whole, a, b);
                if *name == "erf" && e.is_nan() && !a.is_nan() {
                    continue;
                }
                assert!(near(f, e), "{name}({a}, {b}) is {f}, not {e}");
            }
        }
    };
    for gpu in devices() {
        let buffers = data.clone().map(|d| d.upload(&gpu));
        let inputs: Vec<Input> =
            data.iter().zip(&buffers).map(|(d, b)| Input { at: b.ptr(), kind: d.kind(), strides: vec![1] }).collect();
        let outs: Vec<Buffer> = steps.iter().map(|s| gpu.alloc(n * s.kind.bytes()).unwrap()).collect();
        let outputs: Vec<Output> = outs.iter().enumerate().map(|(i, b)| (i as u16, b.ptr())).collect();
        gpu.run(&chain(&inputs, &steps, &outputs, &[n]).unwrap()).unwrap();
        check(names, &steps, &outs);
        // Each by itself is a kernel that needs no compiler.
        for (s, out) in steps.iter().zip(&outs) {
            out.fill(0x55).unwrap();
            let launches = chain(&inputs, std::slice::from_ref(s), &[(0, out.ptr())], &[n]).unwrap();
            assert!(mobilis_cuda::sources::of(launches[0].kernel).is_some(), "{s:?}");
            gpu.run(&launches).unwrap();
        }
        check(names, &steps, &outs);
    }
}
fn expected_arity(name: &str) -> usize {
    let unary = "neg exp expm1 log log1p sqrt rsqrt recip abs sign sin cos tanh erf sigmoid floor ceil round not";
    if unary.split(' ').any(|u| u == name) { 1 } else { 2 }
}

const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];

#[test]
fn functions_of_real_numbers() {
    let names = "neg exp expm1 log log1p sqrt rsqrt recip abs sign sin cos tanh erf sigmoid floor ceil round \
                 add sub mul div pow min max rem eq ne lt le gt ge";
    let names: Vec<&'static str> = names.split_whitespace().collect();
    let a = vec![1.0, 0.5, -0.25, 2.0, 0.0, -0.0, 2.5, 3.5, -1.5, 1e-7, 80.0, f32::NAN, f32::INFINITY];
    let b = vec![2.0, 0.5, 3.0, -1.5, 1.0, 2.0, f32::NAN, 0.5, 2.0, 1.0, 0.25, 1.0, 1.0];
    let kind = |f: &str| if COMPARISONS.contains(&f) { Kind::U8 } else { Kind::F32 };
    for (i, part) in names.chunks(16).enumerate() {
        // The remainder of infinity is not a number by the formula, which rounding in `f64` agrees with.
        assert!(i < 2);
        all_functions(part, [Data::F(a.clone()), Data::F(b.clone())], kind);
    }
}

#[test]
fn functions_of_whole_numbers_and_truth_values() {
    let names =
        ["neg", "abs", "sign", "add", "sub", "mul", "div", "min", "max", "rem", "eq", "ne", "lt", "le", "gt", "ge"];
    let a = vec![7, -7, 7, -7, 0, 5, 12, -12, 1];
    let b = vec![2, 2, -2, -2, 3, 0, 4, 5, -1];
    let kind = |f: &str| if COMPARISONS.contains(&f) { Kind::U8 } else { Kind::I32 };
    all_functions(&names, [Data::I(a), Data::I(b)], kind);
    let (a, b) = (vec![0, 0, 1, 1, 1], vec![0, 1, 0, 1, 1]);
    all_functions(&["not", "and", "or", "xor"], [Data::U(a), Data::U(b)], |_| Kind::U8);
}

#[test]
fn inputs_lie_anyhow() {
    // out[i, j, k] = a[i, j, k] * bias[k] + t[k, j] + scalar + (j + k) with different strides and sizes, so
    // that vectors, rows, single values and odd ends are all read.
    for [n, m, k] in [[2, 3, 8], [3, 5, 7], [1, 1, 1], [4, 1, 12], [1, 6, 5], [0, 3, 4]] {
        let total = n * m * k;
        let (a, bias, t) = (values(total, 1), values(k, 2), values(m * k, 3));
        let (row, flags) = (values(m, 4), (0..total).map(|i| (i % 3 == 0) as u8).collect::<Vec<_>>());
        // Inputs: a, bias, t, scalar, row, flags. Steps from 6 on.
        let steps = vec![
            call("mul", &[0, 1], Kind::F32),
            call("add", &[6, 2], Kind::F32),
            step(Op::Iota(1), &[], Kind::I32),
            step(Op::Iota(2), &[], Kind::I32),
            call("add", &[8, 9], Kind::I32),
            step(Op::Cast, &[10], Kind::F32),
            call("add", &[7, 11], Kind::F32),
            step(Op::Constant(-0.5), &[], Kind::F32),
            step(Op::Size(3.0), &[], Kind::F32),
            call("mul", &[12, 14], Kind::F32),
            step(Op::Select, &[5, 15, 13], Kind::F32),
            call("add", &[16, 3], Kind::F32),
            call("sub", &[17, 4], Kind::F32),
            call("gt", &[18, 13], Kind::U8),
        ];
        let mut expected = vec![];
        for (i, f) in flags.iter().enumerate() {
            let (y, z) = (i / k % m, i % k);
            let v = (a[i] as f64 * bias[z] as f64 + t[z * m + y] as f64 + (y + z) as f64) * 3.0;
            expected.push((if *f != 0 { v } else { -0.5 }) + 1.25 - row[y] as f64);
        }
        for gpu in devices() {
            let [a, bias, t, row] = [&a, &bias, &t, &row].map(|v| upload(&gpu, v));
            let (scalar, flags) = (upload(&gpu, &[1.25f32]), upload(&gpu, &flags));
            let input = |b: &Buffer, kind, strides: [usize; 3]| Input { at: b.ptr(), kind, strides: strides.to_vec() };
            let inputs = [
                input(&a, Kind::F32, [m * k, k, 1]),
                input(&bias, Kind::F32, [0, 0, 1]),
                input(&t, Kind::F32, [0, 1, m]),
                input(&scalar, Kind::F32, [0, 0, 0]),
                input(&row, Kind::F32, [0, 1, 0]),
                input(&flags, Kind::U8, [m * k, k, 1]),
            ];
            let (out, mask) = (gpu.alloc(total * 4).unwrap(), gpu.alloc(total).unwrap());
            gpu.run(&chain(&inputs, &steps, &[(12, out.ptr()), (13, mask.ptr())], &[n, m, k]).unwrap()).unwrap();
            let (found, mask) = (download::<f32>(&out, total), download::<u8>(&mask, total));
            for i in 0..total {
                assert!(
                    (found[i] as f64 - expected[i]).abs() < 1e-5,
                    "{i} of {n} {m} {k}: {} {}",
                    found[i],
                    expected[i]
                );
                assert_eq!(mask[i] == 1, found[i] > -0.5, "{i}");
            }
        }
    }
}

/// Numbers of 16 bits are read and written as such, by vectors and value by value, and computed with in `f32`.
#[test]
fn numbers_of_sixteen_bits() {
    use half::{bf16, f16};
    for (n, m) in [(3, 8), (5, 7), (1, 1), (0, 4)] {
        let (a, b, row) = (values(n * m, 1), values(n * m, 2), values(m, 3));
        let small = |v: &[f32]| v.iter().map(|v| bf16::from_f32(*v).to_bits()).collect::<Vec<u16>>();
        let halves = row.iter().map(|v| f16::from_f32(*v).to_bits()).collect::<Vec<u16>>();
        let value = |i: usize| {
            let (a, b) = (bf16::from_f32(a[i]).to_f32(), bf16::from_f32(b[i]).to_f32());
            a * b + f16::from_f32(row[i % m]).to_f32()
        };
        // a b + row, as it is, rounded to both, and as a truth value.
        let steps = [
            call("mul", &[0, 1], Kind::F32),
            call("add", &[3, 2], Kind::F32),
            call("bf16", &[4], Kind::F32),
            step(Op::Cast, &[5], Kind::Bf16),
            step(Op::Cast, &[4], Kind::F16),
            step(Op::Cast, &[0], Kind::U8),
        ];
        for gpu in devices() {
            // One that does not begin where vectors do.
            let shifted = upload(&gpu, &[&[0u16][..], &small(&b)].concat());
            let (a_at, row_at) = (upload(&gpu, &small(&a)), upload(&gpu, &halves));
            let input = |at, kind, strides: [usize; 2]| Input { at, kind, strides: strides.to_vec() };
            let inputs = [
                input(a_at.ptr(), Kind::Bf16, [m, 1]),
                input(shifted.ptr().at(2), Kind::Bf16, [m, 1]),
                input(row_at.ptr(), Kind::F16, [0, 1]),
            ];
            let outs = [4, 2, 2, 1].map(|bytes| gpu.alloc(n * m * bytes).unwrap());
            let outputs: Vec<Output> = [1, 3, 4, 5].into_iter().zip(outs.iter().map(Buffer::ptr)).collect();
            gpu.run(&chain(&inputs, &steps, &outputs, &[n, m]).unwrap()).unwrap();
            let (whole, truth) = (download::<f32>(&outs[0], n * m), download::<u8>(&outs[3], n * m));
            let [rounded, halved] = [1, 2].map(|k| download::<u16>(&outs[k], n * m));
            for i in 0..n * m {
                assert_eq!(whole[i], value(i), "{i} of {n} {m}");
                assert_eq!(rounded[i], bf16::from_f32(value(i)).to_bits(), "{i} of {n} {m}");
                assert_eq!(halved[i], f16::from_f32(value(i)).to_bits(), "{i} of {n} {m}");
                assert_eq!(truth[i] != 0, bf16::from_f32(a[i]).to_f32() != 0.0);
            }
        }
    }
}

#[test]
fn single_operations_over_strides() {
    let (x, y) = (values(2 * 3 * 4 * 5, 1), values(3 * 5, 2));
    for gpu in devices() {
        let (a, b) = (upload(&gpu, &x), upload(&gpu, &y));
        let out = gpu.alloc(120 * 4).unwrap();
        // out[i, j, k, l] = a[l, j, i, k] - b[j, l] with a of [5, 3, 2, 4].
        let a = Input { at: a.ptr(), kind: Kind::F32, strides: vec![4, 8, 1, 24] };
        let b = Input { at: b.ptr(), kind: Kind::F32, strides: vec![0, 5, 0, 1] };
        let launches = chain(&[a, b], &[call("sub", &[0, 1], Kind::F32)], &[(0, out.ptr())], &[2, 3, 4, 5]).unwrap();
        assert_eq!(launches[0].kernel, "sub_f32");
        gpu.run(&launches).unwrap();
        for (at, f) in download::<f32>(&out, 120).iter().enumerate() {
            let (i, j, k, l) = (at / 60, at / 20 % 3, at / 5 % 4, at % 5);
            assert_eq!(*f, x[l * 24 + j * 8 + i * 4 + k] - y[j * 5 + l]);
        }
    }
}

#[test]
fn results_may_replace_inputs_and_start_anywhere() {
    // Odd first values: no vectors. In place: the output is the input.
    for gpu in devices() {
        let x = values(40, 5);
        let buffer = upload(&gpu, &x);
        let at = buffer.ptr().at(4);
        let inputs = [Input { at, kind: Kind::F32, strides: vec![1] }];
        let steps = [call("exp", &[0], Kind::F32)];
        gpu.run(&chain(&inputs, &steps, &[(0, at)], &[38]).unwrap()).unwrap();
        let found = download::<f32>(&buffer, 40);
        for i in 0..40 {
            let e = if (1..39).contains(&i) { x[i].exp() } else { x[i] };
            assert!((found[i] - e).abs() <= 1e-6 * e.abs(), "{i}");
        }
    }
}

#[test]
fn many_arrays_are_one_launch() {
    // p = p - rate * g * own; m = m + g, in place, over arrays of all kinds of sizes, more than one table holds.
    let sizes: Vec<usize> = (0..130).map(|i| [2, 3, 4, 5, 1023, 1024, 1025, 2500][i * i % 8]).collect();
    let steps = vec![
        call("mul", &[1, 3], Kind::F32),
        call("mul", &[5, 4], Kind::F32),
        call("sub", &[0, 6], Kind::F32),
        call("add", &[2, 1], Kind::F32),
    ];
    for gpu in devices() {
        let rate = upload(&gpu, &[0.5f32]);
        let own = upload(&gpu, &(0..sizes.len()).map(|i| i as f32).collect::<Vec<f32>>());
        let arrays: Vec<[Vec<f32>; 3]> =
            sizes.iter().enumerate().map(|(i, n)| [0, 1, 2].map(|k| values(*n, (3 * i + k) as u64))).collect();
        let held: Vec<[Buffer; 3]> = arrays.iter().map(|a| [0, 1, 2].map(|k| upload(&gpu, &a[k]))).collect();
        let member = |(i, n): (usize, &usize)| {
            let linear = |k: usize| Input { at: held[i][k].ptr(), kind: Kind::F32, strides: vec![1] };
            let single = |at: Ptr| Input { at, kind: Kind::F32, strides: vec![0] };
            Member {
                inputs: vec![linear(0), linear(1), linear(2), single(rate.ptr()), single(own.ptr().at(i * 4))],
                outputs: vec![(2, held[i][0].ptr()), (3, held[i][2].ptr())],
                sizes: vec![*n],
            }
        };
        let members: Vec<Member> = sizes.iter().enumerate().map(member).collect();
        let launches = many(&steps, &members).unwrap();
        assert_eq!(launches.len(), 3);
        gpu.run(&launches).unwrap();
        for (i, (a, h)) in arrays.iter().zip(&held).enumerate() {
            let (p, m) = (download::<f32>(&h[0], sizes[i]), download::<f32>(&h[2], sizes[i]));
            for k in 0..sizes[i] {
                assert_eq!(p[k], a[0][k] - a[1][k] * 0.5 * i as f32, "{k} of array {i}");
                assert_eq!(m[k], a[2][k] + a[1][k], "{k} of array {i}");
            }
        }
        // What is not alike, or has no vectors, is not run together.
        let mut other = members[..2].to_vec();
        other[1].inputs[1].strides = vec![0];
        assert!(many(&steps, &other).unwrap_err().to_string().contains("alike"));
        other[1].inputs[1] = Input { at: Ptr(260), kind: Kind::F32, strides: vec![1] };
        assert!(many(&steps, &other).unwrap_err().to_string().contains("vectors"));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let input = |kind| Input { at: Ptr(256), kind, strides: vec![1] };
    let refused = |inputs: &[Input], steps: &[Step], sizes: &[usize]| {
        chain(inputs, steps, &[(steps.len() as u16 - 1, Ptr(512))], sizes).unwrap_err().to_string()
    };
    let add = call("add", &[0, 1], Kind::F32);
    assert!(refused(&[input(Kind::F32), input(Kind::I32)], std::slice::from_ref(&add), &[4]).contains("does not take"));
    assert!(refused(&[input(Kind::F32)], std::slice::from_ref(&add), &[4]).contains("comes later"));
    assert!(refused(&[input(Kind::F32)], &[call("frobnicate", &[0], Kind::F32)], &[4]).contains("does not take"));
    assert!(refused(&[input(Kind::F32)], &[call("exp", &[0], Kind::F32)], &[4, 4]).contains("strides"));
    assert!(refused(&[input(Kind::F32)], &[call("exp", &[0], Kind::F32)], &[1 << 41]).contains("2^40"));
}
