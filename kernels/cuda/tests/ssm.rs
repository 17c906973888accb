//! The scan of a state space on the emulator, and on the GPU where there is one: outputs against the formulas in
//! f64, gradients against the op set's formulas, which differences check.

use mobilis_cuda::ssm::{Gradients, Input, Scan, grad, scan};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Buffer, Ptr};

fn sizes(batch: usize, time: usize, heads: usize, channels: usize, groups: usize, size: usize, scalar: bool) -> Scan {
    Scan { batch, time, heads, channels, groups, size, scalar, lengths: Ptr::NULL }
}

/// Sizes, and the lengths of sequences where these are given.
fn cases() -> Vec<(Scan, Option<&'static [i32]>)> {
    vec![
        // Mamba: a channel a head, decays of each; more channels than a block has, more steps than a chunk.
        (sizes(2, 70, 35, 1, 1, 5, false), Some(&[70, 66])),
        // Mamba-2: one decay a head, two groups.
        (sizes(2, 6, 4, 3, 2, 17, true), Some(&[4, 0])),
        (sizes(1, 3, 2, 2, 1, 100, true), None),
        (sizes(1, 2, 1, 3, 1, 200, false), None),
        (sizes(2, 0, 2, 2, 1, 4, true), None),
        (sizes(3, 130, 1, 1, 1, 1, true), Some(&[130, -3, 64])),
    ]
}

fn length(s: &Scan, lengths: Option<&[i32]>, b: usize) -> usize {
    lengths.map_or(s.time, |l| (l[b].max(0) as usize).min(s.time))
}

/// Calls `f` with the places of every value that meets in one state of one step: `x`, `dt`, `a`, `b`, the state.
fn places(s: &Scan, b: usize, t: usize, h: usize, p: usize, n: usize) -> [usize; 5] {
    let step = b * s.time + t;
    let g = h / (s.heads / s.groups);
    [
        (step * s.heads + h) * s.channels + p,
        step * s.heads + h,
        if s.scalar { h } else { h * s.size + n },
        (step * s.groups + g) * s.size + n,
        ((b * s.heads + h) * s.channels + p) * s.size + n,
    ]
}

/// `y`, the last state and, from weights of both, the gradients of the six inputs.
fn reference(
    s: &Scan,
    lengths: Option<&[i32]>,
    x: &[Vec<f64>],
    dy: &[f32],
    d_last: &[f32],
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let (mut y, mut last) = (vec![0.0; x[0].len()], x[5].clone());
    let mut g: Vec<Vec<f64>> = x.iter().map(|v| vec![0.0; v.len()]).collect();
    for b in 0..s.batch {
        for (h, p, n) in (0..s.heads)
            .flat_map(|h| (0..s.channels).map(move |p| (h, p)))
            .flat_map(|(h, p)| (0..s.size).map(move |n| (h, p, n)))
        {
            let place = places(s, b, 0, h, p, n)[4];
            let mut states = vec![x[5][place]];
            for t in 0..length(s, lengths, b) {
                let [xi, di, ai, bi, _] = places(s, b, t, h, p, n);
                let next = (x[1][di] * x[2][ai]).exp() * states[t] + x[1][di] * x[0][xi] * x[3][bi];
                y[xi] += x[4][bi] * next;
                states.push(next);
            }
            last[place] = *states.last().unwrap();
            let mut ds = d_last[place] as f64;
            for t in (0..length(s, lengths, b)).rev() {
                let [xi, di, ai, bi, _] = places(s, b, t, h, p, n);
                let (dt, a, e) = (x[1][di], x[2][ai], (x[1][di] * x[2][ai]).exp());
                ds += x[4][bi] * dy[xi] as f64;
                let de = ds * states[t];
                g[0][xi] += dt * ds * x[3][bi];
                g[1][di] += de * e * a + ds * x[0][xi] * x[3][bi];
                g[2][ai] += de * e * dt;
                g[3][bi] += dt * ds * x[0][xi];
                g[4][bi] += dy[xi] as f64 * states[t + 1];
                ds *= e;
            }
            g[5][place] = ds;
        }
    }
    (vec![y, last], g)
}

