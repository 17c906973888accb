use super::*;
use mobilis::nn::{BatchNorm, LayerNorm, RmsNorm};
use mobilis::testing::{close, values};

#[test]
fn batch_norm_learns_statistics_and_uses_them() {
    let module = BatchNorm::<Channels6>::default();
    let x = real(&[2, 6, 5], 1);
    let graph = traced(&module, Mode::Train, |m| vec![m.forward(argument::<(Batch, Channels6, Time), Real>()).raw()]);
    let trained = run(&graph, std::slice::from_ref(&x));
    let vars: Vec<(&str, RefArray)> = graph.vars.iter().map(|v| (v.name.as_str(), value_of(v))).collect();
    let var = |name: &str| &vars.iter().find(|v| v.0 == name).expect("a variable").1;
    let updated = |name: &str| {
        let index = graph.vars.iter().position(|v| v.name == name).expect("a variable") as u32;
        let place = graph.updates.iter().position(|u| u.0 == index).expect("an update");
        &trained[graph.outputs.len() + place]
    };
    for c in 0..6 {
        let channel: Vec<f64> = (0..10).map(|i| x.array.at(&[i / 5, c, i % 5])).collect();
        let mean = channel.iter().sum::<f64>() / 10.0;
        let var10 = channel.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 10.0;
        for i in 0..10 {
            let y = (channel[i] - mean) / (var10 + 1e-5).sqrt() * var("weight").data[c] + var("bias").data[c];
            assert!((trained[0].at(&[i / 5, c, i % 5]) - y).abs() < 1e-12);
        }
        let running = 0.9 * var("running_mean").data[c] + 0.1 * mean;
        assert!((updated("running_mean").data[c] - running).abs() < 1e-12);
        let running = 0.9 * var("running_var").data[c] + 0.1 * var10 * 10.0 / 9.0;
        assert!((updated("running_var").data[c] - running).abs() < 1e-12);
    }
    assert_eq!(updated("num_batches_tracked").data, [1.0]);

    let graph = traced(&module, Mode::Eval, |m| vec![m.forward(argument::<(Batch, Channels6, Time), Real>()).raw()]);
    assert!(graph.updates.is_empty());
    let vars: Vec<(&str, RefArray)> = graph.vars.iter().map(|v| (v.name.as_str(), value_of(v))).collect();
    let var = |name: &str| &vars.iter().find(|v| v.0 == name).expect("a variable").1;
    let found = run(&graph, std::slice::from_ref(&x));
    let expected = RefArray::from_fn(&[2, 6, 5], |at| {
        let c = at[1];
        let r = 1.0 / (var("running_var").data[c] + 1e-5).sqrt();
        (x.array.at(at) - var("running_mean").data[c]) * r * var("weight").data[c] + var("bias").data[c]
    });
    close(&found[0], &expected, 1e-12);
}

#[test]
fn defaults_are_those_of_pytorch() {
    let layer = LayerNorm::<Hidden>::default();
    assert_eq!((layer.eps, layer.bias.is_some()), (1e-5, true));
    assert!(layer.no_bias().bias.is_none());
    let rms = RmsNorm::<Channels6>::default().eps(0.0);
    let graph = traced(&rms, Mode::Eval, |m| vec![m.forward(argument::<(Channels6,), Real>()).raw()]);
    let out = run(&graph, &[values(&[6], &[2., -2., 2., -2., 2., -2.])]);
    let weight = value_of(&graph.vars[0]);
    close(&out[0], &RefArray::from_fn(&[6], |i| weight.data[i[0]] * [1., -1.][i[0] % 2]), 1e-12);
}
