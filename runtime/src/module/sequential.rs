//! Sequential tuples: `(A, B, C)` is a module that feeds each part to the next.

use super::{Member, Module, NeuralModule, Visitor};

/// `forward` for tuples of modules. A trait of its own, whose only condition is on the method, so
/// that two parts that do not fit together are reported as such: "module `B` does not take ..".
pub trait Sequential {
    /// Feeds the input to the first part, its output to the second, and so on.
    fn forward<In>(&self, input: In) -> Self::Output
    where
        Self: NeuralModule<In>,
    {
        self.call(input)
    }
}

/// The module without parameters: `Model::init((), 0)?.compile(|_, x| f(x))` runs a function.
impl Module for () {
    fn kind(&self) -> &'static str {
        "Function"
    }
    fn visit<'a>(&'a self, _: &mut dyn Visitor<'a>) {}
}

macro_rules! tuples {
    ($($($t:ident $i:tt),+;)+) => {$(
        impl<$($t),+> Sequential for ($($t,)+) {}
        #[diagnostic::do_not_recommend]
        impl<$($t: Member),+> Module for ($($t,)+) {
            fn kind(&self) -> &'static str {
                "Sequential"
            }
            fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
                $(self.$i.member(stringify!($i), visitor);)+
            }
        }
    )+};
}
tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11;
}

macro_rules! chains {
    ($($first:ident $fi:tt $(, $t:ident $i:tt : $p:ident)*;)+) => {$(
        impl<In, $first: NeuralModule<In> $(, $t: NeuralModule<$p::Output>)*> NeuralModule<In> for ($first, $($t,)*) {
            type Output = chains!(@last $first $(, $t)*);
            fn call(&self, input: In) -> Self::Output {
                let x = self.$fi.call(input);
                $(let x = self.$i.call(x);)*
                x
            }
        }
    )+};
    (@last $t:ident) => { $t::Output };
    (@last $t:ident, $($rest:ident),+) => { chains!(@last $($rest),+) };
}
chains! {
    A 0;
    A 0, B 1: A;
    A 0, B 1: A, C 2: B;
    A 0, B 1: A, C 2: B, D 3: C;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E, G 6: F;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E, G 6: F, H 7: G;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E, G 6: F, H 7: G, I 8: H;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E, G 6: F, H 7: G, I 8: H, J 9: I;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E, G 6: F, H 7: G, I 8: H, J 9: I, K 10: J;
    A 0, B 1: A, C 2: B, D 3: C, E 4: D, F 5: E, G 6: F, H 7: G, I 8: H, J 9: I, K 10: J, L 11: K;
}
