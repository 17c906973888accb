//! Conformers: a stream equals the whole recording bit for bit, whoever shares the batch; masks do what they
//! say; a gradient reaches every parameter.
//!
//! `streaming.safetensors` was written by `streaming.py` beside it, with transformers, `options.safetensors` by
//! `options.py`, with NeMo.

use mobilis_runtime::checkpoint::{Checkpoint, Source};
use mobilis_runtime::graph::DType;
use mobilis_runtime::program::WeightFormat;
use mobilis_zoo::asr::conformer::ConformerRecognizer;
use mobilis_zoo::asr::conformer::network::Features;
use mobilis_zoo::asr::conformer::score::Targets;
use mobilis_zoo::asr::conformer::{Context, Network};
use mobilis_zoo::asr::live::LiveOptions;
use mobilis_zoo::asr::{Recognizer, Segment, Transcript};
use mobilis_zoo::llm::config::Config;
use mobilis_zoo::llm::family::Values;
use std::path::PathBuf;
use std::time::Duration;

const MELS: usize = 16;

pub(super) fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformer").join(name)
}

fn config() -> Config {
    let path = data("streaming.json");
    Config::parse("streaming.json", &std::fs::read_to_string(path).expect("the fixture")).expect("an object")
}

/// The fixture's weights alone.
pub(super) struct Weights<'a>(pub(super) &'a Checkpoint);
impl std::fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("weights")
    }
}
impl Source for Weights<'_> {
    fn path(&self) -> &std::path::Path {
        Source::path(self.0)
    }
    fn names(&self) -> Vec<&str> {
        self.0.names().into_iter().filter(|n| !n.starts_with("in.") && !n.starts_with("out.")).collect()
    }
    fn info(&self, name: &str) -> Option<mobilis_runtime::checkpoint::TensorInfo> {
        Source::info(self.0, name)
    }
    fn has_values(&self) -> bool {
        true
    }
    fn raw(
        &self,
        name: &str,
    ) -> Result<mobilis_runtime::checkpoint::Raw, mobilis_runtime::checkpoint::CheckpointError> {
        self.0.raw(name)
    }
}

/// The model of the fixture; what it was fed and gave are tensors of the same file.
fn network() -> (Network, Checkpoint) {
    let tensors = Checkpoint::open(data("streaming.safetensors")).expect("the fixture");
    let network = Network::load(&config(), &Weights(&tensors)).expect("the fixture is a model");
    (network, tensors)
}

/// Numbers that look random, in `-1.0 .. 1.0`.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn features(recordings: &[Vec<f32>]) -> Features {
    let frames = |r: &Vec<f32>| r.len() / MELS;
    let longest = recordings.iter().map(frames).max().unwrap_or(0);
    let padded =
        recordings.iter().flat_map(|r| r.iter().copied().chain(std::iter::repeat_n(0.0, (longest - frames(r)) * MELS)));
    let values = Values { sizes: vec![recordings.len(), longest, MELS], data: padded.collect() };
    Features { values, lengths: recordings.iter().map(frames).collect() }
}

