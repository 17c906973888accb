//! Running programs without copying their results: what a server would do with logits.

use mobilis::Model;
use mobilis::devices::cpu::Out;
use mobilis::module::Module;
use mobilis::program::host::HostRef;
use mobilis::program::{Arguments, Feed, Program, Results, WeightFormat};
use protocol::{Case, Refusal, weight};

/// Gives every parameter the values that all peers use.
pub fn fill<M: Module>(model: &Model<M>) -> Result<(), Refusal> {
    for p in model.parameters() {
        if p.declared.ty.dtype == mobilis::graph::DType::F32 {
            model.set(p.name(), &weight(p.name(), &p.sizes))?;
        }
    }
    Ok(())
}

/// A weight format by the name that llama.cpp gives it.
pub fn format(name: &str) -> Result<WeightFormat, Refusal> {
    Ok(match name {
        "f32" => WeightFormat::F32,
        "bf16" => WeightFormat::Bf16,
        "f16" => WeightFormat::F16,
        "q8_0" => WeightFormat::Q8_0,
        "q4_0" => WeightFormat::Q4_0,
        "int8" => WeightFormat::Int8,
        other => return Err(format!("no format `{other}`").into()),
    })
}

/// A program with its arguments. Every run computes the same.
pub struct Fixed<I, O, A> {
    pub program: Program<I, O>,
    pub arrays: A,
}

impl<I: Arguments, O: Results, A: Feed<I>> Fixed<I, O, A> {
    fn each(&self, mut see: impl FnMut(usize, Out)) {
        let mut inputs: Vec<HostRef> = vec![];
        self.arrays.feed(&mut inputs);
        self.program.executable().run(&inputs, |i, _, out| see(i, out)).expect("a run");
    }
}

impl<I: Arguments, O: Results, A: Feed<I>> Case for Fixed<I, O, A> {
    fn run(&mut self) {
        self.each(|_, _| ());
    }
    fn values(&mut self) -> Vec<f32> {
        let mut all = vec![];
        self.each(|i, out| {
            if let (0, Out::F32(values)) = (i, out) {
                all = values.to_vec();
            }
        });
        all
    }
    fn profile(&mut self) -> Option<String> {
        self.program.profile(&self.arrays, 15).ok().map(|p| p.to_text())
    }
    fn notes(&mut self) -> serde_json::Value {
        let (arena, lower) = self.program.executable().memory().unwrap_or_default();
        serde_json::json!({ "arena": arena, "arena_lower_bound": lower })
    }
}
