//! A trace of values that cannot be cloned.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        open: fn(String) -> std::fs::File,
        size: fn(std::fs::File) -> u64,
    }
    fn run(path: String) -> u64 {
        let file = open(path);
        size(file)
    }
}

pub fn f(listen: &Listen) {
    let _ = listen.run_traced("a".to_string());
}
