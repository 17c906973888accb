//! Sentences from synthesized voices, written down letter by letter: a small QuartzNet and CTC.
//!
//! `cargo run --release --example 13-sentences [FOLDER [KEY=VALUE ..]]` (some minutes on two cores;
//! `apt-get install espeak-ng` first)
//!
//! Sentences are composed of some two hundred words by a small grammar; those asked for in the end are none
//! of those learned from. The recipe is `13-sentences.toml`, and the same is done by
//!
//! ```sh
//! mobilis train examples/13-sentences.toml
//! mobilis transcribe runs/sentences/best.nemo recording.wav
//! ```

#[path = "espeak/mod.rs"]
mod espeak;

use espeak::Saying;
use mobilis::zoo::asr::data::bucket::Dice;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

const WHO: [&str; 24] = [
    "my brother",
    "your sister",
    "our mother",
    "his father",
    "the teacher",
    "a doctor",
    "the captain",
    "a farmer",
    "the old queen",
    "a young king",
    "the painter",
    "our neighbour",
    "the child",
    "a stranger",
    "the driver",
    "that woman",
    "this man",
    "the lawyer",
    "a student",
    "the baker",
    "her uncle",
    "their cousin",
    "the singer",
    "an officer",
];
const DID: [&str; 24] = [
    "found", "lost", "carried", "opened", "washed", "painted", "bought", "sold", "broke", "mended", "followed",
    "watched", "pushed", "pulled", "counted", "wanted", "needed", "liked", "loved", "feared", "drew", "moved",
    "touched", "forgot",
];
const HOW: [&str; 24] = [
    "big", "small", "red", "green", "yellow", "blue", "heavy", "empty", "wooden", "golden", "broken", "clean", "dirty",
    "quiet", "strange", "simple", "warm", "cold", "dark", "bright", "narrow", "wide", "soft", "hard",
];
const WHAT: [&str; 36] = [
    "table", "window", "garden", "bottle", "letter", "picture", "basket", "candle", "mirror", "ladder", "hammer",
    "needle", "pocket", "blanket", "bicycle", "machine", "island", "river", "mountain", "forest", "village", "bridge",
    "market", "station", "kitchen", "church", "school", "ship", "horse", "sheep", "chicken", "flower", "apple",
    "orange", "butter", "bread",
];
const WHERE: [&str; 8] = ["behind", "under", "near", "beside", "above", "before", "inside", "across"];
const WHEN: [&str; 12] = [
    "today",
    "yesterday",
    "last night",
    "every morning",
    "on sunday",
    "in winter",
    "in summer",
    "at noon",
    "again",
    "twice",
    "slowly",
    "without a word",
];

/// Voices, each in one of three accents.
const VOICES: [&str; 10] = ["m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "f5"];

fn one<'a>(dice: &mut Dice, words: &[&'a str]) -> &'a str {
    words[dice.below(words.len())]
}

/// A sentence of four to eleven words.
fn sentence(dice: &mut Dice) -> String {
    let mut words = vec![one(dice, &WHO), one(dice, &DID), "the"];
    if dice.below(2) == 0 {
        words.push(one(dice, &HOW));
    }
    words.push(one(dice, &WHAT));
    if dice.below(3) == 0 {
        words.extend([one(dice, &WHERE), "the", one(dice, &WHAT)]);
    }
    if dice.below(3) == 0 {
        words.push(one(dice, &WHEN));
    }
    words.join(" ")
}

/// So many sentences that are not among `known`, each in a voice.
fn sayings(count: usize, known: &mut BTreeSet<String>, seed: u64) -> Vec<Saying> {
    let mut dice = Dice::new(seed, [0, 0]);
    let mut all = vec![];
    while all.len() < count {
        let text = sentence(&mut dice);
        if known.insert(text.clone()) {
            let accent = one(&mut dice, &["en-us", "en-gb", "en-gb-scotland"]);
            let voice = format!("{accent}+{}", one(&mut dice, &VOICES));
            let (speed, pitch) = (140 + dice.below(61) as u32, 30 + dice.below(41) as u32);
            all.push(Saying { text, label: None, voice, speed, pitch });
        }
    }
    all
}

/// Says the corpus into a folder: what is learned from, and what is asked for, in manifests.
fn corpus(folder: &Path, count: usize) -> Result<[PathBuf; 2], Box<dyn Error>> {
    let mut known = BTreeSet::new();
    let learned = espeak::say(folder, "learned", &sayings(count, &mut known, 1))?;
    let asked = espeak::say(folder, "asked", &sayings(100, &mut known, 2))?;
    Ok([learned, asked])
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().map_or_else(|| std::env::temp_dir().join("mobilis-sentences"), PathBuf::from);
    if let Err(why) = espeak::available() {
        println!("skipped: {why}");
        return Ok(());
    }
    let corpus = corpus(&folder, 2400)?;
    let score = espeak::learn("13-sentences", &folder, corpus, arguments.into_iter().skip(1).collect())?;
    println!(
        "of sentences never heard, {:.1} % of the letters and {:.1} % of the words are wrong",
        score("cer"),
        score("wer")
    );
    Ok(())
}
