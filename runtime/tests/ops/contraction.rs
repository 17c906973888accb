use mobilis_runtime::graph::trace::Handle;
use mobilis_runtime::ops::contraction::einsum;
use mobilis_runtime::ops::elementwise::{UnaryKind, unary};
use mobilis_runtime::ops::quantize::{Fp8, quantize};
use mobilis_runtime::testing::{CPU, agree, check, evaluate, real, values};

#[test]
fn a_matrix_product() {
    let given = [values(&[2, 3], &[1., 2., 3., 4., 5., 6.]), values(&[3, 2], &[1., 0., 0., 1., 1., 1.])];
    let out = evaluate(&given, |h| vec![einsum(h, &[&[0, 1], &[1, 2]], &[0, 2])]);
    assert_eq!(out[0].data, [4., 5., 10., 11.]);
}

#[test]
fn contractions_of_every_kind() {
    let cases: &[(&[&[usize]], &[&[u8]], &[u8])] = &[
        (&[&[3, 4], &[4, 5]], &[&[0, 1], &[1, 2]], &[0, 2]),
        (&[&[3, 4], &[5, 4]], &[&[0, 1], &[2, 1]], &[2, 0]),
        (&[&[2, 3, 4], &[2, 5, 4]], &[&[0, 1, 2], &[0, 3, 2]], &[0, 1, 3]),
        (&[&[2, 3, 2, 4], &[2, 5, 2, 4]], &[&[0, 1, 2, 3], &[0, 4, 2, 3]], &[0, 2, 1, 4]),
        (&[&[3], &[4]], &[&[0], &[1]], &[0, 1]),
        (&[&[3, 2], &[4, 2]], &[&[0, 1], &[2, 1]], &[0]),
        (&[&[3], &[3], &[3]], &[&[0], &[0], &[0]], &[]),
        (&[&[2, 3], &[3, 4], &[4, 2]], &[&[0, 1], &[1, 2], &[2, 3]], &[3, 0]),
        (&[&[3, 2]], &[&[0, 1]], &[1]),
        (&[&[0, 4], &[4, 5]], &[&[0, 1], &[1, 2]], &[0, 2]),
        (&[&[3, 0], &[0, 5]], &[&[0, 1], &[1, 2]], &[0, 2]),
    ];
    for (sizes, labels, output) in cases {
        let given: Vec<_> = sizes.iter().enumerate().map(|(i, s)| real(s, i as u64)).collect();
        check(&given, |h| vec![einsum(h, labels, output)]);
    }
}

#[test]
fn operands_of_sixteen_bits() {
    let cases: &[(&[&[usize]; 2], &[&[u8]; 2], &[u8])] = &[
        (&[&[20, 17], &[17, 24]], &[&[0, 1], &[1, 2]], &[0, 2]),
        (&[&[33, 40], &[16, 33]], &[&[0, 1], &[2, 0]], &[2, 1]),
        (&[&[2, 18, 3, 16], &[3, 40, 16]], &[&[0, 1, 2, 3], &[2, 4, 3]], &[0, 2, 1, 4]),
        // Too few rows, and what one operand sums alone.
        (&[&[3, 17], &[17, 24]], &[&[0, 1], &[1, 2]], &[0, 2]),
        (&[&[20, 17, 3], &[17, 24]], &[&[0, 1, 3], &[1, 2]], &[0, 2]),
    ];
    for kind in [UnaryKind::Bf16, UnaryKind::F16] {
        for (sizes, labels, output) in cases {
            let given: Vec<_> = sizes.iter().enumerate().map(|(i, s)| real(s, i as u64)).collect();
            let product = |h: &[Handle]| {
                let rounded = [unary(kind, h[0]), unary(kind, h[1])];
                vec![unary(UnaryKind::Tanh, einsum(&rounded, *labels, output))]
            };
            agree(&given, product, CPU);
        }
    }
}

#[test]
fn operands_of_eight_bits() {
    // Powers of two and other scales; sizes that eight bits ask for, and one that bf16 takes.
    for (format, other) in [(Fp8::E4M3, Fp8::E4M3), (Fp8::E5M2, Fp8::E4M3), (Fp8::E4M3, Fp8::E5M2)] {
        for (m, k, n) in [(32, 48, 16), (20, 160, 70)] {
            let given = [real(&[m, k], 1), real(&[n, k], 2), values(&[], &[37.3]), values(&[], &[0.5])];
            let product = |h: &[Handle]| {
                let (x, w) = (quantize(format, h[0], h[2]), quantize(other, h[1], h[3]));
                vec![einsum(&[x, w], &[&[0, 1], &[2, 1]], &[0, 2])]
            };
            agree(&given, product, CPU);
        }
    }
}

mod filters {
    use mobilis::module::table::Table;
    use mobilis::prelude::*;
    use mobilis_runtime::ops::contraction::einsum;
    use mobilis_runtime::ops::elementwise::scale;
    use mobilis_runtime::ops::movement::permute;

    axes! { Batch; Time; Rows = 24; Bins = 40; }

