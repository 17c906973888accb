//! Declarations that cannot be: each is told once, and the body is not judged by it.

use mobilis::prelude::*;

pipeline! {
    pub struct Twice {
        read: fn(String) -> Vec<u8>,
        count: fn(Vec<u8>) -> usize,
        count: fn(String) -> String,
    }
    fn run(path: String) -> usize {
        count(read(path))
    }
}

pipeline! {
    pub struct Many {
        join: fn(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) -> u8,
    }
    fn run(x: u8) -> u8 {
        join(x, x, x, x, x, x, x, x, x)
    }
}

pipeline! {
    pub struct Any {
        count: fn(impl Into<String>) -> usize,
    }
    fn run(path: String) -> usize {
        count(path)
    }
}

fn main() {}
