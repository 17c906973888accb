//! The `mobilis` command as a user meets it: what it prints where, and with which exit code.

use mobilis_runtime::checkpoint::{Checkpoint, Source, Writer};
use mobilis_runtime::graph::DType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn mobilis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mobilis")).args(arguments).output().expect("the command starts")
}

/// Standard output of a command that must succeed and have nothing to complain about.
fn good(arguments: &[&str]) -> String {
    let out = mobilis(arguments);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn json(arguments: &[&str]) -> Value {
    let text = good(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?} prints one JSON object: {e}\n{text}"))
}

/// Standard error of a command that must fail with this exit code and print no result.
fn bad(arguments: &[&str], code: i32) -> String {
    let out = mobilis(arguments);
    assert_eq!(out.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.is_empty(), "{arguments:?} printed a result");
    String::from_utf8(out.stderr).expect("text")
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn graph_lists_and_draws_every_model() {
    let list = json(&["graph"]);
    let models = list["models"].as_array().expect("a list");
    assert_eq!(good(&["graph"]).lines().count(), models.len());
    for model in models {
        let name = model["name"].as_str().expect("a name");
        assert!(good(&["graph", name]).contains("cost per module"), "{name}");
        let drawn = json(&["graph", name, "--format", "mermaid"]);
        assert!(drawn["drawing"].as_str().expect("a drawing").contains("flowchart TD"), "{name}");
        assert!(drawn["modules"][0]["flops"] != Value::Null);
    }
}

#[test]
fn graph_puts_sizes_into_costs() {
    // Two products of a batch of 32 with 784 x 128 and 128 x 10 weights, and two biases.
    let drawn = json(&["graph", "dense", "--sizes", "Batch=32"]);
    assert_eq!(drawn["modules"][0]["flops"], 2 * 32 * (784 * 128 + 128 * 10) + 32 * (128 + 10));
    assert_eq!(drawn["modules"][0]["params"], 784 * 128 + 128 + 128 * 10 + 10);
    let symbolic = json(&["graph", "dense"]);
    assert!(symbolic["modules"][0]["flops"].as_str().expect("a sum over axes").ends_with("*Batch"));
}

#[test]
fn graph_draws_training() {
    let forward = json(&["graph", "dense"])["operations"].as_u64();
    let training = json(&["graph", "dense", "--train"])["operations"].as_u64();
    assert!(training > forward, "{training:?} {forward:?}");
}

#[test]
fn profile_measures_every_model() {
    let models = json(&["graph"])["models"].clone();
    for model in models.as_array().expect("a list") {
        let name = model["name"].as_str().expect("a name");
        let options = ["--sizes", "Batch=2", "--runs", "2"];
        let profile = json(&[&["profile", name], &options[..]].concat());
        assert!(profile["seconds"].as_f64() > Some(0.0) && profile["runs"] == 2, "{name}");
        let operations = profile["operations"].as_array().expect("a list");
        let flops: f64 = operations.iter().filter_map(|o| o["flops"].as_f64()).sum();
        assert!(flops > 0.0 && profile["modules"][0]["flops"].as_f64() == Some(flops), "{name}");
        if !["dense", "lstm", "mlp"].contains(&name) {
            continue;
        }
        let training = json(&[&["profile", name, "--train"], &options[..]].concat());
        assert!(training["modules"][0]["flops"].as_f64() > Some(2.0 * flops), "{name}");
    }
}

#[test]
fn profile_writes_a_table_a_picture_and_a_trace() {
    let (svg, trace) = (scratch("dense.svg"), scratch("dense.json"));
    let (svg_name, trace_name) = (svg.to_str().expect("a plain path"), trace.to_str().expect("a plain path"));
    let text = good(&["profile", "dense", "--runs", "3", "--svg", svg_name, "--trace", trace_name]);
    assert!(text.contains("operations") && text.contains("of the peak"), "{text}");
    let svg = std::fs::read_to_string(&svg).expect("written");
    assert!(svg.starts_with("<svg") && svg.contains("dense, Batch=8"), "{svg}");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&trace).expect("written")).expect("JSON");
    assert!(trace["traceEvents"].as_array().expect("a list").len() > 4);
    let out = mobilis(&["profile", "dense", "--runs", "1", "--quiet"]);
    assert!(out.status.success() && out.stderr.is_empty());
}

