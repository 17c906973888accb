//! Lists that share their beginnings, as the texts of a beam do.
//!
//! A beam keeps several texts, and each frame makes new ones of them that are longer by a token or two. Copied, they
//! would cost the length of a recording at every frame, and the square of it in all. Here a list is its last value and
//! the list before it, which others may share: to add one costs as much at the end of an hour as at its beginning.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// A list.
pub(super) struct Chain<T>(Option<Rc<Link<T>>>);

struct Link<T> {
    value: T,
    len: usize,
    before: Chain<T>,
}

impl<T> Default for Chain<T> {
    fn default() -> Self {
        Chain(None)
    }
}

impl<T> Clone for Chain<T> {
    fn clone(&self) -> Self {
        Chain(self.0.clone())
    }
}

/// Link by link: each within the drop of the one behind it would exhaust the stack.
impl<T> Drop for Chain<T> {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut link) = next.and_then(Rc::into_inner) {
            next = link.before.0.take();
        }
    }
}

impl<T> Chain<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |link| link.len)
    }

    /// The last value.
    pub(super) fn last(&self) -> Option<&T> {
        self.0.as_ref().map(|link| &link.value)
    }

    /// The list without its last value.
    pub(super) fn before(&self) -> Chain<T> {
        self.0.as_ref().map_or_else(Chain::default, |link| link.before.clone())
    }

    /// The list with another value behind it.
    pub(super) fn with(&self, value: T) -> Chain<T> {
        Chain(Some(Rc::new(Link { value, len: self.len() + 1, before: self.clone() })))
    }

    /// The values, the last first.
    pub(super) fn backwards(&self) -> impl Iterator<Item = &T> {
        let mut at = self;
        std::iter::from_fn(move || {
            let link = at.0.as_ref()?;
            at = &link.before;
            Some(&link.value)
        })
    }

    /// The values in order.
    pub(super) fn to_vec(&self) -> Vec<T>
    where
        T: Clone,
    {
        let mut all: Vec<T> = self.backwards().cloned().collect();
        all.reverse();
        all
    }

    /// Whether two lists are as long and alike all along, which need not be looked at where they are the same.
    fn like(&self, other: &Chain<T>, alike: impl Fn(&T, &T) -> bool) -> bool {
        let (mut a, mut b) = (self, other);
        while a.len() == b.len() {
            let (Some(one), Some(two)) = (&a.0, &b.0) else { return true };
            if Rc::ptr_eq(one, two) {
                return true;
            }
            if !alike(&one.value, &two.value) {
                return false;
            }
            (a, b) = (&one.before, &two.before);
        }
        false
    }
}

/// Tokens as the key of a map: texts are equal whose tokens are, whenever these were heard.
#[derive(Clone, Default)]
pub(super) struct Text {
    /// The tokens.
    pub(super) tokens: Chain<super::Token>,
    /// Of their indices.
    hash: u64,
}

impl Text {
    /// The text with another token.
    pub(super) fn with(&self, token: super::Token) -> Text {
        // FNV's step, with a turn so that high bits come down.
        let hash = (self.hash ^ u64::from(token.id)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        Text { tokens: self.tokens.with(token), hash: hash.wrapping_add(1) }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.hash == other.hash && self.tokens.like(&other.tokens, |a, b| a.id == b.id)
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Token;
    use super::*;

    #[test]
    fn lists_grow_share_and_end() {
        let one = Chain::default().with(1).with(2);
        let (a, b) = (one.with(3), one.with(4));
        assert_eq!((a.to_vec(), b.to_vec(), one.to_vec()), (vec![1, 2, 3], vec![1, 2, 4], vec![1, 2]));
        assert_eq!((a.len(), a.last(), a.before().to_vec()), (3, Some(&3), vec![1, 2]));
        assert_eq!(a.backwards().copied().collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(Chain::<u8>::default().before().len(), 0);
        assert!(a.like(&a.before().with(3), |x, y| x == y) && !a.like(&b, |x, y| x == y) && !a.like(&one, |_, _| true));
        // Long ones, of which a part is shared.
        let long = (0..1_000_000).fold(a.clone(), |all, i| all.with(i));
        let branch = long.before();
        drop(long);
        assert_eq!(branch.len(), 1_000_002);
        drop(branch);
        assert_eq!(a.to_vec(), [1, 2, 3]);
    }

    #[test]
    fn texts_are_known_by_their_tokens() {
        let token = |id: u32, start: usize| Token { id, start, end: start + 1, confidence: 1.0 };
        let of = |ids: &[(u32, usize)]| ids.iter().fold(Text::default(), |text, (id, at)| text.with(token(*id, *at)));
        assert!(of(&[(1, 0), (2, 5)]) == of(&[(1, 3), (2, 4)]));
        for other in [&[(2, 0), (1, 5)][..], &[(1, 0)], &[(1, 0), (2, 5), (0, 6)], &[], &[(0, 0), (1, 0), (2, 0)]] {
            assert!(of(&[(1, 0), (2, 5)]) != of(other));
        }
    }
}
