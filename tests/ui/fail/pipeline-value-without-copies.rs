//! Two stages take a value that cannot be cloned.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        open: fn(String) -> std::fs::File,
        size: fn(std::fs::File) -> u64,
        read: fn(std::fs::File) -> String,
    }
    fn run(path: String) -> (text: String, size: u64) {
        let file = open(path);
        let n = size(file);
        (read(file), n)
    }
}