#[test]
fn profile_says_what_it_cannot_do() {
    assert!(bad(&["profile", "dens"], 1).contains("did you mean `dense`?"));
    assert!(bad(&["profile", "dense", "--sizes", "Time=3"], 1).contains("`Time` is no run-time axis"));
    bad(&["profile", "dense", "--runs", "0"], 2);
    bad(&["profile"], 2);
}

#[test]
fn graph_writes_files_in_the_format_of_their_ending() {
    for (ending, start) in [("html", "<!doctype html>"), ("mmd", "---\ntitle:"), ("txt", "graph dense")] {
        let path = scratch(&format!("dense.{ending}"));
        let name = path.to_str().expect("a plain path");
        let out = mobilis(&["graph", "dense", "-o", name]);
        assert!(out.status.success() && out.stdout.is_empty());
        assert!(String::from_utf8_lossy(&out.stderr).contains("wrote"));
        assert!(std::fs::read_to_string(&path).expect("written").starts_with(start), "{ending}");
        let quiet = mobilis(&["graph", "dense", "-o", name, "--quiet"]);
        assert!(quiet.status.success() && quiet.stderr.is_empty());
    }
    let nowhere = scratch("no/such/folder/dense.html");
    let message = bad(&["graph", "dense", "-o", nowhere.to_str().expect("a plain path")], 1);
    assert!(message.starts_with("error: cannot write ") && message.contains("dense.html"), "{message}");
}

