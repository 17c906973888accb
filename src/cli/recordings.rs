//! The recordings that a command is given: files, folders, manifests, standard input.

use super::CliError;
use mobilis_zoo::asr::Blocks;
use mobilis_zoo::asr::data::{Sound, manifest};
use mobilis_zoo::audio::{Reader, Wanted};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A recording, or a part of one.
pub(super) struct Job {
    pub(super) name: String,
    /// None for standard input.
    pub(super) path: Option<PathBuf>,
    offset: Duration,
    duration: Option<Duration>,
    channel: Option<usize>,
}

impl Job {
    /// A whole recording.
    fn new(name: String, path: Option<PathBuf>) -> Job {
        Job { name, path, offset: Duration::ZERO, duration: None, channel: None }
    }

    fn file(path: &Path) -> Job {
        Job::new(path.display().to_string(), Some(path.into()))
    }

    /// The blocks of the recording, which is opened when the first is wanted.
    pub(super) fn blocks<'a>(&'a self, rate: u32) -> Blocks<'a> {
        let mut reader: Option<Result<Reader, ()>> = None;
        Box::new(std::iter::from_fn(move || {
            if reader.is_none() {
                let mut wanted = Wanted::at(rate).part(self.offset, self.duration);
                if let Some(channel) = self.channel {
                    wanted = wanted.channel(channel);
                }
                let opened = match &self.path {
                    Some(path) => Reader::open(path, &wanted),
                    None => Reader::stream("standard input", std::io::stdin(), &wanted),
                };
                match opened {
                    Ok(opened) => reader = Some(Ok(opened)),
                    Err(e) => {
                        reader = Some(Err(()));
                        return Some(Err(e));
                    }
                }
            }
            reader.as_mut()?.as_mut().ok()?.next()
        }))
    }
}

/// Endings of files that a folder's recordings have.
const SOUND: [&str; 14] =
    ["wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "m4b", "mp4", "aac", "aiff", "aif", "mkv", "webm"];

/// The recordings that places name.
pub(super) fn jobs(given: &[String]) -> Result<Vec<Job>, CliError> {
    let mut all = vec![];
    for place in given {
        let path = Path::new(place);
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if place == "-" {
            all.push(Job::new("standard input".into(), None));
        } else if path.is_dir() {
            all.extend(folder(path)?.iter().map(|path| Job::file(path)));
        } else if ["json", "jsonl", "manifest"].contains(&ending.as_str()) {
            listed(path, &mut all)?;
        } else {
            all.push(Job::file(path));
        }
    }
    if all.iter().filter(|job| job.path.is_none()).count() > 1 {
        return Err(CliError::Arguments("standard input can be read once: give `-` once".into()));
    }
    Ok(all)
}

/// The files among places, and the recordings of the folders among them.
pub(super) fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut all = vec![];
    for path in given {
        match path.is_dir() {
            true => all.extend(folder(path)?),
            false => all.push(path.clone()),
        }
    }
    Ok(all)
}

/// The recordings in a folder and in those below, by name.
fn folder(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut all = vec![];
    walk(path, &mut all)?;
    match all.is_empty() {
        true => Err(CliError::Arguments(format!("`{}` holds no recordings ({})", path.display(), SOUND.join(", ")))),
        false => Ok(all),
    }
}

fn walk(path: &Path, all: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let read = |source| CliError::Read { path: path.into(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(read)?.collect();
    let mut entries = entries.map_err(read)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let kind = entry.file_type().map_err(read)?;
        let place = entry.path();
        // A link to a folder above would not end.
        if kind.is_dir() {
            walk(&place, all)?;
        } else if SOUND.contains(&place.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str()) {
            all.push(place);
        }
    }
    Ok(())
}

/// The recordings of a manifest.
fn listed(path: &Path, all: &mut Vec<Job>) -> Result<(), CliError> {
    let wrong = |what: String| CliError::Arguments(format!("{}: {what}", path.display()));
    for utterance in manifest::read(path).map_err(CliError::language)? {
        let name = utterance.sound.to_string();
        let Sound::File(place) = utterance.sound else {
            return Err(wrong(format!("`{name}` lies in an archive: only files are transcribed")));
        };
        let time = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| wrong(format!("{seconds} s of `{name}`: expected seconds")))
        };
        let (offset, duration) = (time(utterance.offset)?, utterance.duration.map(time).transpose()?);
        all.push(Job { path: Some(place), offset, duration, channel: utterance.channel, name });
    }
    Ok(())
}

