use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::elementwise::{self as ew, UnaryKind};
use mobilis_runtime::ops::quantize::{Fp8, Scale, amax, current_scale, delayed_scale, quantize, quantize_tiles};
use mobilis_runtime::ops::{leaf, movement};
use mobilis_runtime::testing::{CPU, Given, agree, check_cpu, close, evaluate, real, try_traced, values};

const EXACT: Scale = Scale::Exact { epsilon: 0.0, power_of_two: false };
const POWER: Scale = Scale::Exact { epsilon: 0.0, power_of_two: true };

/// Values of many magnitudes.
fn wide(sizes: &[usize], seed: u64) -> Given {
    let mut given = real(sizes, seed).rounded();
    given.array.data.iter_mut().enumerate().for_each(|(i, v)| *v *= 2f64.powi(i as i32 % 23 - 14));
    given
}

/// `x` by the scale of its own greatest magnitude.
fn by_own(format: Fp8, scale: Scale, x: Handle) -> Handle {
    quantize(format, x, current_scale(format, scale, amax(x)))
}

#[test]
fn literals() {
    // amax 3.5, scale 128: 128 x is 448, 1.28 (between 1.25 and 1.375), -0.0256 (13 of 2^-9 = 0.0254).
    let given = [values(&[3], &[3.5, 0.01, -0.0002])];
    let out = agree(&given, |h| vec![by_own(Fp8::E4M3, EXACT, h[0]), amax(h[0])], 0.0);
    assert_eq!(out[0].data, [3.5, 1.25 / 128.0, -13.0 / 512.0 / 128.0]);
    assert_eq!(out[1].data, [3.5]);
    // Scale 1: saturation, underflow, ties to even.
    let given = [values(&[6], &[1e6, -460.0, 2f64.powi(-10), 1.0625, 1.1875, 17.0])];
    let out = agree(&given, |h| vec![quantize(Fp8::E4M3, h[0], leaf::scalar(1.0))], 0.0);
    assert_eq!(out[0].data, [448.0, -448.0, 0.0, 1.0, 1.25, 16.0]);
    let out = agree(&given, |h| vec![quantize(Fp8::E5M2, h[0], leaf::scalar(1.0))], 0.0);
    assert_eq!(out[0].data, [57344.0, -448.0, 2f64.powi(-10), 1.0, 1.25, 16.0]);
    // Sixteen bits.
    let given = [values(&[4], &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 65520.0, 1e-8])];
    let out = agree(&given, |h| vec![ew::unary(UnaryKind::Bf16, h[0]), ew::unary(UnaryKind::F16, h[0])], 0.0);
    assert_eq!(out[0].data, [1.0, 1.0 + 4.0 / 256.0, 65536.0, 172.0 * 2f64.powi(-34)]);
    assert_eq!(out[1].data, [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, f64::INFINITY, 0.0]);
}

#[test]
fn scales() {
    let given = [values(&[], &[7.0]), values(&[], &[0.0]), values(&[], &[f64::INFINITY]), values(&[], &[5.0])];
    let f = |h: &[Handle]| {
        let mut all: Vec<Handle> = h[..3].iter().map(|a| current_scale(Fp8::E4M3, EXACT, *a)).collect();
        all.extend(h[..3].iter().map(|a| delayed_scale(Fp8::E5M2, 1.0, *a, h[3])));
        all.push(current_scale(Fp8::E4M3, POWER, ew::mul(h[0], leaf::scalar(1.5))));
        all
    };
    let out = agree(&given, f, 0.0);
    let found: Vec<f64> = out.iter().map(|o| o.data[0]).collect();
    assert_eq!(found, [64.0, 1.0, 1.0, 4096.0, 5.0, 5.0, 32.0]);
}

/// Bit for bit: both devices define these in `f32`.
#[test]
fn tiles_of_every_kind_on_every_device() {
    for sizes in [&[5][..], &[1, 1], &[3, 40], &[40, 3], &[2, 3, 33], &[0, 3], &[3, 0], &[130, 140], &[4, 33, 5]] {
        for inner in (0..sizes.len()).map(|d| vec![d]).chain((1..sizes.len()).map(|d| vec![d - 1, d])) {
            for tile in [(1, usize::MAX), (1, 128), (128, 128), (1, 32), (2, 3)] {
                for (format, scale) in [(Fp8::E4M3, POWER), (Fp8::E5M2, EXACT), (Fp8::E4M3, Scale::E8M0)] {
                    agree(&[wide(sizes, 1)], |h| vec![quantize_tiles(format, h[0], &inner, tile, scale)], 0.0);
                }
            }
        }
        agree(&[wide(sizes, 2)], |h| vec![by_own(Fp8::E5M2, EXACT, h[0]), amax(h[0])], 0.0);
    }
    let turned = |h: &[Handle]| {
        let x = movement::permute(h[0], &[1, 0]);
        vec![by_own(Fp8::E4M3, EXACT, x), quantize_tiles(Fp8::E4M3, x, &[1], (1, 32), Scale::E8M0)]
    };
    agree(&[wide(&[37, 5], 3)], turned, 0.0);
}

