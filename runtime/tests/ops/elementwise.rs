use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::DType;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::elementwise::{
    self as ew, BinaryKind, CompareKind, UnaryKind, activation, binary, compare, select, unary,
};
use mobilis_runtime::ops::{leaf, movement};
use mobilis_runtime::testing::{CPU, Given, agree, check, close, index_values, indices, mask, positive, real, values};

fn evaluate(given: &[Given], f: impl Fn(&[Handle]) -> Vec<Handle>) -> Vec<RefArray> {
    agree(given, f, CPU)
}

const SIZES: [&[usize]; 5] = [&[], &[1], &[5], &[3, 1, 2], &[2, 0]];

#[test]
fn functions_of_one_value() {
    use UnaryKind::*;
    for kind in
        [Neg, Exp, Expm1, Log, Log1p, Sqrt, Rsqrt, Recip, Abs, Sign, Sin, Cos, Tanh, Erf, Sigmoid, Floor, Ceil, Round]
    {
        for sizes in SIZES {
            check(&[positive(sizes, 1)], |h| vec![unary(kind, h[0])]);
        }
    }
}

#[test]
fn functions_of_one_value_have_their_values() {
    use UnaryKind::*;
    let nan = f64::NAN;
    let inf = f64::INFINITY;
    let cases: &[(UnaryKind, &[f64], &[f64])] = &[
        (Exp, &[0.0, 1.0, -inf], &[1.0, std::f64::consts::E, 0.0]),
        (Expm1, &[1e-12, 0.0], &[1.0000000000005e-12, 0.0]),
        (Log, &[1.0, 0.0, -1.0], &[0.0, -inf, nan]),
        (Log1p, &[1e-12, -1.0], &[0.9999999999995e-12, -inf]),
        (Sqrt, &[4.0, 0.0, -1.0], &[2.0, 0.0, nan]),
        (Rsqrt, &[4.0], &[0.5]),
        (Recip, &[4.0, -0.5], &[0.25, -2.0]),
        (Abs, &[-3.0, 3.0], &[3.0, 3.0]),
        (Sign, &[-3.0, 0.0, 2.0, nan], &[-1.0, 0.0, 1.0, nan]),
        // DLMF table 7.23: erf(0.5), erf(1), erf(3).
        (Erf, &[0.5, 1.0, -3.0], &[0.5204998778130465, 0.8427007929497149, -0.9999779095030014]),
        (Sigmoid, &[0.0, 800.0, -800.0], &[0.5, 1.0, 0.0]),
        (Floor, &[1.5, -1.5], &[1.0, -2.0]),
        (Ceil, &[1.5, -1.5], &[2.0, -1.0]),
        (Round, &[0.5, 1.5, 2.5, -0.5, -1.2], &[0.0, 2.0, 2.0, 0.0, -1.0]),
    ];
    for (kind, x, y) in cases {
        let out = evaluate(&[values(&[x.len()], x)], |h| vec![unary(*kind, h[0])]);
        close(&out[0], &values(&[y.len()], y).array, 1e-15);
    }
}

#[test]
fn functions_of_two_values_broadcast() {
    use BinaryKind::*;
    for kind in [Add, Sub, Mul, Div, Min, Max, Rem] {
        for (a, b) in [
            (&[3, 4][..], &[4][..]),
            (&[4], &[3, 4]),
            (&[2, 3], &[]),
            (&[2, 3], &[2, 3]),
            (&[0, 3], &[3]),
            (&[1], &[1]),
        ] {
            check(&[real(a, 1), positive(b, 2)], |h| vec![binary(kind, h[0], h[1])]);
        }
    }
    check(&[positive(&[3, 4], 1), real(&[4], 2)], |h| vec![binary(Pow, h[0], h[1])]);
}

#[test]
fn operands_may_be_views() {
    check(&[real(&[3, 4], 1), real(&[4, 3], 2)], |h| {
        let b = movement::permute(h[1], &[1, 0]);
        vec![ew::mul(h[0], b), select(compare(CompareKind::Lt, h[0], b), ew::exp(b), h[0])]
    });
}

#[test]
fn whole_numbers() {
    let given = [index_values(&[5], &[7, -7, 7, -7, 5]), index_values(&[5], &[2, 2, -2, -2, 0])];
    let out = evaluate(&given, |h| {
        use BinaryKind::*;
        [Add, Sub, Mul, Div, Rem, Min, Max].map(|k| binary(k, h[0], h[1])).to_vec()
    });
    let expected: [[f64; 5]; 7] = [
        [9., -5., 5., -9., 5.],
        [5., -9., 9., -5., 5.],
        [14., -14., -14., 14., 0.],
        [3., -4., -4., 3., 0.],
        [1., 1., -1., -1., 0.],
        [2., -7., -2., -7., 0.],
        [7., 2., 7., -2., 5.],
    ];
    for (found, expected) in out.iter().zip(expected) {
        assert_eq!(found.data, expected);
    }
}

