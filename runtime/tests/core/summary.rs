//! The summary of a model, as text and as JSON.

use mobilis::prelude::*;

axes! {
    pub Vocab = 256;
    pub Hidden;
    pub Ffn = 4 * Hidden;
}

#[neural_module]
struct Norm {
    weight: Param<(Hidden,)>,
    #[default(1e-6)]
    eps: f64,
}

#[neural_module]
struct Block {
    norm: Norm,
    up: Param<(Ffn, Hidden)>,
    steps: Buffer<(), Index>,
}

#[neural_module]
struct Gpt {
    #[name("wte.weight")]
    embed: Param<(Vocab, Hidden)>,
    #[name("h")]
    #[default(mobilis::module::repeat(3))]
    blocks: Vec<Block>,
    norm: Norm,
    #[name("head.weight")]
    #[tie(embed)]
    head: Param<(Vocab, Hidden)>,
}

fn model() -> Model<Gpt> {
    Model::init_with(Gpt::default(), 0, Sizes::new().with::<Hidden>(8)).unwrap()
}

#[test]
fn the_table() {
    let mut model = model();
    model.freeze("wte.**").unwrap();
    let expected = "\
module or parameter  type or shape           values  in training
───────────────────────────────────────────────────────────────────────
Gpt                                           2,848
├─ wte.weight        [Vocab=256, Hidden=8]    2,048  frozen
├─ h.0 … h.2         Block                  3 × 264
│  ├─ norm           Norm(eps = 0.000001)         8
│  │  └─ weight      [Hidden=8]                   8  trained
│  ├─ up             [Ffn=32, Hidden=8]         256  trained
│  └─ steps          [] i32                     (1)  buffer
├─ norm              Norm(eps = 0.000001)         8
│  └─ weight         [Hidden=8]                   8  trained
└─ head.weight       [Vocab=256, Hidden=8]           tied to wte.weight
axes: Hidden = 8
parameters: 2,848 (800 trained, 2,048 frozen), 11.4 kB; buffers: 3";
    assert_eq!(model.summary().to_string(), expected, "\n{}", model.summary());
}

#[test]
fn blocks_that_differ_stand_apart() {
    let mut model = model();
    model.freeze("h.1.up").unwrap();
    let text = model.summary().to_string();
    for name in ["├─ h.0 ", "├─ h.1 ", "├─ h.2 "] {
        assert!(text.contains(name), "{text}");
    }
    let full = format!("{:#}", self::model().summary());
    assert_eq!(full.matches("Block").count(), 3);
    assert!(!full.contains('…'));
}

#[test]
fn totals_agree_with_the_model() {
    let mut model = model();
    model.freeze("h.*.up").unwrap();
    let summary = model.summary();
    assert_eq!(summary.parameters(), model.parameter_count());
    assert_eq!(summary.trainable, model.trainable_count());
    assert_eq!(summary.buffers, 3);
    assert_eq!(summary.root.count, model.parameter_count());
}

#[test]
fn json_has_every_module_and_parameter() {
    let text = model().summary().to_json().to_string();
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(json["parameters"], 2848);
    assert_eq!(json["axes"]["Hidden"], 8);
    let children = json["module"]["children"].as_array().unwrap();
    assert_eq!(children.len(), 6);
    assert_eq!(children[1]["type"], "Block");
    assert_eq!(children[1]["path"], "h.0");
    assert_eq!(children[1]["children"][0]["hyper"]["eps"], "0.000001");
    assert_eq!(children[1]["children"][1]["sizes"], serde_json::json!([32, 8]));
    assert_eq!(children[1]["children"][2]["dtype"], "i32");
    assert_eq!(children[5]["state"], "tied");
    assert_eq!(children[5]["tied_to"], "wte.weight");
}
