//! 16-bit attention on tensor cores, forward and backward, whole batches and sequences packed one after another.

use crate::definition::*;
use half::{bf16, f16};
use mobilis_cuda::attention::*;
use mobilis_cuda::testing::{devices, download, upload, values};
use mobilis_cuda::{Buffer, Gpu, Ptr};

pub fn bits(element: Element, data: &[f32]) -> Vec<u16> {
    data.iter()
        .map(|v| if element == Element::Bf16 { bf16::from_f32(*v).to_bits() } else { f16::from_f32(*v).to_bits() })
        .collect()
}

pub fn from_bits(element: Element, data: &[u16]) -> Vec<f32> {
    let one =
        |v: &u16| if element == Element::Bf16 { bf16::from_bits(*v).to_f32() } else { f16::from_bits(*v).to_f32() };
    data.iter().map(one).collect()
}

/// What is asked for, beyond the sizes.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    causal: bool,
    window: Option<usize>,
    soft_cap: Option<f32>,
    lengths: bool,
    offset: bool,
}

fn problem(n: Sizes, asked: Asked) -> Problem {
    Problem { causal: asked.causal, window: asked.window, soft_cap: asked.soft_cap, ..Problem::new(n) }
}

/// Runs both passes and compares all results.
#[allow(clippy::too_many_arguments)]
fn compare(
    gpu: &Gpu,
    kernels: Kernels,
    element: Element,
    p: Problem,
    packed: Option<Packed>,
    places: [Operand; 4],
    data: [&[f32]; 4],
    g_lse: &[f32],
    want: &Results,
    what: &str,
) {
    let buffers = data.map(|d| upload(gpu, &bits(element, d)));
    let [q, k, v, g] = [0, 1, 2, 3].map(|i| Operand { at: buffers[i].ptr(), ..places[i] });
    let to: Vec<Buffer> = [2, 4, 2, 2, 2].iter().zip(want).map(|(b, w)| gpu.alloc(w.len() * b).unwrap()).collect();
    let (out, lse) = (to[0].ptr(), to[1].ptr());
    gpu.run(&forward16(&p, gpu.info(), kernels, element, [q, k, v], packed, out, lse).unwrap()).unwrap();
    let by_lse = upload(gpu, g_lse);
    let gradients = Gradients {
        out,
        lse,
        g,
        g_lse: by_lse.ptr(),
        dq: to[2].ptr(),
        dk: to[3].ptr(),
        dv: to[4].ptr(),
        dmask: Ptr::NULL,
    };
    let work = gpu.alloc(backward16_workspace(&p, packed).unwrap()).unwrap();
    gpu.run(&backward16(&p, gpu.info(), kernels, element, [q, k, v], packed, &gradients, work.ptr()).unwrap()).unwrap();
    let tolerance = if element == Element::Bf16 { 1.6e-2 } else { 2e-3 };
    for (i, name) in ["out", "lse", "dq", "dk", "dv"].into_iter().enumerate() {
        let found = match i {
            1 => download(&to[1], want[1].len()),
            _ => from_bits(element, &download::<u16>(&to[i], want[i].len())),
        };
        same(&found, &want[i], if i == 1 { 1e-4 } else { tolerance }, &format!("{name} {element:?} {what}"));
    }
}

fn rounded(element: Element, mut x: Tensor) -> Tensor {
    x.data = from_bits(element, &bits(element, &x.data));
    x
}

/// A batch.
fn one(gpu: &Gpu, kernels: Kernels, element: Element, seed: u64, n: Sizes, asked: Asked) {
    let mut noise = Noise(seed + 3);
    let heads = n.g * n.r;
    let shapes = [[n.b, n.t, heads, n.d], [n.b, n.s, n.g, n.d], [n.b, n.s, n.g, n.e], [n.b, n.t, heads, n.e]];
    let tensors = shapes.map(|s| rounded(element, Tensor::new(&mut noise, 8, s)));
    let mut p = problem(n, asked);
    let mut index = |to: usize| (0..n.b).map(|_| noise.below(to) as i32).collect::<Vec<i32>>();
    let (lengths, offset) = (index(n.s + 1), index(n.s + 2));
    let given = Given {
        lengths: asked.lengths.then(|| lengths.clone()),
        offset: asked.offset.then(|| offset.clone()),
        ..Given::default()
    };
    let g_lse = values(n.b * heads * n.t, seed);
    let want = defined(&p, &given, &tensors, &g_lse);
    let (lengths, offset) = (upload(gpu, &lengths), upload(gpu, &offset));
    if asked.lengths {
        p.lengths = lengths.ptr();
    }
    if asked.offset {
        p.offset = (offset.ptr(), true);
    }
    let places = tensors.each_ref().map(|t| t.place);
    let mut data = tensors.map(|t| t.data);
    if asked.lengths {
        // What is behind a length is no number, and touches nothing.
        for (b, j) in (0..n.b).flat_map(|b| (given.lengths.as_ref().unwrap()[b] as usize..n.s).map(move |j| (b, j))) {
            for (i, width) in [(1, n.d), (2, n.e)] {
                for first in (0..n.g).map(|h| b * places[i].b + j * places[i].t + h * places[i].h) {
                    data[i][first..first + width].fill(f32::NAN);
                }
            }
        }
    }
    let data = data.each_ref().map(|d| &d[..]);
    compare(gpu, kernels, element, p, None, places, data, &g_lse, &want, &format!("{kernels:?} {n:?} {asked:?}"));
}

