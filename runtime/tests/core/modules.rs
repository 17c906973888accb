//! `#[neural_module]` against the real runtime.

use mobilis::graph::trace::{self, Mode};
use mobilis::module::init::Init;
use mobilis::module::{Item, walk};
use mobilis::prelude::*;

axes! {
    Batch;
    Time;
    Vocab = 11;
    Hidden = 8;
    Ffn = 4 * Hidden;
}

#[neural_module]
struct Dense<I: Axis, O: Axis> {
    #[init(normal(0.02))]
    weight: Param![O, I],
    bias: Option<Param![O]>,
}

#[neural_module]
impl<I: Axis, O: Axis> Dense<I, O> {
    /// `x W^T`.
    pub fn forward<S: EndsWith<I>>(&self, x: Tensor<S>) -> Tensor<S::With<O>> {
        Tensor::from_raw(mobilis::ops::contraction::linear(x.raw(), self.weight.get().raw()))
    }
}

#[derive(Debug, Default, Clone, Copy)]
enum Shape3 {
    #[default]
    Round,
}

#[neural_module]
struct Mlp {
    #[name("up_proj")]
    up: Dense<Hidden, Ffn>,
    #[name("down_proj")]
    down: Dense<Ffn, Hidden>,
    rate: f32,
    #[hyper]
    form: Shape3,
    #[skip]
    #[default(3)]
    _hidden: usize,
}

#[neural_module]
impl Mlp {
    pub fn forward(&self, x: Tensor![Batch, Time, Hidden]) -> Tensor![Batch, Time, Hidden] {
        self.down.forward(self.up.forward(x))
    }
    /// Not an entry point.
    pub fn rate(&self) -> f32 {
        self.rate
    }
}

#[neural_module]
struct Head(Param![Vocab, Hidden]);

#[neural_module]
struct Nothing;

#[neural_module]
struct Net {
    embed: Head,
    blocks: [Mlp; 2],
    #[default(repeat(3))]
    more: Vec<Mlp>,
    stack: (Dense<Hidden, Ffn>, Dense<Ffn, Hidden>),
    #[tie(0 = embed.0)]
    head: Head,
    nothing: Nothing,
}

#[neural_module]
impl Net {
    pub fn forward(
        &self,
        ids: Tensor![Batch, Time; TokenId],
        mut x: Tensor![Batch, Time, Hidden],
    ) -> Tensor![Batch, Time; TokenId] {
        x = self.blocks[0].forward(x);
        let _ = self.more[1].forward(x);
        let _ = self.stack.call(x);
        ids
    }

    pub fn embed(&self, x: Tensor![Batch, Time, Hidden; Encoded], scale: f32) -> Tensor![Batch, Time, Hidden] {
        assert!(scale > 0.0);
        self.blocks[1].forward(x.plain())
    }
}

fn names(module: &dyn Module) -> Vec<String> {
    let mut out = Vec::new();
    walk(module, &mut |path, item| match item {
        Item::Var(_) => out.push(path.to_string()),
        Item::Hyper(value) => out.push(format!("{path} = {value}")),
        Item::Module(_) => {}
    });
    out
}

#[test]
fn fields_are_visited_in_order_under_their_names() {
    let mlp = Mlp::default();
    assert_eq!(names(&mlp), ["up_proj.weight", "down_proj.weight", "rate = 0", "form = Round"]);
    assert_eq!(mlp.rate(), 0.0);
    let net = Net::default();
    let all = names(&net);
    assert_eq!(all[0], "embed.0");
    assert!(all.contains(&"blocks.1.down_proj.weight".into()), "{all:?}");
    assert!(all.contains(&"more.2.up_proj.weight".into()), "{all:?}");
    assert!(all.contains(&"stack.0.weight".into()), "{all:?}");
    assert_eq!(net.kind(), "Net");
    assert_eq!(net.head.0.id(), net.embed.0.id());
    assert_ne!(net.blocks[0].up.weight.id(), net.blocks[1].up.weight.id());
}

use mobilis::module::AnyVar;

#[test]
fn initializers_are_the_fields_own() {
    let dense = Dense::<Hidden, Ffn>::default();
    assert_eq!(dense.weight.init(), Init::Normal { mean: 0.0, std: 0.02 });
    assert_eq!(Head::default().0.init(), Init::default());
}

#[test]
fn entry_points_name_scopes_and_arguments() {
    let net = Net::default();
    let (graph, ()) = trace::trace(Some(&net), Mode::Eval, &|_| false, || {
        let ids = trace::input("argument 0".into(), <Tensor![Batch, Time; TokenId]>::type_of(), "TokenId");
        let x = trace::input("argument 1".into(), <Tensor![Batch, Time, Hidden]>::type_of(), "Real");
        // Ports take the element, a refinement, or the plain base.
        let ids: Tensor![Batch, Time; TokenId] = Tensor::from_raw(ids);
        let x: Tensor![Batch, Time, Hidden] = Tensor::from_raw(x);
        let _ = net.forward(ids.plain(), x);
        let _ = net.embed(x, 1.0);
        let _ = net.embed(x.assume::<AcousticEncoded>(), 1.0);
        let _: Tensor![Batch, Time; TokenId] = net.call((ids, x));
    })
    .expect("the trace succeeds");
    let inputs: Vec<&str> = graph.inputs.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(inputs, ["ids", "x"]);
    let scopes: Vec<&str> = graph.scopes.iter().map(|s| s.path.as_str()).collect();
    assert!(scopes.contains(&"blocks.0.up_proj") && scopes.contains(&"more.1.down_proj"), "{scopes:?}");
    assert!(scopes.contains(&"stack.1"), "{scopes:?}");
}

/// They have no size, so all of one type lie at one address.
#[test]
fn modules_without_fields_are_told_apart() {
    use mobilis::nn::Relu;
    let net = (Relu, Relu, (Relu, Relu));
    let (graph, ()) = trace::trace(Some(&net), Mode::Eval, &|_| false, || {
        let ty = <Tensor![Batch, Hidden]>::type_of();
        let x: Tensor![Batch, Hidden] = Tensor::from_raw(trace::input("x".into(), ty, "Real"));
        trace::output(net.forward(x).raw());
    })
    .expect("well-shaped");
    let paths: Vec<&str> = graph.scopes.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["", "0", "1", "2.0", "2.1"]);
}
