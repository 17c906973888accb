//! Single precision with every option.

use crate::definition::*;
use mobilis_cuda::attention::*;
use mobilis_cuda::testing::{devices, download, upload, values};
use mobilis_cuda::{Gpu, Ptr};

fn computed(gpu: &Gpu, mut p: Problem, x: &Given, tensors: &[Tensor; 4], g_lse: &[f32]) -> [Vec<f32>; 6] {
    let n = p.sizes;
    let (rows, heads) = (n.b * n.t * n.g * n.r, n.g * n.r);
    let buffers = tensors.each_ref().map(|t| upload(gpu, &t.data));
    let [q, k, v, g] = [0, 1, 2, 3].map(|i| Operand { at: buffers[i].ptr(), ..tensors[i].place });
    let lengths = x.lengths.as_ref().map(|l| upload(gpu, l));
    let offset = x.offset.as_ref().map(|o| upload(gpu, o));
    let mask = x.real.as_ref().map(|m| upload(gpu, m)).or_else(|| x.truth.as_ref().map(|m| upload(gpu, m)));
    let key = x.dropout.map(|d| upload(gpu, &d.2));
    let at = |b: &Option<mobilis_cuda::Buffer>| b.as_ref().map_or(Ptr::NULL, |b| b.ptr());
    p.lengths = at(&lengths);
    p.offset = (at(&offset), x.offset.as_ref().is_some_and(|o| o.len() > 1));
    p.mask = mask.as_ref().map(|m| Mask { at: m.ptr(), real: x.real.is_some(), has: x.has, strides: x.strides });
    p.dropout = x.dropout.map(|d| Dropout { probability: d.0, stream: d.1, key: at(&key) });
    let sizes = [rows * n.e, rows, rows * n.d, n.b * n.s * n.g * n.d, n.b * n.s * n.g * n.e];
    let dmask = x.real.as_ref().map_or(0, Vec::len);
    let to = [sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], dmask].map(|n| (n, gpu.alloc(n * 4).unwrap()));
    let workspace = gpu.alloc(forward_workspace(&p, gpu.info()).unwrap()).unwrap();
    let launches = forward(&p, gpu.info(), [q, k, v], to[0].1.ptr(), to[1].1.ptr(), workspace.ptr()).unwrap();
    gpu.run(&launches).unwrap();
    let workspace = gpu.alloc(backward_workspace(&p).unwrap()).unwrap();
    let by_lse = upload(gpu, g_lse);
    let gradients = Gradients {
        out: to[0].1.ptr(),
        lse: to[1].1.ptr(),
        g,
        g_lse: by_lse.ptr(),
        dq: to[2].1.ptr(),
        dk: to[3].1.ptr(),
        dv: to[4].1.ptr(),
        dmask: to[5].1.ptr(),
    };
    gpu.run(&backward(&p, [q, k, v], &gradients, workspace.ptr()).unwrap()).unwrap();
    assert_eq!(heads * n.b * n.t, g_lse.len());
    to.map(|(n, b)| download(&b, n))
}

/// Random layouts and settings from a seed.
fn one(gpus: &[Gpu], seed: u64, n: Sizes) {
    let mut noise = Noise(seed * 7919 + 1);
    let heads = n.g * n.r;
    let shapes = [[n.b, n.t, heads, n.d], [n.b, n.s, n.g, n.d], [n.b, n.s, n.g, n.e], [n.b, n.t, heads, n.e]];
    let tensors = shapes.map(|s| Tensor::new(&mut noise, 5, s));
    let g_lse = values(n.b * heads * n.t, seed);
    let mut x = Given::default();
    let index = |noise: &mut Noise, n: usize, to: usize| (0..n).map(|_| noise.below(to) as i32).collect();
    if noise.below(3) == 0 {
        x.lengths = Some(index(&mut noise, n.b, n.s + 1));
    }
    if noise.below(3) == 0 {
        let count = if noise.below(2) == 0 { 1 } else { n.b };
        x.offset = Some(index(&mut noise, count, n.s + 2));
    }
    let mut total = 1;
    for (axis, size) in [n.b, heads, n.t, n.s].into_iter().enumerate().rev() {
        if noise.below(2) == 1 {
            x.has[axis] = true;
            x.strides[axis] = total;
            total *= size;
        }
    }
    let real = values(total, seed + 1);
    match noise.below(4) {
        0 => x.truth = Some(real.iter().map(|v| (*v > -0.5) as u8).collect()),
        1 => x.real = Some(real.iter().map(|v| if *v > 0.9 { f32::NEG_INFINITY } else { 2.0 * v }).collect()),
        _ => {}
    }
    if noise.below(4) == 0 {
        x.dropout = Some((0.25, 3, [1, seed as i32]));
    }
    let mut p = Problem::new(n);
    p.soft_cap = (noise.below(4) == 0).then_some(1.5);
    p.causal = noise.below(2) == 0;
    p.window = (noise.below(3) == 0).then_some(1 + noise.below(n.s + 3));
    let want = defined(&p, &x, &tensors, &g_lse);
    for gpu in gpus {
        let found = computed(gpu, p, &x, &tensors, &g_lse);
        for ((found, want), name) in found.iter().zip(&want).zip(["out", "lse", "dq", "dk", "dv", "dmask"]) {
            same(found, want, 1e-5, &format!("{name} of {seed} {p:?}"));
        }
    }
}

