//! Decoding over caches, contiguous and in pages.

use crate::definition::*;
use crate::tensor::{bits, from_bits};
use mobilis_cuda::attention::*;
use mobilis_cuda::testing::{devices, download, upload};
use mobilis_cuda::{Buffer, Gpu, Ptr};

fn stored(gpu: &Gpu, element: Element, data: &[f32]) -> Buffer {
    match element {
        Element::F32 => upload(gpu, data),
        _ => upload(gpu, &bits(element, data)),
    }
}

/// A row of `[.., t, h, w]` with its values rounded as stored.
fn round(element: Element, data: &mut [f32]) {
    if element != Element::F32 {
        let narrow = bits(element, data);
        data.copy_from_slice(&from_bits(element, &narrow));
    }
}

/// `pages`: keys of a page, or 0 for a contiguous cache.
fn one(gpu: &Gpu, element: Element, seed: u64, n: Sizes, pages: usize) {
    let mut noise = Noise(seed + 11);
    let shapes = [[n.b, n.t, n.g * n.r, n.d], [n.b, n.s, n.g, n.d], [n.b, n.s, n.g, n.e]];
    let [q, mut k, mut v] = shapes.map(|s| {
        let mut x = Tensor::new(&mut noise, 8, s);
        round(element, &mut x.data);
        x
    });
    let lengths: Vec<i32> = (0..n.b).map(|b| if b == 0 { n.s } else { noise.below(n.s + 1) } as i32).collect();
    let offset: Vec<i32> = lengths.iter().map(|l| (l - n.t as i32).max(0)).collect();
    // What lies behind the last key is not looked at.
    for x in [&mut k, &mut v] {
        for b in 0..n.b {
            for j in lengths[b] as usize..n.s {
                for h in 0..n.g {
                    x.data[b * x.place.b + j * x.place.t + h * x.place.h] = f32::NAN;
                }
            }
        }
    }
    let mut p = Problem::new(n);
    p.causal = true;
    p.window = seed.is_multiple_of(3).then_some(n.s / 2 + 1);
    p.soft_cap = seed.is_multiple_of(2).then_some(3.0);
    let given = Given { lengths: Some(lengths.clone()), offset: Some(offset.clone()), ..Given::default() };
    // The definition multiplies by zero what is not seen.
    let clean = |x: &Tensor| Tensor {
        data: x.data.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect(),
        place: x.place,
    };
    let g =
        Tensor { data: vec![0.0; n.b * n.t * n.g * n.r * n.e], place: Operand::packed(Ptr::NULL, n.t, n.g * n.r, n.e) };
    let rows = n.b * n.t * n.g * n.r;
    let want = defined(&p, &given, &[clean(&q), clean(&k), clean(&v), g], &vec![0.0; rows]);

    let (lengths, offset) = (upload(gpu, &lengths), upload(gpu, &offset));
    (p.lengths, p.offset) = (lengths.ptr(), (offset.ptr(), true));
    let q_at = stored(gpu, element, &q.data);
    let (mut table, mut paged) = (vec![], None);
    let mut operands = [Operand { at: q_at.ptr(), ..q.place }, Operand::default(), Operand::default()];
    let mut kept = vec![];
    for (i, x) in [&k, &v].into_iter().enumerate() {
        let width = [n.d, n.e][i];
        if pages == 0 {
            kept.push(stored(gpu, element, &x.data));
            operands[i + 1] = Operand { at: kept[i].ptr(), ..x.place };
            continue;
        }
        // Pages of all sequences mixed; those that nobody has hold what is not a number.
        let each = n.s.div_ceil(pages);
        let count = each * n.b + 3;
        table = (0..each * n.b).map(|m| (count - 2 - m) as i32).collect::<Vec<i32>>();
        let mut data = vec![f32::NAN; count * pages * n.g * width];
        for b in 0..n.b {
            for j in 0..n.s {
                let page = table[b * each + j / pages] as usize;
                for h in 0..n.g {
                    for f in 0..width {
                        data[((page * pages + j % pages) * n.g + h) * width + f] = x.at(b, j, h, f) as f32;
                    }
                }
            }
        }
        kept.push(stored(gpu, element, &data));
        operands[i + 1] = Operand::packed(kept[i].ptr(), pages, n.g, width);
        paged = Some(each);
    }
    let table = upload(gpu, &table);
    let paged = paged.map(|step| Pages { table: table.ptr(), step, page: pages });
    let (out, lse) = (gpu.alloc(rows * n.e * element.bytes()).unwrap(), gpu.alloc(rows * 4).unwrap());
    let work = gpu.alloc(decode_workspace(&p, gpu.info()).unwrap()).unwrap();
    let launches = decode(&p, gpu.info(), element, operands, paged, out.ptr(), lse.ptr(), work.ptr());
    gpu.run(&launches.unwrap()).unwrap();
    let found = match element {
        Element::F32 => download(&out, rows * n.e),
        _ => from_bits(element, &download::<u16>(&out, rows * n.e)),
    };
    let tolerance = if element == Element::F32 { 1e-5 } else { 5e-3 };
    same(&found, &want[0], tolerance, &format!("out of {seed} {element:?} {n:?} {pages}"));
    same(&download(&lse, rows), &want[1], 1e-5, &format!("lse of {seed} {element:?} {n:?} {pages}"));
}

#[test]
fn caches_of_every_type_contiguous_and_in_pages() {
    for (device, gpu) in devices().iter().enumerate() {
        let sizes = |b, t, s, g, r, d, e| Sizes { b, t, s, g, r, d, e };
        for (seed, n) in (device as u64..).zip([
            sizes(2, 1, 300, 1, 1, 64, 64),
            sizes(1, 1, 1100, 2, 2, 32, 16),
            sizes(3, 1, 140, 1, 5, 96, 128),
            sizes(1, 3, 200, 2, 4, 24, 40),
            sizes(2, 2, 131, 1, 2, 128, 8),
        ]) {
            let elements = [Element::F32, Element::Bf16, Element::F16];
            for element in if device == 0 { &elements[..] } else { &elements[device..device + 1] } {
                one(gpu, *element, seed, n, [0, 16, 5][seed as usize % 3]);
            }
        }
    }
}
