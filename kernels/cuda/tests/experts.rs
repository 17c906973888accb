//! Products with the matrices of chosen experts, against plain loops in `f64`.

use mobilis_cuda::experts::{Routed, experts, gradient, route};
use mobilis_cuda::gemm::{Epilogue, Matrix};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Ptr, status};

#[test]
fn rows_meet_the_matrices_that_they_chose() {
    for gpu in devices() {
        for (tokens, each, count, n, k) in [(40, 2, 5, 20, 24), (1, 1, 3, 70, 5), (90, 3, 20, 9, 16), (2, 2, 40, 4, 4)]
        {
            for (shared, transposed) in [(each, false), (1, true)] {
                let choices = tokens * each;
                // Expert 1 is chosen by most, the last by nobody.
                let chosen: Vec<i32> =
                    (0..choices).map(|i| if i % 3 == 0 { 1 } else { (i * 7 % (count - 1)) as i32 }).collect();
                let rows = choices / shared;
                let (x, dy) = (values(rows * k, 1), values(choices * n, 2));
                let w: Vec<Vec<f32>> = (0..count).map(|e| values(n * k, 10 + e as u64)).collect();
                let (on, xs, dys) = (upload(&gpu, &chosen), upload(&gpu, &x), upload(&gpu, &dy));
                let ws: Vec<_> = w.iter().map(|w| upload(&gpu, w)).collect();
                let y = gpu.alloc(choices * n * 4).unwrap();
                let workspace = gpu.alloc(Routed::bytes(choices, count)).unwrap();
                let to = Routed { choices, experts: count, workspace: workspace.ptr() };
                gpu.run(&route(on.ptr(), &to, Ptr::NULL).unwrap()).unwrap();
                let b = if transposed { Matrix::rows(Ptr::NULL, n) } else { Matrix::rows(Ptr::NULL, k).turned() };
                let at: Vec<Ptr> = ws.iter().map(|w| w.ptr()).collect();
                let (from, result) = (Matrix::rows(xs.ptr(), k), Matrix::rows(y.ptr(), n));
                let launches = experts(&to, &at, [n, k], &from, shared, &b, &result, &Epilogue::default()).unwrap();
                gpu.run(&launches).unwrap();
                let mut expected = vec![];
                for (r, e) in chosen.iter().enumerate() {
                    for j in 0..n {
                        let weight = |l: usize| w[*e as usize][if transposed { l * n + j } else { j * k + l }] as f64;
                        expected.push((0..k).map(|l| x[r / shared * k + l] as f64 * weight(l)).sum());
                    }
                }
                let d = difference(&download(&y, choices * n), &expected);
                assert!(d < 2e-6, "{choices} choices of {count}: {d}");

                let gs: Vec<_> = w.iter().map(|w| gpu.alloc(w.len() * 4).unwrap()).collect();
                let at: Vec<Ptr> = gs.iter().map(|g| g.ptr()).collect();
                gpu.run(&gradient(&to, &at, [n, k], (dys.ptr(), 1), (xs.ptr(), shared)).unwrap()).unwrap();
                for (e, g) in gs.iter().enumerate() {
                    let mut expected = vec![0.0; n * k];
                    for r in (0..choices).filter(|r| chosen[*r] as usize == e) {
                        for (at, v) in expected.iter_mut().enumerate() {
                            *v += dy[r * n + at / k] as f64 * x[r / shared * k + at % k] as f64;
                        }
                    }
                    let d = difference(&download(g, n * k), &expected);
                    assert!(d < 2e-6, "the gradient of {e}: {d}");
                }
            }
        }
    }
}

#[test]
fn an_expert_that_does_not_exist_is_told() {
    for gpu in devices() {
        for wrong in [-1, 3] {
            let chosen = upload(&gpu, &[0, 2, wrong, 1]);
            let workspace = gpu.alloc(Routed::bytes(4, 3)).unwrap();
            let words = upload(&gpu, &[0i32; 4]);
            let to = Routed { choices: 4, experts: 3, workspace: workspace.ptr() };
            gpu.run(&route(chosen.ptr(), &to, words.ptr()).unwrap()).unwrap();
            let words: [i32; 4] = download(&words, 4).try_into().unwrap();
            assert_eq!(status::message(words).unwrap(), format!("expert {wrong} is chosen, there are 3 (0 to 2)"));
        }
    }
}
