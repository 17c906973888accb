use mobilis_runtime::Extent;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::movement;
use mobilis_runtime::ops::rope::{Pairing, Rotary, Scaling, Yarn, positions, rope, tables};
use mobilis_runtime::testing::{CPU, check, check_cpu, close, evaluate, index_values, real, values};

fn with(theta: f64, scaling: Scaling) -> Rotary {
    Rotary { theta, partial: 1.0, scaling }
}

#[test]
fn pairs_are_rotated() {
    // One pair turns by one radian per position, the second by 1/100.
    let given = [values(&[1, 1, 4], &[1., 2., 3., 4.]), index_values(&[1], &[2])];
    let out = evaluate(&given, |h| {
        let t = tables(&Rotary::default(), h[1], &Extent::constant(4));
        vec![rope(h[0], t, Pairing::HalfSplit, &[1]), rope(h[0], t, Pairing::Interleaved, &[1])]
    });
    let turn = |a: f64, b: f64, angle: f64| (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin());
    let ((a, c), (b, d)) = (turn(1., 3., 2.), turn(2., 4., 0.02));
    close(&out[0], &values(&[1, 1, 4], &[a, b, c, d]).array, 1e-14);
    let ((a, b), (c, d)) = (turn(1., 2., 2.), turn(3., 4., 0.02));
    close(&out[1], &values(&[1, 1, 4], &[a, b, c, d]).array, 1e-14);
}

#[test]
fn every_layout_has_a_gradient() {
    let half = Rotary { partial: 0.5, ..Rotary::default() };
    for pairing in [Pairing::HalfSplit, Pairing::Interleaved] {
        for rotary in [&Rotary::default(), &half] {
            // [b t h d] with positions by time; [b h t d]; a permuted view of it; sizes 0 and 1.
            for (sizes, axis) in
                [(&[2, 3, 2, 8][..], 1), (&[2, 2, 3, 8], 2), (&[0, 3, 1, 4], 1), (&[1, 1, 1, 4], 1), (&[5, 6], 0)]
            {
                check(&[real(sizes, 1)], |h| {
                    let t = tables(rotary, positions(h[0], axis), &Extent::constant(sizes[sizes.len() - 1] as u64));
                    vec![rope(h[0], t, pairing, &[axis])]
                });
            }
            check(&[real(&[2, 3, 2, 8], 1)], |h| {
                let x = movement::permute(h[0], &[0, 2, 1, 3]);
                let t = tables(rotary, positions(x, 2), &Extent::constant(8));
                vec![rope(x, t, pairing, &[2])]
            });
            // Positions for each example.
            check(&[real(&[2, 3, 2, 4], 1), index_values(&[2, 3], &[0, 1, 2, 7, 8, 9])], |h| {
                let t = tables(rotary, h[1], &Extent::constant(4));
                vec![rope(h[0], t, pairing, &[0, 1])]
            });
        }
    }
}

#[test]
fn what_is_not_rotated_passes_through() {
    let half = Rotary { partial: 0.5, ..Rotary::default() };
    let given = [real(&[3, 8], 1)];
    let out = evaluate(&given, |h| {
        let t = tables(&half, positions(h[0], 0), &Extent::constant(8));
        vec![rope(h[0], t, Pairing::HalfSplit, &[0])]
    });
    for row in 0..3 {
        assert_eq!(out[0].data[row * 8 + 4..row * 8 + 8], given[0].array.data[row * 8 + 4..row * 8 + 8]);
    }
    assert_eq!(half.half(&Extent::constant(80)), Extent::constant(20));
}

fn scalings() -> Vec<(&'static str, Rotary)> {
    let short = (0..8).map(|i| 1.0 + 0.1 * i as f64).collect();
    let long = (0..8).map(|i| 1.5 + i as f64).collect();
    let deepseek = Yarn { beta_fast: 16.0, beta_slow: 2.0, mscale: Some((0.707, 1.0)), ..Yarn::new(8.0, 32.0) };
    let attention = Scaling::long_rope_attention(128.0, 32.0);
    vec![
        ("default", with(1e4, Scaling::None)),
        ("linear", with(1e4, Scaling::Linear { factor: 4.0 })),
        ("dynamic", with(1e4, Scaling::Dynamic { factor: 2.0, original: 32.0 })),
        ("yarn", with(1e4, Scaling::Yarn(Yarn::new(4.0, 32.0)))),
        ("yarn_mscale", with(1e4, Scaling::Yarn(deepseek))),
        ("longrope", with(1e4, Scaling::LongRope { short, long, original: 32.0, attention })),
        ("llama3", with(5e5, Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 })),
    ]
}

/// `shared/golden/rope`: Hugging Face's frequencies, cosines and sines in single precision.
#[test]
fn golden_frequencies() {
    let Some(golden) = super::golden("rope") else { return };
    for (name, rotary) in scalings() {
        for (length, n) in [("short", 20), ("long", 48)] {
            let expected = |what: &str| &golden[&format!("{name}.{length}.{what}")];
            let (frequencies, _) = rotary.frequencies(8, n).expect("eight pairs");
            close(&values(&[8], &frequencies).array, expected("inv_freq"), 1e-6);
            let ids: Vec<i64> = (0..n as i64).collect();
            let given = [index_values(&[n], &ids)];
            let both = |h: &[Handle]| {
                let (cos, sin) = tables(&rotary, h[0], &Extent::constant(16));
                vec![cos, sin]
            };
            check_cpu(&given, &both, CPU);
            let out = evaluate(&given, both);
            for (found, what) in out.iter().zip(["cos", "sin"]) {
                // Hugging Face repeats the pairs for both halves.
                let twice: Vec<f64> = found.data.chunks(8).flat_map(|row| [row, row].concat()).collect();
                // Angles in single precision are off by 48 * 6e-8; dynamic ones by twice that.
                close(&values(&[n, 16], &twice).array, expected(what), 1e-5);
            }
        }
    }
}
