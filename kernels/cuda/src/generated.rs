//! Kernels whose text is made at run time ([`crate::chain`]): a table from text to name that lasts as long
//! as the program, so that a [`Launch`](crate::Launch) names such a kernel as it names any other. Drivers
//! look here for what is not among [`sources`](crate::sources), compile the text and keep what comes out
//! by the name, which is a hash of the text.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// A text with one kernel.
#[derive(Debug)]
pub struct Generated {
    /// The kernel's name, the same for the same text in every run.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

/// The word that stands for the kernel's name in a text that has none yet.
pub const NAME: &str = "KERNEL_NAME";

static TABLE: LazyLock<Mutex<HashMap<&'static str, &'static Generated>>> = LazyLock::new(Mutex::default);

/// The name of a kernel of this text, in which [`NAME`] stands for it. The same text is kept once.
pub fn register(family: &str, text: &str) -> &'static str {
    let name = format!("{family}_{:016x}", hash(text));
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = table.get(name.as_str()) {
        return known.name;
    }
    let text = text.replace(NAME, &name);
    let name: &'static str = Box::leak(name.into_boxed_str());
    let kept: &'static Generated = Box::leak(Box::new(Generated { name, text: Box::leak(text.into_boxed_str()) }));
    table.insert(name, kept);
    name
}

/// The text of a kernel that [`register`] named.
pub fn of(kernel: &str) -> Option<&'static Generated> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner).get(kernel).copied()
}

/// FNV-1a in 64 bits: names must not change from run to run, as compiled kernels are kept by them.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_one_name() {
        let a = register("test", "void KERNEL_NAME() {}");
        assert_eq!(a, register("test", "void KERNEL_NAME() {}"));
        assert_ne!(a, register("test", "void KERNEL_NAME() { }"));
        assert_eq!(of(a).map(|g| g.text.to_owned()), Some(format!("void {a}() {{}}")));
        assert!(of("no_such_kernel").is_none());
    }
}
