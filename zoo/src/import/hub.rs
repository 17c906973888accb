//! Models of the Hugging Face Hub, by the id under which they are published.
//!
//! Files are looked for in the Hub's usual cache, `models--OWNER--NAME/snapshots/COMMIT/` in
//! `HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`, which Python's library shares. What is
//! complete there is taken as it is: the network is not asked for a newer version. What is
//! missing is downloaded (with the feature `hub`) by the crate `hf-hub`: configurations, tokenizers,
//! and weights of one format alone, safetensors before PyTorch's.

use super::place::Place;
use super::{ImportError, OpenOptions};
use hf_hub::{Cache, Repo, RepoType};
use std::path::PathBuf;

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file.
    pub file: &'a str,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes that it has.
    pub total: u64,
}

/// A model of the Hub, and one of its files where it has several to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// `owner/name`, or `name` for the oldest models.
    pub repo: String,
    /// The one file that is meant.
    pub file: Option<String>,
}

impl Id {
    /// Reads `owner/name`, `name` or `owner/name/file.gguf`; nothing where it can be none of these.
    pub fn parse(place: &str) -> Option<Id> {
        let part = |p: &&str| {
            let plain = p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            plain && !p.is_empty() && p.len() <= 96 && !p.starts_with(['.', '-']) && !p.contains("..")
        };
        let parts: Vec<&str> = place.split('/').collect();
        if !parts.iter().all(part) {
            return None;
        }
        let weights =
            |p: &str| [".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json"].iter().any(|e| p.ends_with(e));
        match parts[..] {
            // A file that is not here is no model of the Hub.
            [name] if !weights(name) => Some(Id { repo: name.into(), file: None }),
            [_, name] if !weights(name) => Some(Id { repo: place.into(), file: None }),
            [owner, name, file] if weights(file) => {
                Some(Id { repo: format!("{owner}/{name}"), file: Some(file.into()) })
            }
            _ => None,
        }
    }
}

/// The folder (or the file) of a model in the cache, downloaded where it is not there yet.
///
/// # Errors
/// What is neither there nor to be had, with where it was looked for.
pub fn fetch(id: &Id, options: &OpenOptions) -> Result<PathBuf, ImportError> {
    let cache = Cache::new(folder(options));
    let revision = options.revision.clone().unwrap_or_else(|| "main".into());
    let repo = Repo::with_revision(id.repo.clone(), RepoType::Model, revision);
    let failed = |fault: String| ImportError::Hub {
        id: id.repo.clone(),
        fault,
        cache: cache.path().join(repo.folder_name()).join("snapshots"),
    };
    if let Some(path) = cached(id, &cache, &repo) {
        return Ok(path);
    }
    let offline =
        options.offline || std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "false"));
    if offline {
        return Err(failed("is not in the cache, and the network is not to be asked".into()));
    }
    download::fetch(id, options, &cache, &repo).map_err(failed)
}

/// The cache that Python's library uses too.
fn folder(options: &OpenOptions) -> PathBuf {
    let given = options.cache.clone();
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    given.or_else(|| variable("HF_HUB_CACHE")).unwrap_or_else(|| match variable("HF_HOME") {
        Some(home) => home.join("hub"),
        None => std::env::home_dir().unwrap_or_default().join(".cache/huggingface/hub"),
    })
}

/// What is complete in the cache: the file that is meant, or a folder whose weights can be opened.
fn cached(id: &Id, cache: &Cache, repo: &Repo) -> Option<PathBuf> {
    let snapshots = cache.path().join(repo.folder_name()).join("snapshots");
    // A commit is its own reference.
    let direct = snapshots.join(repo.revision());
    let get =
        |file: &str| cache.repo(repo.clone()).get(file).or_else(|| Some(direct.join(file)).filter(|p| p.is_file()));
    if let Some(file) = &id.file {
        return get(file);
    }
    let folder = get("config.json")?.parent()?.to_path_buf();
    let whole = Place::at(&folder).and_then(|place| place.tensors()).is_ok();
    whole.then_some(folder)
}

#[cfg(not(feature = "hub"))]
mod download {
    use super::*;

    pub(super) fn fetch(_: &Id, _: &OpenOptions, _: &Cache, _: &Repo) -> Result<PathBuf, String> {
        Err("is not in the cache, and this build cannot download (it lacks the feature `hub`)".into())
    }
}

#[cfg(feature = "hub")]
mod download {
    use super::*;
    use crate::import::BESIDE;
    use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
    use std::sync::Arc;

    pub(super) fn fetch(id: &Id, options: &OpenOptions, cache: &Cache, repo: &Repo) -> Result<PathBuf, String> {
        let token = std::env::var("HF_TOKEN").ok().or_else(|| cache.token());
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(false).with_token(token).with_retries(2);
        if let Some(endpoint) = options.endpoint.clone().or_else(|| std::env::var("HF_ENDPOINT").ok()) {
            builder = builder.with_endpoint(endpoint);
        }
        let api = builder.build().map_err(said)?.repo(repo.clone());
        let names: Vec<String> = api.info().map_err(said)?.siblings.into_iter().map(|s| s.rfilename).collect();
        let get = |name: &str| get(&api, cache, repo, name, options);
        let beside = || ["config.json"].into_iter().chain(BESIDE).filter(|b| names.iter().any(|n| n == b));
        if let Some(file) = &id.file {
            if !names.contains(file) {
                return Err(format!("has no file `{file}`{}", mobilis_runtime::suggest::did_you_mean(file, &names)));
            }
            for beside in beside() {
                get(beside)?;
            }
            return get(file);
        }
        let weights = weights(&names, &get)?;
        let mut folder = None;
        for name in beside() {
            folder = get(name)?.parent().map(PathBuf::from);
        }
        for name in &weights {
            folder = get(name)?.parent().map(PathBuf::from);
        }
        folder.ok_or_else(|| "has no files".into())
    }

