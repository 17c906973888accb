//! Computing in the body, which is for stages.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        split: fn(text: String, at: Option<char>) -> (left: String, right: String),
        join: fn(left: String, right: String) -> String,
    }
    fn run(text: String) -> String {
        let cut = split(text);
        join(cut.left, "and")
    }
}
