//! Tokens that are drawn where the logits are: a model on a GPU gives back a number for each text instead of a number
//! for each token of the vocabulary. What is drawn is what the CPU draws from the same logits.

use super::super::context::{Context, PerRow};
use super::super::{Batch, CausalLm, Ids};
use super::{Session, SessionError, flat, last};
use mobilis_runtime::Const;
use mobilis_runtime::ops::sample::{self, NOT_NUMBERS, NOTHING};
use mobilis_runtime::prelude::*;
use mobilis_runtime::program::Program;
use mobilis_runtime::sampling::{Draw, NotNumbers};

/// A token, nothing where none is possible.
pub type Drawn = Result<Option<u32>, NotNumbers>;

type Arguments = (Ids, PerRow, PerRow, PerRow, Tensor<(Batch, Const<3>)>, Tensor<(Batch, Const<5>), Index>);
pub(super) type Drawing = Program<Arguments, Tensor<(Batch,), Index>>;

impl<M: CausalLm> Session<M> {
    /// The program for prompts or single tokens.
    fn drawing(&mut self, single: bool) -> Result<&Drawing, SessionError> {
        let place = single as usize;
        if self.drawings[place].is_none() {
            let caches = &self.caches;
            let f = |m: &M, (ids, start, count, end, settings, numbers): Arguments| {
                let cx = Context::over(caches, start, count).ending(end);
                sample::sample(flat(m.head(last(m.stream(ids, &cx), count))), settings, numbers)
            };
            let program = self.model.compile_with(&self.sizes, f)?;
            self.drawings[place] = Some(program.with_weights(self.options.weights.clone())?);
        }
        Ok(self.drawings[place].as_ref().expect("it was just made"))
    }

    /// [`Sessions::draw`](super::Sessions::draw) of checked rows.
    pub(super) fn drawn(&mut self, rows: &[&[u32]], draws: &[Draw]) -> Result<Vec<Drawn>, SessionError> {
        let (settings, numbers): (Vec<_>, Vec<_>) = draws.iter().map(sample::arguments).unzip();
        let (settings, numbers): (Vec<f32>, Vec<i32>) = (settings.concat(), numbers.concat());
        let mut all = vec![Ok(None); rows.len()];
        for piece in self.pieces(rows) {
            self.reread(&piece)?;
            let (ids, start, count, end) = self.arguments(&piece);
            let single = ids.sizes()[1] == 1;
            let settings = <Array<(Batch, Const<3>)>>::from_parts(&[rows.len(), 3], settings.clone());
            let numbers = <Array<(Batch, Const<5>), Index>>::from_parts(&[rows.len(), 5], numbers.clone());
            let out = self.drawing(single)?.run((ids, start, count, end, settings, numbers))?.into_vec();
            self.advance(&piece);
            for ((to, token), _) in all.iter_mut().zip(out).zip(piece).filter(|(_, tokens)| !tokens.is_empty()) {
                *to = match token {
                    NOTHING => Ok(None),
                    NOT_NUMBERS => Err(NotNumbers),
                    id => Ok(Some(id as u32)),
                };
            }
        }
        Ok(all)
    }
}
