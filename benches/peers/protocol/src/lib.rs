//! What a peer and `run.py` say to each other, and the data that all peers compute on.
//!
//! A peer is a process that reads commands, a line each, and answers every one with a line of JSON:
//!
//! ```text
//! load CASE           prepare the case; {"setup": seconds} or {"error": "why not"}
//! run SECONDS CASE    run it at least once, and again until the time is spent;
//!                     {"wall": [seconds, ..], "cpu": [seconds, ..]}
//! values CASE         samples of what the last run computed; {"values": [..], "peak": bytes}
//! profile CASE        where its time goes, of ours alone; {"profile": "text"}
//! drop CASE           forget it; {}
//! ```
//!
//! `cpu` is the processor time of the whole process, which other programs on the machine do not
//! lengthen much: the measure for one thread.
//!
//! All peers draw weights and inputs by [`uniform`] from the name of the tensor, so that none has
//! to read the others' files; `python/protocol.py` says the same in numpy.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

/// A case that is ready to run.
pub trait Case {
    /// One run: what is timed.
    fn run(&mut self);
    /// What the runs computed.
    fn values(&mut self) -> Vec<f32>;
    /// Where its time goes, for people.
    fn profile(&mut self) -> Option<String> {
        None
    }
    /// Other figures worth reporting.
    fn notes(&mut self) -> Value {
        Value::Null
    }
}

/// A case made of a function that runs and a function that shows.
pub struct Pair<S, R: FnMut(&mut S), V: FnMut(&mut S) -> Vec<f32>> {
    /// What both work on.
    pub state: S,
    /// Runs.
    pub run: R,
    /// Shows.
    pub values: V,
}
impl<S, R: FnMut(&mut S), V: FnMut(&mut S) -> Vec<f32>> Case for Pair<S, R, V> {
    fn run(&mut self) {
        (self.run)(&mut self.state);
    }
    fn values(&mut self) -> Vec<f32> {
        (self.values)(&mut self.state)
    }
}

/// A [`Pair`] in a box.
pub fn case<S: 'static>(
    state: S,
    run: impl FnMut(&mut S) + 'static,
    values: impl FnMut(&mut S) -> Vec<f32> + 'static,
) -> Box<dyn Case> {
    Box::new(Pair { state, run, values })
}

/// Why a peer does not run a case.
pub type Refusal = Box<dyn std::error::Error>;

/// Answers commands until the input ends. `load` prepares a case from its words.
pub fn serve(load: impl Fn(&[&str]) -> Result<Box<dyn Case>, Refusal>) {
    let mut cases: HashMap<String, Box<dyn Case>> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match command {
            "load" => {
                let start = Instant::now();
                let words: Vec<&str> = rest.split(' ').collect();
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load(&words))) {
                    Ok(Ok(case)) => {
                        cases.insert(rest.into(), case);
                        json!({ "setup": start.elapsed().as_secs_f64() })
                    }
                    Ok(Err(e)) => json!({ "error": e.to_string() }),
                    Err(_) => json!({ "error": "panicked" }),
                }
            }
            "run" => {
                let (seconds, name) = rest.split_once(' ').unwrap_or(("0", rest));
                match (cases.get_mut(name), seconds.parse::<f64>()) {
                    (Some(case), Ok(seconds)) => timed(case.as_mut(), seconds),
                    _ => json!({ "error": "not loaded" }),
                }
            }
            "values" => match cases.get_mut(rest) {
                Some(case) => json!({ "values": samples(&case.values()), "peak": peak(), "notes": case.notes() }),
                None => json!({ "error": "not loaded" }),
            },
            "profile" => match cases.get_mut(rest).and_then(|case| case.profile()) {
                Some(text) => json!({ "profile": text }),
                None => json!({ "error": "not loaded, or nothing to tell" }),
            },
            "drop" => {
                cases.remove(rest);
                json!({})
            }
            _ => json!({ "error": format!("`{command}` is no command") }),
        };
        println!("{answer}");
        let _ = std::io::stdout().flush();
    }
}

/// Runs a case for so many seconds, at least once.
fn timed(case: &mut dyn Case, seconds: f64) -> Value {
    let (mut wall, mut cpu) = (vec![], vec![]);
    let begin = Instant::now();
    while wall.is_empty() || (begin.elapsed().as_secs_f64() < seconds && wall.len() < 2000) {
        let (start, used) = (Instant::now(), processor_time());
        case.run();
        cpu.push((processor_time() - used).as_secs_f64());
        wall.push(start.elapsed().as_secs_f64());
    }
    json!({ "wall": wall, "cpu": cpu })
}

/// The processor time that this process has used.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The largest memory that this process has had, in bytes.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// At most 64 values spread over all, and the mean of the magnitudes of all.
pub fn samples(values: &[f32]) -> Vec<f64> {
    let step = values.len().div_ceil(64).max(1);
    let mean = values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len().max(1) as f64;
    values.iter().step_by(step).map(|v| f64::from(*v)).chain([mean]).collect()
}

/// Numbers in `-scale..scale` that depend on a name and an index alone.
pub fn uniform(name: &str, count: usize, scale: f32) -> Vec<f32> {
    let seed = name.bytes().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    (0..count as u32)
        .map(|i| {
            // The finalizer of MurmurHash3.
            let mut h = i.wrapping_mul(0x9e37_79b9) ^ seed;
            h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
            h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
            h ^= h >> 16;
            ((h >> 8) as f32 / 8_388_608.0 - 1.0) * scale
        })
        .collect()
}

/// A parameter's first value by its name and sizes: norms start at one, biases at zero, matrices
/// so that they keep the size of what they multiply, tables small.
pub fn weight(name: &str, sizes: &[usize]) -> Vec<f32> {
    let count = sizes.iter().product();
    if name.ends_with("bias") || name.ends_with("running_mean") {
        return vec![0.0; count];
    }
    if name.contains("norm") || name.ends_with("running_var") {
        return vec![1.0; count];
    }
    if name.contains("embed") || name.contains("positions") {
        return uniform(name, count, 0.1);
    }
    let fan_in: usize = sizes[1..].iter().product();
    uniform(name, count, (3.0 / fan_in as f32).sqrt())
}

/// Token numbers below `vocab`.
pub fn tokens(name: &str, count: usize, vocab: usize) -> Vec<i32> {
    uniform(name, count, 1.0).iter().map(|v| (((v + 1.0) * 0.5 * vocab as f32) as i32).min(vocab as i32 - 1)).collect()
}

/// A word of a case as a number.
pub fn number(words: &[&str], i: usize) -> Result<usize, Refusal> {
    Ok(words.get(i).ok_or("a number is missing")?.parse()?)
}
