//! The macros against the real runtime: what they expand to builds graphs.

use mobilis::graph::trace::{self, Mode};
use mobilis::prelude::*;

axes! {
    /// Sequences in a batch.
    pub Batch;
    pub Time;
    pub Source;
    pub Hidden = 128;
    pub Heads = 4;
    pub HeadDim = Hidden / Heads;
    pub Ffn = 4 * Hidden;
    pub Samples;
    pub Frames = floor(Samples / 160) + 1;
    pub Pairs = 2 * Time;
}

mod family {
    use mobilis::prelude::*;

    axes! {
        /// The axes of a small transformer.
        pub trait TinyAxes { Vocab, Heads, HeadDim, Hidden = Heads * HeadDim, Ffn = 4 * Hidden }
    }
}
use family::TinyAxes;

axes! {
    /// An instance.
    pub struct Tiny: TinyAxes { Vocab = 256, Heads = 4, HeadDim = 8, Ffn = 3 * Hidden }
    pub struct Any: TinyAxes;
    pub struct Mixed: family::TinyAxes { Vocab, Heads = 2, HeadDim = 8 }
}

elements! {
    pub Speech: Real;
    pub CleanSpeech: Speech;
}

#[test]
fn axes_know_their_sizes() {
    assert_eq!((HeadDim::SIZE, Ffn::SIZE, Batch::SIZE, Frames::SIZE), (Some(32), Some(512), None, None));
    assert_eq!(HeadDim::NAME, "HeadDim");
    assert_ne!(Batch::PATH, Time::PATH);
    assert!(Batch::PATH.starts_with("core::language::Batch@"), "{}", Batch::PATH);
    let sizes = Sizes::new().with::<Samples>(1600);
    assert_eq!(Frames::extent().eval(&sizes), Ok(11));
    assert_eq!(<Tiny as TinyAxes>::Hidden::SIZE, Some(32));
    assert_eq!(<Tiny as TinyAxes>::Ffn::SIZE, Some(96));
    assert_eq!(<Any as TinyAxes>::Ffn::SIZE, None);
    assert_eq!(<Mixed as TinyAxes>::Ffn::SIZE, Some(64));
    assert_ne!(<Any as TinyAxes>::Vocab::PATH, <Mixed as TinyAxes>::Vocab::PATH);
    fn value<A: Axis>() -> A {
        A::AXIS
    }
    let _: Time = value();
}

#[test]
fn axes_of_functions_are_their_own() {
    fn one() -> &'static str {
        axes! { Local; }
        Local::PATH
    }
    fn two() -> &'static str {
        axes! { Local; }
        Local::PATH
    }
    assert_ne!(one(), two());
}

fn leaf<S: Shape, E: Element>(name: &str) -> Tensor<S, E> {
    Tensor::from_raw(trace::input(name.into(), Tensor::<S, E>::type_of(), E::NAME))
}

/// The type of what `f` builds, as the graph sees it.
fn traced<S: Shape, E: Element>(f: impl FnOnce() -> Tensor<S, E>) -> String {
    let (graph, out) = trace::trace(None, Mode::Eval, &|_| false, || {
        let y = f();
        trace::output(y.raw());
        (trace::type_of(y.raw()).to_string(), Tensor::<S, E>::type_of().to_string())
    })
    .expect("the trace succeeds");
    assert_eq!(out.0, out.1, "what the graph computed and what the compiler did");
    assert!(!graph.nodes.is_empty());
    out.0
}

#[test]
fn equations_build_what_they_say() {
    let attention = traced(|| {
        let q: Tensor![Batch, Time, Heads, HeadDim] = leaf("q");
        let k: Tensor![Batch, Source, Heads, HeadDim] = leaf("k");
        einsum!(q[b t h d] * k[b s h d] => [b h t s])
    });
    assert!(attention.contains("Heads=4, Time, Source"), "{attention}");
    traced(|| {
        let x: Tensor![Batch, Time, Hidden; Speech] = leaf("x");
        let y: Tensor![Batch, Heads, Time, HeadDim; Speech] = rearrange!(x[b t (h d)] => [b h t d]);
        rearrange!(y[b h t d] => [b t (h d) as Hidden])
    });
    traced(|| {
        let x: Tensor![Batch, Time, Hidden] = leaf("x");
        rearrange!(x[b t (Heads d)] => [b Heads 2 t 1 d]) as Tensor![Batch, Heads, 2, Time, 1, HeadDim]
    });
    traced(|| {
        let x: Tensor![Batch, 1, Pairs] = leaf("x");
        reduce!(max: x[b 1 (t 2)] => [b t]) as Tensor![Batch, Time]
    });
}

#[test]
fn equations_see_generic_axes() {
    fn project<A: TinyAxes>(x: Tensor![Batch, A::Hidden], w: Tensor![A::Ffn, A::Hidden]) -> Tensor![Batch, A::Ffn] {
        einsum!(x[b A::Hidden] * w[A::Ffn A::Hidden] => [b A::Ffn])
    }
    traced(|| project::<Any>(leaf("x"), leaf("w")));
}
