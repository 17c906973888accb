//! Inference with candle's fused norms, softmax and rotation: prompts and QuartzNet.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use protocol::{Case, case, tokens, uniform, weight};
use std::cell::RefCell;
use std::collections::HashMap;

/// Weights by name, made when first asked for.
#[derive(Default)]
struct Weights(RefCell<HashMap<String, Tensor>>);

impl Weights {
    fn get(&self, name: &str, sizes: &[usize]) -> Result<Tensor> {
        if !self.0.borrow().contains_key(name) {
            let w = Tensor::from_vec(weight(name, sizes), sizes, &Device::Cpu)?;
            self.0.borrow_mut().insert(name.into(), w);
        }
        Ok(self.0.borrow()[name].clone())
    }

    /// `[t, from]` to `[t, to]`.
    fn linear(&self, x: &Tensor, name: &str, from: usize, to: usize, bias: bool) -> Result<Tensor> {
        let y = x.matmul(&self.get(&format!("{name}.weight"), &[to, from])?.t()?)?;
        if bias { y.broadcast_add(&self.get(&format!("{name}.bias"), &[to])?) } else { Ok(y) }
    }

    fn norm(&self, x: &Tensor, name: &str, d: usize) -> Result<Tensor> {
        let (w, b) = (self.get(&format!("{name}.weight"), &[d])?, self.get(&format!("{name}.bias"), &[d])?);
        layer_norm(x, &w, &b, 1e-5)
    }

    fn rms(&self, x: &Tensor, name: &str, d: usize) -> Result<Tensor> {
        rms_norm(&x.contiguous()?, &self.get(&format!("{name}.weight"), &[d])?, 1e-5)
    }
}

const WIDTH: usize = 768;
const HEADS: usize = 12;
const VOCAB: usize = 50257;

fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor, count: usize) -> Result<Tensor> {
    let scores = (q.matmul(&k.t()?)? * (1.0 / 8.0))?;
    let o = softmax_last_dim(&scores.broadcast_add(mask)?)?.matmul(v)?;
    o.transpose(1, 2)?.reshape((count, WIDTH))
}