#[test]
fn mistakes_are_answered_with_the_nearest_name() {
    assert!(bad(&["graph", "dens"], 1).contains("did you mean `dense`?"));
    assert!(bad(&["graph", "dense", "--sizes", "Bach=3"], 1).contains("they are Batch"));
    assert!(bad(&["grahp"], 2).contains("'graph'"));
    assert!(bad(&["graph", "dense", "--formt", "text"], 2).contains("--format"));
    assert!(bad(&["graph", "dense", "--format", "htm"], 2).contains("html"));
    assert!(bad(&["graph", "dense", "--sizes", "Batch"], 2).contains("AXIS=SIZE"));
    bad(&[], 2);
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = good(&["completions", shell]);
        assert!(script.contains("mobilis") && script.contains("graph"), "{shell}");
        assert_eq!(json(&["completions", shell])["script"], script);
    }
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_mobilis"))
        .args(["graph", "dense", "--format", "html"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("the command ends");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn inspect_lists_a_checkpoint() {
    use mobilis::checkpoint::Writer;
    use mobilis::module::store::Data;
    let path = scratch("inspected.safetensors");
    let weight = Data::F32(vec![0.5; 600]);
    Writer::new()
        .add("decoder.weight", &[20, 30], &weight)
        .and_then(|w| w.metadata("made by", "a test").add("steps", &[], &Data::I32(vec![7])).map(|w| w.save(&path)))
        .expect("two tensors")
        .expect("written");
    let name = path.to_str().expect("a plain path");
    let text = good(&["inspect", name]);
    let line = text.lines().find(|l| l.starts_with("decoder.weight")).expect("a line a tensor");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["decoder.weight", "[20,", "30]", "F32", "2.34", "KiB"]);
    assert!(text.contains("2 tensors, 601 values, 2.35 KiB") && text.contains("made by: a test"), "{text}");
    let listed = json(&["inspect", name]);
    assert_eq!(listed["values"], 601);
    assert_eq!(listed["bytes"], 2404);
    assert_eq!(listed["tensors"][1]["name"], "steps");
    assert_eq!(listed["tensors"][0]["shape"], serde_json::json!([20, 30]));
    assert_eq!(json(&["inspect", name, "--filter", "step"])["values"], 1);
    assert!(bad(&["inspect", name, "--filter", "encoder"], 1).contains("none of the 2 tensors"));
}

#[test]
fn inspect_refuses_what_is_no_checkpoint() {
    let message = bad(&["inspect", scratch("absent").to_str().expect("a plain path")], 1);
    assert!(message.contains("there is nothing at"), "{message}");
    let path = scratch("damaged.safetensors");
    std::fs::write(&path, b"\x08\0\0\0\0\0\0\0{\"a\": 1").expect("written");
    let message = bad(&["inspect", path.to_str().expect("a plain path"), "--json"], 1);
    assert!(message.contains("damaged.safetensors"), "{message}");
}

#[test]
fn average_writes_the_mean() {
    use mobilis::checkpoint::Writer;
    use mobilis::module::store::Data;
    let folder = scratch("averaged");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let place = |name: &str| folder.join(name).to_str().expect("text").to_string();
    for (step, value) in [(10, 1.0), (20, 2.0), (30, 6.0)] {
        let values = Data::F32(vec![value; 8]);
        let writer = Writer::new().add("w", &[8], &values).expect("added");
        writer.save(place(&format!("step-{step}.safetensors"))).expect("written");
    }
    std::fs::write(place("config.json"), "{\"model_type\": \"mystery\"}").expect("written");
    // The folder of a run, whose second model was the best.
    let kept = |step| format!("{{\"model\": \"step-{step}.safetensors\", \"score\": 0.5, \"step\": {step}}}");
    let state = format!("{{\"kept\": [{}, {}, {}]}}", kept(20), kept(10), kept(30));
    std::fs::write(place("state.json"), state).expect("written");
    let mean = |models: &[&str]| {
        let to = place("mean.safetensors");
        json(&[&["average", "--force", "-o", &to][..], models].concat());
        Checkpoint::open(&to).expect("a file").read("w", DType::F32).expect("values").to_f64()[0]
    };
    let [first, third] = [place("step-10.safetensors"), place("step-30.safetensors")];
    assert_eq!(mean(&[&first, &third]), 3.5);
    let run = folder.to_str().expect("text");
    assert_eq!((mean(&[run]), mean(&[run, "--best", "2"]), mean(&[run, "--last", "2"])), (3.0, 1.5, 4.0));
    let to = place("mean.safetensors");
    assert!(bad(&["average", &first, "-o", &to], 1).contains("--force"));
    assert!(bad(&["average", run, "--best", "4", "-o", &place("x.nemo")], 1).contains("has kept 3 models"));
    assert!(bad(&["average", &first, "--last", "1", "-o", &place("x.nemo")], 1).contains("no run's folder"));
    let writer = Writer::new().add("v", &[1], &Data::F32(vec![0.0])).map(|w| w.save(place("other.safetensors")));
    writer.expect("added").expect("written");
    let other = place("other.safetensors");
    assert!(bad(&["average", &first, &other, "-o", &place("x")], 1).contains("`w` is in the first alone"));
}

/// A model of one linear layer, as PyTorch-like tools and llama.cpp would not read it: for `inspect` and `convert`.
#[test]
fn convert_writes_folders_that_are_read_again() {
    use mobilis::checkpoint::Writer;
    use mobilis::module::store::Data;
    let folder = scratch("converted-from");
    let _ = std::fs::remove_dir_all(&folder);
    let values = Data::F32((0..64).map(|i| i as f32 / 7.0).collect());
    let writer = Writer::new().add("model.a.weight", &[4, 16], &values).expect("added");
    writer.add("model.b.weight", &[64], &values).expect("added").save(&folder).expect("written");
    std::fs::write(folder.join("config.json"), "{\"model_type\": \"mystery\"}").expect("written");
    std::fs::write(folder.join("vocab.txt"), "a\n").expect("written");
    let (from, to) = (folder.to_str().expect("text"), scratch("converted-to"));
    let _ = std::fs::remove_dir_all(&to);
    let to = to.to_str().expect("text");
    let report = json(&["convert", from, to, "--dtype", "bf16", "--shard-size", "200B"]);
    assert_eq!((&report["tensors"], &report["source_bytes"]), (&2.into(), &512.into()));
    let listed = json(&["inspect", to]);
    assert_eq!(listed["bytes"], 256);
    assert_eq!(listed["files"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["tensors"][0]["dtype"], "BF16");
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{to}/config.json")).expect("read")).expect("JSON");
    assert_eq!((&config["model_type"], &config["torch_dtype"]), (&"mystery".into(), &"bfloat16".into()));
    assert_eq!(std::fs::read_to_string(format!("{to}/vocab.txt")).expect("copied"), "a\n");
    let modules = json(&["inspect", to, "--modules"]);
    assert_eq!(modules["modules"]["model.a"]["values"], 64);
    assert!(
        good(&["inspect", to, "--modules", "1"]).contains("128 values"),
        "{}",
        good(&["inspect", to, "--modules", "1"])
    );
    // What is there is not written over by accident, and what cannot be is said.
    assert!(bad(&["convert", from, to], 1).contains("--force"));
    assert!(bad(&["convert", from, to, "--force", "--dtype", "q8_0"], 1).contains("safetensors files have no q8_0"));
    assert!(bad(&["convert", from, from, "--force"], 1).contains("is the model itself"));
    let gguf = format!("{to}/m.gguf");
    assert!(bad(&["convert", from, &gguf], 1).contains("models of type `mystery` are not written as GGUF files"));
    assert!(bad(&["convert", from, to, "--shard-size", "5XB"], 2).contains("is no size"));
    assert!(bad(&["convert", from, to, "--dtype", "f61"], 2).contains("f16"));
}

/// A few seconds of the demonstration: one object with its figures, a file that can be inspected,
/// nothing else on standard output.
#[test]
fn demo_trains_writes_and_saves() {
    let file = scratch("demo.safetensors");
    let path = file.to_str().expect("text");
    let report = json(&["demo", "--seconds", "12", "--length", "40", "--prompt", "The whale", "--output", path]);
    for key in ["train_loss", "val_loss", "tokens_per_second"] {
        assert!(report[key].as_f64().is_some_and(|v| v.is_finite() && v > 0.0), "{key} in {report}");
    }
    // Even odds for all bytes give 5.55; how far it gets depends on what else the machine does.
    assert!(report["val_loss"].as_f64() < Some(4.8), "{report}");
    assert!(report["params"].as_u64() > Some(1_000_000));
    assert!(report["text"].as_str().expect("a text").starts_with("The whale"));
    let tensors = json(&["inspect", path]);
    assert!(tensors.to_string().contains("embed_grams.0.weight"));
}

#[test]
fn demo_refuses_what_it_cannot_do() {
    assert!(bad(&["demo", "--seconds", "0"], 2).contains("a number of seconds above 0 is needed"));
    let error = bad(&["demo", "--prompt", &"x".repeat(200)], 1);
    assert!(error.contains("the prompt has 200 bytes, the model sees 127 at once"), "{error}");
}

#[test]
fn transcribe_writes_what_is_said() {
    assert!(bad(&["transcribe", "nowhere/nothing", "x.wav", "--offline"], 1).contains("nowhere"));
    assert!(bad(&["transcribe", "x", "x.wav", "--format", "srtt"], 2).contains("srt"));
    assert!(bad(&["transcribe", "x", "x.wav", "--task", "translat"], 2).contains("translate"));
    assert!(bad(&["transcribe", "x", "-", "-"], 1).contains("once"));
    assert!(bad(&["transcribe", "x", "x.wav", "--greedy", "--beam", "4"], 2).contains("--beam"));
    assert!(bad(&["transcribe", "x", "x.wav", "--lm-weight", "1"], 2).contains("--lm"));
    assert!(bad(&["transcribe", "x", "x.wav", "--boost-weight", "1"], 2).contains("--boost"));
    assert!(bad(&["transcribe", "x", "x.wav", "--beam", "0"], 2).contains("0 is not in 1..=1024"));
    assert!(bad(&["transcribe", "x", "x.wav", "--lm", "/nowhere/lm.arpa"], 1).contains("/nowhere/lm.arpa"));
    assert!(bad(&["transcribe", "x", "x.wav", "--boost", "/nowhere/names.txt"], 1).contains("/nowhere/names.txt"));
    let cache = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/mobilis/real");
    let real = std::env::var_os("MOBILIS_REAL").map_or(cache, PathBuf::from);
    let (model, speech) = (real.join("whisper-tiny.en"), real.join("speech/librivox"));
    if !model.join("model.safetensors").exists() || !speech.is_dir() {
        println!("skipped: {} or {} is absent", model.display(), speech.display());
        return;
    }
    let model = model.to_str().expect("a path in UTF-8");
    let clip = speech.join("sense_and_sensibility_01_austen_64kb-0870.wav");
    let clip = clip.to_str().expect("a path in UTF-8");
    let found = json(&["transcribe", model, clip, "--words"]);
    let transcript = &found["transcripts"][0];
    assert!(transcript["text"].as_str().expect("a text").contains("John Dashwood"), "{found}");
    assert!(transcript["segments"][0]["words"].as_array().is_some_and(|words| words.len() > 15), "{found}");
    assert!(found["rtfx"].as_f64().is_some_and(|rtfx| rtfx > 0.0));

    let list = scratch("recordings.jsonl");
    std::fs::write(&list, format!("{{\"audio_filepath\": {clip:?}, \"offset\": 0.5, \"duration\": 3}}\n"))
        .expect("a file");
    let folder = scratch("transcripts");
    let (list, place) = (list.to_str().expect("a path"), folder.to_str().expect("a path"));
    good(&["transcribe", model, list, clip, "-o", place, "--format", "srt", "--quiet"]);
    let files: Vec<_> = std::fs::read_dir(&folder).expect("the folder").flatten().map(|f| f.path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let text = std::fs::read_to_string(&files[0]).expect("a file");
    assert!(text.starts_with("1\n00:00:00,"), "{text}");

    assert!(bad(&["transcribe", model, "/nowhere/talk.wav"], 1).contains("/nowhere/talk.wav"));
    assert!(bad(&["transcribe", model, clip, "--language", "de"], 1).contains("`de`"));
    assert!(bad(&["transcribe", model, clip, "--task", "translate"], 1).contains("translate"));
    assert!(bad(&["transcribe", model, clip, "--confidence"], 1).contains("Whisper"));
}

/// A folder with the zoo's small model for streams, which hears nonsense, and a recording with a pause.
fn streaming() -> Result<(PathBuf, PathBuf), Box<dyn std::error::Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/tests/data/conformer");
    let folder = scratch("streaming");
    std::fs::create_dir_all(&folder)?;
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(data.join("streaming.json"))?)?;
    config["nemo_version"] = "2.6.0".into();
    config["preprocessor"] = serde_json::json!({
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "sample_rate": 16000,
        "window_size": 0.025, "window_stride": 0.01, "n_fft": 512, "features": 16, "normalize": "NA", "dither": 0.0,
        "pad_to": 0,
    });
    config["labels"] = ('a'..='k').map(|letter| Value::from(format!("\u{2581}{letter}"))).collect();
    config["tokenizer"] = serde_json::json!({ "type": "bpe" });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let tensors = Checkpoint::open(data.join("streaming.safetensors"))?;
    let own = |name: &&str| !name.starts_with("in.") && !name.starts_with("out.");
    let mut all = vec![];
    for name in tensors.names().into_iter().filter(own) {
        let sizes = tensors.info(name).ok_or("no such tensor")?.sizes.clone();
        all.push((name, sizes, tensors.read(name, DType::F32)?));
    }
    let mut writer = Writer::new().metadata("format", "pt");
    for (name, sizes, values) in &all {
        writer = writer.add(name, sizes, values)?;
    }
    writer.save(folder.join("model.safetensors"))?;
    let noise = |n: usize| (0..n).map(|i| ((i * i * 7919 + i * 104_729) % 2003) as f32 / 2003.0 - 0.5);
    let sound: Vec<f32> = noise(32_000).chain(std::iter::repeat_n(0.0, 24_000)).chain(noise(20_000)).collect();
    let file = scratch("streaming.wav");
    mobilis_zoo::audio::wav::write(&file, &sound, 16_000)?;
    Ok((folder, file))
}

#[test]
fn transcribe_tells_what_is_said_while_it_comes_in() {
    assert!(bad(&["transcribe", "x", "x.wav", "--every", "2"], 2).contains("--stream"));
    assert!(bad(&["transcribe", "x", "x.wav", "--stream", "--every", "x"], 2).contains("--every"));
    let (model, file) = streaming().expect("the model is written");
    let (model, file) = (model.to_str().expect("a path"), file.to_str().expect("a path"));
    assert!(bad(&["transcribe", model, file, "--stream", "--format", "srt"], 1).contains("txt or json"));
    let whole = json(&["transcribe", model, file]);
    let whole = whole["transcripts"][0]["text"].as_str().expect("a text").to_string();
    assert!(whole.split(' ').count() > 5, "{whole}");
    // As a file, and as it comes in on standard input.
    let from_file = good(&["transcribe", model, file, "--stream", "--json", "--pause", "0"]);
    let piped = Command::new(env!("CARGO_BIN_EXE_mobilis"))
        .args(["transcribe", model, "-", "--stream", "--json", "--pause", "0"])
        .stdin(std::fs::File::open(file).expect("the recording"))
        .output()
        .expect("the command starts");
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    for lines in [from_file, String::from_utf8(piped.stdout).expect("text")] {
        let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).expect("a line is an object")).collect();
        let of = |kind: &str| lines.iter().filter(|l| l["type"] == kind).cloned().collect::<Vec<Value>>();
        let said: Vec<String> = of("final").iter().map(|l| l["text"].as_str().expect("a text").to_string()).collect();
        assert_eq!(said.join(" "), whole);
        assert!(said.len() > 1 && !of("partial").is_empty(), "{lines:?}");
        // Not all at the end.
        let first = lines.iter().position(|l| l["type"] == "final").expect("something is said");
        assert!(first + 2 * said.len() / 3 < lines.len() - 1 && lines.last().expect("lines")["type"] == "end");
        assert_eq!(of("end")[0]["duration"], 4.75);
    }
    let text = good(&["transcribe", model, file, "--stream", "--quiet", "--pause", "0"]);
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), whole);
    assert!(text.lines().count() > 1);
}

