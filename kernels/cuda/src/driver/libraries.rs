//! Opening NVIDIA's libraries from where they usually are beside the loader's own folders:
//! `MOBILIS_CUDA_LIBRARIES` (folders, separated by colons), `CUDA_HOME`, `/usr/local/cuda`, and where the Python of the path has
//! NVIDIA's wheels (PyTorch brings them).

/// Opens the first of each list that is there. What is open is then found by its name, by cudarc and by the
/// libraries themselves.
#[cfg(unix)]
pub(super) fn preload(lists: &[&[&str]]) {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    let named = std::env::var("MOBILIS_CUDA_LIBRARIES").unwrap_or_default();
    let mut folders: Vec<String> = named.split(':').filter(|s| !s.is_empty()).map(String::from).collect();
    for home in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(|v| std::env::var(v).ok()) {
        folders.extend([format!("{home}/lib64"), format!("{home}/lib")]);
    }
    folders.push("/usr/local/cuda/lib64".into());
    folders.extend(wheels());
    for names in lists {
        for path in folders.iter().flat_map(|f| names.iter().map(move |n| format!("{f}/{n}"))) {
            // SAFETY: NVIDIA's library, whose initialisers are its own.
            if let Ok(library) = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
                // It stays open.
                std::mem::forget(library);
                break;
            }
        }
    }
}

/// `lib/python3.x/site-packages/nvidia/*/lib` beside the folders of the path, those of CUDA 13 first.
#[cfg(unix)]
fn wheels() -> Vec<String> {
    let inside =
        |folder: std::path::PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let homes = std::env::split_paths(&path).filter_map(|bin| Some(bin.parent()?.join("lib")));
    let pythons =
        homes.flat_map(inside).filter(|p| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"python3")));
    let parts = pythons.flat_map(|p| inside(p.join("site-packages/nvidia"))).map(|p| p.join("lib"));
    let mut found: Vec<String> = parts.filter(|p| p.is_dir()).filter_map(|p| Some(p.to_str()?.to_string())).collect();
    found.sort_by_key(|p| !p.contains("/cu13/"));
    found
}

#[cfg(not(unix))]
pub(super) fn preload(_: &[&[&str]]) {}
