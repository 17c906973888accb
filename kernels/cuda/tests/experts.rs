//! Products with the matrices of chosen experts, against plain loops in `f64`.

use mobilis_cuda::experts::{Grouped, Routed, experts, gradient, route};
use mobilis_cuda::gemm::{Element, Epilogue, Matrix};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Info, Ptr, status};

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

/// Values that bf16 holds, which f16 and TF32 hold too where they are not tiny.
fn short(count: usize, seed: u64) -> Vec<f32> {
    values(count, seed).into_iter().map(|v| half::bf16::from_f32((v * 64.0).round() / 64.0).to_f32()).collect()
}

fn bytes(element: Element, values: &[f32]) -> Vec<u8> {
    let value = |v: &f32| match element {
        Element::Bf16 => half::bf16::from_f32(*v).to_ne_bytes().to_vec(),
        Element::F16 => half::f16::from_f32(*v).to_ne_bytes().to_vec(),
        _ => v.to_ne_bytes().to_vec(),
    };
    values.iter().flat_map(value).collect()
}

#[test]
fn tensor_cores_multiply_groups_of_rows() {
    for gpu in devices() {
        for (element, capability) in
            [(Element::Bf16, 90), (Element::F16, 90), (Element::Bf16, 80), (Element::F16, 80), (Element::F32, 80)]
        {
            let info = Info { capability, ..gpu.info().clone() };
            if gpu.info().capability < capability {
                continue;
            }
            // Two tiles of rows for expert 1, none for the last; sizes that fill no tile; matrices as they are stored, too.
            for (tokens, each, count, n, k, stored) in [(95, 2, 20, 40, 72, false), (3, 1, 2, 264, 136, true)] {
                for (shared, transposed) in [(each, false), (1, true)] {
                    let choices = tokens * each;
                    let chosen: Vec<i32> =
                        (0..choices).map(|i| if i % 4 != 0 { 1 } else { (i * 7 % (count - 1)) as i32 }).collect();
                    let (x, dy) = (short(choices / shared * k, 1), short(choices * n, 2));
                    let w: Vec<Vec<f32>> = (0..count).map(|e| short(n * k, 10 + e as u64)).collect();
                    let (on, xs, dys) = (upload(&gpu, &chosen), upload(&gpu, &x), upload(&gpu, &dy));
                    let [sorted, more] =
                        [Routed::bytes(choices, count), Grouped::bytes(choices, count)].map(|n| gpu.alloc(n).unwrap());
                    let routed = Routed { choices, experts: count, workspace: sorted.ptr() };
                    let grouped = Grouped { routed, element, workspace: more.ptr() };
                    gpu.run(&route(on.ptr(), &routed, Ptr::NULL).unwrap()).unwrap();
                    gpu.run(&grouped.sort().unwrap()).unwrap();
                    let [left, right] = [k, n].map(|width| gpu.alloc(grouped.rows_bytes(width)).unwrap());
                    gpu.run(&grouped.rows(xs.ptr(), k, shared, left.ptr()).unwrap()).unwrap();
                    gpu.run(&grouped.rows(dys.ptr(), n, 1, right.ptr()).unwrap()).unwrap();

                    let size = if transposed { [k, n] } else { [n, k] };
                    let ws: Vec<_> = match stored {
                        true => w.iter().map(|w| upload(&gpu, &bytes(element, w))).collect(),
                        false => w.iter().map(|w| upload(&gpu, w)).collect(),
                    };
                    let at: Vec<Ptr> = ws.iter().map(|w| w.ptr()).collect();
                    let rounded = gpu.alloc(grouped.matrices_bytes(size)).unwrap();
                    let (launches, mut matrices) = grouped.matrices(&at, size, rounded.ptr()).unwrap();
                    if stored {
                        matrices = at.iter().map(|at| Matrix::rows(*at, size[1]).of(element)).collect();
                    } else {
                        gpu.run(&launches).unwrap();
                    }
                    // [k, n] of what lies as [n, k].
                    let matrices: Vec<Matrix> =
                        matrices.into_iter().map(|b| if transposed { b } else { b.turned() }).collect();
                    let (y, amax) = (gpu.alloc(choices * n * 4).unwrap(), upload(&gpu, &[0f32]));
                    let epilogue = Epilogue { amax: amax.ptr(), ..Epilogue::default() };
                    let c = Matrix::rows(y.ptr(), n);
                    let product = grouped.product(&info, left.ptr(), &matrices, [n, k], &c, &epilogue).unwrap();
                    let name = product.last().unwrap().kernel;
                    gpu.run(&product).unwrap();
                    let mut expected = vec![];
                    for (r, e) in chosen.iter().enumerate() {
                        for j in 0..n {
                            let weight =
                                |l: usize| w[*e as usize][if transposed { l * n + j } else { j * k + l }] as f64;
                            expected.push((0..k).map(|l| x[r / shared * k + l] as f64 * weight(l)).sum());
                        }
                    }
                    let d = difference(&download(&y, choices * n), &expected);
                    assert!(d < 2e-6, "{name}, {choices} choices of {count}: {d}");
                    let most = expected.iter().fold(0f64, |m: f64, v| m.max(v.abs()));
                    let d = difference(&download(&amax, 1), &[most]);
                    assert!(d < 1e-6, "{name}: the greatest magnitude: {d}");

                    let gs: Vec<_> = w.iter().map(|w| gpu.alloc(w.len() * 4).unwrap()).collect();
                    let to: Vec<Ptr> = gs.iter().map(|g| g.ptr()).collect();
                    let launches = grouped.gradient(&info, &to, [n, k], right.ptr(), left.ptr()).unwrap();
                    let name = launches.last().unwrap().kernel;
                    gpu.run(&launches).unwrap();
                    for (e, g) in gs.iter().enumerate() {
                        let mut expected = vec![0.0; n * k];
                        for r in (0..choices).filter(|r| chosen[*r] as usize == e) {
                            for (at, v) in expected.iter_mut().enumerate() {
                                *v += dy[r * n + at / k] as f64 * x[r / shared * k + at % k] as f64;
                            }
                        }
                        let d = difference(&download(g, n * k), &expected);
                        assert!(d < 2e-6, "{name}: the gradient of {e}: {d}");
                    }
                }
            }
        }
    }
}

#[test]
fn matrices_that_tensor_cores_do_not_read_are_refused() {
    let Some(gpu) = devices().into_iter().next() else { return };
    let routed = Routed { choices: 4, experts: 2, workspace: Ptr(256) };
    let grouped = Grouped { routed, element: Element::Bf16, workspace: Ptr(1024) };
    let on = |at: u64, far: usize, element: Element| Matrix::rows(Ptr(at), far).turned().of(element);
    let (c, none) = (Matrix::rows(Ptr(4096), 16), Epilogue::default());
    let product = |info: &Info, b: [Matrix; 2]| grouped.product(info, Ptr(8192), &b, [16, 16], &c, &none).map(|_| ());
    let right = on(4096, 16, Element::Bf16);
    let info = Info { capability: 80, ..gpu.info().clone() };
    assert!(product(&info, [right, right]).is_ok());
    for wrong in [on(4098, 16, Element::Bf16), on(4096, 16, Element::F16), on(4096, 24, Element::Bf16)] {
        assert!(product(&info, [right, wrong]).is_err(), "{wrong:?}");
    }
    let old = Info { capability: 75, ..gpu.info().clone() };
    assert!(product(&old, [right, right]).unwrap_err().to_string().contains("75"));
    let many = Grouped { routed: Routed { experts: 1 << 16, ..routed }, ..grouped };
    assert!(many.sort().is_err());
}
