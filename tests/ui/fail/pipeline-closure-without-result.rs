//! A closure that gives no `Result`.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        measure: fn(f32) -> f32,
    }
    fn run(x: f32) -> f32 {
        measure(x)
    }
}

pub fn f() -> Listen {
    Listen::new(|x: f32| x)
}
