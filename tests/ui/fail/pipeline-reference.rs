//! A stage that would borrow what it is given.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        count: fn(&str) -> String,
    }
    fn run(text: String) -> String {
        count(text)
    }
}