#[test]
fn comparisons_and_masks() {
    let nan = f64::NAN;
    let given = [values(&[4], &[1.0, 2.0, 3.0, nan]), values(&[4], &[2.0, 2.0, 2.0, nan])];
    let out = evaluate(&given, |h| {
        use CompareKind::*;
        [Eq, Ne, Lt, Le, Gt, Ge].map(|k| compare(k, h[0], h[1])).to_vec()
    });
    let expected: [[f64; 4]; 6] =
        [[0., 1., 0., 0.], [1., 0., 1., 1.], [1., 0., 0., 0.], [1., 1., 0., 0.], [0., 0., 1., 0.], [0., 1., 1., 0.]];
    for (found, expected) in out.iter().zip(expected) {
        assert_eq!(found.data, expected);
    }
    let mut bits = [mask(&[4], 0), mask(&[4], 0)];
    bits[0].array.data = vec![0., 0., 1., 1.];
    bits[1].array.data = vec![0., 1., 0., 1.];
    let out = evaluate(&bits, |h| {
        use BinaryKind::*;
        let mut out = [And, Or, Xor].map(|k| binary(k, h[0], h[1])).to_vec();
        out.push(unary(UnaryKind::Not, h[0]));
        out
    });
    for (found, expected) in out.iter().zip([[0., 0., 0., 1.], [0., 1., 1., 1.], [0., 1., 1., 0.], [1., 1., 0., 0.]]) {
        assert_eq!(found.data, expected);
    }
}

#[test]
fn choices_and_casts() {
    for sizes in SIZES {
        check(&[mask(sizes, 3), real(sizes, 1), real(sizes, 2)], |h| vec![select(h[0], h[1], h[2])]);
    }
    check(&[mask(&[3], 3), real(&[2, 3], 1), real(&[], 2)], |h| vec![select(h[0], h[1], h[2])]);
    check(&[mask(&[2, 3], 3), real(&[], 1), real(&[3], 2)], |h| vec![select(h[0], h[1], h[2])]);
    let given = [values(&[4], &[-1.7, 0.0, 1.7, 0.3])];
    let out = evaluate(&given, |h| vec![ew::cast(h[0], DType::I32), ew::cast(h[0], DType::Bool)]);
    assert_eq!(out[0].data, [-1., 0., 1., 0.]);
    assert_eq!(out[1].data, [1., 0., 1., 1.]);
    let out = evaluate(&[indices(&[3], 5, 1)], |h| vec![ew::cast(ew::cast(h[0], DType::F32), DType::I32), h[0]]);
    assert_eq!(out[0], out[1]);
    let inf = f64::INFINITY;
    let out = evaluate(&[values(&[4], &[1.0, inf, -inf, f64::NAN])], |h| vec![ew::is_finite(h[0])]);
    assert_eq!(out[0].data, [1., 0., 0., 0.]);
}

#[test]
fn powers_and_clamps() {
    for exponent in [0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, 1.7, -2.0] {
        check(&[positive(&[5], 1)], |h| vec![ew::powf(h[0], exponent)]);
        let out = evaluate(&[positive(&[5], 1)], |h| vec![ew::powf(h[0], exponent), h[0]]);
        let expected: Vec<f64> = out[1].data.iter().map(|x| x.powf(exponent)).collect();
        close(&out[0], &values(&[5], &expected).array, 1e-15);
    }
    // Products reach negative values and a finite slope at 0.
    check(&[values(&[3], &[-2.0, 0.0, 0.5])], |h| vec![ew::powf(h[0], 2.0), ew::powf(h[0], 3.0)]);
    let clamp =
        |h: &[mobilis_runtime::graph::trace::Handle]| vec![ew::clamp(h[0], leaf::scalar(-0.5), leaf::scalar(0.5))];
    check(&[real(&[3, 7], 1)], clamp);
    let out = evaluate(&[values(&[4], &[-2.0, 0.25, 2.0, f64::NAN])], clamp);
    close(&out[0], &values(&[4], &[-0.5, 0.25, 0.5, f64::NAN]).array, 0.0);
}

type Function = fn(mobilis_runtime::graph::trace::Handle) -> mobilis_runtime::graph::trace::Handle;

