//! Pipelines in pipelines, stages behind `Arc`, stages of a user's own type.

use mobilis::prelude::*;
use std::sync::Arc;

pipeline! {
    #[must_use]
    pub struct Inner {
        one: fn(f32, f32) -> (sum: f32, product: f32),
    }
    fn run(x: f32, y: f32 = 1.0) -> (sum: f32, product: f32) {
        one(x, y)
    }
}

pipeline! {
    pub struct Outer {
        plain: fn(x: f32) -> (sum: f32, product: f32),
        full: fn(x: f32, y: Option<f32>) -> (sum: f32, product: f32),
        scale: fn(f32) -> f32,
    }
    fn run(x: f32) -> f32 {
        let a = plain(x);
        let b = full(a.sum, y: a.product);
        scale(scale(b.product))
    }
}

struct Scale(f32);

impl Stage<f32> for Scale {
    type Output = f32;
    type Error = std::convert::Infallible;
    fn run(&self, x: f32) -> Result<f32, Self::Error> {
        Ok(self.0 * x)
    }
}

pub fn f(inner: Inner) -> Outer {
    let shared: Arc<dyn Stage<f32, Output = f32, Error = std::convert::Infallible> + Send + Sync> = Arc::new(Scale(2.0));
    Outer::new(inner.clone(), inner, shared)
}
