//! Downloads, from a server of this test's that answers as the Hub does.

use super::Scratch;
use mobilis_runtime::checkpoint::Writer;
use mobilis_runtime::module::store::Data;
use mobilis_zoo::import::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of the model `owner/tiny`.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let values = Data::F32(vec![1.0, 2.0, 3.0]);
    let mut weights = Vec::new();
    let writer = Writer::new().add("w", &[3], &values).expect("added");
    writer.write_to(&mut weights).expect("written");
    vec![
        ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
        ("model.safetensors", weights),
        ("README.md", b"not of use".to_vec()),
        ("../evil.json", b"{}".to_vec()),
    ]
}

/// Answers until the test ends; counts requests.
fn serve() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            // Whoever asks may go away at any time.
            let _ = answer(stream);
        }
    });
    (url, count)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let path = lines.next().transpose()?.unwrap_or_default();
    let path = path.split(' ').nth(1).unwrap_or_default().to_string();
    let mut range = None;
    for line in lines.by_ref() {
        let line = line?.to_lowercase();
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            range = bytes.split_once('-').map(|(a, b)| (a.parse().unwrap_or(0), b.parse::<usize>().ok()));
        }
        if line.is_empty() {
            break;
        }
    }
    let files = files();
    let (status, headers, body) = if path == "/api/models/owner/tiny/revision/main" {
        let siblings: Vec<String> = files.iter().map(|(name, _)| format!("{{\"rfilename\": \"{name}\"}}")).collect();
        let body = format!("{{\"siblings\": [{}], \"sha\": \"{COMMIT}\"}}", siblings.join(", "));
        ("200 OK", String::new(), body.into_bytes())
    } else if let Some((name, bytes)) =
        path.strip_prefix("/owner/tiny/resolve/main/").and_then(|name| files.iter().find(|f| f.0 == name))
    {
        let (from, to) = range.unwrap_or((0, None));
        let end = to.map_or(bytes.len(), |to: usize| to + 1).min(bytes.len());
        let headers = format!(
            "ETag: \"{name}-etag\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {from}-{}/{}\r\n",
            end - 1,
            bytes.len()
        );
        ("206 Partial Content", headers, bytes[from..end].to_vec())
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

#[test]
fn a_model_is_downloaded_once() {
    let (scratch, (url, requests)) = (Scratch::new("hub"), serve());
    let told = Arc::new(AtomicUsize::new(0));
    let tell = told.clone();
    let options = OpenOptions::new().cache(scratch.path("cache")).endpoint(&url).on_progress(move |p| {
        if p.file == "model.safetensors" && p.done == p.total {
            tell.fetch_add(1, Ordering::Relaxed);
        }
    });
    let opened = options.open("owner/tiny").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((opened.config["model_type"].as_str(), opened.tensors.names()), (Some("llama"), vec!["w"]));
    assert!(
        opened.path.ends_with(Path::new("models--owner--tiny/snapshots").join(COMMIT)),
        "{}",
        opened.path.display()
    );
    assert!(told.load(Ordering::Relaxed) > 0);
    // What is of no use is not fetched, and no name leads out of the cache.
    assert!(!opened.path.join("README.md").exists() && !scratch.path("evil.json").exists());
    let before = requests.load(Ordering::Relaxed);
    assert!(options.open("owner/tiny").is_ok());
    assert_eq!(requests.load(Ordering::Relaxed), before);
    let error = options.open("owner/other").expect_err("not there").to_string();
    assert!(error.contains("check the id") && error.contains("models--owner--other"), "{error}");
    let error = options.open("owner/tiny/m.gguf").expect_err("not there").to_string();
    assert!(error.contains("has no file `m.gguf`"), "{error}");
}

#[test]
fn without_a_network() {
    let scratch = Scratch::new("offline");
    // Nobody listens on the port of a listener that is gone.
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an address");
    let options = OpenOptions::new().cache(scratch.path("cache")).endpoint(&format!("http://{gone}"));
    let error = options.open("owner/tiny").expect_err("no network").to_string();
    assert!(error.contains("cannot be fetched") && error.contains("its files would be looked for in"), "{error}");
}
