use super::*;
use mobilis::nn::{AlibiBias, LearnedPositions, Pairing, RelativeBias, Rotary, RotaryEmbedding, SinusoidalPositions};
use mobilis::testing::{close, index_values, values};

axes! {
    Keys = 300;
    Queries = 300;
    Buckets = 32;
    Four = 4;
    Six = 6;
    Long = 10;
}

/// A module without parameters around a function.
fn plain(f: impl FnOnce() -> Handle) -> RefArray {
    let graph = traced(&SinusoidalPositions, Mode::Eval, |_| vec![f()]);
    run(&graph, &[]).remove(0)
}

#[test]
fn sines_and_cosines() {
    let table = plain(|| SinusoidalPositions.table::<Time, Four>().raw());
    let expected = RefArray::from_fn(&[5, 4], |at| {
        let (t, i) = (at[0] as f64, at[1]);
        let angle = t / 10_000f64.powf((i / 2 * 2) as f64 / 4.0);
        if i % 2 == 0 { angle.sin() } else { angle.cos() }
    });
    close(&table, &expected, 1e-13);
}

#[test]
fn alibi_slopes_as_published() {
    let slopes = plain(|| AlibiBias.slopes::<Four>().raw());
    close(&slopes, &values(&[4], &[2f64.powi(-2), 2f64.powi(-4), 2f64.powi(-6), 2f64.powi(-8)]).array, 1e-12);
    // get_slopes(6) of the paper's code: four of four heads, then the first and third of eight.
    let slopes = plain(|| AlibiBias.slopes::<Six>().raw());
    let published = [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125];
    close(&slopes, &values(&[6], &published).array, 1e-12);
    let bias = plain(|| AlibiBias.bias::<Four, Past, Time>().raw());
    let expected = RefArray::from_fn(&[4, 3, 5], |at| {
        -2f64.powi(-2 * (at[0] as i32 + 1)) * (at[2] as f64 - (at[1] as f64 + 2.0)).abs()
    });
    close(&bias, &expected, 1e-12);
}

/// `_relative_position_bucket` of Hugging Face's T5, in single precision as there.
fn bucket(distance: i64, bidirectional: bool, buckets: i64, max: f32) -> i64 {
    let mut buckets = buckets;
    let mut first = 0;
    let far = if bidirectional {
        buckets /= 2;
        first = if distance > 0 { buckets } else { 0 };
        distance.abs()
    } else {
        (-distance).max(0)
    };
    let exact = buckets / 2;
    if far < exact {
        return first + far;
    }
    let steps = (far as f32 / exact as f32).ln() / (max / exact as f32).ln() * (buckets - exact) as f32;
    first + (exact + steps as i64).min(buckets - 1)
}

#[test]
fn buckets_of_t5() {
    for bidirectional in [true, false] {
        let relative = RelativeBias::<Buckets, Heads>::default();
        let relative = if bidirectional { relative } else { relative.causal() };
        let graph = traced(&relative, Mode::Eval, |m| vec![m.bias::<Queries, Keys>().raw()]);
        let out = run(&graph, &[]);
        let table = value_of(&graph.vars[0]);
        let expected = RefArray::from_fn(&[2, 300, 300], |at| {
            let distance = at[2] as i64 - at[1] as i64;
            table.at(&[bucket(distance, bidirectional, 32, 128.0) as usize, at[0]])
        });
        close(&out[0], &expected, 0.0);
    }
}

#[test]
fn learned_positions_count_from_a_start() {
    let module = LearnedPositions::<Limit, Four>::default();
    let graph = traced(&module, Mode::Eval, |m| {
        let x = argument::<(Batch, Time, Four), Real>();
        vec![m.forward(x).raw(), m.at(x, argument::<(), Index>()).raw()]
    });
    let x = real(&[2, 5, 4], 1);
    let out = run(&graph, &[x.clone(), index_values(&[], &[3])]);
    let table = value_of(&graph.vars[0]);
    for (out, start) in out.iter().zip([0, 3]) {
        let expected = RefArray::from_fn(&[2, 5, 4], |at| x.array.at(at) + table.at(&[at[1] + start, at[2]]));
        close(out, &expected, 1e-13);
    }
}

#[test]
fn more_positions_than_were_learned_are_an_error() {
    let module = LearnedPositions::<Limit, Four>::default();
    let result = trace::trace(Some(&module), Mode::Eval, &|_| false, || {
        trace::output(module.forward(argument::<(Batch, Long, Four), Real>()).raw());
    });
    let message = result.expect_err("ten positions of nine").to_string();
    assert!(message.contains("slice"), "{message}");
}

#[test]
fn rotation_by_given_positions() {
    let module = RotaryEmbedding { rotary: Rotary::default(), pairing: Pairing::Interleaved };
    let graph = traced(&module, Mode::Eval, |m| {
        let x = argument::<(Batch, Time, Heads, Four), Real>();
        vec![m.forward(x).raw(), m.at(x, argument::<(Batch, Time), Index>()).raw()]
    });
    let out = run(&graph, &[real(&[2, 5, 2, 4], 1), index_values(&[2, 5], &[0, 1, 2, 3, 4, 0, 1, 2, 3, 4])]);
    assert_eq!(out[0], out[1]);
}
