//! An activation of whole numbers: they are made real first.

use mobilis::prelude::*;

axes! { pub Time; }

pub fn activate(x: Tensor![Time; Index]) -> Tensor![Time] {
    x.gelu()
}
