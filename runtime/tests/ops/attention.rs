use mobilis_runtime::devices::reference::RefArray;
use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::attention::{Dropout, Extras, Settings, attend};
use mobilis_runtime::ops::{contraction::einsum, elementwise as ew, movement, softmax::softmax};
use mobilis_runtime::testing::{
    CPU, Given, check, check_cpu, close, evaluate, index_values, indices, mask, noise, real, values,
};

fn qkv(b: usize, t: usize, s: usize, h: usize, d: usize, e: usize) -> Vec<Given> {
    vec![real(&[b, t, h, d], 1), real(&[b, s, h, d], 2), real(&[b, s, h, e], 3)]
}

fn run(h: &[Handle], settings: &Settings, extras: Extras<Handle>) -> Vec<Handle> {
    let (out, lse) = attend(h[0], h[1], h[2], settings.clone(), extras);
    vec![out, lse]
}

fn causal() -> Settings {
    Settings { causal: true, ..Settings::default() }
}

#[test]
fn one_query_and_two_keys() {
    // Scores 2 ln 3 / sqrt(4) = ln 3 and 0: weights 3/4 and 1/4.
    let q = values(&[1, 1, 1, 4], &[2. * 3f64.ln(), 0., 0., 0.]);
    let k = values(&[1, 2, 1, 4], &[1., 0., 0., 0., 0., 1., 0., 0.]);
    let v = values(&[1, 2, 1, 1], &[8., 4.]);
    let out = evaluate(&[q, k, v], |h| run(h, &Settings::default(), Extras::default()));
    close(&out[0], &values(&[1, 1, 1, 1], &[7.]).array, 1e-14);
    close(&out[1], &values(&[1, 1, 1], &[4f64.ln()]).array, 1e-14);
}

/// The same from small operations.
fn composed(h: &[Handle]) -> Handle {
    let z = einsum(&[h[0], h[1]], &[&[0, 1, 2, 3], &[0, 4, 2, 3]], &[0, 2, 1, 4]);
    let d = *mobilis_runtime::graph::trace::type_of(h[0]).dims[3].extent.print().first().expect("eight slots");
    let p = softmax(ew::scale(z, 1.0 / (d as f64).sqrt()), 3);
    einsum(&[p, h[2]], &[&[0, 2, 1, 4], &[0, 4, 2, 5]], &[0, 1, 2, 5])
}

#[test]
fn the_coarse_operation_equals_the_composed_one() {
    let given = qkv(2, 3, 5, 2, 4, 3);
    let out = evaluate(&given, |h| vec![run(h, &Settings::default(), Extras::default())[0], composed(h)]);
    close(&out[0], &out[1], 1e-13);
}

#[test]
fn every_size() {
    for (b, t, s, h, d, e) in [
        (2, 3, 5, 2, 4, 3),
        (1, 1, 1, 1, 1, 1),
        (2, 5, 5, 1, 3, 3),
        (0, 2, 2, 1, 2, 2),
        (1, 0, 2, 1, 2, 2),
        (1, 2, 0, 1, 2, 2),
        (1, 4, 2, 3, 2, 5),
    ] {
        for settings in [Settings::default(), causal()] {
            // Where a query sees nothing, `lse` is minus infinity and has no finite differences.
            let outputs = if s == 0 || settings.causal && t > s { 1 } else { 2 };
            check(&qkv(b, t, s, h, d, e), |h| run(h, &settings, Extras::default())[..outputs].to_vec());
        }
    }
}

#[test]
fn long_enough_for_several_blocks() {
    // Devices work in blocks of queries and keys; here only devices against the reference.
    let given = qkv(1, 70, 133, 2, 5, 3);
    let settings = Settings { window: Some(40), ..causal() };
    check_cpu(&given, &|h| run(h, &settings, Extras::default()), 1e-5);
    check_cpu(&given, &|h| run(h, &Settings::default(), Extras::default()), 1e-5);
}

#[test]
fn every_setting() {
    let given = qkv(2, 4, 6, 2, 3, 3);
    for settings in [
        Settings { window: Some(2), ..causal() },
        Settings { window: Some(2), ..Settings::default() },
        Settings { window: Some(1), ..causal() },
        Settings { scale: Some(0.7), ..Settings::default() },
        Settings { soft_cap: Some(0.8), ..Settings::default() },
        Settings { soft_cap: Some(2.0), scale: Some(1.3), window: Some(3), causal: true, dropout: None },
    ] {
        check(&given, |h| run(h, &settings, Extras::default()));
    }
}

