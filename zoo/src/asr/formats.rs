//! Transcripts as other programs read them: text, JSON, subtitles (SRT, WebVTT), NIST's CTM.

use super::{Segment, Transcript, Word};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// A form of a transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The text alone.
    #[default]
    Text,
    /// Everything.
    Json,
    /// SubRip: numbered segments with their times.
    Srt,
    /// WebVTT, the subtitles of web pages.
    Vtt,
    /// A line for each word: recording, channel, start, length, word, confidence.
    Ctm,
}

impl Format {
    /// All forms by their names, which are also the endings of files.
    pub const ALL: [(&'static str, Format); 5] = [
        ("txt", Format::Text),
        ("json", Format::Json),
        ("srt", Format::Srt),
        ("vtt", Format::Vtt),
        ("ctm", Format::Ctm),
    ];

    /// The ending of files of this form.
    pub fn ending(self) -> &'static str {
        Format::ALL.iter().find(|(_, format)| *format == self).map_or("txt", |(name, _)| name)
    }

    /// A transcript in this form; `recording` is its name.
    pub fn write(self, transcript: &Transcript, recording: &str) -> String {
        match self {
            Format::Text => format!("{}\n", transcript.text),
            Format::Json => format!("{:#}\n", value(transcript, recording)),
            Format::Srt => srt(transcript),
            Format::Vtt => vtt(transcript),
            Format::Ctm => ctm(transcript, recording),
        }
    }
}

/// A transcript as a JSON object; times are in seconds.
pub fn value(transcript: &Transcript, recording: &str) -> Value {
    json!({
        "recording": recording,
        "language": transcript.language,
        "duration": seconds(transcript.duration),
        "text": transcript.text,
        "segments": transcript.segments.iter().map(segment).collect::<Vec<_>>(),
    })
}

fn word(w: &Word) -> Value {
    let mut object = json!({ "start": seconds(w.start), "end": seconds(w.end), "text": w.text });
    if let Some(confidence) = w.confidence {
        object["confidence"] = json!(rounded(f64::from(confidence)));
    }
    object
}

/// A segment as a JSON object; times are in seconds.
pub fn segment(s: &Segment) -> Value {
    let mut object = json!({
        "start": seconds(s.start), "end": seconds(s.end), "text": s.text, "tokens": s.tokens,
    });
    if let Some(confidence) = s.confidence {
        object["confidence"] = json!(rounded(f64::from(confidence)));
    }
    if !s.words.is_empty() {
        object["words"] = s.words.iter().map(word).collect();
    }
    object
}

/// Seconds to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// `01:02:03` and milliseconds behind a mark.
fn clock(time: Duration, mark: char) -> String {
    let all = (time.as_secs_f64() * 1000.0).round() as u64;
    let (milliseconds, all) = (all % 1000, all / 1000);
    format!("{:02}:{:02}:{:02}{mark}{milliseconds:03}", all / 3600, all / 60 % 60, all % 60)
}

/// One line, in which nothing is taken for the arrow between two times.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("-->", "->")
}

fn srt(transcript: &Transcript) -> String {
    let mut out = String::new();
    for (i, s) in transcript.segments.iter().enumerate() {
        let _ = writeln!(out, "{}\n{} --> {}\n{}\n", i + 1, clock(s.start, ','), clock(s.end, ','), line(&s.text));
    }
    out
}

fn vtt(transcript: &Transcript) -> String {
    let mut out = "WEBVTT\n\n".to_string();
    for s in &transcript.segments {
        let text = line(&s.text).replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(out, "{} --> {}\n{text}\n", clock(s.start, '.'), clock(s.end, '.'));
    }
    out
}

fn ctm(transcript: &Transcript, recording: &str) -> String {
    let mut out = String::new();
    let name = recording.split_whitespace().collect::<Vec<_>>().join("_");
    for w in transcript.segments.iter().flat_map(|s| &s.words) {
        let length = w.end.saturating_sub(w.start).as_secs_f64();
        let _ = write!(out, "{name} 1 {:.3} {length:.3} {}", w.start.as_secs_f64(), line(&w.text));
        let _ = match w.confidence {
            Some(confidence) => writeln!(out, " {confidence:.3}"),
            None => writeln!(out),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript {
        let time = Duration::from_millis;
        let word = |start, end, text: &str| Word {
            start: time(start),
            end: time(end),
            text: text.into(),
            confidence: Some(0.5),
        };
        let words = vec![word(3_661_002, 3_661_500, "a"), word(3_661_500, 3_662_000, "<b>")];
        Transcript {
            text: "a <b> --> c".into(),
            language: Some("en".into()),
            duration: time(4_000_000),
            segments: vec![Segment {
                start: time(3_661_002),
                end: time(3_662_999),
                text: "a <b> --> c".into(),
                tokens: vec![7, 8],
                words,
                confidence: None,
            }],
        }
    }

    #[test]
    fn each_form_is_as_its_readers_want_it() {
        let t = transcript();
        assert_eq!(Format::Text.write(&t, "x"), "a <b> --> c\n");
        assert_eq!(Format::Srt.write(&t, "x"), "1\n01:01:01,002 --> 01:01:02,999\na <b> -> c\n\n");
        assert_eq!(Format::Vtt.write(&t, "x"), "WEBVTT\n\n01:01:01.002 --> 01:01:02.999\na &lt;b> -> c\n\n");
        assert_eq!(
            Format::Ctm.write(&t, "my talk"),
            "my_talk 1 3661.002 0.498 a 0.500\nmy_talk 1 3661.500 0.500 <b> 0.500\n"
        );
        let json: Value = serde_json::from_str(&Format::Json.write(&t, "x")).unwrap();
        assert_eq!(json["segments"][0]["words"][1]["start"], 3661.5);
        assert_eq!(json["duration"], 4000.0);
    }

    #[test]
    fn times_round_up_into_the_next_second() {
        assert_eq!(clock(Duration::from_micros(59_999_700), '.'), "00:01:00.000");
    }
}