#[test]
fn embed_gives_vectors_that_mean_something() {
    assert!(bad(&["embed", "nowhere/nothing", "text", "--offline"], 1).contains("nowhere"));
    assert!(bad(&["embed", "x", "text", "--pooling", "men"], 2).contains("mean"));
    let cache = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/mobilis/real");
    let folder = std::env::var_os("MOBILIS_REAL").map_or(cache, PathBuf::from).join("minilm");
    if !folder.join("model.safetensors").exists() {
        println!("skipped: {} is absent", folder.display());
        return;
    }
    let model = folder.to_str().expect("a path in UTF-8");
    let texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."];
    let found = json(&[&["embed", model], &texts[..]].concat());
    assert_eq!((&found["dimensions"], &found["pooling"], &found["cut"]), (&384.into(), &"mean".into(), &0.into()));
    let vectors: Vec<Vec<f64>> = serde_json::from_value(found["vectors"].clone()).expect("vectors");
    let dot = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum::<f64>();
    assert!((dot(0, 0) - 1.0).abs() < 1e-5 && (dot(0, 1) - 0.75534).abs() < 1e-4 && dot(0, 2) < 0.1);

    let file = scratch("texts.txt");
    std::fs::write(&file, texts.join("\n")).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    let table = good(&["embed", model, "--file", file, "--similarity", "--quiet"]);
    let rows: Vec<Vec<f64>> =
        table.lines().map(|l| l.split_whitespace().map(|v| v.parse().expect("a number")).collect()).collect();
    assert_eq!((rows.len(), rows[0].len()), (3, 3));
    assert!((rows[1][0] - 0.7553).abs() < 2e-4, "{table}");
    assert!(bad(&["embed", model, "--file", "/nowhere/texts.txt"], 1).contains("/nowhere/texts.txt"));
}
