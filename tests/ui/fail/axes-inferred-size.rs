//! A declared axis has a size or is bound at run time.

use mobilis::prelude::*;

axes! {
    pub Hidden = _;
}
