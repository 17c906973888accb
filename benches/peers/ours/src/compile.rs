//! `compile`: tracing, compiling, binding and the first run of a model of 32 layers; `rebind`: a
//! run at sizes that the program has not seen, whose notes say what that costs over the next run.

use mobilis::nn::PreNormBlock;
use mobilis::prelude::*;
use mobilis::program::Program;
use protocol::{Case, Refusal, uniform};
use serde_json::{Value, json};
use std::time::Instant;

axes! {
    pub Batch;
    pub Time;
    pub Heads = 2;
    pub HeadDim = 16;
    pub Hidden = Heads * HeadDim;
    pub Ffn = 4 * Hidden;
}

type Input = Tensor![Batch, Time, Hidden];

#[neural_module]
struct Deep {
    #[default(std::array::from_fn(|_| PreNormBlock::default().causal()))]
    blocks: [PreNormBlock<Hidden, Heads, HeadDim, Ffn>; 32],
}

#[neural_module]
impl Deep {
    fn forward(&self, x: Input) -> Input {
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

fn input(time: usize) -> Array![Batch, Time, Hidden] {
    <Array![Batch, Time, Hidden]>::new([1, time, 32], uniform("x", time * 32, 1.0))
        .expect("as many values as the sizes say")
}

struct Compile(Model<Deep>);

impl Case for Compile {
    fn run(&mut self) {
        let program = self.0.compile(|m, x: Input| m.forward(x)).expect("a program");
        program.run(&input(4)).expect("a run");
    }
    fn values(&mut self) -> Vec<f32> {
        vec![]
    }
}

pub fn compile() -> Result<Box<dyn Case>, Refusal> {
    Ok(Box::new(Compile(Model::init(Deep::default(), 1)?)))
}

struct Rebind {
    program: Program<Input, Input>,
    inputs: Vec<Array![Batch, Time, Hidden]>,
    turn: usize,
    costs: Vec<f64>,
}

impl Case for Rebind {
    fn run(&mut self) {
        // More sizes than stay prepared: each is new when its turn comes.
        let x = &self.inputs[self.turn % self.inputs.len()];
        self.turn += 1;
        let start = Instant::now();
        self.program.run(x).expect("a run");
        let (first, again) = (start.elapsed(), Instant::now());
        self.program.run(x).expect("a run");
        self.costs.push(first.as_secs_f64() - again.elapsed().as_secs_f64());
    }
    fn values(&mut self) -> Vec<f32> {
        vec![]
    }
    fn notes(&mut self) -> Value {
        self.costs.sort_by(f64::total_cmp);
        json!({ "bind": self.costs.get(self.costs.len() / 2), "best": self.costs.first() })
    }
}

pub fn rebind() -> Result<Box<dyn Case>, Refusal> {
    let model = Model::init(Deep::default(), 1)?;
    let program = model.compile(|m, x: Input| m.forward(x))?;
    Ok(Box::new(Rebind { program, inputs: (1..=20).map(input).collect(), turn: 0, costs: vec![] }))
}
