//! A value before it is made.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        split: fn(text: String, at: Option<char>) -> (left: String, right: String),
        join: fn(left: String, right: String) -> String,
    }
    fn run(text: String) -> String {
        let cut = split(joined);
        let joined = join(cut.left, cut.right);
        joined
    }
}
