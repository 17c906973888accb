//! What the compiler says: programs that must not compile, with the words in which they are
//! refused, and programs that must.
//!
//! `tests/ui/fail/*.rs` each hold one mistake, and beside them in `.stderr` what the user reads.
//! `tests/ui/pass/*.rs` each hold one form. Every program runs through code generation, since
//! proofs about sizes are evaluated there, under a limit of time and of memory: a wrong shape
//! must not cost more than a right one.
//!
//! ```text
//! cargo test --test ui                        # all
//! MOBILIS_UI=head cargo test --test ui        # those whose name contains "head"
//! MOBILIS_BLESS=1 cargo test --test ui        # write the .stderr files anew, then read the diff
//! ```
//!
//! The words are rustc's in part, so they are compared only under the version that wrote them.

#[path = "ui/harness/mod.rs"]
mod harness;

use harness::{Expect, check};

#[test]
fn mistakes_are_refused_in_words() {
    check("tests/ui/fail", Expect::Failure, 80);
}

#[test]
fn right_programs_compile() {
    check("tests/ui/pass", Expect::Success, 40);
}
