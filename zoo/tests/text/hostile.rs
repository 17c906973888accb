//! Broken and hostile files and texts: an error in words, soon, and no more memory than the input's size
//! deserves.