#[test]
fn grouped_queries_read_their_group() {
    let given = [real(&[2, 3, 2, 3, 4], 1), real(&[2, 5, 2, 4], 2), real(&[2, 5, 2, 3], 3)];
    check(&given, |h| run(h, &causal(), Extras::default()));
    // The same as heads of their own with repeated keys and values.
    let out = evaluate(&given, |h| run(h, &causal(), Extras::default()));
    let repeat = |x: &RefArray| {
        let width = x.sizes[3];
        let data = x.data.chunks(width).flat_map(|head| [head, head, head].concat()).collect::<Vec<_>>();
        values(&[2, 5, 6, width], &data)
    };
    let mut flat = given[0].clone();
    flat.array.sizes = vec![2, 3, 6, 4];
    let wide =
        evaluate(&[flat, repeat(&given[1].array), repeat(&given[2].array)], |h| run(h, &causal(), Extras::default()));
    assert_eq!(out[0].data, wide[0].data);
    assert_eq!(out[1].data, wide[1].data);
}

#[test]
fn lengths_hide_the_padding() {
    let mut given = qkv(3, 2, 4, 1, 2, 2);
    given.push(index_values(&[3], &[4, 1, 0]));
    let extras = |h: &[Handle]| Extras { lengths: Some(h[3]), ..Extras::default() };
    check(&given, |h| run(h, &Settings::default(), extras(h))[..1].to_vec());
    let out = evaluate(&given, |h| run(h, &Settings::default(), extras(h)));
    // One visible key: its value. None: zeros, and minus infinity.
    assert_eq!(out[0].data[4..6], given[2].array.data[8..10]);
    assert_eq!(out[0].data[8..], [0.; 4]);
    assert_eq!(out[1].data[4..], [f64::NEG_INFINITY; 2]);
}

#[test]
fn an_offset_places_the_queries() {
    let mut given = qkv(2, 2, 6, 1, 3, 3);
    given.push(index_values(&[], &[3]));
    given.push(index_values(&[2], &[0, 4]));
    for input in [3, 4] {
        let extras = |h: &[Handle]| Extras { offset: Some(h[input]), ..Extras::default() };
        check(&given, |h| run(h, &causal(), extras(h)));
        check(&given, |h| run(h, &Settings { window: Some(2), ..causal() }, extras(h)));
    }
    // An offset of 4 is what six keys and two queries mean without one.
    let out = evaluate(&given, |h| {
        let end = run(h, &causal(), Extras::default())[0];
        vec![end, run(h, &causal(), Extras { offset: Some(h[4]), ..Extras::default() })[0]]
    });
    assert_eq!(out[0].data[6..], out[1].data[6..]);
}

#[test]
fn masks_over_any_axes() {
    let sizes = [2, 3, 2, 5];
    for axes in [&[3][..], &[2, 3], &[0, 3], &[0, 2, 3], &[1, 2, 3], &[0, 1, 2, 3]] {
        let dims: Vec<usize> = axes.iter().map(|a| sizes[*a as usize]).collect();
        let mut given = qkv(2, 2, 5, 3, 4, 3);
        given.push(mask(&dims, 5));
        given.push(real(&dims, 6));
        // The mask of this seed hides no whole row, so that `lse` is finite.
        given[3].array.data.chunks_mut(5).for_each(|row| row[0] = 1.0);
        for input in [3, 4] {
            let extras = |h: &[Handle]| Extras { mask: Some((h[input], axes.to_vec())), ..Extras::default() };
            check(&given, |h| run(h, &Settings::default(), extras(h)));
        }
        let capped = Settings { soft_cap: Some(1.0), ..causal() };
        check(&given, |h| run(h, &capped, Extras { mask: Some((h[4], axes.to_vec())), ..Extras::default() }));
    }
}

