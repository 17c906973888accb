//! Elements that refine each other.

use mobilis::prelude::*;

elements! {
    pub Spectrum: Energy;
    pub Energy: Spectrum;
}
