//! A child process under limits of time and memory.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a process may use.
#[derive(Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    /// Bytes of resident memory.
    pub memory: u64,
}

/// How a process ended.
pub struct Outcome {
    pub success: bool,
    pub stderr: String,
    pub time: Duration,
    /// The most resident memory seen, in bytes.
    pub memory: u64,
    /// The limit at which it was stopped.
    pub stopped: Option<String>,
}

/// Runs a command to its end or to its limits.
pub fn run(command: &mut Command, limits: Limits) -> Outcome {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let mut pipe = child.stderr.take().expect("stderr is piped");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let mut memory = 0;
    let mut stopped = None;
    let status = loop {
        // The high-water mark, so what lies between two looks is seen too, but for the last.
        memory = memory.max(resident(&child).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if stopped.is_none() {
            if started.elapsed() > limits.time {
                stopped = Some(format!("it ran for more than {} s", limits.time.as_secs()));
            } else if memory > limits.memory {
                stopped = Some(format!("it took more than {} MB of memory", limits.memory / 1_000_000));
            }
            if stopped.is_some() {
                // It may have ended by itself just now.
                let _ = child.kill();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let stderr = reader.join().expect("the reader does not panic").unwrap_or_default();
    Outcome { success: status.success(), stderr, time: started.elapsed(), memory, stopped }
}

/// The most resident memory so far; `None` where the system does not tell.
fn resident(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_end_is_stopped() {
        let limits = Limits { time: Duration::from_millis(100), memory: u64::MAX };
        let outcome = run(Command::new("sleep").arg("30"), limits);
        assert!(outcome.stopped.is_some() && !outcome.success);
        assert!(outcome.time < Duration::from_secs(10));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_takes_much_memory_is_stopped() {
        let limits = Limits { time: Duration::from_secs(20), memory: 50_000_000 };
        let outcome = run(Command::new("dd").args(["if=/dev/zero", "of=/dev/null", "bs=200M", "count=10000"]), limits);
        assert!(outcome.stopped.is_some_and(|s| s.contains("memory")));
    }
}