/// The recordings of a command that failed, while it goes on with the others.
pub(super) struct Failed {
    /// How many there are in all.
    all: usize,
    /// Which failed and why, for `--json`.
    pub(super) list: Vec<Value>,
}

impl Failed {
    pub(super) fn of(all: usize) -> Failed {
        Failed { all, list: vec![] }
    }

    /// What came of a recording. The error of one that is alone is the command's.
    pub(super) fn keep<T>(&mut self, file: &Path, found: Result<T, CliError>) -> Result<Option<T>, CliError> {
        let e = match found {
            Ok(found) => return Ok(Some(found)),
            Err(e) if self.all == 1 => return Err(e),
            Err(e) => e.to_string(),
        };
        eprintln!("error: {}", named(&file.display().to_string(), &e));
        self.list.push(json!({ "file": file, "error": e }));
        Ok(None)
    }

    /// What becomes of the command.
    pub(super) fn end(self) -> Result<(), CliError> {
        match self.list.len() {
            0 => Ok(()),
            n => Err(CliError::Arguments(format!("{n} of {} recordings could not be heard", self.all))),
        }
    }
}

/// An error with the recording's name, unless it says it.
pub(super) fn named(name: &str, error: &str) -> String {
    if error.contains(name) { error.to_string() } else { format!("{name}: {error}") }
}

/// Bytes of files that are heard before their transcripts are written: of an hour or so.
const BYTES: u64 = 32 << 20;

/// The recordings some at a time, at most so many.
pub(super) fn groups(jobs: &[Job], most: usize) -> Vec<Range<usize>> {
    let size = |job: &Job| job.path.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |m| m.len());
    let (mut all, mut first, mut bytes) = (vec![], 0, 0u64);
    for (i, job) in jobs.iter().enumerate() {
        bytes = bytes.saturating_add(size(job));
        if i > first && (i - first >= most || bytes > BYTES) {
            all.push(first..i);
            (first, bytes) = (i, size(job));
        }
    }
    all.push(first..jobs.len());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_and_folders_give_recordings() {
        let folder = std::env::temp_dir().join(format!("mobilis-transcribe-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        for name in ["b.wav", "a.FLAC", "notes.txt", "deep/c.mp3"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let list = folder.join("list.jsonl");
        std::fs::write(&list, "{\"audio_filepath\": \"b.wav\", \"offset\": 1.5, \"duration\": null}\n\n").unwrap();
        let of = |place: &Path| jobs(&[place.display().to_string()]).unwrap();
        let names: Vec<String> = of(&folder).iter().map(|job| job.name.rsplit('/').next().unwrap().into()).collect();
        assert_eq!(names, ["a.FLAC", "b.wav", "c.mp3"]);
        let found = of(&list);
        assert_eq!((found[0].offset, found[0].duration), (Duration::from_millis(1500), None));
        assert_eq!(found[0].path.as_deref(), Some(&*folder.join("b.wav")));
        std::fs::write(&list, "{\"audio_filepath\": \"b.wav\", \"offset\": -1}").unwrap();
        let error = jobs(&[list.display().to_string()]).err().unwrap().to_string();
        assert!(error.contains("offset"), "{error}");
        assert!(jobs(&["-".into(), "-".into()]).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn one_that_fails_does_not_end_the_others() {
        let wrong = || Err::<(), _>(CliError::Arguments("it is empty".into()));
        let mut failed = Failed::of(2);
        assert_eq!(failed.keep(Path::new("a.wav"), Ok(1)).unwrap(), Some(1));
        assert!(failed.keep(Path::new("b.wav"), wrong()).unwrap().is_none());
        assert_eq!(failed.list, [json!({ "file": "b.wav", "error": "it is empty" })]);
        assert!(failed.end().unwrap_err().to_string().starts_with("1 of 2"));
        assert!(Failed::of(1).keep(Path::new("b.wav"), wrong()).is_err());
        assert_eq!(named("b.wav", "it is empty"), "b.wav: it is empty");
        assert_eq!(named("b.wav", "`b.wav` is empty"), "`b.wav` is empty");
    }

    #[test]
    fn groups_are_of_all_in_order() {
        let jobs: Vec<Job> = (0..7).map(|i| Job::new(i.to_string(), None)).collect();
        assert_eq!(groups(&jobs, 3), [0..3, 3..6, 6..7]);
        assert_eq!(groups(&jobs[..1], 3), [Range { start: 0, end: 1 }]);
    }
}
