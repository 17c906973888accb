//! Matrix products of every kind on the emulator, and on the GPU where there is one, against sums in `f64`.

use mobilis_cuda::gemm::{Activation, Blocks, Element, Epilogue, Gemm, Matrix, choose, gemm};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Buffer, Gpu, Info, Ptr};
use mobilis_kernels::fp8::Fp8;
use std::collections::BTreeSet;

/// Values of an element type on a device, and what they are.
struct Data {
    exact: Vec<f64>,
    buffer: Buffer,
    element: Element,
}

fn encode(element: Element, v: f32) -> (Vec<u8>, f64) {
    match element {
        Element::F32 => (v.to_ne_bytes().into(), v as f64),
        Element::Bf16 => {
            let h = half::bf16::from_f32(v);
            (h.to_ne_bytes().into(), h.to_f64())
        }
        Element::F16 => {
            let h = half::f16::from_f32(v);
            (h.to_ne_bytes().into(), h.to_f64())
        }
        Element::E4M3 => (vec![Fp8::E4M3.encode(v)], Fp8::E4M3.round(v) as f64),
        Element::E5M2 => (vec![Fp8::E5M2.encode(v)], Fp8::E5M2.round(v) as f64),
        _ => {
            let q = (v * 50.0) as i8;
            (vec![q as u8], q as f64)
        }
    }
}

fn decode(element: Element, bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks(element.bytes());
    let number = |w: &[u8]| match element {
        Element::F32 => f32::from_ne_bytes(w.try_into().unwrap()),
        Element::Bf16 => half::bf16::from_ne_bytes(w.try_into().unwrap()).to_f32(),
        Element::F16 => half::f16::from_ne_bytes(w.try_into().unwrap()).to_f32(),
        Element::E4M3 => Fp8::E4M3.decode(w[0]),
        _ => Fp8::E5M2.decode(w[0]),
    };
    words.map(number).collect()
}

impl Data {
    fn new(gpu: &Gpu, count: usize, seed: u64, element: Element) -> Data {
        let (bytes, exact): (Vec<_>, Vec<f64>) = values(count, seed).into_iter().map(|v| encode(element, v)).unzip();
        Data { exact, buffer: upload(gpu, &bytes.concat()), element }
    }
    /// As a matrix, beginning `first` values on.
    fn matrix(&self, first: usize, [row, col, outer, inner]: [usize; 4]) -> Matrix {
        Matrix { at: self.buffer.ptr().at(first * self.element.bytes()), element: self.element, row, col, outer, inner }
    }
    fn get(&self, x: &Matrix, i: usize, j: usize, [o, n]: [usize; 2]) -> f64 {
        let first = (x.at.0 - self.buffer.ptr().0) as usize / self.element.bytes().max(1);
        self.exact[first + i * x.row + j * x.col + o * x.outer + n * x.inner]
    }
}

fn activate(kind: Activation, v: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26 is too coarse: the series of erf.
    let erf = |x: f64| {
        let (mut sum, mut term) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        2.0 / std::f64::consts::PI.sqrt() * sum
    };
    match kind {
        Activation::Identity => v,
        Activation::Relu => v.max(0.0),
        Activation::Gelu if v.abs() > 6.0 => v.max(0.0),
        Activation::Gelu => 0.5 * v * (1.0 + erf(v / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh())
        }
        Activation::Silu => v / (1.0 + (-v).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-v).exp()),
        Activation::Tanh => v.tanh(),
        Activation::Relu2 => v.max(0.0).powi(2),
    }
}

/// What an epilogue reads and writes.
#[derive(Default)]
struct Operands<'a> {
    bias: Option<&'a Data>,
    gate: Option<&'a Data>,
    residual: Option<&'a Data>,
    row_scales: Option<&'a Data>,
    column_scales: Option<&'a Data>,
    scale: f64,
    factor: Option<f64>,
    before: f64,
    amax: Option<&'a Buffer>,
}

