//! The operations that round operands, and the states that delayed scaling keeps.

use super::plan::{Eight, From, Treat};
use super::recipe::History;
use crate::graph::{DType, Dim, Extent, Graph, Node, TensorType, Value, VarDecl, VarId, VarKind};
use crate::module::init::Init;
use crate::ops::Op;
use crate::ops::elementwise::Unary;
use crate::ops::leaf::{Constant, Fill, Var};
use crate::ops::movement::Reshape;
use crate::ops::quantize::{Amax, FormatScale, Group, Quantize, ScaleBy};
use crate::ops::reduce::{Primitive, Reduce};
use crate::ops::slice::{Concat, Slice};
use crate::transforms::rewrite::push;
use std::collections::HashMap;

/// Appends an operation with one output.
pub(super) fn put(graph: &mut Graph, op: impl Into<Op>, inputs: &[Value], scope: u32) -> Value {
    let op = op.into();
    let types: Vec<&TensorType> = inputs.iter().map(|v| graph.ty(*v)).collect();
    let types = op.rule().infer(&types).expect("operands were looked at before");
    push(graph, Node { op, inputs: inputs.to_vec(), types, scope })[0]
}

/// The name, or where a layer runs several times one that no variable has yet.
fn unused(graph: &Graph, name: String) -> String {
    let taken = |name: &String| graph.vars.iter().any(|v| v.name == *name);
    let others = (1..).map(|k| format!("{name}.{k}"));
    std::iter::once(name.clone()).chain(others).find(|n| !taken(n)).unwrap_or(name)
}

/// Appends roundings, each of a value once.
#[derive(Default)]
pub(super) struct Writer {
    done: HashMap<(Value, String), Value>,
    scales: HashMap<(Value, String), Value>,
    /// New values of histories and scales.
    pub updates: Vec<(u32, Value)>,
}

impl Writer {
    /// What an operand becomes.
    pub fn treat(&mut self, graph: &mut Graph, x: Value, treat: &Treat, scope: u32) -> Value {
        let key = match treat {
            Treat::Round(kind) => (x, kind.name().to_string()),
            // Whatever asks first gives the states their name.
            Treat::Eight(e) => (x, format!("{:?} {:?} {:?}", e.format, e.from, e.sizes)),
        };
        if let Some(known) = self.done.get(&key) {
            return *known;
        }
        let value = match treat {
            Treat::Round(kind) => put(graph, Unary { kind: *kind }, &[x], scope),
            Treat::Eight(eight) => {
                let (group, inputs) = match &eight.from {
                    From::Tiles(group) => (group.clone(), vec![x]),
                    _ => (Group::All, vec![x, self.scale(graph, x, eight, scope)]),
                };
                let Eight { format, sizes, multiple, .. } = eight.clone();
                put(graph, Quantize { format, group, sizes, multiple }, &inputs, scope)
            }
        };
        self.done.insert(key, value);
        value
    }

    /// The scale of a whole value.
    fn scale(&mut self, graph: &mut Graph, x: Value, eight: &Eight, scope: u32) -> Value {
        let key = (x, format!("{:?} {:?}", eight.format, eight.from));
        if let Some(known) = self.scales.get(&key) {
            return *known;
        }
        let format = eight.format;
        let scalar = TensorType::new(vec![], DType::F32);
        let value = match eight.from {
            From::One | From::Tiles(_) => put(graph, Constant { fill: Fill::Number(1.0), ty: scalar }, &[], scope),
            From::Whole(scale) => {
                let amax = put(graph, Amax, &[x], scope);
                put(graph, FormatScale { format, by: ScaleBy::Current(scale) }, &[amax], scope)
            }
            From::History { length, take, margin } => {
                let state = |graph: &mut Graph, name: &str, ty: TensorType, init| {
                    let name = unused(graph, format!("{}.{name}", eight.states));
                    let index = graph.vars.len() as u32;
                    let (id, kind) = (VarId::fresh(), VarKind::State);
                    graph.vars.push(VarDecl { id, name, ty: ty.clone(), kind, init, frozen: false });
                    (index, put(graph, Var { index, ty }, &[], scope))
                };
                let (scale_var, scale) = state(graph, "scale", scalar, Init::Constant(1.0));
                let steps = TensorType::new(vec![Dim::fixed(length as u64)], DType::F32);
                let (history_var, history) = state(graph, "amax_history", steps.clone(), Init::Zeros);
                // The oldest falls out, the newest comes last.
                let amax = put(graph, Amax, &[x], scope);
                let mut parts = vec![put(graph, Reshape { dims: vec![Dim::fixed(1)] }, &[amax], scope)];
                if length > 1 {
                    let dim = Dim::fixed(length as u64 - 1);
                    let kept = Slice { axis: 0, start: Extent::constant(1), step: 1, dim };
                    parts.insert(0, put(graph, kept, &[history], scope));
                }
                let rolled = put(graph, Concat { axis: 0, dim: steps.dims[0].clone() }, &parts, scope);
                let most = match take {
                    History::MostRecent => amax,
                    History::Max => put(graph, Reduce { kind: Primitive::Max, positions: vec![0] }, &[rolled], scope),
                };
                let by = ScaleBy::Delayed { margin };
                let next = put(graph, FormatScale { format, by }, &[most, scale], scope);
                self.updates.extend([(scale_var, next), (history_var, rolled)]);
                scale
            }
        };
        self.scales.insert(key, value);
        value
    }
}