/// The frames that count of every recording.
fn frames(values: &Values, lengths: &[usize]) -> Vec<Vec<f32>> {
    let (steps, width) = (values.sizes[1], values.sizes[2]);
    lengths.iter().enumerate().map(|(i, n)| values.data[i * steps * width..(i * steps + n) * width].to_vec()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn recordings() -> Vec<Vec<f32>> {
    // Odd lengths, whole chunks, less than a chunk, nothing.
    [150, 83, 48, 7, 0, 72, 201].iter().enumerate().map(|(i, n)| noise(n * MELS, i as u64 + 1)).collect()
}

#[test]
fn masks_of_chunks_are_those_of_transformers() {
    let (network, file) = network();
    let read = |name: &str| {
        let sizes = file.info(name).expect("the fixture has it").sizes.clone();
        let data: Vec<f32> = file.read(name, DType::F32).expect("reals").to_f64().iter().map(|v| *v as f32).collect();
        Values { sizes, data }
    };
    let lengths = vec![150, 83];
    let features = Features { values: read("in.features"), lengths };
    for (context, ahead) in network.contexts().to_vec().into_iter().zip([2, 1, 0]) {
        let heard = network.hear(&features, Some(context), false).expect("features fit");
        let expected = read(&format!("out.{ahead}.encoder"));
        assert_eq!(heard.stream.sizes, expected.sizes);
        let largest = expected.data.iter().fold(0f32, |m, v| m.max(v.abs()));
        let pairs = frames(&heard.stream, &heard.lengths).into_iter().zip(frames(&expected, &heard.lengths));
        for (found, expected) in pairs {
            let worst = found.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 1e-5 * largest, "look-ahead {ahead}: {worst} of {largest}");
        }
    }
}

#[test]
fn streams_equal_whole_recordings_bit_for_bit() {
    let (network, _) = network();
    let all = recordings();
    for context in network.contexts().to_vec() {
        let whole = network.hear(&features(&all), Some(context), false).expect("features fit");
        let expected = frames(&whole.stream, &whole.lengths);
        let heads = frames(&whole.head, &whole.lengths);
        // Alone, some, all; parts of one frame, of odd numbers, of all.
        for (rows, part) in [(1, 1), (1, 37), (3, 11), (7, 5), (7, 1000)] {
            for group in (0..all.len()).collect::<Vec<_>>().chunks(rows) {
                let mut streams = network.streams(group.len(), Some(context)).expect("compiles").expect("streams");
                let mut found = vec![(vec![], vec![]); group.len()];
                let mut given = vec![0; group.len()];
                loop {
                    // Rows come in at different speeds.
                    for (row, i) in group.iter().enumerate() {
                        let end = (given[row] + (part + row) * MELS).min(all[*i].len());
                        if given[row] < end {
                            streams.feed(row, &all[*i][given[row]..end]).expect("whole frames");
                        }
                        given[row] = end;
                        if end == all[*i].len() {
                            streams.end(row).expect("a row");
                        }
                    }
                    let parts = streams.step().expect("runs");
                    let ended = group.iter().enumerate().all(|(row, i)| given[row] == all[*i].len());
                    if parts.is_empty() && ended {
                        break;
                    }
                    for part in parts {
                        found[part.row].0.extend(part.stream);
                        found[part.row].1.extend(part.head);
                    }
                }
                for (row, i) in group.iter().enumerate() {
                    let what = format!("{context:?}: recording {i} among {}, parts of {part}", group.len());
                    assert_eq!(found[row].0.len(), expected[*i].len(), "{what}");
                    assert_eq!(bits(&found[row].0), bits(&expected[*i]), "{what}");
                    assert_eq!(bits(&found[row].1), bits(&heads[*i]), "{what}");
                }
            }
        }
    }
}

#[test]
fn every_length_ends_as_the_whole_does() {
    let (network, _) = network();
    for context in network.contexts().to_vec() {
        let mut streams = network.streams(1, Some(context)).expect("compiles").expect("streams");
        for n in 20..75 {
            let recording = noise(n * MELS, n as u64);
            let whole = network.hear(&features(std::slice::from_ref(&recording)), Some(context), false);
            let whole = whole.expect("features fit");
            streams.begin(0).expect("a row");
            streams.feed(0, &recording).expect("whole frames");
            streams.end(0).expect("a row");
            let mut found = vec![];
            loop {
                let parts = streams.step().expect("runs");
                if parts.is_empty() {
                    break;
                }
                found.extend(parts.into_iter().flat_map(|p| p.stream));
            }
            assert_eq!(bits(&found), bits(&frames(&whole.stream, &whole.lengths)[0]), "{context:?}: {n} frames");
        }
    }
}

#[test]
fn a_row_begins_anew() {
    let (network, _) = network();
    let all = recordings();
    let context = network.contexts()[0];
    let mut streams = network.streams(1, None).expect("compiles").expect("streams");
    for i in [0, 1, 3] {
        streams.begin(0).expect("a row");
        streams.feed(0, &all[i]).expect("whole frames");
        streams.end(0).expect("a row");
        assert!(streams.feed(0, &all[i]).is_err());
        let mut found = vec![];
        loop {
            let parts = streams.step().expect("runs");
            if parts.is_empty() {
                break;
            }
            found.extend(parts.into_iter().flat_map(|p| p.stream));
        }
        let whole = network.hear(&features(&all[i..=i]), Some(context), false).expect("features fit");
        assert_eq!(bits(&found), bits(&frames(&whole.stream, &whole.lengths)[0]), "recording {i}");
    }
    assert!(streams.feed(1, &[]).is_err());
    assert!(streams.feed(0, &[0.0; MELS + 1]).is_err());
}

#[test]
fn nobody_depends_on_batch_mates() {
    let (network, _) = network();
    let all = recordings();
    let near = Context::Near { left: Some(3), right: Some(2) };
    for context in [Context::Whole, near, network.contexts()[1]] {
        let together = network.hear(&features(&all), Some(context), false).expect("features fit");
        let together = frames(&together.stream, &together.lengths);
        for i in (0..all.len()).filter(|i| !all[*i].is_empty()) {
            let alone = network.hear(&features(&all[i..=i]), Some(context), false).expect("features fit");
            let alone = &frames(&alone.stream, &alone.lengths)[0];
            assert_eq!(bits(alone), bits(&together[i]), "{context:?}, recording {i}");
        }
    }
}

#[test]
fn windows_see_what_whole_recordings_see() {
    let (network, _) = network();
    let all = recordings();
    let hear = |context| {
        let heard = network.hear(&features(&all), Some(context), false).expect("features fit");
        frames(&heard.stream, &heard.lengths)
    };
    let close =
        |a: &[Vec<f32>], b: &[Vec<f32>]| a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 2e-5);
    let near = |left, right| Context::Near { left, right };
    assert!(close(&hear(Context::Whole), &hear(near(Some(40), Some(40)))));
    // A side without an end is computed without windows.
    assert!(close(&hear(near(Some(3), None)), &hear(near(Some(3), Some(40)))));
    assert!(close(&hear(near(None, Some(2))), &hear(near(Some(40), Some(2)))));
    assert!(!close(&hear(near(Some(3), Some(2))), &hear(near(Some(3), Some(3)))));
    let chunks = |size, left| Context::Chunks { size, left };
    assert!(close(&hear(chunks(3, None)), &hear(chunks(3, Some(20)))));
    assert!(!close(&hear(chunks(3, None)), &hear(chunks(3, Some(1)))));
}

