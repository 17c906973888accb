//! NeMo's transducers of the reference data, with their predictor and joint network as plain loops: greedy search finds
//! their tokens at their frames, and a beam finds a text at least as likely.

use super::guide::Guide;
use super::transducer::{GreedyOptions, greedy};
use super::transducer_beam::{BeamOptions, beam};
use super::{Encoded, Transducer};
use mobilis_runtime::checkpoint::Checkpoint;
use mobilis_runtime::graph::DType;
use mobilis_runtime::module::store::Data;
use std::collections::HashMap;
use std::path::PathBuf;

struct Plain {
    weights: HashMap<String, Vec<f32>>,
    durations: Vec<usize>,
}

/// `weight x + bias`
fn linear(weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f32> {
    let dot = |w: &[f32]| w.iter().zip(x).map(|(w, x)| (w * x) as f64).sum::<f64>() as f32;
    weight.chunks(x.len()).zip(bias).map(|(w, b)| dot(w) + b).collect()
}

impl Plain {
    fn w(&self, name: &str) -> &[f32] {
        &self.weights[name]
    }

    fn lstm(&self, (h, c): (&[f32], &[f32]), x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let of = |name: &str| self.w(&format!("decoder.prediction.dec_rnn.lstm.{name}_l0"));
        let gates: Vec<f32> = linear(of("weight_ih"), of("bias_ih"), x)
            .iter()
            .zip(linear(of("weight_hh"), of("bias_hh"), h))
            .map(|(a, b)| a + b)
            .collect();
        let n = h.len();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let next: Vec<f32> =
            (0..n).map(|i| sigmoid(gates[n + i]) * c[i] + sigmoid(gates[i]) * gates[2 * n + i].tanh()).collect();
        ((0..n).map(|i| sigmoid(gates[3 * n + i]) * next[i].tanh()).collect(), next)
    }
}

impl Transducer for Plain {
    type State = (Vec<f32>, Vec<f32>);
    type Error = std::io::Error;

    fn classes(&self) -> usize {
        self.w("joint.joint_net.1.bias").len() - self.durations.len()
    }
    fn blank(&self) -> usize {
        self.classes() - 1
    }
    fn durations(&self) -> &[usize] {
        &self.durations
    }
    fn start(&self) -> Result<Self::State, Self::Error> {
        let zeros = vec![0.0; 32];
        Ok(self.lstm((&zeros, &zeros), &zeros))
    }
    fn predict(&self, steps: &[(&Self::State, u32)]) -> Result<Vec<Self::State>, Self::Error> {
        let embed = self.w("decoder.prediction.embed.weight");
        let step = |((h, c), token): &(&Self::State, u32)| self.lstm((h, c), &embed[*token as usize * 32..][..32]);
        Ok(steps.iter().map(step).collect())
    }
    fn joint(&self, pairs: &[(&[f32], &Self::State)]) -> Result<Vec<f32>, Self::Error> {
        let of = |name: &str, x: &[f32]| {
            linear(self.w(&format!("joint.{name}.weight")), self.w(&format!("joint.{name}.bias")), x)
        };
        let row = |(frame, (h, _)): &(&[f32], &Self::State)| {
            let hidden: Vec<f32> = of("enc", frame).iter().zip(of("pred", h)).map(|(e, p)| (e + p).max(0.0)).collect();
            of("joint_net.1", &hidden)
        };
        Ok(pairs.iter().flat_map(row).collect())
    }
}

fn read(file: &Checkpoint, name: &str) -> Vec<f32> {
    match file.read(name, DType::F32).expect("a tensor") {
        Data::F32(values) => values,
        other => panic!("{name} is {other:?}"),
    }
}

fn whole(file: &Checkpoint, name: &str) -> Vec<i32> {
    match file.read(name, DType::I32).expect("a tensor") {
        Data::I32(values) => values,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn nemo_transducers_say_what_they_said() {
    let beside = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden"));
    let root = std::env::var_os("MOBILIS_GOLDEN").map_or(beside, PathBuf::from);
    for (folder, durations) in [("nemo_fastconformer_rnnt", vec![]), ("nemo_fastconformer_tdt", vec![0, 1, 2, 3, 4])] {
        let folder = root.join(folder);
        if !folder.is_dir() {
            println!("skipped: {} is absent; set MOBILIS_GOLDEN to the folder of reference data", folder.display());
            return;
        }
        let file = Checkpoint::open(folder.join("model.safetensors")).expect("a model");
        let names: Vec<String> = file.tensors().map(|(name, _)| name.to_string()).collect();
        let used = names.into_iter().filter(|n| n.starts_with("decoder.") || n.starts_with("joint."));
        let weights = used.map(|n| (n.clone(), read(&file, &n))).collect();
        let model = Plain { weights, durations };
        let golden = Checkpoint::open(folder.join("golden.safetensors")).expect("golden data");
        // [batch, width, frames]
        let (encoder, lengths) = (read(&golden, "out.encoder"), whole(&golden, "out.encoder_length"));
        let frames = encoder.len() / 2 / 32;
        let of = |b: usize| -> Vec<f32> {
            let at = |t: usize, i: usize| encoder[(b * 32 + i) * frames + t];
            (0..lengths[b] as usize).flat_map(|t| (0..32).map(move |i| (t, i))).map(|(t, i)| at(t, i)).collect()
        };
        let recordings = [of(0), of(1)];
        let encoded: Vec<Encoded> = recordings.iter().map(|values| Encoded { values, width: 32 }).collect();
        let found = greedy(&model, &encoded, &GreedyOptions { max_symbols: 5, confidence: None }).expect("tokens");
        for (b, found) in found.iter().enumerate() {
            let ids: Vec<i32> = found.tokens.iter().map(|t| t.id as i32).collect();
            let at: Vec<i32> = found.tokens.iter().map(|t| t.start as i32).collect();
            assert_eq!(ids, whole(&golden, &format!("gen.tokens{b}")), "{}: tokens", folder.display());
            assert_eq!(at, whole(&golden, &format!("gen.frames{b}")), "{}: frames", folder.display());
            let options = BeamOptions { beam: 8, steps: 5, normalize: false, ..Default::default() };
            let best = beam(&model, &encoded[b], &Guide::default(), &options).expect("a text").remove(0);
            assert!(best.score.is_finite() && best.score < 0.0);
        }
    }
}
