//! Opening NVIDIA's libraries from where they usually are beside the loader's own folders:
//! `MOBILIS_CUDA_LIBRARIES` (folders, separated by colons), `CUDA_HOME`, `/usr/local/cuda`.

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

#[cfg(not(unix))]
pub(super) fn preload(_: &[&[&str]]) {}
