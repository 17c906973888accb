//! This library's side of every comparison: kernels where peers call a function on matrices,
//! models and programs where peers run models.

mod aligned;
mod compile;
mod encoder;
mod gemm;
mod gpt;
mod llm;
mod mel;
mod quartznet;
mod rows;
mod run;
mod smollm2;
mod whisper;

use protocol::{Case, Refusal};

fn load(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    match words[0] {
        "gemm" => gemm::plain(words),
        "packed" => gemm::packed(words),
        "gemv" => gemm::vector(words),
        "step" => gpt::step(),
        "prompt" => llm::prompt(words),
        "decode" => llm::decode(words),
        "embed" => encoder::embed(words),
        "quartznet" => quartznet::encoder(),
        "mel" => mel::log_mel(),
        "rows" => rows::rows(words),
        "smollm2" => smollm2::smollm2(words),
        "whisper" => whisper::whisper(words),
        "compile" => compile::compile(),
        "rebind" => compile::rebind(),
        other => Err(format!("no case `{other}`").into()),
    }
}

fn main() {
    if std::env::args().any(|a| a == "--limits") {
        println!("{}", limits());
        return;
    }
    protocol::serve(load);
}

/// The machine's ceilings.
fn limits() -> serde_json::Value {
    let l = mobilis_kernels::cpu::limits::measured();
    let rate = |r: mobilis_kernels::cpu::limits::Rate| serde_json::json!([r.one, r.all]);
    let read: Vec<_> = l.read.iter().map(|r| serde_json::json!({"name": r.name, "rate": rate(r.rate)})).collect();
    serde_json::json!({
        "threads": l.threads,
        "l1": l.caches.l1, "l2": l.caches.l2, "l3": l.caches.l3,
        "flops": rate(l.peak()),
        "int8": l.int8_ops.map(rate),
        "read": read,
        "copy": rate(l.copy),
    })
}
