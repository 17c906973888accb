//! Rotary embedding against its formula in `f64`.

mod rows;

use mobilis_cuda::Ptr;
use mobilis_cuda::rope::{Frequencies, Rope, table};
use mobilis_cuda::rows::Number;
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use rows::{NUMBERS, get, put, some, tolerance};

#[test]
fn rotations_in_all_layouts() {
    for gpu in devices() {
        for number in NUMBERS {
            // x [batch 2, time 3, heads 2, features], tables [time, half] or [batch, time, half].
            for (i, (features, half)) in [(16, 8), (32, 8), (7, 3), (5, 0), (24, 8), (10, 5)].into_iter().enumerate() {
                for interleaved in [false, true] {
                    let rows = 2 * 3 * 2;
                    let follow = if i % 2 == 0 { vec![(2, 3, 1)] } else { vec![(6, 2, 3), (2, 3, 1)] };
                    let inverse = i % 3 == 0;
                    let x = some(rows * features, 3, number);
                    let (cos, sin) = (values(6 * half, 4), values(6 * half, 5));
                    let mut expected: Vec<f64> = x.iter().map(|v| *v as f64).collect();
                    for r in 0..rows {
                        let row: usize = follow.iter().map(|(step, size, table)| r / step % size * table).sum();
                        for p in 0..half {
                            let (a, b) = if interleaved { (2 * p, 2 * p + 1) } else { (p, p + half) };
                            let (a, b) = (r * features + a, r * features + b);
                            let (c, s) = (cos[row * half + p] as f64, sin[row * half + p] as f64);
                            let s = if inverse { -s } else { s };
                            (expected[a], expected[b]) =
                                (x[a] as f64 * c - x[b] as f64 * s, x[b] as f64 * c + x[a] as f64 * s);
                        }
                    }
                    let rope = Rope { rows, features, half, interleaved, inverse, follow, number };
                    let (xs, cs, ss) = (put(&gpu, &x, number), upload(&gpu, &cos), upload(&gpu, &sin));
                    // To another type, then in place.
                    let to = NUMBERS[(i + number as usize) % 3];
                    let other = gpu.alloc(4 * x.len()).unwrap();
                    gpu.run(&rope.apply(xs.ptr(), cs.ptr(), ss.ptr(), (other.ptr(), to)).unwrap()).unwrap();
                    let off = difference(&get(&other, x.len(), to), &expected);
                    assert!(off < tolerance(to), "{rope:?} to {to:?}: {off}");
                    gpu.run(&rope.apply(xs.ptr(), cs.ptr(), ss.ptr(), (xs.ptr(), number)).unwrap()).unwrap();
                    let off = difference(&get(&xs, x.len(), number), &expected);
                    assert!(off < tolerance(number), "{rope:?}: {off}");
                }
            }
        }
    }
}

#[test]
fn tables_of_all_scalings() {
    for gpu in devices() {
        let positions = [0, 1, 5, 100_000, 3];
        let lengths = [4, 4, 6, 100_001, 40];
        let (half, theta, factor, original, by) = (4, 10_000.0f64, 2.0f64, 50.0f64, 1.25f64);
        let plain: Vec<f64> = (0..half).map(|i| theta.powf(-2.0 * i as f64 / 8.0)).collect();
        let more: Vec<f64> = plain.iter().map(|w| w / 3.0).collect();
        let (ps, ls) = (upload(&gpu, &positions), upload(&gpu, &lengths));
        let (ws, ms) = (upload(&gpu, &plain), upload(&gpu, &more));
        let numbers = upload(&gpu, &[by, theta, factor, original]);
        for (mode, frequencies) in
            [Frequencies::Fixed(ws.ptr()), Frequencies::Dynamic, Frequencies::Long(ws.ptr(), ms.ptr())]
                .into_iter()
                .enumerate()
        {
            for own in [true, false] {
                let (c, s) = (gpu.alloc(5 * half * 4).unwrap(), gpu.alloc(5 * half * 4).unwrap());
                let lengths_at = if own { ls.ptr() } else { Ptr::NULL };
                let launches =
                    table((ps.ptr(), lengths_at, numbers.ptr()), frequencies, (c.ptr(), s.ptr()), (5, half)).unwrap();
                gpu.run(&launches).unwrap();
                let (mut ec, mut es) = (vec![], vec![]);
                for (p, l) in positions.iter().zip(lengths) {
                    let l = if own { l as f64 } else { 100_001.0 };
                    for i in 0..half {
                        let stretched = theta * (factor * l.max(original) / original - (factor - 1.0)).powf(8.0 / 6.0);
                        let w = match mode {
                            0 => plain[i],
                            1 => stretched.powf(-2.0 * i as f64 / 8.0),
                            _ if l > original => more[i],
                            _ => plain[i],
                        };
                        ec.push((*p as f64 * w).cos() * by);
                        es.push((*p as f64 * w).sin() * by);
                    }
                }
                assert!(difference(&download(&c, 5 * half), &ec) < 1e-6, "{mode} {own}");
                assert!(difference(&download(&s, 5 * half), &es) < 1e-6, "{mode} {own}");
            }
        }
    }
    assert_eq!(Number::F32.bytes(), 4);
}
