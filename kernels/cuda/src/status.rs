//! What kernels say about data that they refuse: an index out of range cannot be an error of the launch.
//!
//! Four words on the device ([`BYTES`], zeros before a run): the first kernel that finds a wrong index writes
//! what it is, the index and the bound; it then goes on as if the index were 0 and its result is thrown away.
//! Whoever runs the launches reads the words afterwards. `include/status.cuh` is the other side.

/// Bytes of the words.
pub const BYTES: usize = 16;

/// What is wrong, if anything is.
pub fn message(words: [i32; 4]) -> Option<String> {
    let [what, index, bound, _] = words;
    let last = i64::from(bound) - 1;
    match what {
        0 => None,
        1 => Some(format!("index {index} is out of range for an axis of {bound} values")),
        2 => Some(format!("index {index} is outside the table of {bound} rows (0 to {last})")),
        3 => Some(format!("target {index} is not one of {bound} classes (0 to {last})")),
        4 => Some(format!("expert {index} is chosen, there are {bound} (0 to {last})")),
        _ => Some(format!("a kernel refused its data: code {what}, {index} of {bound}")),
    }
}
