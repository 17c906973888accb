//! Convolutions of one channel against their definition, at every level.

use super::*;
use crate::cpu::simd::levels;

#[test]
fn every_level_agrees_with_the_definition() {
    let pools = [1, 2, 3].map(Pool::new);
    let mut seed = 1u32;
    let mut below = |n: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % n
    };
    for _ in 0..120 {
        let one = below(2) == 0;
        let pair = |a: usize, b: usize| if one { [1, a] } else { [b, a] };
        let kernel = pair(1 + below(90), 1 + below(4));
        let stride = pair(1 + below(3), 1 + below(2));
        let dilation = pair([1, 1, 2, 3, 4][below(5)], 1 + below(2));
        let before = pair(below(40), below(3)).map(|b| if b == 1 { 0 } else { b });
        let before = if one { [0, before[1]] } else { before };
        let output = pair(1 + below(300), 1 + below(5));
        // Inputs may end early or late.
        let input = [0, 1].map(|a| {
            let reach = (output[a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1;
            if one && a == 0 { 1 } else { reach.saturating_sub(before[a] + below(5)).max(1) + below(3) }
        });
        let (batch, groups, filters) = (1 + below(2), 1 + below(3), 1 + below(2));
        let conv =
            Conv { batch, groups, channels: 1, filters, input, kernel, output, stride, before, dilation, alike: false };
        let mut values = |n: usize| (0..n).map(|_| below(2000) as f32 / 1000.0 - 1.0).collect::<Vec<f32>>();
        let (plane_in, plane_out) = (conv.plane_in(), conv.plane_out());
        let (x, w) = (values(batch * groups * plane_in), values(groups * filters * conv.taps()));
        let bias = values(groups * filters);
        let given = values(batch * groups * filters * plane_out);
        let mut want = vec![0f64; given.len()];
        let mut want_w = vec![0f64; w.len()];
        let mut want_x: Vec<f64> = (0..x.len()).map(|i| bias[i / plane_in.max(1) % groups] as f64).collect();
        for (i, want) in want.iter_mut().enumerate() {
            let (o, b) = (i / plane_out % (groups * filters), i / plane_out / (groups * filters));
            let place = [i % plane_out / output[1], i % output[1]];
            *want = bias[o] as f64;
            for tap in 0..conv.taps() {
                let tap_at = [tap / kernel[1], tap % kernel[1]];
                let at = [0, 1].map(|a| (place[a] * stride[a] + tap_at[a] * dilation[a]).checked_sub(before[a]));
                if let [Some(r), Some(c)] = at
                    && r < input[0]
                    && c < input[1]
                {
                    let at = (b * groups + o / filters) * plane_in + r * input[1] + c;
                    let w = w[o * conv.taps() + tap] as f64;
                    *want += x[at] as f64 * w;
                    want_x[at] += given[i] as f64 * w;
                    want_w[o * conv.taps() + tap] += given[i] as f64 * x[at] as f64;
                }
            }
        }
        for level in levels() {
            let mut first: Option<Vec<f32>> = None;
            for pool in &pools {
                let threads = pool.threads();
                let mut scratch = vec![f32::NAN; threads * scratch(&conv)];
                let mut y = vec![f32::NAN; want.len()];
                forward_at(level, pool, &conv, &x, &w, Some(&bias), &mut y, &mut scratch, threads);
                for (y, want) in y.iter().zip(&want) {
                    assert!((*y as f64 - want).abs() < 1e-4, "{level:?} {conv:?}: {y} is not {want}");
                }
                assert!(first.get_or_insert(y.clone()) == &y, "threads matter");
                let mut scratch = vec![f32::NAN; threads * weight_scratch(&conv)];
                let mut found = vec![0.0; w.len()];
                weight_grad_at(level, pool, &conv, &x, &given, &mut found, &mut scratch, threads);
                for (found, want) in found.iter().zip(&want_w) {
                    assert!((*found as f64 - want).abs() < 1e-3, "{level:?} {conv:?}: {found} is not {want}");
                }
                if takes(&conv) {
                    let mut scratch = vec![f32::NAN; threads * back_scratch(&conv)];
                    let mut x = vec![f32::NAN; x.len()];
                    let bias = Some(&bias[..groups]);
                    input_grad(level, pool, &conv, &given, &w, bias, &mut x, &mut scratch, threads);
                    for (x, want) in x.iter().zip(&want_x) {
                        assert!((*x as f64 - want).abs() < 1e-4, "{level:?} {conv:?}: {x} is not {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn inputs_that_no_output_saw_do_not_matter() {
    // Two outputs see inputs 0 to 2 and 2 to 4; what follows is infinite, and in the room of a vector.
    let conv = Conv {
        batch: 1,
        groups: 2,
        channels: 1,
        filters: 1,
        input: [1, 8],
        kernel: [1, 3],
        output: [1, 2],
        stride: [1, 2],
        before: [0; 2],
        dilation: [1; 2],
        alike: false,
    };
    let (mut x, given) = (vec![1.0; 16], [1.0, 2.0, 3.0, 4.0]);
    for i in (5..8).chain(13..16) {
        x[i] = f32::INFINITY;
    }
    for level in levels() {
        let (mut scratch, mut w) = (vec![0.0; weight_scratch(&conv)], vec![0.0; 6]);
        weight_grad_at(level, &Pool::new(1), &conv, &x, &given, &mut w, &mut scratch, 1);
        assert_eq!(w, [3.0, 3.0, 3.0, 7.0, 7.0, 7.0]);
    }
}
