//! Models: sizes, initial values, names, freezing, reading and writing of values.

use mobilis::module::init::Init;
use mobilis::prelude::*;

axes! {
    pub Vocab;
    pub Hidden;
    pub Ffn = 4 * Hidden;
    pub Three = 3;
}

#[neural_module]
struct Proj {
    weight: Param<(Ffn, Hidden)>,
    bias: Param<(Ffn,)>,
}

#[neural_module]
struct Net {
    #[init(normal(0.02))]
    embed: Param<(Vocab, Hidden)>,
    #[default(mobilis::module::repeat(2))]
    blocks: Vec<Proj>,
    #[init(ones())]
    scale: Param<(Three,)>,
    mean: Buffer<(Three,)>,
    steps: Buffer<(), Index>,
    #[tie(embed)]
    head: Param<(Vocab, Hidden)>,
}

fn sizes() -> Sizes {
    Sizes::new().with::<Vocab>(10).with::<Hidden>(4)
}

fn net() -> Net {
    Net::default()
}

fn model() -> Model<Net> {
    Model::init_with(net(), 1, sizes()).unwrap()
}

#[test]
fn parameters_are_listed_in_order_with_sizes() {
    let model = model();
    let list: Vec<(String, Vec<usize>, usize)> =
        model.parameters().map(|p| (p.name().into(), p.sizes.clone(), p.declared.names.len())).collect();
    let expected = [
        ("embed", vec![10, 4], 2),
        ("blocks.0.weight", vec![16, 4], 1),
        ("blocks.0.bias", vec![16], 1),
        ("blocks.1.weight", vec![16, 4], 1),
        ("blocks.1.bias", vec![16], 1),
        ("scale", vec![3], 1),
        ("mean", vec![3], 1),
        ("steps", vec![], 1),
    ];
    assert_eq!(list, expected.map(|(n, s, k)| (n.to_string(), s, k)));
    // Buffers are not parameters, the tied one counts once.
    assert_eq!(model.parameter_count(), 40 + 2 * (64 + 16) + 3);
    assert_eq!(model.trainable_count(), model.parameter_count());
    // The model is its module.
    assert_eq!(model.blocks.len(), 2);
}

#[test]
fn initial_values_follow_seed_and_name() {
    let (a, b) = (model(), model());
    let values = |m: &Model<Net>, name: &str| m.get::<f32>(name).unwrap();
    assert_eq!(values(&a, "embed"), values(&b, "embed"));
    assert_eq!(values(&a, "embed"), values(&a, "head"));
    assert_ne!(values(&a, "blocks.0.weight"), values(&a, "blocks.1.weight"));
    let other = Model::init_with(net(), 2, sizes()).unwrap();
    assert_ne!(values(&a, "embed"), values(&other, "embed"));
    assert_eq!(values(&a, "scale"), [1.0; 3]);
    assert_eq!(values(&a, "blocks.1.bias"), [0.0; 16]);
    let bound = 1.0 / 4f32.sqrt();
    assert!(values(&a, "blocks.0.weight").iter().all(|v| v.abs() <= bound));
    assert_eq!(a.get::<i32>("steps").unwrap(), [0]);
}

#[test]
fn axes_without_sizes_are_listed_at_once() {
    let e = Model::init(net(), 1).unwrap_err().to_string();
    assert_eq!(
        e,
        "axes are bound at run time and have no size: `Vocab` (of `embed`), `Hidden` (of `embed`); give sizes with `Sizes::new().with::<Vocab>(..)`"
    );
    let e = Model::init_with(net(), 1, Sizes::new().with::<Vocab>(10)).unwrap_err().to_string();
    assert!(e.starts_with("an axis is bound at run time and has no size: `Hidden` (of `embed`)"), "{e}");
    // A derived axis binds the one that it is made of.
    assert!(Model::init_with(net(), 1, Sizes::new().with::<Vocab>(10).with::<Ffn>(16)).is_ok());
}

#[test]
fn contradicting_and_absurd_sizes_are_refused() {
    let e = Model::init_with(net(), 1, sizes().with::<Ffn>(15)).unwrap_err().to_string();
    assert_eq!(e, "sizes of the model: axis `Ffn` is given the size 15, but 4 * Hidden is 16");
    let e = Model::init_with(net(), 1, sizes().with::<Three>(4)).unwrap_err().to_string();
    assert!(e.contains("axis `Three` is given the size 4, but its size is 3"), "{e}");
    let huge = Sizes::new().with::<Vocab>(1 << 40).with::<Hidden>(1 << 40);
    let e = Model::init_with(net(), 1, huge).unwrap_err().to_string();
    assert_eq!(e, "parameter `embed` of sizes [1099511627776, 1099511627776] is larger than memory");
}

