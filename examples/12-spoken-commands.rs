//! Thirty-five spoken commands, learned from synthesized voices and told apart in voices never heard.
//!
//! `cargo run --release --example 12-spoken-commands [--short] [FOLDER [KEY=VALUE ..]]` (some minutes on two
//! cores; `apt-get install espeak-ng` first)
//!
//! The words are those of Google's Speech Commands (Warden 2018), the network is MatchboxNet 3x1x64
//! (Majumdar and Ginsburg 2020) as NeMo configures it, trained from nothing by `12-spoken-commands.toml`,
//! which stands beside this file. The same is done by
//!
//! ```sh
//! mobilis train examples/12-spoken-commands.toml
//! mobilis evaluate runs/spoken-commands/best.nemo FOLDER/unheard.json
//! ```

#[path = "espeak/mod.rs"]
mod espeak;

use espeak::Saying;
use mobilis::zoo::asr::data::bucket::Dice;
use std::error::Error;
use std::path::{Path, PathBuf};

const WORDS: [&str; 35] = [
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "zero", "one", "two", "three", "four",
    "five", "six", "seven", "eight", "nine", "bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree",
    "wow", "backward", "forward", "follow", "learn", "visual",
];

/// Voices that are learned from: their variants in two accents.
const HEARD: [&str; 12] = ["m1", "m2", "m3", "m5", "m7", "f1", "f2", "f4", "Andy", "Annie", "max", "steph"];
/// Voices that are not, and are asked for in the end.
const UNHEARD: [&str; 4] = ["m4", "m6", "f3", "f5"];

/// The words in voices, `each` times at speeds and pitches drawn by `seed`.
fn sayings(voices: &[&str], each: usize, seed: u64) -> Vec<Saying> {
    let mut dice = Dice::new(seed, [0, 0]);
    let mut all = vec![];
    for voice in voices {
        for word in WORDS {
            for i in 0..each {
                let accent = ["en-us", "en-gb"][i % 2];
                all.push(Saying {
                    text: word.into(),
                    label: Some(word.into()),
                    voice: format!("{accent}+{voice}"),
                    speed: 120 + dice.below(81) as u32,
                    pitch: 25 + dice.below(51) as u32,
                });
            }
        }
    }
    all
}

/// Says the corpus into a folder: what is learned from, and what is asked for, in manifests.
pub fn corpus(folder: &Path, each: usize) -> Result<[PathBuf; 2], Box<dyn Error>> {
    let heard = espeak::say(folder, "heard", &sayings(&HEARD, each, 1))?;
    let unheard = espeak::say(folder, "unheard", &sayings(&UNHEARD, each.div_ceil(2), 2))?;
    Ok([heard, unheard])
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // The short form learns from half as many sayings, and less long.
    let short = arguments.iter().position(|a| a == "--short").map(|i| arguments.remove(i)).is_some();
    let name = if short { "mobilis-spoken-commands-short" } else { "mobilis-spoken-commands" };
    let folder = arguments.first().map_or_else(|| std::env::temp_dir().join(name), PathBuf::from);
    if let Err(why) = espeak::available() {
        println!("skipped: {why}");
        return Ok(());
    }
    let corpus = corpus(&folder, if short { 2 } else { 4 })?;
    // An example begins anew every time.
    let mut settings = vec![format!("exp_manager.name='run-{}'", std::process::id())];
    if short {
        let shorter = ["trainer.max_epochs=7", "trainer.check_val_every_n_epoch=7", "model.train_ds.batch_size=32"];
        settings.extend(shorter.map(String::from));
    }
    // Further settings: `trainer.max_steps=40`.
    settings.extend(arguments.into_iter().skip(1));
    let score = espeak::learn("12-spoken-commands", &folder, corpus, settings)?;
    println!("{:.1} % of the words in voices never heard are told right", score("accuracy"));
    Ok(())
}
