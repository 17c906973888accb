//! Recognizers.

mod conformer;
