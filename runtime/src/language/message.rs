//! A message builder that works in constants, so that a failed proof can print shapes in axis
//! names and a counter-example at build time.

/// Text of bounded length, built in a constant. What does not fit is cut off.
#[derive(Clone, Copy)]
pub struct Message {
    bytes: [u8; 768],
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self::new()
    }
}

impl Message {
    /// The empty message.
    pub const fn new() -> Self {
        Message { bytes: [0; 768], len: 0 }
    }

    /// Appends text.
    pub const fn text(mut self, s: &str) -> Self {
        let b = s.as_bytes();
        let mut i = 0;
        while i < b.len() && self.len < self.bytes.len() {
            self.bytes[self.len] = b[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    /// Appends a number in decimal.
    pub const fn number(mut self, mut v: u64) -> Self {
        let mut digits = [0u8; 20];
        let mut k = 0;
        while v > 0 || k == 0 {
            digits[k] = b'0' + (v % 10) as u8;
            v /= 10;
            k += 1;
        }
        while k > 0 && self.len < self.bytes.len() {
            k -= 1;
            self.bytes[self.len] = digits[k];
            self.len += 1;
        }
        self
    }

    /// Appends a shape: `[Batch, Time]`.
    pub const fn shape(mut self, names: &[&str]) -> Self {
        self = self.text("[");
        let mut i = 0;
        while i < names.len() {
            if i > 0 {
                self = self.text(", ");
            }
            self = self.text(names[i]);
            i += 1;
        }
        self.text("]")
    }

    /// The text so far.
    pub const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(s) => s,
            Err(_) => "?",
        }
    }
}
