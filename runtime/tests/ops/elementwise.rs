use mobilis_runtime::ops::elementwise::BinaryKind;
use mobilis_runtime::ops::elementwise::{UnaryKind, binary, unary};
use mobilis_runtime::testing::{check, positive, real};

#[test]
fn functions_of_one_value() {
    use UnaryKind::*;
    for kind in [Neg, Exp, Log, Sqrt, Rsqrt, Recip, Abs, Sign, Sin, Cos, Tanh, Erf, Sigmoid] {
        for sizes in [&[][..], &[5], &[3, 1, 2], &[2, 0]] {
            check(&[positive(sizes, 1)], |h| vec![unary(kind, h[0])]);
        }
    }
}

#[test]
fn functions_of_two_values_broadcast() {
    use BinaryKind::*;
    for kind in [Add, Sub, Mul, Div, Min, Max] {
        for (a, b) in [(&[3, 4][..], &[4][..]), (&[4], &[3, 4]), (&[2, 3], &[]), (&[2, 3], &[2, 3])] {
            check(&[real(a, 1), real(b, 2)], |h| vec![binary(kind, h[0], h[1])]);
        }
    }
    check(&[positive(&[3, 4], 1), real(&[4], 2)], |h| vec![binary(Pow, h[0], h[1])]);
}
