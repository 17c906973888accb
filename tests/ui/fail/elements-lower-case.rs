//! Elements are types.

use mobilis::prelude::*;

elements! {
    pub token_id: Index;
}
