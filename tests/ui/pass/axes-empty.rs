//! Nothing to declare.

use mobilis::prelude::*;

axes! {}
elements! {}