/// Sequences of several lengths without padding.
fn packed(gpu: &Gpu, kernels: Kernels, element: Element, n: Sizes, lengths: &[(usize, usize)], asked: Asked) {
    let heads = n.g * n.r;
    let mut noise = Noise(5);
    let mut data: [Vec<f32>; 4] = Default::default();
    let mut want: Results = Default::default();
    let mut lses: Vec<(Vec<f64>, Vec<f32>, usize)> = vec![];
    let (mut starts_q, mut starts_k) = (vec![0i32], vec![0i32]);
    for (i, (t, s)) in lengths.iter().copied().enumerate() {
        let m = Sizes { b: 1, t, s, ..n };
        let shapes = [(t, heads, n.d), (s, n.g, n.d), (s, n.g, n.e), (t, heads, n.e)];
        let tensors = shapes.map(|(t, h, w)| {
            let data = values(t * h * w, noise.below(99) as u64);
            rounded(element, Tensor { data, place: Operand::packed(Ptr::NULL, t, h, w) })
        });
        let g_lse = values(heads * t, i as u64);
        let part = defined(&problem(m, asked), &Given::default(), &tensors, &g_lse);
        // Keys that nobody asks for and queries without keys are no numbers, and touch nobody else.
        let nobody = t == 0 || s == 0;
        data.iter_mut()
            .zip(&tensors)
            .for_each(|(to, t)| to.extend(t.data.iter().map(|v| if nobody { f32::NAN } else { *v })));
        for at in [0, 2, 3, 4] {
            want[at].extend(&part[at]);
        }
        lses.push((part[1].clone(), g_lse, t));
        starts_q.push(starts_q[i] + t as i32);
        starts_k.push(starts_k[i] + s as i32);
    }
    // [h, all queries].
    let mut g_lse = vec![];
    for h in 0..heads {
        for (lse, g, t) in &lses {
            want[1].extend(&lse[h * t..(h + 1) * t]);
            g_lse.extend(&g[h * t..(h + 1) * t]);
        }
    }
    let total_q = *starts_q.last().unwrap() as usize;
    let total_k = *starts_k.last().unwrap() as usize;
    let most = |f: fn(&(usize, usize)) -> usize| lengths.iter().map(f).max().unwrap();
    let n = Sizes { b: lengths.len(), t: most(|l| l.0), s: most(|l| l.1), ..n };
    let p = Problem { scale: 1.0 / (n.d as f32).sqrt(), ..problem(n, asked) };
    let (starts_q, starts_k) = (upload(gpu, &starts_q), upload(gpu, &starts_k));
    let of = Packed { starts_q: starts_q.ptr(), starts_k: starts_k.ptr(), total_q, total_k };
    let place = |h, w| Operand::packed(Ptr::NULL, 0, h, w);
    let places = [place(heads, n.d), place(n.g, n.d), place(n.g, n.e), place(heads, n.e)];
    let data = data.each_ref().map(|d| &d[..]);
    compare(
        gpu,
        kernels,
        element,
        p,
        Some(of),
        places,
        data,
        &g_lse,
        &want,
        &format!("{kernels:?} {lengths:?} {asked:?}"),
    );
}

fn sizes(b: usize, t: usize, s: usize, g: usize, r: usize, d: usize, e: usize) -> Sizes {
    Sizes { b, t, s, g, r, d, e }
}

#[test]
fn every_head_size_and_option() {
    let causal = Asked { causal: true, ..Asked::default() };
    for (i, gpu) in devices().iter().enumerate() {
        for (j, (n, asked)) in [
            (sizes(1, 70, 90, 1, 1, 64, 64), causal),
            (sizes(1, 150, 150, 1, 1, 32, 32), Asked { window: Some(33), ..causal }),
            (sizes(2, 33, 130, 2, 3, 40, 64), Asked { lengths: true, soft_cap: Some(2.0), ..Asked::default() }),
            (sizes(1, 20, 70, 1, 2, 96, 96), Asked { offset: true, ..causal }),
            (sizes(1, 65, 129, 1, 1, 128, 128), Asked { window: Some(20), ..Asked::default() }),
            (sizes(1, 30, 65, 1, 1, 192, 128), causal),
            (sizes(1, 17, 70, 1, 1, 256, 200), Asked { soft_cap: Some(1.5), ..causal }),
            (sizes(3, 1, 1, 1, 1, 8, 8), causal),
        ]
        .into_iter()
        .enumerate()
        {
            // Each case in one schedule, the first in all.
            if j > 0 && j % 3 != i {
                continue;
            }
            let element = if (i + j) % 2 == 0 { Element::Bf16 } else { Element::F16 };
            one(gpu, Kernels::Sm80, element, (i + j) as u64, n, asked);
        }
    }
}