fn run(gpu: &Gpu, as_on: &Info, g: &Gemm) -> String {
    let choice = choose(g, as_on).unwrap();
    let workspace = gpu.alloc(choice.workspace).unwrap();
    gpu.run(&gemm(g, &choice, workspace.ptr()).unwrap()).unwrap_or_else(|e| panic!("{choice}: {e}"));
    choice.to_string()
}

/// Runs a product and compares what is in `c` with sums in `f64`; the kernel's name.
fn check(gpu: &Gpu, g: &Gemm, c: &Buffer, data: (&Data, &Data), more: &Operands, tolerance: f64) -> String {
    check_on(gpu, gpu.info(), g, c, data, more, tolerance)
}

/// The same with the kernel that another device would get.
fn check_on(
    gpu: &Gpu,
    as_on: &Info,
    g: &Gemm,
    c: &Buffer,
    (a, b): (&Data, &Data),
    more: &Operands,
    tolerance: f64,
) -> String {
    let name = run(gpu, as_on, g);
    let mut bytes = vec![0u8; c.bytes()];
    c.download(&mut bytes).unwrap();
    let found = decode(g.c.element, &bytes);
    let (mut got, mut expected) = (vec![], vec![]);
    let mut most = 0f64;
    let e = &g.epilogue;
    for o in 0..g.batch[0] {
        for inner in 0..g.batch[1] {
            for i in 0..g.m {
                for j in 0..g.n {
                    let at = [o, inner];
                    let mut v: f64 = (0..g.k).map(|l| a.get(&g.a, i, l, at) * b.get(&g.b, l, j, at)).sum();
                    v *= e.alpha as f64 * more.factor.unwrap_or(1.0);
                    v *= more.row_scales.map_or(1.0, |s| s.exact[i]) * more.column_scales.map_or(1.0, |s| s.exact[j]);
                    v += e.beta as f64 * more.before;
                    let operand =
                        |x: &Option<Matrix>, d: Option<&Data>, or| x.map_or(or, |x| d.unwrap().get(&x, i, j, at));
                    v = activate(e.activation, v + operand(&e.bias, more.bias, 0.0));
                    v = v * operand(&e.gate, more.gate, 1.0) + operand(&e.residual, more.residual, 0.0);
                    most = most.max(v.abs());
                    if e.scale != Ptr::NULL {
                        v *= more.scale;
                    }
                    expected.push(v);
                    got.push(found[i * g.c.row + j * g.c.col + o * g.c.outer + inner * g.c.inner]);
                }
            }
        }
    }
    let d = difference(&got, &expected);
    assert!(d < tolerance, "{name} {}x{}x{} of {:?}: {d}", g.m, g.n, g.k, g.batch);
    if let Some(amax) = more.amax {
        let amax = download::<f32>(amax, 1)[0] as f64;
        assert!((amax - most).abs() <= most * tolerance, "{name}: {amax} for {most}");
    }
    name
}

/// Kernels of all these words ran, if any did.
fn all_ran(kernels: &BTreeSet<String>, words: &[&str]) {
    let ran = |word: &&&str| kernels.is_empty() || kernels.iter().any(|k| k.contains(**word));
    assert_eq!(words.iter().find(|w| !ran(w)), None, "among {kernels:?}");
}

const F32: Element = Element::F32;
const EXACT: f64 = 3e-6;

/// A product of row-major matrices, each or none transposed.
fn plain(gpu: &Gpu, [m, n, k]: [usize; 3], turned: [bool; 3], types: [Element; 2]) -> (Data, Data, Buffer, Gemm) {
    let (a, b) = (Data::new(gpu, m * k, 1, types[0]), Data::new(gpu, k * n, 2, types[1]));
    let c = gpu.alloc(m * n * 4).unwrap();
    let lay = |rows: usize, cols: usize, t: bool| if t { [1, rows, 0, 0] } else { [cols, 1, 0, 0] };
    let (am, bm) = (a.matrix(0, lay(m, k, turned[0])), b.matrix(0, lay(k, n, turned[1])));
    let [row, col, ..] = lay(m, n, turned[2]);
    let g = Gemm::new([m, n, k], am, bm, Matrix { at: c.ptr(), row, col, ..Matrix::default() });
    (a, b, c, g)
}