#[test]
fn random_shapes_and_settings_agree_with_the_definition() {
    let gpus = devices();
    let mut noise = Noise(7);
    for seed in 0..24 {
        let (r, g) = (1 + noise.below(4), 1 + noise.below(2));
        let (d, e) = (1 + noise.below(40), 1 + noise.below(40));
        let (t, s) = (1 + noise.below(60), 1 + noise.below(90));
        // One schedule for most: the launches are the same.
        let some = if seed % 6 == 0 { &gpus[..] } else { &gpus[..gpus.len().min(1)] };
        one(some, seed, Sizes { b: 1 + noise.below(3), t, s, g, r, d, e });
    }
}

#[test]
fn long_sequences_wide_heads_and_nothing_at_all() {
    let gpus = devices();
    let gpus = &gpus[..gpus.len().min(1)];
    let sizes = |b, t, s, g, r, d, e| Sizes { b, t, s, g, r, d, e };
    for (seed, n) in (100..).zip([
        sizes(1, 150, 200, 1, 1, 16, 24),
        sizes(1, 2, 700, 1, 3, 20, 7),
        sizes(1, 40, 70, 1, 2, 96, 80),
        sizes(1, 9, 70, 1, 1, 130, 256),
        sizes(2, 1, 1, 1, 1, 1, 1),
        sizes(0, 3, 3, 1, 1, 4, 4),
        sizes(2, 0, 3, 1, 1, 4, 4),
        sizes(2, 3, 0, 1, 1, 4, 4),
        sizes(1, 3, 5, 2, 1, 4, 0),
    ]) {
        one(gpus, seed, n);
        one(gpus, seed + 50, n);
    }
}

#[test]
fn what_is_not_a_number_shows_where_it_is_seen() {
    // Causal: the first two queries see neither the last key nor its value.
    let n = Sizes { b: 1, t: 3, s: 3, g: 1, r: 1, d: 2, e: 2 };
    let clean = [1.0f32, 0.0, 0.5, 1.0, 0.25, 2.0];
    for gpu in devices() {
        for (bad, values_too) in [(f32::NAN, false), (f32::INFINITY, false), (f32::NAN, true)] {
            let (mut k, mut v) = (clean, clean);
            if values_too {
                v[4] = bad
            } else {
                k[4] = bad
            }
            let [q, k, v] = [clean, k, v].map(|x| upload(&gpu, &x));
            let (out, lse) = (gpu.alloc(24).unwrap(), gpu.alloc(12).unwrap());
            let p = Problem { causal: true, ..Problem::new(Sizes { t: 1, ..n }) };
            // A query alone, at position 1 of 3: nothing behind it is read.
            let offset = upload(&gpu, &[1i32]);
            let p = Problem { offset: (offset.ptr(), false), ..p };
            let place = |b: &mobilis_cuda::Buffer| Operand::packed(b.ptr(), 3, 1, 2);
            let operands = [&q, &k, &v].map(place);
            gpu.run(&forward(&p, gpu.info(), operands, out.ptr(), lse.ptr(), Ptr::NULL).unwrap()).unwrap();
            assert!(download::<f32>(&out, 2).iter().all(|x| x.is_finite()));
            let p = Problem { causal: true, ..Problem::new(n) };
            gpu.run(&forward(&p, gpu.info(), operands, out.ptr(), lse.ptr(), Ptr::NULL).unwrap()).unwrap();
            assert!(download::<f32>(&lse, 3)[..2].iter().all(|x| x.is_finite()));
            assert!(download::<f32>(&out, 6)[4..].iter().any(|x| x.is_nan()));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let n = Sizes { b: 1, t: 1, s: 1, g: 1, r: 1, d: 4, e: 4 };
    let none = [Operand::default(); 3];
    let info = mobilis_cuda::Info {
        name: String::new(),
        capability: 90,
        multiprocessors: 132,
        shared: 227 << 10,
        memory: 0,
        emulated: true,
    };
    let refused = |p: Problem| forward(&p, &info, none, Ptr::NULL, Ptr::NULL, Ptr::NULL).is_err();
    assert!(refused(Problem { window: Some(0), ..Problem::new(n) }));
    assert!(refused(Problem::new(Sizes { s: 1 << 31, ..n })));
    assert!(refused(Problem::new(Sizes { b: 1 << 20, t: 1 << 30, ..n })));
    assert!(refused(Problem {
        dropout: Some(Dropout { probability: 1.0, stream: 0, key: Ptr::NULL }),
        ..Problem::new(n)
    }));
}
