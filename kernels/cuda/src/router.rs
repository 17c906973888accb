//! Routing of tokens to experts (`router.cu`): the best scores of each token, and their weights.

use crate::size::{count, int, refused, tiles};
use crate::{CudaError, Launch, Ptr, args};

const NAME: &str = "router";

/// How experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// Tokens.
    pub tokens: usize,
    /// Experts, at most 256.
    pub experts: usize,
    /// How many of them a token gets.
    pub chosen: usize,
    /// Scores are sigmoids of logits, not their softmax.
    pub sigmoid: bool,
    /// Weights are divided by their sum.
    pub normalise: bool,
    /// What weights are multiplied by.
    pub scale: f32,
}

/// From `logits [tokens, experts]`: experts `[tokens, chosen]` of `i32`, the best first, the lower index first among
/// equals, and their weights `[tokens, chosen]`. A bias `[experts]`, where it is not null, is added for the choice alone.
///
/// # Errors
/// More than 256 experts, more chosen than there are, 2³¹ logits or more.
pub fn choose(r: &Router, logits: Ptr, bias: Ptr, chosen: Ptr, weights: Ptr) -> Result<Vec<Launch>, CudaError> {
    count(NAME, "the logits", &[r.tokens, r.experts])?;
    if r.experts > 256 || r.chosen > r.experts {
        return Err(refused(NAME, format!("{} of {} experts, at most 256 are taken", r.chosen, r.experts)));
    }
    if r.tokens * r.chosen == 0 {
        return Ok(vec![]);
    }
    let (tokens, experts, k) = (int(NAME, "tokens", r.tokens)?, r.experts as i32, r.chosen as i32);
    let args = args![logits, bias, chosen, weights, tokens, experts, k, r.sigmoid as i32, r.normalise as i32, r.scale];
    Ok(vec![Launch::new("router_top_f32", [tiles(r.tokens, 8), 1, 1], 256, args)])
}
