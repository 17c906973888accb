//! The scan of a selective state space on the reference device, one head after the other, as the
//! formulas in `crate::ops::ssm` say.

use super::{Eval, RefArray};
use crate::ops::ssm::check_groups;

/// Sizes of a scan and where its values lie.
struct Scan<'a> {
    x: &'a RefArray,
    dt: &'a RefArray,
    a: &'a RefArray,
    b: &'a RefArray,
    c: &'a RefArray,
    state: &'a RefArray,
    lengths: Option<&'a RefArray>,
    batch: usize,
    time: usize,
    heads: usize,
    channels: usize,
    size: usize,
}

impl<'a> Scan<'a> {
    fn new(inputs: &[&'a RefArray], lengths: Option<&&'a RefArray>) -> Result<Scan<'a>, String> {
        let [x, dt, a, b, c, state] = *inputs.first_chunk().expect("the shape rule has counted the inputs");
        let [batch, time, heads, channels] = x.sizes[..] else { unreachable!("the shape rule has checked the rank") };
        let lengths = lengths.copied();
        check_groups(heads, b.sizes[2])?;
        Ok(Scan { x, dt, a, b, c, state, lengths, batch, time, heads, channels, size: b.sizes[3] })
    }

    fn length(&self, b: usize) -> usize {
        self.lengths.map_or(self.time, |l| (l.data[b].max(0.0) as usize).min(self.time))
    }

    /// The group of a head.
    fn group(&self, h: usize) -> usize {
        h / (self.heads / self.b.sizes[2])
    }

    /// The place of the decay of state `n` of a head.
    fn decay(&self, h: usize, n: usize) -> usize {
        if self.a.sizes.len() == 1 { h } else { h * self.size + n }
    }

    /// The state of one head after each step, the one before the first included.
    fn states(&self, b: usize, h: usize) -> Vec<Vec<f64>> {
        let (p, n) = (self.channels, self.size);
        let from = (b * self.heads + h) * p * n;
        let mut all = vec![self.state.data[from..from + p * n].to_vec()];
        for t in 0..self.length(b) {
            let dt = self.dt.at(&[b, t, h]);
            let old = &all[t];
            let next = (0..p * n).map(|i| {
                let (p, n) = (i / n, i % n);
                let e = (dt * self.a.data[self.decay(h, n)]).exp();
                e * old[i] + dt * self.x.at(&[b, t, h, p]) * self.b.at(&[b, t, self.group(h), n])
            });
            let next = next.collect();
            all.push(next);
        }
        all
    }
}

pub fn ssm(cx: &Eval) -> Result<Vec<RefArray>, String> {
    let s = Scan::new(&cx.inputs, cx.inputs.get(6))?;
    let mut y = RefArray::filled(&cx.outputs[0], 0.0);
    let mut last = RefArray::filled(&cx.outputs[1], 0.0);
    for b in 0..s.batch {
        for h in 0..s.heads {
            let states = s.states(b, h);
            for t in 0..s.length(b) {
                for p in 0..s.channels {
                    let of = |n: usize| s.c.at(&[b, t, s.group(h), n]) * states[t + 1][p * s.size + n];
                    let place = y.offset(&[b, t, h, p]);
                    y.data[place] = (0..s.size).map(of).sum();
                }
            }
            let each = s.channels * s.size;
            last.data[(b * s.heads + h) * each..][..each].copy_from_slice(&states[s.length(b)]);
        }
    }
    Ok(vec![y, last])
}

pub fn grad(cx: &Eval) -> Result<Vec<RefArray>, String> {
    let s = Scan::new(&cx.inputs, cx.inputs.get(8))?;
    let (dy, d_last) = (cx.inputs[6], cx.inputs[7]);
    let mut out: Vec<RefArray> = cx.outputs.iter().map(|sizes| RefArray::filled(sizes, 0.0)).collect();
    let each = s.channels * s.size;
    for b in 0..s.batch {
        for h in 0..s.heads {
            let (states, g) = (s.states(b, h), s.group(h));
            let from = (b * s.heads + h) * each;
            let mut ds = d_last.data[from..from + each].to_vec();
            for t in (0..s.length(b)).rev() {
                let dt = s.dt.at(&[b, t, h]);
                for p in 0..s.channels {
                    for n in 0..s.size {
                        let (i, place) = (p * s.size + n, s.decay(h, n));
                        let (a, bn, cn) = (s.a.data[place], s.b.at(&[b, t, g, n]), s.c.at(&[b, t, g, n]));
                        let (x, dy, e) = (s.x.at(&[b, t, h, p]), dy.at(&[b, t, h, p]), (dt * a).exp());
                        ds[i] += cn * dy;
                        let de = ds[i] * states[t][i];
                        let mut add = |k: usize, at: usize, v: f64| out[k].data[at] += v;
                        add(0, s.x.offset(&[b, t, h, p]), dt * ds[i] * bn);
                        add(1, s.dt.offset(&[b, t, h]), de * e * a + ds[i] * x * bn);
                        add(2, place, de * e * dt);
                        add(3, s.b.offset(&[b, t, g, n]), dt * ds[i] * x);
                        add(4, s.c.offset(&[b, t, g, n]), dy * states[t + 1][i]);
                        ds[i] *= e;
                    }
                }
            }
            out[5].data[from..from + each].copy_from_slice(&ds);
        }
    }
    Ok(out)
}