#[test]
fn products_in_all_transpositions_and_odd_sizes() {
    let mut kernels = BTreeSet::new();
    for gpu in devices() {
        for (size, at) in [
            [64, 96, 80],
            [129, 65, 33],
            [9, 1, 7],
            [17, 200, 5],
            [1, 130, 70],
            [5, 33, 100],
            [300, 3, 64],
            [2, 2, 2000],
        ]
        .into_iter()
        .zip(0..)
        {
            for t in 0..8 {
                if t > 1 && (t + at) % 3 != 0 {
                    continue;
                }
                let (a, b, c, g) = plain(&gpu, size, [t & 1 > 0, t & 2 > 0, t & 4 > 0], [F32, F32]);
                kernels.insert(check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT));
            }
        }
        // Enough tiles of 128.
        let (a, b, c, g) = plain(&gpu, [260, 250, 20], [false, true, false], [F32, F32]);
        kernels.insert(check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT));
        // Few tiles and a long sum.
        let (a, b, c, g) = plain(&gpu, [20, 30, 3000], [false, false, false], [F32, F32]);
        kernels.insert(check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT));
    }
    all_ran(&kernels, &["gemm_f32_64", "gemm_f32_128", "gemv_f32_1", "gemv_f32_8", "gemv_t_f32", "turned", "k/"]);
}

#[test]
fn zero_sizes_launch_nothing_and_empty_sums_are_zero() {
    for gpu in devices() {
        for size in [[0, 5, 3], [5, 0, 3]] {
            let (_, _, _, g) = plain(&gpu, size, [false; 3], [F32, F32]);
            let choice = choose(&g, gpu.info()).unwrap();
            assert!(gemm(&g, &choice, Ptr::NULL).unwrap().is_empty());
        }
        let (a, b, c, g) = plain(&gpu, [3, 5, 0], [false; 3], [F32, F32]);
        check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT);
    }
}

#[test]
fn batches_with_any_strides() {
    for gpu in devices() {
        for (m, n, k) in [(20, 24, 12), (3, 40, 36), (1, 17, 33)] {
            // a [m, outer, k, inner] from its third value on, b shared by the outer level, c [inner, m, outer, n].
            let (o, i) = (3, 2);
            let a = Data::new(&gpu, m * o * k * i + 3, 1, F32);
            let b = Data::new(&gpu, i * n * k, 2, F32);
            let c = gpu.alloc(o * i * m * n * 4).unwrap();
            let mut g = Gemm::new(
                [m, n, k],
                a.matrix(3, [o * k * i, i, k * i, 1]),
                b.matrix(0, [1, k, 0, n * k]),
                Matrix { at: c.ptr(), row: o * n, col: 1, outer: n, inner: m * o * n, ..Matrix::default() },
            );
            g.batch = [o, i];
            check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT);
        }
    }
}

#[test]
fn stored_types_are_read_by_every_kernel() {
    for gpu in devices() {
        for element in [Element::Bf16, Element::F16, Element::E4M3, Element::E5M2, Element::I8] {
            for size in [[1, 40, 80], [4, 40, 96], [3, 20, 37], [20, 40, 32]] {
                for turned in [false, true] {
                    let (a, b, c, g) = plain(&gpu, size, [false, turned, false], [F32, element]);
                    check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT);
                }
            }
        }
    }
}

