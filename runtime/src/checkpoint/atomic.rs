//! Files that appear whole or not at all.
//!
//! A [`Pending`] file is written under a temporary name beside its target, flushed to the disk,
//! and renamed when all of its companions are there too. Whatever fails before (a full disk, a
//! panic, a lost connection), the temporary file is removed and the target is what it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A file that is written and waits for its name. Dropped without [`commit`], it is removed.
#[derive(Debug)]
pub struct Pending {
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

impl Pending {
    /// Writes a file under a temporary name beside `target` and flushes it to the disk.
    ///
    /// # Errors
    /// Those of the system and of `write`; then nothing is left behind.
    pub fn write(target: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<Pending> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
        if target.is_dir() {
            return Err(io::Error::other("there is a directory of this name"));
        }
        // Other processes and threads may save to the same target: names never collide.
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary =
            target.with_file_name(format!(".{}.{}-{unique}.tmp", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let pending = Pending { temporary, target: target.to_path_buf(), done: false };
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        // A full disk may only tell now.
        file.sync_all()?;
        Ok(pending)
    }

    /// Where the file will be.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            // The first error is the one to report; one more while cleaning up says nothing new.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Gives files their names, in order, and flushes the directories that hold the names. The
/// values of all are on the disk already, so only a crash in this moment can leave a mixture.
///
/// # Errors
/// Those of the system, with the target that could not be replaced.
pub fn commit(files: Vec<Pending>) -> Result<(), (PathBuf, io::Error)> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for mut file in files {
        fs::rename(&file.temporary, &file.target).map_err(|e| (file.target.clone(), e))?;
        file.done = true;
        let folder = match file.target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    // Elsewhere directories cannot be opened as files, and renames are durable by themselves.
    #[cfg(unix)]
    for folder in folders {
        File::open(&folder).and_then(|d| d.sync_all()).map_err(|e| (folder, e))?;
    }
    Ok(())
}

/// Writes one file whole or not at all.
///
/// # Errors
/// Those of the system and of `write`; the old file is then intact.
pub fn replace(target: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    commit(vec![Pending::write(target, write)?]).map_err(|(_, e)| e)
}

/// Writes text whole or not at all.
///
/// # Errors
/// Those of the system; the old file is then intact.
pub fn replace_text(target: &Path, text: &str) -> io::Result<()> {
    replace(target, |out| out.write_all(text.as_bytes()))
}
