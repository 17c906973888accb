//! Attention in e4m3.

use crate::definition::*;
use crate::tensor::{bits, from_bits};
use mobilis_cuda::attention::*;
use mobilis_cuda::testing::{devices, download, upload};
use mobilis_cuda::{Gpu, Ptr};
use mobilis_kernels::fp8::Fp8;

fn one(gpu: &Gpu, seed: u64, n: Sizes, causal: bool, soft_cap: Option<f32>, lengths: Option<Vec<i32>>) {
    let mut noise = Noise(seed + 17);
    let heads = n.g * n.r;
    let shapes = [[n.b, n.t, heads, n.d], [n.b, n.s, n.g, n.d], [n.b, n.s, n.g, n.e]];
    let [mut q, mut k, mut v] = shapes.map(|s| Tensor::new(&mut noise, 16, s));
    let scales: [Vec<f32>; 3] = [0.25, 0.5, 0.125].map(|s| (0..n.b * n.g).map(|i| s * (1 + i % 3) as f32).collect());
    // What is stored times its scale is what the definition sees.
    let mut stored: [Vec<u8>; 2] = Default::default();
    for (x, which) in [(&mut q, 0), (&mut k, 1)] {
        stored[which] = vec![0x7f; x.data.len()];
        let (positions, heads, each) = if which == 0 { (n.t, heads, n.r) } else { (n.s, n.g, 1) };
        for (b, t, h, f) in indices([n.b, positions, heads, n.d]) {
            let (at, scale) = (x.place.b * b + x.place.t * t + x.place.h * h + f, scales[which][b * n.g + h / each]);
            let code = Fp8::E4M3.encode(x.data[at] / scale);
            stored[which][at] = code;
            x.data[at] = Fp8::E4M3.decode(code) * scale;
        }
    }
    let mut values = bits(Element::Bf16, &v.data);
    v.data = from_bits(Element::Bf16, &values);
    let mut rounded = Tensor { data: v.data.clone(), place: v.place };
    for (b, t, h, f) in indices([n.b, n.s, n.g, n.e]) {
        let (at, scale) = (v.place.b * b + v.place.t * t + v.place.h * h + f, scales[2][b * n.g + h]);
        rounded.data[at] = Fp8::E4M3.decode(Fp8::E4M3.encode(v.data[at] / scale)) * scale;
    }
    // What is behind a length is no number, and touches nothing.
    for (b, t, h, f) in indices([n.b, n.s, n.g, n.d.max(n.e)]) {
        if lengths.as_ref().is_some_and(|l| t >= l[b] as usize) {
            let at = |x: &Tensor| x.place.b * b + x.place.t * t + x.place.h * h + f;
            if f < n.d {
                stored[1][at(&k)] = 0x7f;
            }
            if f < n.e {
                values[at(&v)] = 0x7fc0;
            }
        }
    }
    let lengths_at = lengths.as_ref().map(|l| upload(gpu, l));
    let lengths_ptr = lengths_at.as_ref().map_or(Ptr::NULL, |l| l.ptr());
    let p = Problem { causal, soft_cap, lengths: lengths_ptr, ..Problem::new(n) };
    let rows = n.b * n.t * heads;
    let g = Tensor { data: vec![0.0; rows * n.e], place: Operand::packed(Ptr::NULL, n.t, heads, n.e) };
    let (q_at, k_at) = (upload(gpu, &stored[0]), upload(gpu, &stored[1]));
    let [q_place, k_place, v_place] = [q.place, k.place, v.place];
    let want = defined(&p, &Given { lengths, ..Given::default() }, &[q, k, rounded, g], &vec![0.0; rows]);

    let v_at = upload(gpu, &values);
    let scales = scales.each_ref().map(|s| upload(gpu, s));
    let turned = gpu.alloc(turned_bytes(&p).unwrap()).unwrap();
    let v = Operand { at: v_at.ptr(), ..v_place };
    gpu.run(&turn_values(&p, Element::Bf16, v, scales[2].ptr(), turned.ptr()).unwrap()).unwrap();
    let operands = [Operand { at: q_at.ptr(), ..q_place }, Operand { at: k_at.ptr(), ..k_place }];
    let (out, lse) = (gpu.alloc(rows * n.e * 2).unwrap(), gpu.alloc(rows * 4).unwrap());
    let by = scales.each_ref().map(|s| s.ptr());
    gpu.run(&forward8(&p, gpu.info(), operands, turned.ptr(), by, out.ptr(), lse.ptr()).unwrap()).unwrap();
    let found = from_bits(Element::Bf16, &download::<u16>(&out, rows * n.e));
    // Weights have four significant bits: half of the last of them is 1/32.
    same(&found, &want[0], 3.2e-2, &format!("out of {n:?}"));
    same(&download(&lse, rows), &want[1], 1e-4, &format!("lse of {n:?}"));
}

fn indices([b, t, h, w]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..b * t * h * w).map(move |i| (i / (t * h * w), i / (h * w) % t, i / w % h, i % w))
}

#[test]
fn eight_bits_with_scales_of_heads() {
    for (i, gpu) in devices().iter().enumerate() {
        for (j, (n, causal, cap, lengths)) in [
            (Sizes { b: 1, t: 40, s: 150, g: 2, r: 2, d: 64, e: 64 }, true, None, None),
            (Sizes { b: 2, t: 20, s: 33, g: 1, r: 1, d: 96, e: 80 }, false, Some(2.0), Some(vec![33, 7])),
            (Sizes { b: 1, t: 130, s: 270, g: 1, r: 1, d: 128, e: 128 }, true, None, Some(vec![140])),
            (Sizes { b: 1, t: 5, s: 300, g: 1, r: 2, d: 192, e: 256 }, true, None, None),
        ]
        .into_iter()
        .enumerate()
        {
            if j == 0 || j % 3 == i {
                one(gpu, j as u64, n, causal, cap, lengths);
            }
        }
    }
}