    /// The names of the files with weights: of one format.
    fn weights(names: &[String], get: &impl Fn(&str) -> Result<PathBuf, String>) -> Result<Vec<String>, String> {
        for single in ["model.safetensors", "pytorch_model.bin"] {
            let index = format!("{single}.index.json");
            if names.iter().any(|n| n == single) {
                return Ok(vec![single.into()]);
            }
            if names.contains(&index) {
                let value = super::super::json::read_object(&get(&index)?).map_err(|e| e.to_string())?;
                let parts = value["weight_map"].as_object().into_iter().flatten();
                let mut parts: Vec<String> = parts.filter_map(|(_, part)| part.as_str().map(String::from)).collect();
                parts.sort();
                parts.dedup();
                // Names that the index made up are not asked for.
                parts.retain(|p| names.contains(p) && !p.contains('/'));
                parts.push(index);
                return Ok(parts);
            }
        }
        let gguf: Vec<&String> = names.iter().filter(|n| n.ends_with(".gguf") && !n.contains('/')).collect();
        match gguf[..] {
            [one] => Ok(vec![one.clone()]),
            [] => Err("has no weights of a format that is read here".into()),
            _ => {
                let list: Vec<&str> = gguf.iter().map(|n| n.as_str()).collect();
                Err(format!("has several GGUF files: ask for one as `owner/name/file`, of `{}`", list.join("`, `")))
            }
        }
    }

    fn get(api: &ApiRepo, cache: &Cache, repo: &Repo, name: &str, options: &OpenOptions) -> Result<PathBuf, String> {
        if let Some(path) = cache.repo(repo.clone()).get(name) {
            return Ok(path);
        }
        let tell = Teller { tell: options.progress.clone(), file: name.into(), done: 0, total: 0 };
        api.download_with_progress(name, tell).map_err(said)
    }

    /// What a failure means for whoever asked.
    fn said(error: ApiError) -> String {
        match &error {
            ApiError::RequestError(inner) => match &**inner {
                ureq::Error::Status(401 | 403 | 404, _) => {
                    "is not there, or is not for everybody: check the id, or set `HF_TOKEN`".into()
                }
                ureq::Error::Status(status, _) => format!("cannot be fetched: the Hub answers {status}"),
                ureq::Error::Transport(_) => format!("cannot be fetched: {error}"),
            },
            _ => format!("cannot be fetched: {error}"),
        }
    }

    struct Teller {
        tell: Option<Arc<dyn Fn(Progress<'_>) + Send + Sync>>,
        file: String,
        done: u64,
        total: u64,
    }

    impl Teller {
        fn tell(&self) {
            if let Some(tell) = &self.tell {
                tell(Progress { file: &self.file, done: self.done, total: self.total });
            }
        }
    }

    impl hf_hub::api::Progress for Teller {
        fn init(&mut self, size: usize, _: &str) {
            (self.done, self.total) = (0, size as u64);
            self.tell();
        }
        fn update(&mut self, size: usize) {
            self.done += size as u64;
            self.tell();
        }
        fn finish(&mut self) {
            self.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = |repo: &str, file: Option<&str>| Some(Id { repo: repo.into(), file: file.map(String::from) });
        assert_eq!(Id::parse("gpt2"), id("gpt2", None));
        assert_eq!(Id::parse("Qwen/Qwen2.5-0.5B"), id("Qwen/Qwen2.5-0.5B", None));
        assert_eq!(Id::parse("a/b/m.Q4_0.gguf"), id("a/b", Some("m.Q4_0.gguf")));
        for no in
            ["", "/etc", "./a", "../a/b", "a//b", "a/b/c", "~/a", "a b/c", "m.gguf", "a/m.safetensors", "a/../b", "é/x"]
        {
            assert_eq!(Id::parse(no), None, "{no}");
        }
    }

    /// A cache as Python's library lays it out.
    #[test]
    fn what_is_in_the_cache_needs_no_network() {
        let root = std::env::temp_dir().join(format!("mobilis-hub-{}", std::process::id()));
        let repo = root.join("models--owner--tiny");
        let snapshot = repo.join("snapshots/abc123");
        std::fs::create_dir_all(&snapshot).expect("made");
        std::fs::create_dir_all(repo.join("refs")).expect("made");
        std::fs::write(repo.join("refs/main"), "abc123").expect("written");
        std::fs::write(snapshot.join("config.json"), "{\"model_type\": \"llama\"}").expect("written");
        let options = OpenOptions::new().cache(&root).offline();
        let error = options.open("owner/tiny").expect_err("no weights yet").to_string();
        assert!(
            error.contains("`owner/tiny` is neither a file nor a folder here") && error.contains("models--owner--tiny"),
            "{error}"
        );
        mobilis_runtime::checkpoint::Writer::new().save(snapshot.join("model.safetensors")).expect("written");
        let opened = options.open("owner/tiny").expect("complete");
        assert_eq!((opened.config["model_type"].as_str(), opened.path), (Some("llama"), snapshot.clone()));
        assert!(options.clone().revision("abc123").open("owner/tiny").is_ok());
        assert!(options.clone().revision("v2").open("owner/tiny").is_err());
        assert!(options.open("owner/other").is_err());
        std::fs::remove_dir_all(root).expect("removed");
    }
}