/// Tensors whose names begin so, without that beginning.
struct Under<'a>(&'a Checkpoint, String);
impl std::fmt::Debug for Under<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}
impl Source for Under<'_> {
    fn path(&self) -> &std::path::Path {
        Source::path(self.0)
    }
    fn names(&self) -> Vec<&str> {
        let own = |n: &'_ str| n.starts_with(&self.1) && n[self.1.len()..].starts_with("encoder.");
        self.0.names().into_iter().filter(|n| own(n)).map(|n| &n[self.1.len()..]).collect()
    }
    fn info(&self, name: &str) -> Option<mobilis_runtime::checkpoint::TensorInfo> {
        Source::info(self.0, &format!("{}{name}", self.1))
    }
    fn has_values(&self) -> bool {
        true
    }
    fn raw(
        &self,
        name: &str,
    ) -> Result<mobilis_runtime::checkpoint::Raw, mobilis_runtime::checkpoint::CheckpointError> {
        self.0.raw(&format!("{}{name}", self.1))
    }
}

#[test]
fn seldom_options_are_as_nemos() {
    let file = Checkpoint::open(data("options.safetensors")).expect("the fixture");
    let text = std::fs::read_to_string(data("options.json")).expect("the fixture");
    let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    for (name, encoder) in cases {
        let config = Config::new(name.clone(), serde_json::json!({ "encoder": encoder }));
        let network =
            Network::encoder(&config, &Under(&file, format!("{name}."))).unwrap_or_else(|e| panic!("{name}: {e}"));
        let read = |part: &str| -> Vec<f32> {
            let values = file.read(&format!("{name}.{part}"), DType::F32).expect("reals").to_f64();
            values.into_iter().map(|v| v as f32).collect()
        };
        let hear = |recordings: &[Vec<f32>]| {
            let longest = recordings.iter().map(|r| r.len() / 8).max().unwrap_or(0);
            let padded = recordings.iter().flat_map(|r| {
                // Whatever is behind the end counts for nothing.
                r.iter().copied().chain(noise(longest * 8 - r.len(), 77))
            });
            let values = Values { sizes: vec![recordings.len(), longest, 8], data: padded.collect() };
            let lengths = recordings.iter().map(|r| r.len() / 8).collect();
            let heard = network.hear(&Features { values, lengths }, None, false).expect("features fit");
            frames(&heard.stream, &heard.lengths)
        };
        let recording = read("in");
        let expected = read("out");
        let found = hear(std::slice::from_ref(&recording)).remove(0);
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let worst = found.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 2e-5 * largest, "{name}: {worst} of {largest}");
        // Alone or beside others: a short one, an odd one, a longer one.
        let all = [recording[..7 * 8].to_vec(), recording[..41 * 8].to_vec(), recording.clone(), noise(130 * 8, 3)];
        let together = hear(&all);
        for (i, one) in all.iter().enumerate() {
            let alone = hear(std::slice::from_ref(one)).remove(0);
            assert_eq!(bits(&alone), bits(&together[i]), "{name}, recording {i}");
        }
        assert!(network.streams(1, None).expect("nothing is compiled").is_err(), "{name}");
    }
}