    /// Rows that hear three bins each, the last of them none: `[Rows, Bins]`, or the other way.
    fn table(transposed: bool) -> Table {
        let value =
            |r: usize, k: usize| if (r..r + 3).contains(&k) && r < 23 { 1.0 + (3 * k + r) as f32 / 7.0 } else { 0.0 };
        let all = (0..24 * 40).map(|i| if transposed { value(i % 24, i / 24) } else { value(i / 40, i % 40) });
        Table::new("filters", all.collect::<Vec<f32>>())
    }

    type X = Array![Batch, Bins, Time];
    type Y = Array![Batch, Rows, Time];

    fn run(x: &X, transposed: bool, device: Device, weights: WeightFormat) -> Y {
        let table = table(transposed);
        let model = Model::init((), 0).expect("nothing is missing").on(device);
        let filtered = |x: Tensor![Batch, Bins, Time]| -> Tensor![Batch, Rows, Time] {
            let (dims, labels) = match transposed {
                true => (vec![Bins::dim(), Rows::dim()], b"km"),
                false => (vec![Rows::dim(), Bins::dim()], b"mk"),
            };
            // Once as it lies, once as a view whose neighbours are far apart.
            let turned = permute(scale(permute(x.raw(), &[0, 2, 1]), 0.5), &[0, 2, 1]);
            let first = einsum(&[table.get(dims.clone()), x.raw()], &[labels, b"bkt"], b"bmt");
            let second = einsum(&[turned, table.get(dims)], &[b"bkt", labels], b"bmt");
            let [first, second]: [Tensor![Batch, Rows, Time]; 2] = [first, second].map(Tensor::from_raw);
            first + second
        };
        let program = model.compile(|_: &(), x: Tensor![Batch, Bins, Time]| filtered(x)).expect("compiles");
        let program = if device == Device::Cpu { program.with_weights(weights).expect("is a format") } else { program };
        program.run(x).expect("runs")
    }

    #[test]
    fn spectra_are_filtered_where_they_are_made() {
        use mobilis_runtime::ops::elementwise::mul;
        use mobilis_runtime::ops::reduce::{Kind, reduce};
        use mobilis_runtime::ops::stft::{Edge, Framing, stft};

        axes! { Samples; Window = 78; }
        let table = table(false);
        let window = Table::new("window", (0..78).map(|i| 0.1 + (i % 7) as f32 / 7.0).collect::<Vec<f32>>());
        let run = |x: &Array![Batch, Samples], device: Device| {
            let filtered = |x: Tensor![Batch, Samples]| {
                let framing = Framing { hop: 31, pad: 20, edge: Edge::Reflect };
                let y = stft(x.raw(), window.get(vec![Window::dim()]), framing);
                let power = reduce(mul(y, y), Kind::Sum, &[3]);
                let all = einsum(&[table.get(vec![Rows::dim(), Bins::dim()]), power], &[b"mk", b"bkt"], b"bmt");
                Tensor::<(Batch,)>::from_raw(reduce(mul(all, all), Kind::Sum, &[1, 2]))
            };
            let model = Model::init((), 0).expect("nothing is missing").on(device);
            let program = model.compile(|_: &(), x: Tensor![Batch, Samples]| filtered(x)).expect("compiles");
            if device != Device::Reference {
                let nodes = &program.executable().optimized().nodes;
                let names: Vec<_> = nodes.iter().map(|n| n.op.rule().name()).collect();
                assert!(names.contains(&"filtered_spectrum") && !names.contains(&"einsum"), "{names:?}");
            }
            program.run(x).expect("runs").data().to_vec()
        };
        for (batch, samples) in [(1, 3000), (3, 60)] {
            let x =
                <Array![Batch, Samples]>::from_fn([batch, samples], |i| (i[0] * 7 + i[1] * i[1] % 23) as f32 / 23.0);
            let x = x.expect("fits");
            let expected = run(&x, Device::Reference);
            let mut devices = vec![Device::Cpu];
            #[cfg(feature = "cuda")]
            devices.extend(Device::emulated().map_err(|why| eprintln!("not on an emulated GPU: {why}")));
            for device in devices {
                for (a, b) in run(&x, device).iter().zip(&expected) {
                    assert!((a - b).abs() <= 1e-5 * b, "{device}: {a} is not {b}");
                }
            }
        }
    }

    #[test]
    fn tables_of_filters_are_exact_whatever_the_format_of_weights() {
        for (batch, time) in [(1, 70), (3, 300), (2, 1), (2, 0)] {
            let x =
                X::from_fn([batch, 40, time], |i| ((i[0] * 7 + i[1] * 13 + i[2] * 5) % 11) as f32 - 5.0).expect("fits");
            for transposed in [false, true] {
                let expected = run(&x, transposed, Device::Reference, WeightFormat::F32);
                let found = run(&x, transposed, Device::Cpu, WeightFormat::F32);
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(10.0);
                assert!(
                    found.sizes() == [batch, 24, time] && found.data().iter().zip(expected.data()).all(near),
                    "{batch} {time} {transposed}"
                );
                assert_eq!(run(&x, transposed, Device::Cpu, WeightFormat::Int8).data(), found.data());
            }
        }
    }
}
