//! `mobilis transcribe --stream`: what is said, while it is spoken.
//!
//! Each segment is a line as soon as it is complete. A terminal shows what is being said in its last line; with `--json`
//! it is a line, too: `{"type": "partial", ..}` beside `{"type": "final", ..}` and, for each recording, `{"type": "end",
//! ..}`.

use super::{CliError, Output};
use mobilis_zoo::asr::live::{LiveOptions, News};
use mobilis_zoo::asr::{AsrError, Blocks, Recognizer, Segment, formats};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Characters of what is being said that are shown.
const SHOWN: usize = 72;

/// What is written where.
struct Lines {
    json: bool,
    /// Whether the last line is replaced by the next.
    terminal: bool,
    /// Whether nobody reads any more.
    closed: bool,
}

impl Lines {
    fn write(&mut self, text: &str) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => self.closed = true,
            Err(source) => return Err(CliError::Write { path: "standard output".into(), source }),
            Ok(()) => {}
        }
        Ok(())
    }

    fn object(&mut self, kind: &str, recording: &str, mut value: Value) -> Result<(), CliError> {
        (value["type"], value["recording"]) = (kind.into(), recording.into());
        self.write(&format!("{value}\n"))
    }

    fn news(&mut self, recording: &str, news: &News) -> Result<(), CliError> {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        for segment in &news.settled {
            match self.json {
                true => self.object("final", recording, formats::segment(segment))?,
                false => self.write(&format!("{clear}{}\n", line(segment)))?,
            }
        }
        match &news.open {
            Some(open) if self.json => self.object("partial", recording, formats::segment(open)),
            Some(open) if self.terminal => {
                let text = line(open);
                let hidden = text.chars().count().saturating_sub(SHOWN);
                self.write(&format!("{clear}{}", text.chars().skip(hidden).collect::<String>()))
            }
            _ => Ok(()),
        }
    }
}

fn line(segment: &Segment) -> String {
    segment.text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Hears recordings one after another, telling what is said.
pub(super) fn run(
    recognizer: &dyn Recognizer<Error = AsrError>,
    recordings: Vec<(&str, Blocks<'_>)>,
    options: &LiveOptions,
    output: &Output,
    json: bool,
) -> Result<(), CliError> {
    let mut lines = Lines { json, terminal: !json && std::io::stdout().is_terminal(), closed: false };
    let all = recordings.len();
    let mut failed = 0;
    for (name, blocks) in recordings {
        let started = Instant::now();
        let mut samples = 0usize;
        let listen = || -> Result<(), Fault> {
            let mut live = recognizer.live(options)?;
            for block in blocks {
                let block = block.map_err(AsrError::from)?;
                samples += block.len();
                lines.news(name, &live.feed(&block)?)?;
                if lines.closed {
                    return Ok(());
                }
            }
            Ok(lines.news(name, &live.finish()?)?)
        };
        match listen() {
            Ok(()) => {}
            Err(Fault::Writing(e)) => return Err(e),
            Err(Fault::Hearing(e)) => {
                eprintln!("error: {name}: {e}");
                failed += 1;
            }
        }
        if lines.closed {
            return Ok(());
        }
        let heard = Duration::from_secs_f64(samples as f64 / f64::from(recognizer.sample_rate()));
        if lines.json {
            lines.object("end", name, json!({ "duration": formats::seconds(heard) }))?;
        }
        let (heard, seconds) = (heard.as_secs_f64(), started.elapsed().as_secs_f64());
        output.note(&format!(
            "{heard:.1} s of sound in {seconds:.2} s: {:.1} times real time",
            heard / seconds.max(1e-9)
        ));
    }
    match failed {
        0 => Ok(()),
        _ => Err(CliError::Arguments(format!("{failed} of {all} recordings could not be transcribed"))),
    }
}

/// Why listening stopped.
enum Fault {
    Hearing(AsrError),
    Writing(CliError),
}

impl From<AsrError> for Fault {
    fn from(error: AsrError) -> Fault {
        Fault::Hearing(error)
    }
}

impl From<CliError> for Fault {
    fn from(error: CliError) -> Fault {
        Fault::Writing(error)
    }
}