#[test]
fn an_empty_axis_is_allowed() {
    let model = Model::init_with(net(), 1, Sizes::new().with::<Vocab>(0).with::<Hidden>(4)).unwrap();
    assert!(model.get::<f32>("embed").unwrap().is_empty());
}

#[neural_module]
struct Twice {
    #[name("a.weight")]
    first: Param<(Three,)>,
    a: Inner,
}
#[neural_module]
struct Inner {
    weight: Param<(Three,)>,
}

#[test]
fn two_parameters_of_one_name_are_an_error() {
    let e = Model::init(Twice::default(), 0).unwrap_err().to_string();
    assert!(e.starts_with("two parameters are called `a.weight`"), "{e}");
}

#[test]
fn an_initializer_without_sense_is_refused() {
    let bad = Inner { weight: Param::new(Init::Normal { mean: 0.0, std: -1.0 }) };
    let e = Model::init(bad, 0).unwrap_err().to_string();
    assert!(e.starts_with("parameter `weight` cannot be filled"), "{e}");
}

#[test]
fn values_are_read_and_written() {
    let model = model();
    model.set("scale", &[1.0f32, 2.0, 3.0]).unwrap();
    assert_eq!(model.get::<f32>("scale").unwrap(), [1.0, 2.0, 3.0]);
    // Tied: one value under both names.
    model.set("head", &[0.5f32; 40]).unwrap();
    assert_eq!(model.get::<f32>("embed").unwrap(), [0.5; 40]);
    model.set("steps", &[7i32]).unwrap();
    assert_eq!(model.value(&model.steps).unwrap().item(), 7);

    let text = |r: Result<(), ModelError>| r.unwrap_err().to_string();
    assert_eq!(text(model.set("scale", &[1.0f32])), "parameter `scale` [Three=3] holds 3 values, but 1 are given");
    assert_eq!(text(model.set("steps", &[1.0f32])), "parameter `steps` holds i32, not f32");
    assert_eq!(
        text(model.set("blocks.0.wieght", &[1.0f32])),
        "the model has no parameter `blocks.0.wieght`; did you mean `blocks.0.weight`?"
    );
    assert!(model.get::<bool>("scale").is_err());
}

#[test]
fn typed_values() {
    let model = model();
    let embed = model.value(&model.embed).unwrap();
    assert_eq!(embed.sizes(), [10, 4]);
    let doubled = embed.map(|v| 2.0 * v);
    model.set_value(&model.embed, &doubled).unwrap();
    assert_eq!(model.value(&model.head).unwrap(), doubled);
    let e = model.set_value(&model.embed, &Array::zeros([10, 5]).unwrap()).unwrap_err();
    assert_eq!(e.to_string(), "parameter `embed` is [Vocab, Hidden] of sizes [10, 4], but the array's are [10, 5]");
    let stranger: Param<(Three,)> = Param::default();
    assert!(matches!(model.value(&stranger), Err(ModelError::NotOfThisModel)));
}

#[test]
fn the_reference_precision_keeps_values() {
    let model = model();
    let before = model.get::<f32>("embed").unwrap();
    model.store().to_reference();
    assert_eq!(model.get::<f32>("embed").unwrap(), before);
    model.set("embed", &before).unwrap();
    model.store().to_single();
    assert_eq!(model.get::<f32>("embed").unwrap(), before);
}

#[test]
fn freezing_by_pattern() {
    let mut model = model();
    assert_eq!(model.freeze("blocks.*.bias").unwrap(), 2);
    assert!(model.is_frozen("blocks.0.bias") && !model.is_frozen("blocks.0.weight"));
    assert_eq!(model.trainable_count(), model.parameter_count() - 32);
    assert_eq!(model.freeze("**").unwrap(), 6);
    assert_eq!(model.trainable_count(), 0);
    assert_eq!(model.unfreeze("head").unwrap(), 1);
    // Tied: unfrozen at both places.
    assert!(!model.is_frozen("embed"));
    assert_eq!(model.trainable_count(), 40);

    let text = |r: Result<usize, ModelError>| r.unwrap_err().to_string();
    assert_eq!(text(model.freeze("scael")), "no parameter matches `scael`; did you mean `scale`?");
    assert_eq!(
        text(model.freeze("blocks.0")),
        "no parameter matches `blocks.0`: it means a module; did you mean `blocks.0.**`?"
    );
    assert_eq!(text(model.freeze("block.0.**")), "no parameter matches `block.0.**`; did you mean `blocks.0.**`?");
    assert!(text(model.freeze("mean")).contains("is a buffer"));
    assert_eq!(text(model.unfreeze("zzzzzzzzz")), "no parameter matches `zzzzzzzzz`");
}
