//! The joint network with its loss on the emulator, and on the GPU where there is one: against the loss of logits that
//! are whole, and products in f64.

use mobilis_cuda::conv::Factors;
use mobilis_cuda::joint::{Gradients, Input, Joint, gradient, loss};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::transducer::{self, Bend, Transducer};
use mobilis_cuda::{Buffer, Ptr};

#[test]
fn a_few_frames_at_a_time_give_the_loss_of_all() {
    for gpu in devices() {
        for (durations, tanh, factors, frames) in
            [(vec![], false, Factors::F32, 2), (vec![0, 1, 2], true, Factors::F32, 5), (vec![], true, Factors::Bf16, 3)]
        {
            let (batch, time, labels, tokens, width) = (2, 5, 2, 9, 11);
            let (classes, nodes) = (tokens + durations.len(), time * (labels + 1));
            // Tensor cores round hidden values, which are no bf16 here.
            let tolerance = if factors == Factors::Bf16 { 1e-2 } else { 5e-6 };
            let (e, p) = (values(batch * time * width, 1), values(batch * (labels + 1) * width, 2));
            let (w, b, g) = (values(classes * width, 3), values(classes, 4), values(batch, 5));
            let targets = upload(&gpu, &[1i32, 3, 8, 8]);
            let lengths = [upload(&gpu, &[5i32, 4]), upload(&gpu, &[2i32, 1])];
            let s = Transducer {
                batch,
                time,
                labels,
                tokens,
                blank: 0,
                durations,
                sigma: 0.02,
                targets: targets.ptr(),
                time_lengths: lengths[0].ptr(),
                label_lengths: lengths[1].ptr(),
            };
            let row = |bt: usize, u: usize| -> Vec<f64> {
                let (e, p) = (&e[bt * width..][..width], &p[(bt / time * (labels + 1) + u) * width..][..width]);
                let x = e.iter().zip(p).map(|(e, p)| (*e + *p) as f64);
                x.map(|x| if tanh { x.tanh() } else { x.max(0.0) }).collect()
            };
            let hidden: Vec<Vec<f64>> =
                (0..batch * time).flat_map(|bt| (0..=labels).map(move |u| (bt, u))).map(|(bt, u)| row(bt, u)).collect();
            let logit = |h: &[f64], v: usize| {
                b[v] as f64 + h.iter().zip(&w[v * width..]).map(|(h, w)| h * *w as f64).sum::<f64>()
            };
            let logits: Vec<f32> =
                hidden.iter().flat_map(|h| (0..classes).map(|v| logit(h, v) as f32).collect::<Vec<_>>()).collect();

            // The loss of whole logits, and its gradient by these.
            let (whole, gd) = (upload(&gpu, &logits), upload(&gpu, &g));
            let (losses, scratch) = (gpu.alloc(batch * 4).unwrap(), gpu.alloc(s.workspace()).unwrap());
            let (x, l, at) = (whole.ptr(), losses.ptr(), scratch.ptr());
            gpu.run(&transducer::nodes(&s, x, 0..time, at, Ptr::NULL).unwrap()).unwrap();
            gpu.run(&transducer::loss(&s, l, at).unwrap()).unwrap();
            gpu.run(&transducer::gradient(&s, x, 0..time, l, gd.ptr(), Bend::default(), x, at).unwrap()).unwrap();
            let expected: Vec<f32> = download(&losses, batch);
            let dl: Vec<f32> = download(&whole, batch * nodes * classes);
            let mut want = [e.len(), p.len(), w.len(), b.len()].map(|n| vec![0f64; n]);
            for (n, h) in hidden.iter().enumerate() {
                let (bt, u) = (n / (labels + 1), n % (labels + 1));
                for v in 0..classes {
                    let d = dl[n * classes + v] as f64;
                    want[3][v] += d;
                    for k in 0..width {
                        let slope = if tanh { 1.0 - h[k] * h[k] } else { (h[k] > 0.0) as u8 as f64 };
                        let dh = d * w[v * width + k] as f64 * slope;
                        want[0][bt * width + k] += dh;
                        want[1][(bt / time * (labels + 1) + u) * width + k] += dh;
                        want[2][v * width + k] += d * h[k];
                    }
                }
            }

            // The same from the joint, some frames at a time.
            let memory = frames * batch * (labels + 1) * classes * 4;
            let j = Joint { width, tanh, factors, memory };
            let given: Vec<Buffer> = [&e, &p, &w, &b].iter().map(|v| upload(&gpu, v)).collect();
            let at = |i: usize| given[i].ptr();
            let input = Input { e: at(0), p: at(1), weight: at(2), bias: at(3) };
            let scratch = gpu.alloc(j.workspace(&s)).unwrap();
            gpu.run(&loss(&s, &j, &input, l, scratch.ptr(), Ptr::NULL).unwrap()).unwrap();
            let found: Vec<f32> = download(&losses, batch);
            let d = difference(&found, &expected.iter().map(|v| *v as f64).collect::<Vec<_>>());
            assert!(d < tolerance, "{factors:?}: losses {found:?} {expected:?}");
            let out: Vec<Buffer> = want.iter().map(|v| gpu.alloc(v.len() * 4).unwrap()).collect();
            let to = |i: usize| out[i].ptr();
            let grads = Gradients { e: to(0), p: to(1), weight: to(2), bias: to(3) };
            let launches = gradient(&s, &j, &input, l, gd.ptr(), Bend::default(), &grads, scratch.ptr());
            gpu.run(&launches.unwrap()).unwrap();
            for (i, (found, want)) in out.iter().zip(&want).enumerate() {
                let d = difference(&download(found, want.len()), want);
                // Rounded twice, and where a sum almost vanishes relative to its terms.
                assert!(d < 4.0 * tolerance, "{factors:?}, gradient {i}: {d}");
            }
        }
    }
}

#[test]
fn no_frames_have_no_gradient() {
    for gpu in devices() {
        let s = Transducer {
            batch: 1,
            time: 0,
            labels: 1,
            tokens: 3,
            blank: 0,
            durations: vec![],
            sigma: 0.0,
            targets: Ptr::NULL,
            time_lengths: Ptr::NULL,
            label_lengths: Ptr::NULL,
        };
        let j = Joint { width: 4, tanh: false, factors: Factors::F32, memory: 1 << 20 };
        let p = Ptr::NULL;
        let x = Input { e: p, p, weight: p, bias: p };
        let [losses, dp, dw] = [1, 8, 12].map(|n| gpu.alloc(n * 4).unwrap());
        gpu.run(&loss(&s, &j, &x, losses.ptr(), p, p).unwrap()).unwrap();
        assert_eq!(download::<f32>(&losses, 1), [f32::INFINITY]);
        let out = Gradients { e: p, p: dp.ptr(), weight: dw.ptr(), bias: p };
        gpu.run(&gradient(&s, &j, &x, losses.ptr(), p, Bend::default(), &out, p).unwrap()).unwrap();
        assert_eq!(download::<f32>(&dp, 8), [0.0; 8]);
        assert_eq!(download::<f32>(&dw, 12), [0.0; 12]);
    }
}