#[test]
fn an_additive_mask_of_minus_infinity_hides() {
    let inf = f64::NEG_INFINITY;
    let mut given = qkv(1, 2, 2, 1, 2, 2);
    given.push(values(&[2, 2], &[inf, inf, inf, 0.]));
    let out = evaluate(&given, |h| {
        run(h, &Settings::default(), Extras { mask: Some((h[3], vec![2, 3])), ..Extras::default() })
    });
    assert_eq!(out[0].data[..2], [0., 0.]);
    close(
        &RefArray::new(&[2], out[0].data[2..].to_vec()),
        &RefArray::new(&[2], given[2].array.data[2..].to_vec()),
        1e-14,
    );
}

#[test]
fn permuted_inputs() {
    let given = [real(&[2, 2, 3, 4], 1), real(&[2, 2, 5, 4], 2), real(&[2, 2, 5, 3], 3)];
    check(&given, |h| {
        let swap = |x| movement::permute(x, &[0, 2, 1, 3]);
        run(&[swap(h[0]), swap(h[1]), swap(h[2])], &causal(), Extras::default())
    });
}

#[test]
fn random_shapes_agree_with_the_composed_form() {
    for seed in 0..12u64 {
        let pick = |i: u64, n: f64| 1 + ((noise(seed, i) * 0.5 + 0.5) * n) as usize;
        let given = qkv(pick(0, 2.), pick(1, 6.), pick(2, 7.), pick(3, 3.), pick(4, 5.), pick(5, 5.));
        let out = evaluate(&given, |h| vec![run(h, &Settings::default(), Extras::default())[0], composed(h)]);
        close(&out[0], &out[1], 1e-12);
    }
}

#[test]
fn dropout_draws_the_same_weights_forward_and_backward_on_every_device() {
    let mut given = qkv(2, 5, 70, 2, 3, 3);
    given.push(index_values(&[2], &[3, 1]));
    let dropped = |probability| Settings { dropout: Some(Dropout { probability, stream: 5 }), ..causal() };
    let extras = |h: &[Handle]| Extras { key: Some(h[3]), ..Extras::default() };
    // Finite differences of few values; devices on all.
    let small = [real(&[1, 3, 1, 2], 1), real(&[1, 6, 1, 2], 2), real(&[1, 6, 1, 2], 3), given[3].clone()];
    check(&small, |h| run(h, &dropped(0.4), extras(h)));
    check_cpu(&given, &|h| run(h, &dropped(0.4), extras(h)), CPU);
    // One key: its weight is 0 or 1 / (1 - 0.25), each about as often as asked for.
    let given = [real(&[1, 1000, 1, 1], 1), real(&[1, 1, 1, 1], 2), values(&[1, 1, 1, 1], &[1.0]), given[3].clone()];
    let settings = Settings { causal: false, ..dropped(0.25) };
    let out = evaluate(&given, |h| run(h, &settings, extras(h)));
    let kept = out[0].data.iter().filter(|v| **v != 0.0).count();
    assert!((700..800).contains(&kept), "{kept} of 1000 are kept");
    assert!(out[0].data.iter().all(|v| *v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-12));
}

#[test]
fn random_shapes_and_settings_on_the_cpu() {
    for seed in 0..24u64 {
        let pick = |i: u64, n: f64| 1 + ((noise(seed, i) * 0.5 + 0.5) * n) as usize;
        let flag = |i: u64| noise(seed, i) > 0.0;
        let (b, t, s, g, r, d, e) =
            (pick(0, 2.), pick(1, 80.), 1 + pick(2, 150.), pick(3, 2.), pick(4, 2.), pick(5, 20.), pick(6, 40.));
        let mut given = vec![
            real(&[b, t, g, r, d], 1),
            real(&[b, s, g, d], 2),
            real(&[b, s, g, e], 3),
            indices(&[b], s, 4),
            real(&[g * r, t, s], 5),
        ];
        // Where all queries see one key alone, gradients are 0 but for rounding.
        given[3].array.data.iter_mut().for_each(|n| *n = n.max(2.0));
        let settings = Settings {
            causal: flag(7),
            window: flag(8).then_some(1 + pick(9, 50.) as u64),
            soft_cap: flag(10).then_some(2.0),
            ..Settings::default()
        };
        check_cpu(
            &given,
            &|h| {
                let extras = Extras {
                    lengths: flag(11).then_some(h[3]),
                    mask: flag(12).then(|| (h[4], vec![1, 2, 3])),
                    ..Extras::default()
                };
                run(h, &settings, extras)[..1].to_vec()
            },
            1e-4,
        );
    }
}