fn inputs(s: &Scan) -> [Vec<f32>; 6] {
    let state = s.batch * s.heads * s.channels * s.size;
    let (steps, wide) = (s.batch * s.time, s.batch * s.time * s.groups * s.size);
    let dt = values(steps * s.heads, 2).iter().map(|v| v.abs() * 0.5 + 0.05).collect();
    let a = values(if s.scalar { s.heads } else { s.heads * s.size }, 3).iter().map(|v| -v.abs() - 0.1).collect();
    [values(steps * s.heads * s.channels, 1), dt, a, values(wide, 4), values(wide, 5), values(state, 6)]
}

#[test]
fn the_reference_is_the_derivative() {
    let s = sizes(1, 3, 2, 2, 1, 2, false);
    let x: Vec<Vec<f64>> = inputs(&s).iter().map(|v| v.iter().map(|v| *v as f64).collect()).collect();
    let (dy, dl) = (values(x[0].len(), 7), values(x[5].len(), 8));
    let loss = |x: &[Vec<f64>]| -> f64 {
        let (out, _) = reference(&s, None, x, &dy, &dl);
        out.iter().zip([&dy, &dl]).flat_map(|(o, w)| o.iter().zip(w).map(|(o, w)| o * *w as f64)).sum()
    };
    let (_, grads) = reference(&s, None, &x, &dy, &dl);
    for (i, at) in (0..6).flat_map(|i| (0..x[i].len()).map(move |at| (i, at))) {
        let mut moved = x.clone();
        moved[i][at] += 1e-5;
        let up = loss(&moved);
        moved[i][at] -= 2e-5;
        let expected = (up - loss(&moved)) / 2e-5;
        assert!((grads[i][at] - expected).abs() < 1e-7, "{i} {at}: {} {expected}", grads[i][at]);
    }
}

#[test]
fn a_scan_and_its_gradient() {
    for gpu in devices() {
        for (mut s, lengths) in cases() {
            let x = inputs(&s);
            let wide: Vec<Vec<f64>> = x.iter().map(|v| v.iter().map(|v| *v as f64).collect()).collect();
            let (dy, d_last) = (values(x[0].len(), 7), values(x[5].len(), 8));
            let (expected, grads) = reference(&s, lengths, &wide, &dy, &d_last);
            let of_lengths = lengths.map(|l| upload(&gpu, l));
            s.lengths = of_lengths.as_ref().map_or(Ptr::NULL, Buffer::ptr);
            let d: Vec<Buffer> = x.iter().map(|v| upload(&gpu, v)).collect();
            let at = |b: &[Buffer], i: usize| b[i].ptr();
            let input =
                Input { x: at(&d, 0), dt: at(&d, 1), a: at(&d, 2), b: at(&d, 3), c: at(&d, 4), state: at(&d, 5) };
            let (y, last) = (gpu.alloc(x[0].len() * 4).unwrap(), gpu.alloc(x[5].len() * 4).unwrap());
            gpu.run(&scan(&s, &input, y.ptr(), last.ptr()).unwrap()).unwrap();
            for (found, expected) in [y, last].iter().zip(&expected) {
                let d = difference(&download(found, expected.len()), expected);
                assert!(d < 2e-6, "{s:?}: {d}");
            }
            let (gy, gl) = (upload(&gpu, &dy), upload(&gpu, &d_last));
            let out: Vec<Buffer> = x.iter().map(|v| gpu.alloc(v.len() * 4).unwrap()).collect();
            let to = Gradients {
                x: at(&out, 0),
                dt: at(&out, 1),
                a: at(&out, 2),
                b: at(&out, 3),
                c: at(&out, 4),
                state: at(&out, 5),
            };
            let scratch = gpu.alloc(s.grad_workspace()).unwrap();
            gpu.run(&grad(&s, &input, (gy.ptr(), gl.ptr()), &to, scratch.ptr()).unwrap()).unwrap();
            for (i, (found, expected)) in out.iter().zip(&grads).enumerate() {
                let d = difference(&download(found, expected.len()), expected);
                assert!(d < 3e-6, "{s:?}: gradient {i}: {d}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let p = Ptr(256);
    let input = Input { x: p, dt: p, a: p, b: p, c: p, state: p };
    let refused = |s: Scan| scan(&s, &input, p, p).unwrap_err().to_string();
    assert!(refused(sizes(1, 2, 3, 1, 2, 4, true)).contains("groups"));
    assert!(refused(sizes(1, 2, 3, 1, 1, 300, true)).contains("256"));
    assert!(refused(sizes(1 << 20, 1 << 12, 3, 1, 1, 3, true)).contains("values of"));
}
