//! A stream of items that the pipeline does not take.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        measure: fn(f32) -> f32,
    }
    fn run(x: f32) -> f32 {
        measure(x)
    }
}

pub fn f(listen: &Listen, items: Vec<String>) {
    let _ = listen.stream(items);
}
