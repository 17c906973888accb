//! A stage that cannot be shared between threads.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        measure: fn(f32) -> f32,
    }
    fn run(x: f32) -> f32 {
        measure(x)
    }
}

pub fn f(gain: std::rc::Rc<f32>) -> Listen {
    Listen::new(pure(move |x: f32| x * *gain))
}
