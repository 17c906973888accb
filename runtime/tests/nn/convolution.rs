//! Convolution, pooling and flattening layers.

use super::*;
use mobilis::language::window::ConvTranspose;
use mobilis::nn::*;

axes! {
    Images = 2;
    Channels = 4;
    Filters = 6;
    Height = 7;
    Width = 5;
    Length = 9;
    HalfLength = ceil(Length / 2);
    HalfHeight = ceil(Height / 2);
    HalfWidth = ceil(Width / 2);
    Features = Filters * HalfHeight * HalfWidth;
    Classes = 3;
    Unknown;
    Subsampled = floor((Unknown - 1) / 2) + 1;
}

fn line() -> Tensor<(Images, Channels, Length)> {
    argument()
}

fn plane() -> Tensor<(Images, Channels, Height, Width)> {
    argument()
}

#[test]
fn a_gradient_reaches_every_parameter() {
    reaches_every_parameter(&Conv1d::<Channels, Filters, 3, 2, 1>::new(), |m| {
        m.forward(line()).relabel::<(Images, Filters, HalfLength)>().raw()
    });
    reaches_every_parameter(&PointwiseConv1d::<Channels, Filters>::new(), |m| m.forward(line()).raw());
    reaches_every_parameter(&GroupedConv1d::<Channels, Filters, 2, 3>::new(), |m| m.forward(line()).raw());
    reaches_every_parameter(&DepthwiseConv1d::<Channels, 3>::new(), |m| m.forward(line()).raw());
    reaches_every_parameter(&SameConv1d::<Channels, Filters, 4>::new(), |m| m.forward(line()).raw());
    reaches_every_parameter(&CausalConv1d::<Channels, Filters, 3, 2>::new(), |m| m.forward(line()).raw());
    reaches_every_parameter(&ConvTranspose1d::<Channels, Filters, 4, 2, 1>::new(), |m| m.forward(line()).raw());
    reaches_every_parameter(&Conv2d::<Channels, Filters, 3>::new().no_bias(), |m| m.forward(plane()).raw());
    reaches_every_parameter(&PointwiseConv2d::<Channels, Filters>::new(), |m| m.forward(plane()).raw());
    reaches_every_parameter(&GroupedConv2d::<Channels, Filters, 2, 3>::new(), |m| m.forward(plane()).raw());
    reaches_every_parameter(&DepthwiseConv2d::<Channels, 3>::new(), |m| m.forward(plane()).raw());
    reaches_every_parameter(&SameConv2d::<Channels, Filters, 3>::new(), |m| m.forward(plane()).raw());
    reaches_every_parameter(&ConvTranspose2d::<Channels, Filters, 3, 2>::new(), |m| m.forward(plane()).raw());
}

/// A classifier as a tuple: every edge is checked by the compiler.
#[test]
fn a_stack_of_layers() {
    type Net = (
        Conv2d<Channels, Filters, 3, 2, 1>,
        Relu,
        AdaptiveAvgPool2d<HalfHeight, HalfWidth>,
        Flatten<Features>,
        Linear<Features, Classes>,
    );
    let net = Net::default();
    reaches_every_parameter(&net, |m| m.call(plane()).raw());
    let graph = traced(&net, Mode::Eval, |m| vec![m.call(plane()).raw()]);
    assert_eq!(graph.ty(graph.outputs[0]).to_string(), "[Images=2, Classes=3]");
    let names: Vec<&str> = graph.vars.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["0.weight", "0.bias", "4.weight", "4.bias"]);
}

#[test]
fn pooling_layers() {
    let graph = traced(&(), Mode::Eval, |_| {
        vec![
            MaxPool1d::<2>.forward(line()).raw(),
            AvgPool1d::<3, 2, 1>::default().forward(line()).raw(),
            MaxPool2d::<3, 2, 1>.forward(plane()).raw(),
            AvgPool2d::<2> { count_padding: false }.forward(plane()).raw(),
            GlobalAvgPool.forward(line()).raw(),
            GlobalAvgPool.forward(plane()).raw(),
            AdaptiveAvgPool1d::<Const<2>>::default().forward(line()).raw(),
        ]
    });
    let sizes: Vec<Vec<usize>> =
        graph.outputs.iter().map(|v| graph.ty(*v).sizes(&Sizes::new()).expect("static sizes")).collect();
    assert_eq!(
        sizes,
        [vec![2, 4, 4], vec![2, 4, 5], vec![2, 4, 4, 3], vec![2, 4, 3, 2], vec![2, 4], vec![2, 4], vec![2, 4, 2]]
    );
    let given: Vec<Given> = graph.inputs.iter().enumerate().map(|(i, d)| example(&d.ty, i as u64)).collect();
    let out = run(&graph, &given);
    let mean: f64 = given[4].array.data[..9].iter().sum::<f64>() / 9.0;
    assert!((out[4].data[0] - mean).abs() < 1e-12);
}

/// A causal layer's first outputs do not change with later inputs.
#[test]
fn causal_layers_do_not_look_ahead() {
    let layer = CausalConv1d::<Channels, Filters, 3, 2>::new();
    let graph = traced(&layer, Mode::Eval, |m| vec![m.forward(line()).raw()]);
    let mut given = vec![real(&[2, 4, 9], 1)];
    let before = run(&graph, &given);
    // The last position of every row.
    given[0].array.data.iter_mut().skip(8).step_by(9).for_each(|v| *v += 1.0);
    let after = run(&graph, &given);
    for (i, (a, b)) in before[0].data.iter().zip(&after[0].data).enumerate() {
        assert_eq!(a == b, i % 9 != 8, "position {}", i % 9);
    }
}

/// Lengths that are known when the program runs: the compiler has proved the relations.
#[test]
fn run_time_lengths() {
    fn down(
        x: Tensor<(Images, Channels, Unknown)>,
        m: &Conv1d<Channels, Channels, 3, 2, 1>,
    ) -> Tensor<(Images, Channels, Subsampled)> {
        m.forward(x).relabel()
    }
    fn up(x: Tensor<(Images, Channels, Unknown)>) -> Tensor<(Images, Channels, Prod<Unknown, Const<2>>)> {
        ConvTranspose1d::<Channels, Channels, 4, 2, 1>::new().forward(x).relabel()
    }
    let layer = Conv1d::new();
    let graph = traced(&layer, Mode::Eval, |m| vec![down(argument(), m).raw(), up(argument()).raw()]);
    let sizes = Sizes::new().with::<Unknown>(7);
    let shape = |i: usize| graph.ty(graph.outputs[i]).sizes(&sizes).expect("all sizes are bound");
    assert_eq!((shape(0), shape(1)), (vec![2, 4, 4], vec![2, 4, 14]));
    assert_eq!(<ConvTranspose<Unknown, 4, 2, 1>>::PRINT, <Prod<Unknown, Const<2>>>::PRINT);
}

/// PyTorch's default: within `±1/sqrt(fan_in)`, for weights and biases.
#[test]
fn initial_values() {
    use mobilis::module::init::Init;
    let layer = Conv2d::<Channels, Filters, 3>::new();
    let inits: Vec<Init> = {
        let mut found = vec![];
        mobilis::module::walk(&layer, &mut |_, item| {
            if let mobilis::module::Item::Var(v) = item {
                found.push(v.init());
            }
        });
        found
    };
    assert_eq!(inits, [Init::default(), Init::Uniform { low: -1.0 / 6.0, high: 1.0 / 6.0 }]);
}
