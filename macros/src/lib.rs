//! The language of Mobilis.
