//! A stage is declared by its type, not by what it takes and gives.

use mobilis::prelude::*;


pipeline! {
    pub struct Listen {
        join: Joiner,
    }
    fn run(text: String) -> String {
        join(text)
    }
}