pub fn prompt(shape: &str, count: usize) -> Result<Box<dyn Case>> {
    let device = Device::Cpu;
    let ids: Vec<u32> = tokens("prompt", 1024, VOCAB)[..count].iter().map(|t| *t as u32).collect();
    let ids = Tensor::from_vec(ids, count, &device)?;
    let mask: Vec<f32> =
        (0..count * count).map(|i| if i % count > i / count { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (1, 1, count, count), &device)?;
    let angle = |i: usize| (i / 32) as f32 * 10000f32.powf(-((i % 32) as f32) / 32.0);
    let cos = Tensor::from_vec((0..count * 32).map(|i| angle(i).cos()).collect::<Vec<_>>(), (count, 32), &device)?;
    let sin = Tensor::from_vec((0..count * 32).map(|i| angle(i).sin()).collect::<Vec<_>>(), (count, 32), &device)?;
    let llama = shape == "llama";
    let w = Weights::default();
    let forward = move || -> Result<Tensor> {
        let mut h = w.get("embed.weight", &[VOCAB, WIDTH])?.index_select(&ids, 0)?;
        if !llama {
            h = (h + w.get("positions.weight", &[1024, WIDTH])?.narrow(0, 0, count)?)?;
        }
        let norm = |x: &Tensor, name: &str| if llama { w.rms(x, name, WIDTH) } else { w.norm(x, name, WIDTH) };
        for i in 0..12 {
            let n = format!("blocks.{i}");
            let a = norm(&h, &format!("{n}.norm1"))?;
            let heads = |part: &str| -> Result<Tensor> {
                let y = w.linear(&a, &format!("{n}.attn.{part}_proj"), WIDTH, WIDTH, !llama)?;
                y.reshape((1, count, HEADS, WIDTH / HEADS))?.transpose(1, 2)?.contiguous()
            };
            let (mut q, mut k, v) = (heads("q")?, heads("k")?, heads("v")?);
            if llama {
                (q, k) = (rope(&q, &cos, &sin)?, rope(&k, &cos, &sin)?);
            }
            let o = attention(&q, &k, &v, &mask, count)?;
            h = (h + w.linear(&o, &format!("{n}.attn.o_proj"), WIDTH, WIDTH, !llama)?)?;
            let m = norm(&h, &format!("{n}.norm2"))?;
            let m = if llama {
                let gate = w.linear(&m, &format!("{n}.mlp.gate_proj"), WIDTH, 2048, false)?.silu()?;
                let up = w.linear(&m, &format!("{n}.mlp.up_proj"), WIDTH, 2048, false)?;
                w.linear(&(gate * up)?, &format!("{n}.mlp.down_proj"), 2048, WIDTH, false)?
            } else {
                let up = w.linear(&m, &format!("{n}.mlp.up_proj"), WIDTH, 4 * WIDTH, true)?.gelu_erf()?;
                w.linear(&up, &format!("{n}.mlp.down_proj"), 4 * WIDTH, WIDTH, true)?
            };
            h = (h + m)?;
        }
        let h = norm(&h.narrow(0, count - 1, 1)?.contiguous()?, "norm")?;
        w.linear(&h, "head", WIDTH, VOCAB, false)
    };
    forwarding(forward)
}

pub fn quartznet() -> Result<Box<dyn Case>> {
    let x = Tensor::from_vec(uniform("features", 64 * 1000, 1.0), (1, 64, 1000), &Device::Cpu)?;
    let w = Weights::default();
    let forward = move || -> Result<Tensor> {
        let norm = |x: Tensor, name: &str, n: usize| -> Result<Tensor> {
            let part = |p: &str| w.get(&format!("{name}.{p}"), &[n]);
            // The running statistics as one factor and one summand.
            let factor = part("weight")?.div(&(part("running_var")? + 1e-5)?.sqrt()?)?;
            let summand = part("bias")?.sub(&part("running_mean")?.mul(&factor)?)?;
            x.broadcast_mul(&factor.reshape((1, n, 1))?)?.broadcast_add(&summand.reshape((1, n, 1))?)
        };
        let sub = |x: &Tensor, name: &str, i: usize, o: usize, k: usize, s: usize, d: usize| -> Result<Tensor> {
            let depthwise = w.get(&format!("{name}.depthwise.weight"), &[i, 1, k])?;
            let x = x.conv1d(&depthwise, d * (k - 1) / 2, s, d, i)?;
            let x = x.conv1d(&w.get(&format!("{name}.pointwise.weight"), &[o, i, 1])?, 0, 1, 1, 1)?;
            norm(x, &format!("{name}.norm"), o)
        };
        let mut h = sub(&x, "first", 64, 256, 33, 2, 1)?.relu()?;
        for (group, first, i, o, k, count) in [
            ("a", "", 256, 256, 33, 3),
            ("b", "", 256, 256, 39, 3),
            ("c", "c_first", 256, 512, 51, 3),
            ("d", "", 512, 512, 63, 3),
            ("e", "", 512, 512, 75, 3),
        ] {
            for r in 0..count {
                let wide = !first.is_empty() && r == 0;
                let name = match (wide, first.is_empty()) {
                    (true, _) => first.to_string(),
                    (false, true) => format!("{group}.{r}"),
                    (false, false) => format!("{group}.{}", r - 1),
                };
                let i = if wide { i } else { o };
                let mut y = sub(&h, &format!("{name}.first"), i, o, k, 1, 1)?;
                for r in 0..4 {
                    y = sub(&y.relu()?, &format!("{name}.rest.{r}"), o, o, k, 1, 1)?;
                }
                let side = h.conv1d(&w.get(&format!("{name}.residual.weight"), &[o, i, 1])?, 0, 1, 1, 1)?;
                h = (y + norm(side, &format!("{name}.residual_norm"), o)?)?.relu()?;
            }
        }
        let h = sub(&h, "wide", 512, 512, 87, 1, 2)?.relu()?;
        norm(h.conv1d(&w.get("out.weight", &[1024, 512, 1])?, 0, 1, 1, 1)?, "out_norm", 1024)?.relu()
    };
    forwarding(forward)
}

fn forwarding(forward: impl Fn() -> Result<Tensor> + 'static) -> Result<Box<dyn Case>> {
    let first = forward()?;
    let run = move |y: &mut Tensor| *y = forward().expect("as before");
    Ok(case(first, run, |y| y.flatten(0, D::Minus1).and_then(|y| y.to_vec1()).expect("values")))
}
