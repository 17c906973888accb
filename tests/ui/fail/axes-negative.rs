//! A difference below zero.

use mobilis::prelude::*;

axes! {
    pub Kernel = 5;
    pub Valid = 3 - Kernel + 1;
}
