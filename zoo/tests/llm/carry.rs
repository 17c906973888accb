//! Layers that carry something from call to call (caches, windows, states): a text gives the same
//! however it is cut, whatever stands beside it in the batch.
//!
//! The models are those of the reference data (`../shared/golden`, or `MOBILIS_GOLDEN`); where they are
//! absent the tests say so and pass.

use mobilis_runtime::Checkpoint;
use mobilis_zoo::llm::config::Config;
use mobilis_zoo::llm::family::{self, TextModel};
use mobilis_zoo::llm::session::{SessionOptions, Want};
use std::path::PathBuf;

fn model(name: &str) -> Option<Box<dyn TextModel>> {
    let given = std::env::var_os("MOBILIS_GOLDEN").map(PathBuf::from);
    let root = given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden"));
    let folder = root.join(name);
    let Ok(text) = std::fs::read_to_string(folder.join("config.json")) else {
        println!("skipped: {} is absent", folder.display());
        return None;
    };
    let config = Config::parse(name, &text).expect("a configuration");
    let tensors = Checkpoint::open(folder.join("model.safetensors")).expect("a checkpoint");
    Some(family::open(&config, &tensors).expect("a model"))
}

/// A text of the model's tokens, the same for the same seed.
fn text(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| (i * i * 7 + i * 31 + seed * 97 + 5) % 300).collect()
}

/// Logits after each token of a text by itself, without caches.
fn alone(model: &dyn TextModel, text: &[u32]) -> Vec<Vec<f32>> {
    let scores = model.score(1, text).expect("it runs").logits;
    scores.data.chunks(scores.sizes[2]).map(<[f32]>::to_vec).collect()
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let far = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(far <= 1e-5 * largest + 1e-6, "{what}: {far} of {largest}");
}

/// Two texts of unequal length in one batch, in pieces of any size, then token by token.
fn carries(name: &str) {
    let Some(model) = model(name) else { return };
    let texts = [text(1, 23), text(2, 15)];
    let expected = texts.each_ref().map(|t| alone(&*model, t));
    for chunk in [1, 4, 64] {
        let mut session = model.session(SessionOptions { chunk, ..SessionOptions::new(2, 40) });
        // The first goes ahead: 11 and 2 tokens, then none of it, then both, then one by one.
        let mut at = [0, 0];
        for step in [[11, 2], [0, 6], [3, 1], [1, 1], [1, 0], [1, 1], [6, 4]] {
            let pieces = [0, 1].map(|b| &texts[b][at[b]..at[b] + step[b]]);
            let logits = session.feed(&pieces, Want::All).expect("there is room");
            for b in 0..2 {
                for (i, found) in logits.positions(b).enumerate() {
                    close(
                        found,
                        &expected[b][at[b] + i],
                        &format!("{name}: chunk {chunk}, sequence {b}, token {}", at[b] + i),
                    );
                }
                assert_eq!(logits.positions(b).count(), step[b]);
                at[b] += step[b];
            }
        }
        assert_eq!(at, [23, 15]);
        // Another text in the place of the second; the first goes on in the place of both.
        session.rewind(1, 0).expect("back to the start");
        let logits = session.feed(&[&[], &texts[0][..9]], Want::Last).expect("there is room");
        close(logits.last(1).expect("it was fed"), &expected[0][8], &format!("{name}: begun anew"));
        session.select(&[1, 1]).expect("two sequences");
        let logits = session.feed(&[&texts[0][9..12], &texts[0][9..10]], Want::Last).expect("there is room");
        close(logits.last(0).expect("it was fed"), &expected[0][11], &format!("{name}: copied"));
        close(logits.last(1).expect("it was fed"), &expected[0][9], &format!("{name}: copied"));
    }
}

macro_rules! families {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            carries(stringify!($name));
        }
    )*};
}

families! {
    deepseek_v3
    llama
    mamba
    mamba2
    mamba2_groups
    mixtral
    qwen2_moe
    qwen3_moe
}

/// A running state is not by position: sequences go back to their start only.
#[test]
fn states_do_not_go_back() {
    for (name, can) in [("mamba", false), ("mamba2", false), ("mixtral", true), ("deepseek_v3", true)] {
        let Some(model) = model(name) else { return };
        let mut session = model.session(SessionOptions::new(1, 20));
        session.feed(&[&text(1, 6)], Want::Last).expect("there is room");
        assert_eq!(session.can_rewind(), can, "{name}");
        assert_eq!(session.rewind(0, 3).is_ok(), can, "{name}");
        assert!(session.rewind(0, 0).is_ok(), "{name}");
    }
}
