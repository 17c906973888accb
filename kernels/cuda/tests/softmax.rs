//! Softmax on the emulator, and on the GPU where there is one.

use mobilis_cuda::softmax::softmax;
use mobilis_cuda::testing::{devices, difference, download, upload, values};

#[test]
fn rows_sum_to_one_and_equal_the_formula() {
    for gpu in devices() {
        for (rows, n) in [(0, 5), (5, 0), (1, 1), (3, 1000), (17, 33), (2, 257)] {
            let x = values(rows * n, 3);
            let (from, to) = (upload(&gpu, &x), gpu.alloc(rows * n * 4).unwrap());
            gpu.run(&softmax(from.ptr(), to.ptr(), rows, n).unwrap()).unwrap();
            let expected: Vec<f64> = x
                .chunks(n.max(1))
                .flat_map(|row| {
                    let e: Vec<f64> = row.iter().map(|v| (*v as f64).exp()).collect();
                    let sum: f64 = e.iter().sum();
                    e.into_iter().map(move |v| v / sum)
                })
                .collect();
            let d = difference(&download(&to, rows * n), &expected);
            assert!(d < 2e-6, "{rows} by {n}: {d}");
        }
    }
}
