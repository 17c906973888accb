//! Training reproduces Hugging Face and PyTorch: losses, every gradient, and the parameters after
//! three AdamW steps, for Llama and GPT-2.
//!
//! The golden files (`../shared/golden`, or `MOBILIS_GOLDEN`) were written by `transformers` in
//! single precision; where they are absent the tests say so and pass.

mod file;
mod gpt2;
mod llama;

use file::File;
use mobilis::devices::reference::RefArray;
use mobilis::graph::{VarDecl, VarKind};
use mobilis::prelude::*;
use mobilis::program::Arguments;
use mobilis::train::{AdamW, TrainOptions};
use std::collections::HashMap;
use std::path::PathBuf;

/// Relative error of losses.
const LOSS: f64 = 1e-6;
/// Error of gradients, relative to the largest gradient of the model.
const GRADIENT: f64 = 1e-4;
/// Error of parameters after three steps: 1/200 of a step of AdamW at this rate.
const PARAMETER: f64 = 5e-6;
/// Elements whose first gradient is smaller hold rounding noise, which Adam scales up to whole
/// steps (GPT-2's key biases, whose true gradient is zero).
const NOISE: f64 = 1e-5;

fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MOBILIS_GOLDEN").map(PathBuf::from);
    let root = root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"));
    let path = root.join(name);
    if !path.join("train.safetensors").exists() {
        println!("skipped: {} has no train.safetensors", path.display());
        return None;
    }
    Some(path)
}

/// The ids of one step, and what each position has to predict: the next id, nothing at the end.
fn batch<S: Shape<Sizes = [usize; 2]>>(all: &RefArray, step: usize) -> (Array<S, Index>, Array<S, Index>) {
    let [_, rows, columns] = all.sizes[..] else { panic!("input_ids is not [steps, rows, columns]") };
    let values = &all.data[step * rows * columns..(step + 1) * rows * columns];
    let ids: Vec<i32> = values.iter().map(|v| *v as i32).collect();
    let label = |i: usize| if i % columns == columns - 1 { -100 } else { ids[i + 1] };
    let labels = (0..ids.len()).map(label).collect();
    (Array::from_parts(&[rows, columns], ids), Array::from_parts(&[rows, columns], labels))
}

fn reproduce<M: Module, S: Shape<Sizes = [usize; 2]>>(
    name: &str,
    device: Device,
    module: M,
    loss: impl FnOnce(&M, (Tensor<S, Index>, Tensor<S, Index>)) -> Tensor![],
) where
    (Tensor<S, Index>, Tensor<S, Index>): Arguments,
{
    let Some(path) = folder(name) else { return };
    let weights = File::read(&path.join("model.safetensors"));
    let golden = File::read(&path.join("train.safetensors"));
    let model = Model::init(module, 0).unwrap().on(device);
    assert_eq!(model.parameters().count(), weights.len(), "every tensor of the checkpoint is a parameter");
    for p in model.parameters() {
        let values: Vec<f32> = weights.get(p.name()).data.iter().map(|v| *v as f32).collect();
        model.set(p.name(), &values).unwrap();
    }
    let adamw = AdamW::new(1e-3).betas(0.9, 0.95).weight_decay(0.1);
    let mut step = model.train_step(adamw, TrainOptions::default(), loss).unwrap();
    let vars: Vec<VarDecl> = step.program().graph().vars.clone();
    let params: Vec<&VarDecl> = vars.iter().filter(|v| v.kind == VarKind::Param).collect();
    assert_eq!(params.len(), weights.len(), "every parameter is trained");
    let value = |var: &VarDecl| -> Vec<f64> {
        let store = model.store().lock();
        store.get(var.id).map(|e| e.data.to_f64()).unwrap_or_default()
    };

    let ids = golden.get("input_ids");
    let mut grads = HashMap::new();
    for i in 0..3 {
        let report = step.run(batch::<S>(&ids, i)).unwrap();
        near("loss", report.loss, golden.get("losses").data[i], LOSS);
        near("gradient norm", report.grad_norm, golden.get("grad_norms").data[i], 1e-5);
        if i == 0 {
            // The first moments after one step are a tenth of the gradients.
            for p in &params {
                let moment = format!("{}.adamw.exp_avg", p.name);
                let var = vars.iter().find(|v| v.name == moment).expect("AdamW keeps a first moment");
                grads.insert(p.name.clone(), value(var).iter().map(|m| m * 10.0).collect::<Vec<f64>>());
            }
        }
    }

    let expected = |kind: &str, p: &VarDecl| golden.get(&format!("{kind}.{}", p.name)).data;
    let largest = params.iter().flat_map(|p| expected("grad", p)).fold(0.0f64, |m, g| m.max(g.abs()));
    let (mut worst_grad, mut worst_param, mut left_out) = (0.0f64, 0.0f64, 0);
    for p in &params {
        let truth = expected("grad", p);
        assert_eq!(grads[&p.name].len(), truth.len());
        for (i, (a, b)) in grads[&p.name].iter().zip(&truth).enumerate() {
            worst_grad = worst_grad.max((a - b).abs() / largest);
            assert!((a - b).abs() <= GRADIENT * largest, "gradient {i} of {}: {a} is not {b}", p.name);
        }
        for (i, (a, b)) in value(p).iter().zip(&expected("param3", p)).enumerate() {
            if truth[i].abs() <= NOISE {
                left_out += 1;
                continue;
            }
            worst_param = worst_param.max((a - b).abs());
            assert!((a - b).abs() <= PARAMETER, "value {i} of {} after three steps: {a} is not {b}", p.name);
        }
    }
    println!(
        "{name} on {device:?}: gradients within {worst_grad:.1e} of the largest, \
         parameters within {worst_param:.1e} ({left_out} noisy ones left out)"
    );
}

fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs();
    assert!(error <= tolerance, "{what}: {found} is not {expected} (relative error {error:e})");
}

#[test]
fn llama_trains_as_in_pytorch() {
    for device in [Device::Reference, Device::Cpu] {
        let loss = |m: &llama::Llama, (ids, labels)| m.loss(ids, labels);
        reproduce::<_, (llama::Batch, llama::Time)>("llama", device, llama::Llama::default(), loss);
    }
}

#[test]
fn gpt2_trains_as_in_pytorch() {
    for device in [Device::Reference, Device::Cpu] {
        let loss = |m: &gpt2::Gpt2, (ids, labels)| m.loss(ids, labels);
        reproduce::<_, (gpt2::Batch, gpt2::Time)>("gpt2", device, gpt2::Gpt2::default(), loss);
    }
}
