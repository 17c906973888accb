//! Corpora of synthesized speech, `espeak-ng` saying texts in many voices, and a recipe's training on one.
//!
//! A voice is an accent and a variant (`en-us+f3`): variants differ in formants, pitch and roughness, as
//! speakers do. What is heard is written as WAV files of 16 kHz beside a manifest.

use mobilis::zoo::asr::data::{Sound, Utterance, manifest};
use mobilis::zoo::asr::train::{Note, Prepared};
use mobilis::zoo::audio::{self, wav};
use mobilis::zoo::recipe::document;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples a second of what is written.
pub const RATE: u32 = 16_000;

/// One thing to be said.
#[derive(Clone, Debug)]
pub struct Saying {
    pub text: String,
    pub label: Option<String>,
    /// `en-us+f3`.
    pub voice: String,
    /// Words a minute.
    pub speed: u32,
    /// 0 to 99.
    pub pitch: u32,
}

/// Whether `espeak-ng` is here, and what to do if not.
pub fn available() -> Result<(), String> {
    match Command::new("espeak-ng").arg("--version").output() {
        Ok(out) if out.status.success() => Ok(()),
        _ => Err("espeak-ng is not installed: `apt-get install espeak-ng` (Debian, Ubuntu), \
                  `brew install espeak-ng` (macOS)"
            .into()),
    }
}

/// Says everything on two threads, into `folder/NAME-0001.wav` and so on and `folder/NAME.json`. What a
/// former call has written whole is left as it is.
pub fn say(folder: &Path, name: &str, sayings: &[Saying]) -> Result<PathBuf, Box<dyn Error>> {
    let list = folder.join(format!("{name}.json"));
    if list.exists() {
        return Ok(list);
    }
    available()?;
    std::fs::create_dir_all(folder.join(name))?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Utterance)>, String> {
        let mut done = vec![];
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(saying) = sayings.get(i) else { return Ok(done) };
            let path = folder.join(name).join(format!("{i:05}.wav"));
            let duration = one(saying, &path).map_err(|e| format!("{saying:?}: {e}"))?;
            let mut utterance = Utterance::new(Sound::File(path));
            utterance.duration = Some(duration);
            utterance.text = Some(saying.text.clone());
            utterance.label = saying.label.clone();
            utterance.speaker = Some(saying.voice.clone());
            done.push((i, utterance));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        let results = threads.map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        results.into_iter().collect::<Result<Vec<_>, _>>()
    })?
    .concat();
    all.sort_by_key(|(i, _)| *i);
    let utterances: Vec<Utterance> = all.into_iter().map(|(_, u)| u).collect();
    manifest::write(&list, &utterances)?;
    Ok(list)
}

/// Says one thing into a file; gives how long it is in seconds.
fn one(saying: &Saying, path: &Path) -> Result<f64, Box<dyn Error>> {
    let out = Command::new("espeak-ng")
        .args(["-v", &saying.voice, "-s", &saying.speed.to_string(), "-p", &saying.pitch.to_string()])
        .arg("-w")
        .arg(path)
        .arg(&saying.text)
        .output()?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into());
    }
    let samples = trimmed(&audio::load(path, RATE)?).to_vec();
    if samples.is_empty() {
        return Err("nothing is heard: is there such a voice?".into());
    }
    wav::write(path, &samples, RATE)?;
    Ok(samples.len() as f64 / f64::from(RATE))
}

/// What is not silence, and a twentieth of a second around it.
fn trimmed(samples: &[f32]) -> &[f32] {
    let loud = |s: &f32| s.abs() > 0.01;
    let margin = RATE as usize / 20;
    let (Some(first), Some(last)) = (samples.iter().position(loud), samples.iter().rposition(loud)) else {
        return &[];
    };
    &samples[first.saturating_sub(margin)..(last + margin).min(samples.len())]
}

/// Trains by the recipe `examples/NAME.toml` on the first manifest, judged by the second, into `folder`, with
/// further settings; says how it goes, and gives the scores in the end by their names.
pub fn learn(
    name: &str,
    folder: &Path,
    [learned, asked]: [PathBuf; 2],
    settings: Vec<String>,
) -> Result<impl Fn(&str) -> f64, Box<dyn Error>> {
    let mut all = vec![
        format!("model.train_ds.manifest_filepath='{}'", learned.display()),
        format!("model.validation_ds.manifest_filepath='{}'", asked.display()),
        format!("exp_manager.exp_dir='{}'", folder.display()),
    ];
    all.extend(settings);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.toml"));
    let outcome = Prepared::read(document::read(&recipe, &all)?)?.run(&mut |note| {
        match note {
            Note::Begin { about, total, .. } => println!("{total} steps, {}", about.join(", ")),
            Note::Step { step, loss, elapsed, .. } if step.is_multiple_of(20) => {
                println!("step {step:4}  loss {loss:.3}  {:.0} s", elapsed.as_secs_f64());
            }
            Note::Validation { step, scores, .. } => println!("step {step:4}  {:?}", scores.values),
            _ => {}
        }
        true
    })?;
    println!("{:.0} s", outcome.elapsed.as_secs_f64());
    let scores = outcome.scores.ok_or("nothing was validated")?;
    Ok(move |name: &str| scores.values.iter().find(|(n, _)| *n == name).map_or(f64::NAN, |v| 100.0 * v.1))
}
