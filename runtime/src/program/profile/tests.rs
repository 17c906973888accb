use super::*;
use crate::json::Json;
use crate::nn::Mlp;
use crate::prelude::*;
use crate::train::{Sgd, TrainOptions};

axes! { pub Batch; pub Hidden = 32; pub Ffn = 4 * Hidden; }

#[neural_module]
struct Net {
    first: Mlp<Hidden, Ffn>,
    second: Mlp<Hidden, Ffn>,
}

#[neural_module]
impl Net {
    fn forward(&self, x: Tensor![Batch, Hidden]) -> Tensor![Batch, Hidden] {
        let x = x + self.first.forward(x);
        (x + self.second.forward(x)).softmax(Hidden)
    }
}

fn profile() -> Profile {
    let model = Model::init(Net::default(), 1).expect("a model");
    let program = model.compile(|m: &Net, x: Tensor![Batch, Hidden]| m.forward(x)).expect("a program");
    let x = <Array![Batch, Hidden]>::full([16, 32], 0.5).expect("an array");
    program.profile(&x, 3).expect("a profile")
}

fn parse(text: &str) -> Json {
    Json::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn tables_add_up() {
    let p = profile();
    assert_eq!((p.runs, p.threads), (3, Pool::global().threads()));
    let total: f64 = p.tasks.iter().map(|t| t.row.seconds).sum();
    let near = |a: f64| (a - total).abs() <= 1e-9 + 1e-6 * total;
    assert!(total > 0.0 && near(p.operations.iter().map(|o| o.seconds).sum()));
    assert!(near(p.modules[0].row.seconds));
    assert_eq!(p.modules[0].row.calls, p.tasks.len());
    // Two layers of two products each, a multiply-add counted as two.
    let products = 2.0 * 16.0 * 32.0 * 128.0 * 4.0;
    let flops = p.modules[0].row.flops;
    assert!(flops >= products && flops < 1.5 * products, "{flops} {products}");
    let first = p.modules.iter().find(|m| m.row.name == "first").expect("a module");
    assert!(first.row.flops >= 0.49 * products && first.row.flops < 0.6 * flops);
    let share = p.modules[0].row.share().expect("work is known");
    assert!(share > 0.0 && share.is_finite());
    assert!(p.variables >= 4 * 2 * (2 * 32 * 128) && p.memory.0 >= p.memory.1);
}

#[test]
fn every_form_is_well_made() {
    let p = profile();
    let text = p.to_text();
    for word in ["operations", "modules", "softmax", "first (Mlp)", "slowest tasks", "of the peak"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let Json::Map(json) = parse(&p.to_json()) else { panic!("an object") };
    for key in ["seconds", "machine", "operations", "modules", "tasks"] {
        assert!(json.iter().any(|(k, _)| k == key), "{key}");
    }
    let trace = p.to_trace();
    parse(&trace);
    assert!(trace.contains("\"ph\":\"X\"") && trace.contains("first"), "{trace}");
    let svg = p.to_svg("a <net> & more");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt;net&gt; &amp; more"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // Whatever opens is closed.
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
}

#[test]
fn weights_count_as_they_are_stored() {
    let model = Model::init(Net::default(), 1).expect("a model");
    let bytes = |format: crate::program::WeightFormat| {
        let program = model.compile(|m: &Net, x: Tensor![Batch, Hidden]| m.forward(x)).expect("a program");
        let program = program.with_weights(format).expect("no exceptions");
        let x = <Array![Batch, Hidden]>::full([1, 32], 0.5).expect("an array");
        program.profile(&x, 2).expect("a profile").modules[0].row.bytes
    };
    // Four weights of 32 x 128 in 9 instead of 64 halves of a byte.
    let saved = bytes(crate::program::WeightFormat::F32) - bytes(crate::program::WeightFormat::Q4_0);
    assert_eq!(saved, 4.0 * 32.0 * 128.0 * (4.0 - 9.0 / 16.0));
}

#[test]
fn training_is_profiled_and_goes_on() {
    let model = Model::init(Net::default(), 1).expect("a model");
    let loss = |m: &Net, x: Tensor![Batch, Hidden]| m.forward(x).square().mean_all();
    let mut step = model.train_step(Sgd::new(0.1), TrainOptions::default(), loss).expect("a step");
    let x = <Array![Batch, Hidden]>::full([4, 32], 0.5).expect("an array");
    let p = step.profile(&x, 2).expect("a profile");
    assert!(p.modules.iter().any(|m| m.row.name == "optimizer" && m.row.calls > 0), "{:?}", p.modules);
    step.run(&x).expect("a step");
}

#[test]
fn the_reference_device_says_why_not() {
    let model = Model::init(Net::default(), 1).expect("a model").on(Device::Reference);
    let program = model.compile(|m: &Net, x: Tensor![Batch, Hidden]| m.forward(x)).expect("a program");
    let x = <Array![Batch, Hidden]>::full([1, 32], 0.5).expect("an array");
    let message = program.profile(&x, 1).expect_err("a device without tasks").to_string();
    assert!(message.contains("only programs for the CPU"), "{message}");
}

#[test]
fn names_of_kernels_are_short() {
    assert_eq!(short("mobilis_runtime::devices::cpu::softmax::lower::{{closure}}"), "softmax::lower");
    assert_eq!(short("mobilis_runtime::devices::cpu::lower::Lower::copy_view::{{closure}}"), "lower::Lower::copy_view");
    assert_eq!(short("other"), "other");
}