#[test]
fn planes_of_blocks() {
    for gpu in devices() {
        for (element, bits) in [(Element::Q8_0, 8), (Element::Q4_0, 4)] {
            for (m, n, k) in [(1, 33, 96), (6, 12, 128), (12, 20, 64)] {
                let mut state = 7u32;
                let mut random = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 16) as u8
                };
                let q: Vec<u8> = (0..n * k * bits / 8).map(|_| random()).collect();
                let scales: Vec<half::f16> = values(n * k / 32, 5).into_iter().map(half::f16::from_f32).collect();
                let number = |i: usize| {
                    let d = scales[i / 32].to_f64();
                    let byte = q[i / 32 * 16 + i % 16 % q.len()];
                    match bits {
                        8 => d * (q[i] as i8) as f64,
                        _ if i % 32 < 16 => d * ((byte & 15) as f64 - 8.0),
                        _ => d * ((byte >> 4) as f64 - 8.0),
                    }
                };
                let exact: Vec<f64> = (0..n * k).map(number).collect();
                let (buffer, planes) = (upload(&gpu, &q), upload(&gpu, &scales));
                let b = Data { exact, buffer, element: Element::F32 };
                let a = Data::new(&gpu, m * k, 1, F32);
                let c = gpu.alloc(m * n * 4).unwrap();
                let right = Matrix { at: b.buffer.ptr(), element, row: 1, col: k, ..Matrix::default() };
                let mut g = Gemm::new([m, n, k], a.matrix(0, [k, 1, 0, 0]), right, Matrix::rows(c.ptr(), n));
                g.planes = planes.ptr();
                check(&gpu, &g, &c, (&a, &b), &Operands::default(), EXACT);
            }
        }
    }
}

