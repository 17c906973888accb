//! Watching over the process that measures: it says when a case begins and how it went; where it ends, or says nothing for too
//! long, it is ended and another goes on behind that case. A kernel that never ends cannot be stopped from the process that
//! launched it.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The argument that makes a process a worker: the numbers of its cases follow.
pub const WORKER: &str = "--worker=";
/// What all of it may take.
const BUDGET: Duration = Duration::from_secs(450);
/// What one case may take, or what stands before the first: kernels may have to be compiled.
const CASE: Duration = Duration::from_secs(60);
/// Processes that fail, after which there is something else wrong.
const FAILURES: usize = 8;

/// What the measuring process says, a line each.
#[derive(Clone, PartialEq, Debug)]
pub enum Said {
    /// About the device: of the first process alone it is shown.
    Head(String),
    /// Why there is nothing to measure on.
    Nothing(String),
    /// Why what there is does not work.
    Broken(String),
    Begins(usize),
    /// Times the vendor, the share of the ceiling, the line of the table.
    Ran(usize, Option<f64>, Option<f64>, String),
    Failed(usize, String),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |text: &str| text.replace('\n', " ");
        let number = |n: &Option<f64>| n.map_or("-".to_string(), |n| n.to_string());
        match self {
            Said::Head(text) => write!(f, "@head\t{}", one(text)),
            Said::Nothing(text) => write!(f, "@nothing\t{}", one(text)),
            Said::Broken(text) => write!(f, "@broken\t{}", one(text)),
            Said::Begins(n) => write!(f, "@begins\t{n}"),
            Said::Ran(n, ratio, share, line) => {
                write!(f, "@ran\t{n}\t{}\t{}\t{}", number(ratio), number(share), one(line))
            }
            Said::Failed(n, why) => write!(f, "@failed\t{n}\t{}", one(why)),
        }
    }
}

impl Said {
    /// What a line says; nothing where it is not of this kind.
    fn of(line: &str) -> Option<Said> {
        let mut parts = line.splitn(5, '\t');
        let (kind, first) = (parts.next()?, parts.next()?);
        let rest = |parts: std::str::SplitN<char>| parts.collect::<Vec<_>>().join("\t");
        Some(match kind {
            "@head" => Said::Head(first.into()),
            "@nothing" => Said::Nothing(first.into()),
            "@broken" => Said::Broken(first.into()),
            "@begins" => Said::Begins(first.parse().ok()?),
            "@failed" => Said::Failed(first.parse().ok()?, rest(parts)),
            "@ran" => {
                let (ratio, share) = (parts.next()?.parse().ok(), parts.next()?.parse().ok());
                Said::Ran(first.parse().ok()?, ratio, share, parts.next()?.into())
            }
            _ => return None,
        })
    }
}

/// A process that measures, and its lines.
struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    fn start(cases: &[(usize, &str)], emulated: bool) -> std::io::Result<Worker> {
        let numbers: Vec<String> = cases.iter().map(|c| c.0.to_string()).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(format!("{WORKER}{}", numbers.join(","))).args(emulated.then_some("--emulated"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.into_iter().flat_map(|out| BufReader::new(out).lines().map_while(Result::ok)) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Worker { child, lines })
    }

    /// Ends it; how it ended, where it does.
    fn end(mut self) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        let _ = self.child.kill();
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.to_string();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        "it cannot be ended".into()
    }
}

/// Measures the cases of these numbers and names and shows the table; how many failed.
pub fn watch(cases: Vec<(usize, &str)>, emulated: bool) -> usize {
    let start = Instant::now();
    let (mut left, mut failed, mut processes) = (cases.clone(), 0, 0);
    let (mut ratios, mut shares) = (vec![], vec![]);
    let name = |n: usize| cases.iter().find(|c| c.0 == n).map_or("", |c| c.1);
    // On the emulator there are no figures to be had in time.
    let (budget, limit) = if emulated { (Duration::MAX, 10 * CASE) } else { (BUDGET, CASE) };
    while !left.is_empty() && processes < FAILURES && start.elapsed() < budget {
        let worker = match Worker::start(&left, emulated) {
            Ok(worker) => worker,
            Err(e) => {
                println!("no process to measure in: {e}");
                return left.len();
            }
        };
        processes += 1;
        let (mut begun, before) = (None, left.len());
        let why = loop {
            let line = match worker.lines.recv_timeout(limit.min(budget.saturating_sub(start.elapsed()))) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) if start.elapsed() >= budget => break "the time is over".into(),
                Err(RecvTimeoutError::Timeout) => break format!("it did not end within {} s", limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => break "the process ended".into(),
            };
            match Said::of(&line) {
                Some(Said::Head(text)) if processes == 1 => println!("{text}"),
                Some(Said::Head(_)) => {}
                Some(Said::Nothing(text)) => {
                    println!("{text}");
                    println!("Run this on a machine with one that works; {} cases wait for it:", left.len());
                    left.iter().for_each(|c| println!("  {}", c.1));
                    let _ = worker.end();
                    return failed;
                }
                Some(Said::Broken(text)) => {
                    println!("{text}");
                    let _ = worker.end();
                    return failed + left.len();
                }
                Some(Said::Begins(n)) => begun = Some(n),
                Some(Said::Ran(n, ratio, share, line)) => {
                    println!("{line}");
                    ratios.extend(ratio);
                    shares.extend(share);
                    left.retain(|c| c.0 != n);
                    begun = None;
                }
                Some(Said::Failed(n, why)) => {
                    println!("{:44} not run: {why}", name(n));
                    failed += 1;
                    left.retain(|c| c.0 != n);
                    begun = None;
                }
                None => println!("{line}"),
            }
        };
        let status = worker.end();
        if start.elapsed() >= budget {
            break;
        }
        if let Some(n) = begun {
            println!("{:44} not run: {why} ({status})", name(n));
            failed += 1;
            left.retain(|c| c.0 != n);
        } else if left.len() == before {
            println!("{why} before its first case ({status})");
            return failed + left.len();
        }
    }
    let mean = |values: &[f64]| (values.iter().map(|v| v.ln()).sum::<f64>() / values.len().max(1) as f64).exp();
    if !ratios.is_empty() {
        println!("geometric mean of x vendor over {} cases: {:.3}", ratios.len(), mean(&ratios));
    }
    if !shares.is_empty() {
        println!("geometric mean of the ceiling over {} cases: {:.1} %", shares.len(), 100.0 * mean(&shares));
    }
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|c| c.1).collect();
        println!("not reached: {}", names.join(", "));
    }
    failed
}