#[test]
fn a_tile_has_the_scale_of_its_own_greatest_value() {
    // Two tiles of two summands in each of two rows.
    let given = [values(&[2, 4], &[448.0, 1.03, 0.0, 0.0103, -1.03, 0.5, 896.0, 1.03])];
    let out = evaluate(&given, |h| vec![quantize_tiles(Fp8::E4M3, h[0], &[1], (1, 2), POWER)]);
    let step = 2f64.powi(15);
    let near = |x: f64, unit: f64| (x as f32 as f64 / unit).round_ties_even() * unit;
    assert_eq!(out[0].data[..2], [448.0, 1.0]);
    assert_eq!(out[0].data[2..4], [0.0, near(0.0103, 32.0 / step)]);
    assert_eq!(out[0].data[4..], [near(-1.03, 0.125), 0.5, 896.0, 1.0]);
    // The same along the rows.
    let given = [values(&[2, 2], &[448.0, 0.0103, 1.03, 0.0])];
    let out = evaluate(&given, |h| vec![quantize_tiles(Fp8::E4M3, h[0], &[0], (1, 2), POWER)]);
    assert_eq!(out[0].data, [448.0, near(0.0103, 32.0 / step), 1.0, 0.0]);
}

#[test]
fn values_that_are_not_finite() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let given = [values(&[4], &[nan, 2.0, -inf, 1.0])];
    let out = agree(&given, |h| vec![amax(h[0]), by_own(Fp8::E4M3, EXACT, h[0])], 0.0);
    assert_eq!(out[0].data, [inf]);
    // The scale is 1, infinity saturates, NaN stays.
    assert!(out[1].data[0].is_nan());
    assert_eq!(out[1].data[1..], [2.0, -448.0, 1.0]);
    let out = agree(&[values(&[2], &[nan, 2.0])], |h| vec![amax(h[0])], 0.0);
    assert_eq!(out[0].data, [2.0]);
}

#[test]
fn gradients_pass_unchanged() {
    // As if nothing had been rounded.
    let given = [real(&[6, 8], 1), real(&[6, 8], 2)];
    let through = |h: &[Handle]| {
        let own = by_own(Fp8::E5M2, EXACT, h[0]);
        let tiles = quantize_tiles(Fp8::E4M3, h[0], &[1], (1, 4), POWER);
        let half = ew::add(ew::unary(UnaryKind::Bf16, h[0]), ew::unary(UnaryKind::F16, h[0]));
        vec![ew::mul(ew::add(ew::add(own, tiles), half), h[1])]
    };
    check_cpu(&given, &through, CPU);
    let (rounded, _) = mobilis_runtime::testing::with_gradients(&given, &through);
    let plain = |h: &[Handle]| vec![ew::mul(ew::scale(h[0], 4.0), h[1])];
    let (plain, _) = mobilis_runtime::testing::with_gradients(&given, &plain);
    let run = |graph: &mobilis_runtime::graph::Graph| {
        let inputs: Vec<_> = given.iter().map(|g| g.array.clone()).collect();
        let all = mobilis_runtime::devices::reference::run(graph, &Default::default(), &inputs, &[]).unwrap();
        all.get(graph.outputs[1]).clone()
    };
    close(&run(&rounded), &run(&plain), 1e-14);
}

#[test]
fn mistakes_are_told() {
    let fails =
        |f: &dyn Fn(&[Handle]) -> Handle| try_traced(&[real(&[2, 3, 4], 1)], |h| vec![f(h)]).unwrap_err().to_string();
    assert!(fails(&|h| quantize(Fp8::E4M3, h[0], h[0])).contains("single real numbers"));
    assert!(fails(&|h| quantize_tiles(Fp8::E4M3, h[0], &[0, 2], (1, 4), EXACT)).contains("neighbouring"));
    assert!(fails(&|h| quantize_tiles(Fp8::E4M3, h[0], &[3], (1, 4), EXACT)).contains("neighbouring"));
    assert!(fails(&|h| quantize_tiles(Fp8::E4M3, h[0], &[2], (0, 4), EXACT)).contains("with values"));
}
