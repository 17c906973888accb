//! Branches, several results, ports by name, defaults, and inputs that may be left out.

use mobilis::prelude::*;

axes! {
    pub Frames;
    pub Hidden = 64;
}

pipeline! {
    pub struct Graph {
        encoder: fn(text: String, prompt: Option<Array![Hidden]>) -> (states: Array![Frames, Hidden; Encoded], loudness: f32),
        head: fn(states: Array![Frames, Hidden; Encoded], beams: usize = 4, scale: f32) -> String,
        measure: fn(Array![Frames, Hidden; Encoded]) -> Option<f32>,
        join: fn(Option<f32>, f32) -> f32,
    }
    fn run(text: String, beams: usize = 8, prompt: Option<Array![Hidden]>) -> (text: String, both: f32, prompt: Option<Array![Hidden]>) {
        let (states, loudness) = encoder(text, prompt: prompt);
        let said = head(states, scale: loudness, beams: beams);
        let _unused = head(states, scale: loudness);
        let both = join(measure(states), loudness);
        (said, both, prompt)
    }
}

pub fn f(graph: &Graph, prompt: Array![Hidden]) -> Result<(), PipelineError> {
    let (_, _, _) = graph.run("a".to_string())?;
    let (_, _, _) = graph.run(("a".to_string(), Some(2), Some(prompt)))?;
    let traced = graph.run_traced("a".to_string())?;
    let _: Array![Frames, Hidden; Encoded] = traced.values.states;
    for result in graph.stream(vec!["a".to_string()]) {
        result?;
    }
    Ok(())
}
