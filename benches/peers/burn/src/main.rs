//! burn on its Flex backend with AVX-512: matrix products and the training step.

mod quartznet;

use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use protocol::{Case, Refusal, case, number, tokens, uniform, weight};

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Gpt {
    embed: Embedding,
    positions: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

fn matrix(name: &str, rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(weight(name, &[rows, columns]), [rows, columns]), device)
}

/// burn keeps weights as `[in, out]`, biases start at zero here.
fn linear(name: &str, from: usize, to: usize, bias: bool, device: &Device) -> Linear {
    let mut layer = LinearConfig::new(from, to).with_bias(bias).init(device);
    layer.weight = Param::from_tensor(matrix(name, to, from, device).transpose());
    layer.bias = bias.then(|| Param::from_tensor(Tensor::zeros([to], device)));
    layer
}

impl Gpt {
    fn new(d: usize, vocab: usize, device: &Device) -> Gpt {
        let norm = || LayerNormConfig::new(d).init(device);
        let blocks = (0..4).map(|i| {
            let attn = |part: &str| linear(&format!("blocks.{i}.attn.{part}_proj.weight"), d, d, true, device);
            Block {
                norm1: norm(),
                q: attn("q"),
                k: attn("k"),
                v: attn("v"),
                o: attn("o"),
                norm2: norm(),
                up: linear(&format!("blocks.{i}.mlp.up_proj.weight"), d, 4 * d, true, device),
                down: linear(&format!("blocks.{i}.mlp.down_proj.weight"), 4 * d, d, true, device),
            }
        });
        let mut embed = EmbeddingConfig::new(vocab, d).init(device);
        embed.weight = Param::from_tensor(matrix("embed.weight", vocab, d, device));
        Gpt {
            embed,
            positions: Param::from_tensor(matrix("positions.weight", 256, d, device)),
            blocks: blocks.collect(),
            norm: norm(),
            head: linear("head.weight", d, vocab, false, device),
        }
    }

    fn forward(&self, x: Tensor<2, Int>, mask: &Tensor<4, Bool>) -> Tensor<3> {
        let [b, t] = x.dims();
        let mut h = self.embed.forward(x) + self.positions.val().unsqueeze::<3>();
        let d = h.dims()[2];
        for block in &self.blocks {
            let a = block.norm1.forward(h.clone());
            let heads = |layer: &Linear| layer.forward(a.clone()).reshape([b, t, 4, d / 4]).swap_dims(1, 2);
            let (q, k, v) = (heads(&block.q), heads(&block.k), heads(&block.v));
            let scores = q.matmul(k.transpose()) / ((d / 4) as f32).sqrt();
            let o = softmax(scores.mask_fill(mask.clone(), f32::NEG_INFINITY), 3).matmul(v);
            h = h + block.o.forward(o.swap_dims(1, 2).reshape([b, t, d]));
            let m = Gelu::new().forward(block.up.forward(block.norm2.forward(h.clone())));
            h = h + block.down.forward(m);
        }
        self.head.forward(self.norm.forward(h))
    }
}

fn step() -> Box<dyn Case> {
    let device = Device::flex().autodiff();
    let data = |name: &str| {
        let values: Vec<i64> = tokens(name, 8 * 256, 1000).into_iter().map(i64::from).collect();
        Tensor::<2, Int>::from_data(TensorData::new(values, [8, 256]), &device)
    };
    let (x, y) = (data("x"), data("y").reshape([8 * 256]));
    let later: Vec<bool> = (0..256 * 256).map(|i| i % 256 > i / 256).collect();
    let mask = Tensor::<4, Bool>::from_data(TensorData::new(later, [1, 1, 256, 256]), &device);
    let mask = mask.expand([8, 4, 256, 256]);
    let loss = CrossEntropyLossConfig::new().init(&device);
    let settings = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01);
    let mut optimizer = settings.init();
    let run = move |s: &mut (Option<Gpt>, Vec<f32>)| {
        let model = s.0.take().expect("put back after each step");
        let logits = model.forward(x.clone(), &mask).reshape([8 * 256, 1000]);
        let value = loss.forward(logits, y.clone());
        let gradients = GradientsParams::from_grads(value.backward(), &model);
        s.0 = Some(optimizer.step(1e-3, model, gradients));
        let value = value.into_data().to_vec::<f32>().expect("real numbers")[0];
        if s.1.len() < 3 {
            s.1.push(value);
        }
    };
    let mut case = case((Some(Gpt::new(256, 1000, &Device::flex().autodiff())), vec![]), run, |s| s.1.clone());
    (0..3).for_each(|_| case.run());
    case
}

fn load(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    match words[0] {
        "gemm" | "packed" => {
            let (m, k, n) = (number(words, 1)?, number(words, 2)?, number(words, 3)?);
            let device = Device::flex();
            let a = Tensor::<2>::from_data(TensorData::new(uniform("a", m * k, 1.0), [m, k]), &device);
            let b = Tensor::<2>::from_data(TensorData::new(uniform("b", k * n, 1.0), [k, n]), &device);
            let run = move |c: &mut Option<Tensor<2>>| *c = Some(a.clone().matmul(b.clone()));
            Ok(case(None, run, |c: &mut Option<Tensor<2>>| {
                c.clone().map_or(vec![], |c| c.into_data().to_vec().expect("real numbers"))
            }))
        }
        "step" => Ok(step()),
        "quartznet" => Ok(quartznet::encoder()),
        other => Err(format!("no case `{other}`").into()),
    }
}

fn main() {
    protocol::serve(load);
}
