//! Cross-entropy against its formula in `f64`.

mod rows;

use mobilis_cuda::Ptr;
use mobilis_cuda::loss::CrossEntropy;
use mobilis_cuda::status;
use mobilis_cuda::testing::{devices, difference, download, upload};
use rows::{NUMBERS, get, put, some, tolerance};

#[test]
fn losses_and_gradients_equal_the_formula() {
    for (d, gpu) in devices().into_iter().enumerate() {
        for number in NUMBERS {
            for (i, (rows, n)) in [(0, 5), (1, 1), (11, 33), (9, 128), (3, 1500), (2, 4104)].into_iter().enumerate() {
                if n > 1000 && (i + d + number as usize).is_multiple_of(2) {
                    continue;
                }
                let (smoothing, z_loss) = if (i + d) % 2 == 0 { (0.1, 1e-2) } else { (0.0, 0.0) };
                let words = upload(&gpu, &[0i32; 4]);
                let op = CrossEntropy {
                    rows,
                    classes: n,
                    ignore: Some(-100),
                    smoothing,
                    z_loss,
                    number,
                    status: words.ptr(),
                };
                let x = some(rows * n, 3, number);
                let targets: Vec<i32> = (0..rows).map(|r| if r == 1 { -100 } else { (r * 7 % n) as i32 }).collect();
                let g = some(rows, 4, mobilis_cuda::rows::Number::F32);
                let (mut loss, mut lses, mut gx) = (vec![], vec![], vec![]);
                for ((row, c), g) in x.chunks(n).zip(&targets).zip(&g) {
                    let (a, z) = (smoothing as f64, z_loss as f64);
                    let lse = row.iter().map(|v| (*v as f64).exp()).sum::<f64>().ln();
                    let mean = row.iter().map(|v| *v as f64).sum::<f64>() / n as f64;
                    lses.push(lse);
                    let counts = if *c < 0 { 0.0 } else { 1.0 };
                    let own = row[(*c).max(0) as usize] as f64;
                    loss.push(counts * (lse - (1.0 - a) * own - a * mean + z * lse * lse));
                    gx.extend(row.iter().enumerate().map(|(j, v)| {
                        let hit = if j as i32 == *c { 1.0 - a } else { 0.0 };
                        counts * *g as f64 * ((1.0 + 2.0 * z * lse) * (*v as f64 - lse).exp() - hit - a / n as f64)
                    }));
                }
                let (xs, ts, gs) = (put(&gpu, &x, number), upload(&gpu, &targets), upload(&gpu, &g));
                let [losses, lse_at, again] = [0; 3].map(|_| gpu.alloc(rows * 4).unwrap());
                let to = gpu.alloc(rows * n * number.bytes()).unwrap();
                gpu.run(&op.forward(xs.ptr(), ts.ptr(), losses.ptr(), lse_at.ptr()).unwrap()).unwrap();
                let what = format!("{rows} by {n} {number:?} {smoothing}");
                assert!(difference(&download(&losses, rows), &loss) < 4e-6 || n == 1, "{what}");
                assert!(difference(&download(&lse_at, rows), &lses) < 4e-6, "{what}");
                gpu.run(&op.backward(xs.ptr(), ts.ptr(), lse_at.ptr(), gs.ptr(), to.ptr()).unwrap()).unwrap();
                let off = difference(&get(&to, rows * n, number), &gx);
                assert!(off < tolerance(number) || n == 1, "{what}: {off}");
                // Without a gradient the logits stay; with one it replaces them.
                gpu.run(&op.fused(xs.ptr(), ts.ptr(), Ptr::NULL, again.ptr()).unwrap()).unwrap();
                assert_eq!(download::<f32>(&again, rows), download::<f32>(&losses, rows), "{what}");
                assert_eq!(get(&xs, rows * n, number), x);
                gpu.run(&op.fused(xs.ptr(), ts.ptr(), gs.ptr(), again.ptr()).unwrap()).unwrap();
                assert_eq!(get(&xs, rows * n, number), get(&to, rows * n, number), "{what}");
                assert_eq!(status::message(download::<i32>(&words, 4).try_into().unwrap()), None);
            }
        }
    }
}

#[test]
fn a_wrong_target_is_noted() {
    for gpu in devices() {
        let words = upload(&gpu, &[0i32; 4]);
        let number = mobilis_cuda::rows::Number::F32;
        let op = CrossEntropy {
            rows: 2,
            classes: 4,
            ignore: None,
            smoothing: 0.0,
            z_loss: 0.0,
            number,
            status: words.ptr(),
        };
        let (x, t) = (upload(&gpu, &[0f32; 8]), upload(&gpu, &[1, 9]));
        let (loss, lse) = (gpu.alloc(8).unwrap(), gpu.alloc(8).unwrap());
        gpu.run(&op.forward(x.ptr(), t.ptr(), loss.ptr(), lse.ptr()).unwrap()).unwrap();
        let message = status::message(download::<i32>(&words, 4).try_into().unwrap());
        assert_eq!(message.as_deref(), Some("target 9 is not one of 4 classes (0 to 3)"));
    }
}