#[test]
fn encoders_that_see_what_is_later_hear_no_streams() {
    let (network, _) = network();
    for context in [Context::Whole, Context::Chunks { size: 2, left: None }] {
        assert!(network.streams(1, Some(context)).expect("nothing is compiled").is_err(), "{context:?}");
    }
}

#[test]
fn a_gradient_reaches_every_parameter() {
    let (network, _) = network();
    let all = &recordings()[..2];
    let targets = Targets { labels: vec![1, 2, 3, 4, 5, 0], lengths: vec![3, 2] };
    let scorer = network.scorer(true).expect("traces");
    let found = scorer.run(&features(all), &targets).expect("runs");
    let gradients: Vec<_> = found.iter().filter(|(name, _)| name.starts_with("grad.")).collect();
    for (name, values) in &gradients {
        // A key's bias adds the same to all scores of a query.
        let zero = name.ends_with("linear_k.bias");
        assert!(values.iter().all(|v| v.is_finite()), "{name}");
        assert!(zero || values.iter().any(|v| *v != 0.0), "{name}");
    }
}

/// The fixture as a recognizer of sound, whose features are not normalized (NeMo calls that `NA`) or are.
fn recognizer(normalize: &str) -> ConformerRecognizer {
    let tensors = Checkpoint::open(data("streaming.safetensors")).expect("the fixture");
    ConformerRecognizer::nemo(&described(normalize), &Weights(&tensors)).expect("the fixture is a model")
}

/// Its configuration.
pub(super) fn described(normalize: &str) -> Config {
    let preprocessor = serde_json::json!({
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "sample_rate": 16000,
        "window_size": 0.025, "window_stride": 0.01, "n_fft": 512, "features": MELS, "normalize": normalize,
        "dither": 0.0, "pad_to": 0,
    });
    // Each is a word.
    let pieces: Vec<String> = ('a'..='k').map(|letter| format!("\u{2581}{letter}")).collect();
    let config = config().with("preprocessor", preprocessor).with("labels", serde_json::json!(pieces));
    config.with("tokenizer", serde_json::json!({ "type": "bpe" })).with("nemo_version", "2.6.0".into())
}

fn words(transcript: &Transcript) -> usize {
    transcript.segments.iter().map(|s| s.words.len()).sum()
}

#[test]
fn what_comes_in_is_understood_as_a_whole() {
    let recognizer = recognizer("NA");
    for samples in [40_000, 15_999, 1000, 0] {
        let sound = noise(samples, 9);
        let whole = recognizer.transcribe(&[&sound]).expect("hears").remove(0);
        assert!(samples < 20_000 || words(&whole) > 0, "nothing was heard in {samples} samples");
        for part in [160, 1733, 20_000, 50_000] {
            let mut listening = recognizer.listening().expect("a model for streams");
            let mut tokens = 0;
            for part in sound.chunks(part) {
                let partial = listening.feed(part).expect("hears");
                let now = partial.segments.iter().map(|s| s.tokens.len()).sum();
                assert!(now >= tokens, "what was said is not taken back");
                tokens = now;
            }
            assert_eq!(listening.finish().expect("hears"), whole, "{samples} samples in parts of {part}");
        }
    }
}

