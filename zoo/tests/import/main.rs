//! Public checkpoints: what is read, and what is refused.

mod damage;
mod exported;
mod gguf_files;
#[cfg(feature = "hub")]
mod hub;
mod nemo;
mod real;
mod torch_files;

use std::path::PathBuf;

/// A folder of real weights, where it was fetched.
pub fn real(item: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MOBILIS_REAL").map(PathBuf::from);
    let root = root.or_else(|| Some(std::env::home_dir()?.join(".cache/mobilis/real")))?;
    found(root.join(item))
}

/// A folder of the golden models.
pub fn golden(name: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let root = std::env::var_os("MOBILIS_GOLDEN").map_or(beside, PathBuf::from);
    found(root.join(name))
}

fn found(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    println!("skipped: there is no `{}`", path.display());
    None
}

/// A folder of its own that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("mobilis-import-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("made");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