const ACTIVATIONS: [(&str, Function); 10] = [
    ("relu", activation::relu),
    ("leaky_relu", |h| activation::leaky_relu(h, 0.1)),
    ("elu", |h| activation::elu(h, 1.5)),
    ("gelu", activation::gelu),
    ("gelu_tanh", activation::gelu_tanh),
    ("silu", activation::silu),
    ("softplus", activation::softplus),
    ("log_sigmoid", activation::log_sigmoid),
    ("mish", activation::mish),
    ("sigmoid", |h| unary(UnaryKind::Sigmoid, h)),
];

#[test]
fn activations_have_gradients() {
    for (_, f) in ACTIVATIONS {
        for sizes in SIZES {
            check(&[real(sizes, 1)], |h| vec![f(h[0])]);
        }
    }
}

#[test]
fn activations_have_their_values() {
    // The gelus' values are Phi(x) x of tables, and the formula in Python.
    let x = [-2.0, -0.5, 0.0, 1.0, 3.0];
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| x.exp().ln_1p();
    let expected: [[f64; 5]; 9] = [
        [0.0, 0.0, 0.0, 1.0, 3.0],
        [-0.2, -0.05, 0.0, 1.0, 3.0],
        x.map(|x: f64| if x > 0.0 { x } else { 1.5 * (x.exp() - 1.0) }),
        [-0.04550026389635842, -0.15426876936299347, 0.0, 0.8413447460685429, 2.99595030590511],
        [-0.04540230591222494, -0.15428599017485606, 0.0, 0.8411919906082768, 2.996362607918227],
        x.map(|x| x * sigmoid(x)),
        x.map(softplus),
        x.map(|x| sigmoid(x).ln()),
        x.map(|x| x * softplus(x).tanh()),
    ];
    for ((name, f), expected) in ACTIVATIONS.iter().zip(expected) {
        let out = evaluate(&[values(&[5], &x)], |h| vec![f(h[0])]);
        println!("{name}");
        close(&out[0], &values(&[5], &expected).array, 1e-12);
    }
}

#[test]
fn activations_stay_finite_far_out() {
    use mobilis_runtime::testing::with_gradients;
    let given = [values(&[6], &[-1e4, -800.0, -40.0, 40.0, 800.0, 1e4])];
    for (name, f) in ACTIVATIONS {
        let (graph, _) = with_gradients(&given, &|h| vec![f(h[0])]);
        let run = mobilis_runtime::devices::reference::run(&graph, &Default::default(), &[given[0].array.clone()], &[]);
        let values = run.expect("runs");
        for v in &graph.outputs {
            assert!(values.get(*v).data.iter().all(|v| v.is_finite()), "{name}: {:?}", values.get(*v));
        }
    }
    let out = evaluate(&given, |h| vec![activation::softplus(h[0]), activation::log_sigmoid(h[0])]);
    assert_eq!(out[0].data[5], 1e4);
    assert_eq!(out[1].data[0], -1e4);
    close(&values(&[1], &[out[0].data[2] * 1e17]).array, &values(&[1], &[0.42483542552915889]).array, 1e-10);
}

#[test]
fn a_gated_linear_unit() {
    use mobilis_runtime::graph::Dim;
    for (sizes, axis) in [(&[4][..], 0), (&[3, 6], 1), (&[6, 1, 3], 0), (&[0, 2], 1)] {
        let half = Dim::fixed(sizes[axis] as u64 / 2);
        check(&[real(sizes, 1)], |h| vec![activation::glu(h[0], axis, half.clone())]);
    }
    let out = evaluate(&[values(&[4], &[1.0, 2.0, 0.0, 100.0])], |h| vec![activation::glu(h[0], 0, Dim::fixed(2))]);
    close(&out[0], &values(&[2], &[0.5, 2.0]).array, 1e-15);
}

#[test]
fn what_is_not_defined_is_refused() {
    use mobilis_runtime::testing::try_traced;
    let message =
        |given: &[_], f: fn(&[mobilis_runtime::graph::trace::Handle]) -> mobilis_runtime::graph::trace::Handle| {
            try_traced(given, |h| vec![f(h)]).expect_err("is refused").message
        };
    assert_eq!(message(&[mask(&[2], 1)], |h| ew::neg(h[0])), "neg: is not defined for bool");
    assert_eq!(message(&[indices(&[2], 3, 1)], |h| ew::exp(h[0])), "exp: is not defined for i32");
    assert_eq!(
        message(&[real(&[2], 1), indices(&[2], 3, 1)], |h| ew::add(h[0], h[1])),
        "add: takes two operands of one kind, is given f32 and i32"
    );
    assert_eq!(
        message(&[real(&[2, 3], 1), real(&[2], 1)], |h| ew::add(h[0], h[1])),
        "add: [2] does not broadcast onto [2, 3]"
    );
}
