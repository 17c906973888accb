//! The sizes of the data caches, as Linux tells them; elsewhere those of a common machine.

/// Bytes of each cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caches {
    /// The data cache of a core.
    pub l1: usize,
    /// The second level of a core.
    pub l2: usize,
    /// The last level, which cores share.
    pub l3: usize,
}

impl Caches {
    /// Where the machine does not say.
    const COMMON: Caches = Caches { l1: 32 << 10, l2: 1 << 20, l3: 16 << 20 };

    /// The caches of the first processor.
    pub fn of_this_machine() -> Caches {
        let mut found = Caches::COMMON;
        for index in 0..8 {
            let read = |file: &str| {
                let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
                std::fs::read_to_string(path).ok().map(|s| s.trim().to_string())
            };
            let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size")) else { break };
            let Some(size) = bytes(&size) else { continue };
            match (level.as_str(), kind.as_str()) {
                (_, "Instruction") => {}
                ("1", _) => found.l1 = size,
                ("2", _) => found.l2 = size,
                ("3", _) => found.l3 = size,
                _ => {}
            }
        }
        // A machine without a third level: what the second holds.
        Caches { l3: found.l3.max(found.l2), ..found }
    }
}

/// `48K`, `2M`
fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok().filter(|n| *n > 0)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(["48K", "2048K", "32M", "512"].map(bytes), [48 << 10, 2 << 20, 32 << 20, 512].map(Some));
        assert_eq!(["", "K", "12Q", "-1K", "0K"].map(bytes), [None; 5]);
    }

    #[test]
    fn every_machine_has_sizes_that_grow() {
        let c = Caches::of_this_machine();
        assert!(c.l1 >= 4 << 10 && c.l1 <= c.l2 && c.l2 <= c.l3, "{c:?}");
    }
}
