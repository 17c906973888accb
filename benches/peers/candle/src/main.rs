//! candle: matrix products and the training step. Norm and softmax are composed in training,
//! because its fused ones have no gradient.

mod models;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use protocol::{Case, Refusal, case, number, tokens, uniform, weight};
use std::collections::BTreeMap;

/// Parameters by name.
#[derive(Default)]
struct Params(BTreeMap<String, Var>);

impl Params {
    fn get(&mut self, name: &str, sizes: &[usize]) -> Result<Tensor> {
        if !self.0.contains_key(name) {
            let var = Var::from_vec(weight(name, sizes), sizes, &Device::Cpu)?;
            self.0.insert(name.into(), var);
        }
        Ok(self.0[name].as_tensor().clone())
    }

    fn linear(&mut self, x: &Tensor, name: &str, from: usize, to: usize, bias: bool) -> Result<Tensor> {
        let w = self.get(&format!("{name}.weight"), &[to, from])?;
        let (b, t, _) = x.dims3()?;
        // One product for all sequences, as candle's own models reshape for it.
        let y = x.reshape((b * t, from))?.matmul(&w.t()?)?.reshape((b, t, to))?;
        if bias { y.broadcast_add(&self.get(&format!("{name}.bias"), &[to])?) } else { Ok(y) }
    }

    fn layer_norm(&mut self, x: &Tensor, name: &str, width: usize) -> Result<Tensor> {
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        let w = self.get(&format!("{name}.weight"), &[width])?;
        x.broadcast_mul(&w)?.broadcast_add(&self.get(&format!("{name}.bias"), &[width])?)
    }
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

fn gpt_loss(p: &mut Params, x: &Tensor, y: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (d, heads, vocab) = (256, 4, 1000);
    let (b, t) = x.dims2()?;
    let table = p.get("embed.weight", &[vocab, d])?;
    let mut h = table.index_select(&x.flatten_all()?, 0)?.reshape((b, t, d))?;
    h = h.broadcast_add(&p.get("positions.weight", &[256, d])?)?;
    for i in 0..4 {
        let n = format!("blocks.{i}");
        let a = p.layer_norm(&h, &format!("{n}.norm1"), d)?;
        let mut split = |part: &str| -> Result<Tensor> {
            let z = p.linear(&a, &format!("{n}.attn.{part}_proj"), d, d, true)?;
            z.reshape((b, t, heads, d / heads))?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (split("q")?, split("k")?, split("v")?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? * (1.0 / ((d / heads) as f64).sqrt()))?;
        let o = softmax(&scores.broadcast_add(mask)?)?.matmul(&v)?;
        let o = o.transpose(1, 2)?.contiguous()?.reshape((b, t, d))?;
        h = (h + p.linear(&o, &format!("{n}.attn.o_proj"), d, d, true)?)?;
        let m = p.layer_norm(&h, &format!("{n}.norm2"), d)?;
        let m = p.linear(&m, &format!("{n}.mlp.up_proj"), d, 4 * d, true)?.gelu_erf()?;
        h = (h + p.linear(&m, &format!("{n}.mlp.down_proj"), 4 * d, d, true)?)?;
    }
    let h = p.layer_norm(&h, "norm", d)?;
    let logits = p.linear(&h, "head", d, vocab, false)?.reshape((b * t, vocab))?;
    // log_softmax, composed.
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_probs = shifted.broadcast_sub(&total)?;
    log_probs.gather(&y.flatten_all()?.unsqueeze(1)?, 1)?.mean_all()?.neg()
}

fn step() -> Result<Box<dyn Case>> {
    let device = Device::Cpu;
    let data = |name: &str| {
        let t: Vec<u32> = tokens(name, 8 * 256, 1000).into_iter().map(|v| v as u32).collect();
        Tensor::from_vec(t, (8, 256), &device)
    };
    let (x, y) = (data("x")?, data("y")?);
    let mask: Vec<f32> = (0..256 * 256).map(|i| if i % 256 > i / 256 { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (1, 1, 256, 256), &device)?;
    let mut params = Params::default();
    gpt_loss(&mut params, &x, &y, &mask)?;
    let settings = ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let optimizer = AdamW::new(params.0.values().cloned().collect(), settings)?;
    let run = move |s: &mut (Params, AdamW, Vec<f32>)| {
        let mut step = || -> Result<()> {
            let loss = gpt_loss(&mut s.0, &x, &y, &mask)?;
            s.1.backward_step(&loss)?;
            let value = loss.to_vec0::<f32>()?;
            if s.2.len() < 3 {
                s.2.push(value);
            }
            Ok(())
        };
        step().expect("a step");
    };
    let mut case = case((params, optimizer, vec![]), run, |s| s.2.clone());
    (0..3).for_each(|_| case.run());
    Ok(case)
}

fn load(words: &[&str]) -> std::result::Result<Box<dyn Case>, Refusal> {
    let device = Device::Cpu;
    match words[0] {
        "gemm" | "packed" => {
            let (m, k, n) = (number(words, 1)?, number(words, 2)?, number(words, 3)?);
            let a = Tensor::from_vec(uniform("a", m * k, 1.0), (m, k), &device)?;
            let b = Tensor::from_vec(uniform("b", k * n, 1.0), (k, n), &device)?;
            let c = Tensor::zeros((m, n), DType::F32, &device)?;
            let run = move |c: &mut Tensor| *c = a.matmul(&b).expect("a product");
            Ok(case(c, run, |c| c.flatten_all().and_then(|c| c.to_vec1()).expect("values")))
        }
        "step" => Ok(step()?),
        "prompt" if words[3] == "f32" => Ok(models::prompt(words[1], number(words, 2)?)?),
        "quartznet" => Ok(models::quartznet()?),
        other => Err(format!("no case `{other}`").into()),
    }
}

fn main() {
    protocol::serve(load);
}
