//! Where transcripts go: standard output, a file, or files in a folder.
//!
//! The place is looked at before anything is heard, and what was heard is written some recordings at a time: neither a
//! folder that cannot be written nor Ctrl-C costs hours of hearing.

use super::recordings::{Job, named};
use super::{CliError, Output};
use mobilis_zoo::asr::formats::{self, Format};
use mobilis_zoo::asr::{AsrError, Transcript};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What came of a recording.
pub(super) type Found = Result<Transcript, AsrError>;

/// Where transcripts go.
pub(super) enum Place {
    Standard,
    File(PathBuf),
    Folder(PathBuf),
}

impl Place {
    /// A file for one recording, a folder for several, as can be written.
    pub(super) fn new(output: Option<&Path>, jobs: &[Job]) -> Result<Place, CliError> {
        let Some(path) = output else { return Ok(Place::Standard) };
        let failed = |source| CliError::Write { path: path.into(), source };
        if jobs.len() == 1 && !path.is_dir() {
            probe(path).map_err(failed)?;
            return Ok(Place::File(path.into()));
        }
        if path.exists() && !path.is_dir() {
            let words =
                format!("`{}` is a file: transcripts of {} recordings go to a folder", path.display(), jobs.len());
            return Err(CliError::Arguments(words));
        }
        std::fs::create_dir_all(path).and_then(|()| probe(&path.join("transcripts"))).map_err(failed)?;
        Ok(Place::Folder(path.into()))
    }

    /// Writes what came of some of the recordings; with `--json`, standard output waits for all.
    pub(super) fn write(
        &self,
        format: Format,
        jobs: &[Job],
        group: Range<usize>,
        found: &[Found],
        output: &Output,
    ) -> Result<(), CliError> {
        for (number, found) in group.zip(found) {
            let job = &jobs[number];
            let transcript = match found {
                Ok(transcript) => transcript,
                Err(e) => {
                    eprintln!("error: {}", named(&job.name, &e.to_string()));
                    continue;
                }
            };
            match self {
                Place::Standard if output.json => {}
                Place::Standard => {
                    output.result(|| shown(format, jobs, job, transcript), || unreachable!("it is text"))?
                }
                Place::File(path) => save(path, &format.write(transcript, &job.name))?,
                Place::Folder(path) => {
                    save(&path.join(name(jobs, number, format)), &format.write(transcript, &job.name))?;
                }
            }
        }
        Ok(())
    }
}

/// A transcript on standard output; of several recordings each says which it is.
fn shown(format: Format, jobs: &[Job], job: &Job, transcript: &Transcript) -> String {
    match format {
        _ if jobs.len() == 1 => format.write(transcript, &job.name),
        Format::Text => format!("{}\t{}\n", job.name, transcript.text),
        Format::Json => format!("{}\n", formats::value(transcript, &job.name)),
        Format::Ctm => format.write(transcript, &job.name),
        Format::Srt | Format::Vtt => format!("--- {}\n{}", job.name, format.write(transcript, &job.name)),
    }
}

/// The name of a recording's transcript in a folder. Recordings of one name are numbered.
fn name(jobs: &[Job], number: usize, format: Format) -> String {
    let stem = |job: &Job| {
        let stem = job.path.as_deref().and_then(Path::file_stem);
        stem.map_or("stdin".into(), |s| s.to_string_lossy().into_owned())
    };
    let own = stem(&jobs[number]);
    let same: Vec<usize> = (0..jobs.len()).filter(|other| stem(&jobs[*other]) == own).collect();
    match same.iter().position(|other| *other == number) {
        Some(place) if same.len() > 1 => format!("{own}-{}.{}", place + 1, format.ending()),
        _ => format!("{own}.{}", format.ending()),
    }
}

/// The name of a file while it is written.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

/// Whether a file can be written there.
fn probe(path: &Path) -> std::io::Result<()> {
    let new = unfinished(path);
    std::fs::File::create(&new)?;
    std::fs::remove_file(&new)
}

/// Writes a file at once, or not at all.
fn save(path: &Path, text: &str) -> Result<(), CliError> {
    let new = unfinished(path);
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&new);
        CliError::Write { path: path.into(), source }
    })
}

#[cfg(test)]
mod tests {
    use super::super::recordings::jobs;
    use super::*;

    #[test]
    fn places_are_looked_at_before() {
        let folder = std::env::temp_dir().join(format!("mobilis-transcripts-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let of = |names: &[&str]| jobs(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
        let (one, two) = (of(&["a.wav"]), of(&["a.wav", "b/a.mp3", "c.wav"]));
        assert!(matches!(Place::new(None, &two), Ok(Place::Standard)));
        assert!(matches!(Place::new(Some(&folder.join("a.txt")), &one), Ok(Place::File(_))));
        assert!(matches!(Place::new(Some(&folder.join("new/deep")), &two), Ok(Place::Folder(_))));
        assert!(Place::new(Some(&folder.join("no/a.txt")), &one).is_err());
        std::fs::write(folder.join("file"), "").unwrap();
        let error = Place::new(Some(&folder.join("file")), &two).err().unwrap().to_string();
        assert!(error.contains("3 recordings go to a folder"), "{error}");
        assert_eq!(std::fs::read_dir(folder.join("new/deep")).unwrap().count(), 0);
        std::fs::remove_dir_all(&folder).unwrap();
        let names: Vec<String> = (0..3).map(|i| name(&two, i, Format::Srt)).collect();
        assert_eq!(names, ["a-1.srt", "a-2.srt", "c.srt"]);
    }
}
