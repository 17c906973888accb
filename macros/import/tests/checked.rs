//! A checkpoint that was checked when this file was compiled, as a model of static sizes.

use mobilis::prelude::*;
use mobilis::zoo::llm::llama::{LlamaAxes, llama};
use mobilis::zoo::llm::{Batch, CausalLm, Config, Ids, Time};

mobilis_import::import_model! {
    /// A small Llama with random weights.
    pub struct Tiny: LlamaAxes = "tests/tiny-llama";
}

// The sizes are known to the compiler.
const _: () = assert!(matches!(<Tiny as LlamaAxes>::Hidden::SIZE, Some(16)));

#[test]
fn the_checkpoint_runs() {
    let config = Config::parse("config.json", Tiny::CONFIG).expect("it was read before");
    let model = Model::load(llama::<Tiny>(&config).expect("a Llama"), Tiny::PATH).expect("it was checked before");
    let program = model.compile(|m, ids: Ids| m.logits(ids)).expect("a program");
    let ids = <Array![Batch, Time; Index]>::new([1, 3], vec![1, 2, 3]).expect("ids");
    let logits = program.run(&ids).expect("logits");
    assert_eq!(logits.sizes(), [1, 3, 40]);
    assert!(logits.iter().all(f32::is_finite));
}
