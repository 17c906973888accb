//! A value that cannot go to another thread.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        make: fn(f32) -> std::rc::Rc<f32>,
        take: fn(std::rc::Rc<f32>) -> f32,
    }
    fn run(x: f32) -> f32 {
        take(make(x))
    }
}
