//! Routing on the emulator, and on the GPU where there is one.

use mobilis_cuda::router::{Router, choose};
use mobilis_cuda::testing::{devices, difference, download, upload, values};
use mobilis_cuda::{Ptr, router};

fn expected(r: &Router, logits: &[f32], bias: Option<&[f32]>) -> (Vec<i32>, Vec<f64>) {
    let (mut chosen, mut weights) = (vec![], vec![]);
    for row in logits.chunks(r.experts) {
        let row: Vec<f64> = row.iter().map(|v| *v as f64).collect();
        let most = row.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        let all: f64 = row.iter().map(|v| (v - most).exp()).sum();
        let score = |v: &f64| if r.sigmoid { 1.0 / (1.0 + (-v).exp()) } else { (v - most).exp() / all };
        let p: Vec<f64> = row.iter().map(score).collect();
        let mut order: Vec<usize> = (0..r.experts).collect();
        let key = |e: &usize| p[*e] + bias.map_or(0.0, |b| b[*e] as f64);
        order.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.cmp(b)));
        order.truncate(r.chosen);
        let sum: f64 = if r.normalise { order.iter().map(|e| p[*e]).sum() } else { 1.0 };
        weights.extend(order.iter().map(|e| p[*e] / sum * r.scale as f64));
        chosen.extend(order.iter().map(|e| *e as i32));
    }
    (chosen, weights)
}

#[test]
fn the_best_are_chosen_in_order() {
    let plain = Router { tokens: 9, experts: 8, chosen: 2, sigmoid: false, normalise: false, scale: 1.0 };
    let cases = [
        plain,
        Router { experts: 60, chosen: 4, normalise: true, ..plain },
        Router { experts: 256, chosen: 8, sigmoid: true, normalise: true, scale: 2.5, ..plain },
        Router { tokens: 2, experts: 40, chosen: 40, ..plain },
        Router { tokens: 1, experts: 1, chosen: 1, ..plain },
    ];
    for gpu in devices() {
        for r in cases {
            let mut logits = values(r.tokens * r.experts, 3);
            // Equal logits: the lower index is first.
            if r.experts > 5 {
                logits[5] = logits[2];
                logits[4] = logits[2];
            }
            let bias = values(r.experts, 4);
            for bias in [None, Some(bias.as_slice())] {
                let (x, b) = (upload(&gpu, &logits), bias.map(|b| upload(&gpu, b)));
                let n = r.tokens * r.chosen;
                let (chosen, weights) = (gpu.alloc(n * 4).unwrap(), gpu.alloc(n * 4).unwrap());
                let b = b.as_ref().map_or(Ptr::NULL, |b| b.ptr());
                gpu.run(&choose(&r, x.ptr(), b, chosen.ptr(), weights.ptr()).unwrap()).unwrap();
                let (e, w) = expected(&r, &logits, bias);
                assert_eq!(download::<i32>(&chosen, n), e, "{r:?}");
                let d = difference(&download(&weights, n), &w);
                assert!(d < 1e-6, "{r:?}: {d}");
            }
        }
    }
    let many = router::choose(&Router { experts: 300, ..plain }, Ptr(4), Ptr(4), Ptr(4), Ptr(4));
    assert!(many.unwrap_err().to_string().contains("256"));
}