#[test]
fn epilogues_do_all_their_steps() {
    use Activation::{Gelu, GeluTanh, Relu, Relu2, Sigmoid, Silu, Tanh};
    let kinds = [Relu, Gelu, GeluTanh, Silu, Sigmoid, Tanh, Relu2];
    for gpu in devices() {
        for (at, activation) in kinds.into_iter().enumerate() {
            let [m, n, k] = [[21, 34, 40], [3, 34, 64], [20, 30, 2500]][at % 3];
            let element = [Element::F32, Element::Bf16, Element::F16][at / 3];
            let data = |count, seed, element| Data::new(&gpu, count, seed, element);
            let (bias, gate, residual) = (data(n, 3, F32), data(m * n, 4, Element::Bf16), data(m * n, 5, F32));
            let (rows, columns) = (data(m, 6, F32), data(n, 7, F32));
            let (scale, amax) = (upload(&gpu, &[0.375f32]), upload(&gpu, &[0f32]));
            for beta in [0.0, 0.5] {
                let (a, b, _, mut g) = plain(&gpu, [m, n, k], [false, at % 2 == 0, false], [F32, F32]);
                let before: Vec<u8> = (0..m * n).flat_map(|_| encode(element, 2.0).0).collect();
                let c = upload(&gpu, &before);
                amax.upload(&[0; 4]).unwrap();
                g.c = Matrix { at: c.ptr(), element, ..g.c };
                g.epilogue = Epilogue {
                    rounded: [F32; 2],
                    alpha: 0.25 / 0.375,
                    beta,
                    bias: Some(bias.matrix(0, [0, 1, 0, 0])),
                    activation,
                    gate: Some(gate.matrix(0, [n, 1, 0, 0])),
                    residual: Some(residual.matrix(0, [1, m, 0, 0])),
                    factors: [scale.ptr(), Ptr::NULL],
                    row_scales: rows.buffer.ptr(),
                    column_scales: columns.buffer.ptr(),
                    scale: scale.ptr(),
                    amax: amax.ptr(),
                };
                let more = Operands {
                    bias: Some(&bias),
                    gate: Some(&gate),
                    residual: Some(&residual),
                    row_scales: Some(&rows),
                    column_scales: Some(&columns),
                    scale: 0.375,
                    factor: Some(0.375),
                    before: 2.0,
                    amax: Some(&amax),
                };
                let tolerance = if element == F32 { 1e-5 } else { 5e-3 };
                check(&gpu, &g, &c, (&a, &b), &more, tolerance);
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_so_and_what_does_not_fit_is_refused() {
    for gpu in devices() {
        let (_a, _b, c, g) = plain(&gpu, [9, 9, 9], [false; 3], [F32, F32]);
        let bad = upload(&gpu, &[f32::NAN; 81]);
        run(&gpu, gpu.info(), &Gemm { a: Matrix { at: bad.ptr(), ..g.a }, ..g });
        assert!(download::<f32>(&c, 81).iter().all(|v| v.is_nan()));
        let wrong = Gemm { m: 1 << 31, ..g };
        assert!(choose(&wrong, gpu.info()).unwrap_err().to_string().contains("at most 2147483647"));
        let blocks = Gemm { b: g.b.of(Element::Q8_0), ..g };
        assert!(choose(&blocks, gpu.info()).unwrap_err().to_string().contains("planes"));
    }
}

#[test]
fn tensor_cores_of_ampere() {
    let mut kernels = BTreeSet::new();
    for gpu in devices() {
        let mut ampere = gpu.info().clone();
        ampere.capability = 80;
        for (at, element) in [Element::Bf16, Element::F16, F32].into_iter().enumerate() {
            for (i, size) in [[64, 96, 80], [136, 72, 40], [24, 40, 1600], [312, 264, 32]].into_iter().enumerate() {
                for t in 0..4 {
                    if size[0] > 200 && t != at {
                        continue;
                    }
                    let (a, b, c, mut g) = plain(&gpu, size, [t & 1 > 0, t & 2 > 0, i == 1], [element, element]);
                    g.tf32 = true;
                    // A width that no line of 16 bytes holds, where lines go the other way.
                    if i == 1 && t == 2 {
                        g.n = 70;
                    }
                    let choice = choose(&g, &ampere).unwrap();
                    kernels.insert(choice.to_string());
                    assert!(choice.kernel.contains("sm80"), "{choice}");
                    let tolerance = if element == F32 { 1e-3 } else { 2e-6 };
                    check_on(&gpu, &ampere, &g, &c, (&a, &b), &Operands::default(), tolerance);
                }
            }
        }
    }
    all_ran(&kernels, &["nn", "nt", "tn", "tt", "bf16", "_f16", "tf32", "sm80_128", "sm80_64", "k/", "turned"]);
}

#[test]
fn tensor_cores_of_hopper() {
    let mut kernels = BTreeSet::new();
    for gpu in devices().into_iter().filter(|g| g.info().capability / 10 == 9) {
        // Few multiprocessors: blocks take several tiles in turn.
        let mut few = gpu.info().clone();
        few.multiprocessors = 2;
        for (at, element) in [Element::Bf16, Element::F16].into_iter().enumerate() {
            for (i, size) in [[264, 400, 200], [136, 72, 72], [64, 80, 1104]].into_iter().enumerate() {
                for t in 0..4 {
                    if t != i + at && (t != 3 || at > 0) {
                        continue;
                    }
                    let (a, b, _, mut g) = plain(&gpu, size, [t & 1 > 0, t & 2 > 0, i == 1], [element, element]);
                    let out = [element, F32, F32][i];
                    let c = gpu.alloc(size[0] * size[1] * out.bytes()).unwrap();
                    g.c = Matrix { at: c.ptr(), element: out, ..g.c };
                    let bias = Data::new(&gpu, size[1], 3, F32);
                    g.epilogue.alpha = 0.5;
                    if i == 1 {
                        g.epilogue.bias = Some(bias.matrix(0, [0, 1, 0, 0]));
                        g.epilogue.activation = Activation::Silu;
                    }
                    let more = Operands { bias: Some(&bias), ..Operands::default() };
                    let tolerance = if i == 0 { 5e-3 } else { 3e-6 };
                    kernels.insert(check_on(&gpu, &few, &g, &c, (&a, &b), &more, tolerance));
                }
            }
        }
        // A batch whose right side is shared by the outer level, rows as they stand in memory: [m, outer, inner, k].
        let [m, n, k, o, i] = [72, 80, 40, 2, 3];
        let a = Data::new(&gpu, m * o * i * k, 1, Element::Bf16);
        let b = Data::new(&gpu, i * n * k, 2, Element::Bf16);
        let c = gpu.alloc(o * i * m * n * 4).unwrap();
        let mut g = Gemm::new(
            [m, n, k],
            a.matrix(0, [o * i * k, 1, i * k, k]),
            b.matrix(0, [1, k, 0, n * k]),
            Matrix { at: c.ptr(), row: n, col: 1, outer: i * m * n, inner: m * n, ..Matrix::default() },
        );
        g.batch = [o, i];
        kernels.insert(check_on(&gpu, &few, &g, &c, (&a, &b), &Operands::default(), 2e-6));
    }
    all_ran(&kernels, &["nn", "nt", "tn", "tt", "bf16", "_f16", "sm90_256", "sm90_128", "k/", "turned"]);
}

/// Bit for bit what rounding the same sums gives, by every kind of kernel, with a bias between.
#[test]
fn sums_and_results_are_rounded() {
    let mut kernels = BTreeSet::new();
    for gpu in devices() {
        let ampere = Info { capability: 80, ..gpu.info().clone() };
        let bf16 = [Element::Bf16; 2];
        for (size, types, on) in [
            ([70, 66, 40], [F32; 2], gpu.info()),
            ([3, 66, 40], [F32; 2], gpu.info()),
            ([20, 30, 3000], [F32; 2], gpu.info()),
            ([80, 72, 64], bf16, gpu.info()),
            ([80, 72, 64], bf16, &ampere),
        ] {
            let (_a, _b, c, mut g) = plain(&gpu, size, [false, true, false], types);
            let bias = values(size[1], 3);
            let on_device = upload(&gpu, &bias);
            run(&gpu, on, &g);
            let sums = download::<f32>(&c, size[0] * size[1]);
            g.epilogue.bias = Some(Matrix::repeated_row(on_device.ptr()));
            for (first, last) in [(Element::Bf16, Element::F16), (F32, Element::Bf16), (Element::F16, F32)] {
                g.epilogue.rounded = [first, last];
                kernels.insert(run(&gpu, on, &g));
                let round = |to: Element, v: f32| match to {
                    Element::Bf16 => half::bf16::from_f32(v).to_f32(),
                    Element::F16 => half::f16::from_f32(v).to_f32(),
                    _ => v,
                };
                let found = download::<f32>(&c, sums.len());
                for (at, (f, s)) in found.iter().zip(&sums).enumerate() {
                    assert_eq!(*f, round(last, round(first, *s) + bias[at % size[1]]), "{size:?}, value {at}");
                }
            }
        }
        let (_, _, _, mut g) = plain(&gpu, [70, 66, 40], [false; 3], [F32; 2]);
        g.epilogue.rounded[1] = Element::E4M3;
        assert!(choose(&g, gpu.info()).unwrap_err().to_string().contains("16 bits"));
    }
    all_ran(&kernels, &["gemm_f32", "gemv_f32", "k/", "bf16_sm90", "bf16_sm80"]);
}

#[test]
fn values_of_eight_bits() {
    let mut kernels = BTreeSet::new();
    for gpu in devices().into_iter().filter(|g| g.info().capability / 10 == 9) {
        let mut few = gpu.info().clone();
        few.multiprocessors = 2;
        let (e4, e5) = (Element::E4M3, Element::E5M2);
        for (at, (types, size)) in [
            ([e4, e4], [264, 272, 160]),
            ([e5, e4], [100, 80, 400]),
            ([e4, e5], [64, 80, 64]),
            ([e4, e4], [100, 200, 300 / 16 * 16]),
            ([e5, e4], [140, 130, 272]),
            ([e4, e5], [130, 140, 272]),
            ([e4, e4], [60, 132, 128]),
        ]
        .into_iter()
        .enumerate()
        {
            let [m, n, k] = size;
            let (a, b, c, mut g) = plain(&gpu, size, [false, true, false], types);
            let (factors, rows, columns) =
                (upload(&gpu, &[0.25f32, 3.0]), Data::new(&gpu, m, 4, F32), Data::new(&gpu, n, 5, F32));
            let mut more = Operands::default();
            let (mut a, mut b) = (a, b);
            match at {
                0 => {
                    g.epilogue.factors = [factors.ptr(), factors.ptr().at(4)];
                    more.factor = Some(0.75);
                }
                1 | 2 => {
                    (g.epilogue.row_scales, g.epilogue.column_scales) = (rows.buffer.ptr(), columns.buffer.ptr());
                    (more.row_scales, more.column_scales) = (Some(&rows), Some(&columns));
                }
                5.. => {
                    // Factors of rows and of columns, blocks of k one after the other.
                    let (blocks, wide) = (k.div_ceil(128), n.next_multiple_of(128));
                    let (fa, fb) = (values(m * blocks, 6), values(wide * blocks, 7));
                    a.exact.iter_mut().enumerate().for_each(|(i, v)| *v *= fa[i % k / 128 * m + i / k] as f64);
                    b.exact.iter_mut().enumerate().for_each(|(i, v)| *v *= fb[i % k / 128 * wide + i / k] as f64);
                    let (fa, fb) = (upload(&gpu, &fa), upload(&gpu, &fb));
                    let b_far = [1, wide];
                    g.blocks = Some(Blocks { a: fa.ptr(), a_far: [1, m], b: fb.ptr(), b_far, each_column: true });
                    kernels.insert(check_on(&gpu, &few, &g, &c, (&a, &b), &more, 3e-6));
                    continue;
                }
                _ => {
                    let blocks = k.div_ceil(128);
                    // Factors of rows with rows together, those of blocks with blocks of k together.
                    let (fa, fb) = (values(m * blocks, 6), values(n.div_ceil(128) * blocks, 7));
                    a.exact.iter_mut().enumerate().for_each(|(i, v)| *v *= fa[i % k / 128 * m + i / k] as f64);
                    b.exact
                        .iter_mut()
                        .enumerate()
                        .for_each(|(i, v)| *v *= fb[i / k / 128 * blocks + i % k / 128] as f64);
                    let (fa, fb) = (upload(&gpu, &fa), upload(&gpu, &fb));
                    g.blocks = Some(Blocks {
                        a: fa.ptr(),
                        a_far: [1, m],
                        b: fb.ptr(),
                        b_far: [blocks, 1],
                        each_column: false,
                    });
                    kernels.insert(check_on(&gpu, &few, &g, &c, (&a, &b), &more, 3e-6));
                    continue;
                }
            }
            kernels.insert(check_on(&gpu, &few, &g, &c, (&a, &b), &more, 3e-6));
        }
        // Sums of 128 values in full precision, without factors.
        let (a, b, c, mut g) = plain(&gpu, [70, 64, 144], [false, true, false], [e5, e4]);
        g.blocks = Some(Blocks::EXACT);
        kernels.insert(check_on(&gpu, &few, &g, &c, (&a, &b), &Operands::default(), 3e-6));
    }
    all_ran(&kernels, &["e4m3_e4m3_256", "e5m2_e4m3_128", "e4m3_e5m2_128", "e4m3_e4m3_blocks", "e5m2_e4m3_blocks"]);
    all_ran(&kernels, &["e4m3_e4m3_columns", "e4m3_e5m2_columns"]);
}