#[test]
fn hopper_of_every_head_size_and_option() {
    let causal = Asked { causal: true, ..Asked::default() };
    for (i, gpu) in devices().iter().enumerate() {
        for (j, (n, asked)) in [
            // Several tiles for a block: the device has four multiprocessors.
            (sizes(3, 40, 260, 1, 2, 64, 64), causal),
            (sizes(1, 150, 150, 1, 1, 32, 32), Asked { window: Some(33), ..causal }),
            (sizes(1, 20, 270, 1, 2, 96, 96), Asked { offset: true, ..causal }),
            (sizes(1, 140, 270, 1, 1, 128, 128), Asked { soft_cap: Some(2.0), ..causal }),
            (sizes(1, 65, 300, 1, 2, 128, 104), Asked { window: Some(90), ..Asked::default() }),
            (sizes(1, 30, 165, 1, 1, 192, 128), causal),
            (sizes(1, 17, 170, 1, 1, 256, 200), Asked { soft_cap: Some(1.5), ..causal }),
            (sizes(3, 1, 1, 1, 1, 8, 8), causal),
            (sizes(2, 70, 200, 2, 1, 64, 64), Asked { lengths: true, ..Asked::default() }),
            (
                sizes(3, 20, 150, 1, 2, 128, 120),
                Asked { lengths: true, window: Some(50), soft_cap: Some(2.0), ..causal },
            ),
            (sizes(2, 17, 130, 1, 1, 200, 256), Asked { lengths: true, offset: true, ..causal }),
        ]
        .into_iter()
        .enumerate()
        {
            // Each case in one schedule, the first in all.
            if j > 0 && j % 3 != i {
                continue;
            }
            let element = if (i + j) % 2 == 0 { Element::Bf16 } else { Element::F16 };
            one(gpu, Kernels::Sm90, element, (i + j) as u64, n, asked);
        }
    }
}

#[test]
fn sequences_packed_one_after_another() {
    for gpu in devices().iter().take(2) {
        let causal = Asked { causal: true, ..Asked::default() };
        let lengths = [(5, 9), (70, 70), (0, 3), (1, 80), (3, 0)];
        packed(gpu, Kernels::Sm80, Element::F16, sizes(0, 0, 0, 2, 2, 32, 32), &lengths, causal);
        packed(gpu, Kernels::Sm80, Element::Bf16, sizes(0, 0, 0, 1, 1, 64, 48), &lengths, Asked::default());
        packed(gpu, Kernels::Sm90, Element::Bf16, sizes(0, 0, 0, 2, 2, 32, 32), &lengths, causal);
        let bounded = Asked { window: Some(20), soft_cap: Some(1.5), ..Asked::default() };
        packed(gpu, Kernels::Sm90, Element::F16, sizes(0, 0, 0, 1, 2, 72, 96), &lengths, bounded);
    }
}

#[test]
fn what_tensor_cores_cannot_is_refused() {
    let info = |capability, shared| mobilis_cuda::Info {
        name: String::new(),
        capability,
        multiprocessors: 132,
        shared,
        memory: 0,
        emulated: true,
    };
    let n = sizes(1, 4, 4, 1, 1, 64, 64);
    let hopper = info(90, 227 << 10);
    let run = |p: &Problem, kernels, at: u64| {
        let x = Operand::packed(Ptr(at), p.sizes.t, 1, p.sizes.d);
        forward16(p, &hopper, kernels, Element::Bf16, [x; 3], None, Ptr::NULL, Ptr::NULL)
    };
    let whole = Problem::new(n);
    assert_eq!(run(&whole, Kernels::Sm80, 256).unwrap()[0].kernel, "attention_forward_bf16_64_sm80");
    assert_eq!(run(&whole, Kernels::Sm90, 256).unwrap()[0].kernel, "attention_forward_bf16_64_sm90");
    assert_eq!(Kernels::of(&hopper), Kernels::Sm90);
    assert_eq!(Kernels::of(&info(80, 163 << 10)), Kernels::Sm80);
    assert!(run(&Problem::new(Sizes { d: 60, ..n }), Kernels::Sm80, 256).is_err());
    assert!(run(&Problem::new(Sizes { d: 264, ..n }), Kernels::Sm80, 256).is_err());
    assert!(run(&Problem { scale: -1.0, ..whole }, Kernels::Sm80, 256).is_err());
    assert!(run(&whole, Kernels::Sm80, 258).is_err());
    let mask = Mask { at: Ptr(256), real: true, has: [false; 4], strides: [0; 4] };
    assert!(run(&Problem { mask: Some(mask), ..whole }, Kernels::Sm80, 256).is_err());
    // 256 features need more shared memory than consumer cards have.
    let wide = Problem::new(sizes(1, 4, 4, 1, 1, 256, 256));
    let x = Operand::packed(Ptr(256), 4, 1, 256);
    let small = info(86, 99 << 10);
    assert!(forward16(&wide, &small, Kernels::Sm80, Element::F16, [x; 3], None, Ptr::NULL, Ptr::NULL).is_err());
}