#[test]
fn what_is_spoken_is_told_while_it_comes_in() {
    let recognizer = recognizer("NA");
    let sound = [noise(30_000, 9), vec![0.0; 24_000], noise(20_000, 10)].concat();
    let whole = recognizer.transcribe(&[&sound]).expect("hears").remove(0);
    // What was never trained does not pause.
    let options = LiveOptions { longest: Duration::from_secs(1), ..LiveOptions::default() };
    let (mut live, mut settled, mut open) = (recognizer.live(&options).expect("listens"), vec![], 0);
    for part in sound.chunks(1600) {
        let news = live.feed(part).expect("hears");
        settled.extend(news.settled);
        open += usize::from(news.open.is_some());
    }
    let before = settled.len();
    settled.extend(live.finish().expect("hears").settled);
    // The same tokens at the same times, cut at other places.
    let tokens = |segments: &[Segment]| segments.iter().flat_map(|s| s.tokens.clone()).collect::<Vec<_>>();
    let starts =
        |segments: &[Segment]| segments.iter().flat_map(|s| s.words.iter().map(|w| w.start)).collect::<Vec<_>>();
    assert_eq!((tokens(&settled), starts(&settled)), (tokens(&whole.segments), starts(&whole.segments)));
    assert!(open > 0 && before > 0 && settled.len() > before, "{open}, {before}, {}", settled.len());
    // A model that knows the whole alone hears stretches.
    let recognizer = self::recognizer("per_feature");
    let mut live = recognizer.live(&LiveOptions::default()).expect("listens");
    let news = live.feed(&sound).expect("hears");
    assert!(!news.settled.is_empty());
}

#[test]
fn transcripts_do_not_depend_on_batch_mates() {
    let all: Vec<Vec<f32>> = [30_000, 28_123, 700, 16_000, 0, 15_000, 400_000].map(|n| noise(n, n as u64 + 1)).into();
    let slices: Vec<&[f32]> = all.iter().map(|r| &r[..]).collect();
    for normalize in ["per_feature", "all_features", "NA"] {
        let recognizer = recognizer(normalize).seeing(Context::Whole);
        let together = recognizer.transcribe(&slices).expect("hears");
        for (i, one) in slices.iter().enumerate() {
            let alone = recognizer.transcribe(&[one]).expect("hears").remove(0);
            assert_eq!(alone, together[i], "{normalize}, recording {i}");
        }
        // Down to the last bit of what the search reads.
        let heard = recognizer.log_probs(&slices[..4]).expect("hears");
        for (i, one) in slices[..4].iter().enumerate() {
            let alone = recognizer.log_probs(&[one]).expect("hears").remove(0);
            assert_eq!(bits(&alone), bits(&heard[i]), "{normalize}, recording {i}");
        }
    }
}

#[test]
fn weights_are_stored_in_fewer_bits() {
    let sound = noise(30_000, 3);
    let as_is = recognizer("per_feature");
    let plain = as_is.log_probs(&[&sound]).expect("hears").remove(0);
    let stored = recognizer("per_feature").storing(WeightFormat::Int8.into());
    let found = stored.log_probs(&[&sound]).expect("hears").remove(0);
    let worst = plain.iter().zip(&found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst > 0.0 && worst < 0.5, "{worst}");
}

#[test]
fn long_recordings_are_heard_in_windows() {
    let sound = noise(16_000 * 65, 5);
    for normalize in ["per_feature", "NA"] {
        let recognizer = recognizer(normalize);
        let found = recognizer.transcribe(&[&sound, &sound[..16_000]]).expect("hears");
        assert_eq!(found[0].duration.as_secs(), 65);
        assert!(found[0].segments.iter().all(|s| s.start <= s.end && s.end <= found[0].duration));
        // Something is heard in every window.
        for from in [0, 30, 55] {
            let within = |w: &&mobilis_zoo::asr::Word| (from..from + 10).contains(&w.start.as_secs());
            let heard = found[0].segments.iter().flat_map(|s| &s.words).filter(within).count();
            assert!(heard > 0, "{normalize}: nothing from second {from} on");
        }
        assert_eq!(recognizer.transcribe(&[&sound[..16_000]]).expect("hears")[0], found[1]);
    }
    assert!(recognizer("per_feature").listening().is_err());
}
