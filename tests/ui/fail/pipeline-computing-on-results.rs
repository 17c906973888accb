//! The ways of functions in a body that only joins stages.

use mobilis::prelude::*;

pipeline! {
    pub struct Methods {
        read: fn(String) -> Option<String>,
        count: fn(String) -> usize,
    }
    fn run(path: String) -> usize {
        count(read(path).unwrap())
    }
}

pipeline! {
    pub struct Question {
        read: fn(String) -> String,
        count: fn(String) -> usize,
    }
    fn run(path: String) -> usize {
        count(read(path)?)
    }
}

pipeline! {
    pub struct Constant {
        count: fn(String, least: usize) -> usize,
    }
    fn run(path: String) -> usize {
        count(path, 3)
    }
}

pipeline! {
    pub struct Own {
        count: fn(String) -> usize,
    }
    fn run(&self, path: String) -> usize {
        count(path)
    }
}

fn main() {}
