//! Files for readers that take paths: in memory where the system has such a folder.

use std::path::{Path, PathBuf};

/// A path in this process's folder.
pub fn path(name: &str) -> PathBuf {
    let root = Some(Path::new("/dev/shm")).filter(|p| p.is_dir()).map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = root.join(format!("mobilis-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder.join(name)
}

/// Writes a file there.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    std::fs::write(&path, bytes).expect("it can be written");
    path
}
