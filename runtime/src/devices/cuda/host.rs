//! A single node on the host, for want of a kernel: its inputs come from the device, the CPU computes, its
//! outputs go back.

use super::lower::Lower;
use crate::devices::cpu::{self, Out};
use crate::graph::{DType, Graph, InputDecl, Node as GraphNode, Sizes, Value};
use crate::ops::Op;
use crate::ops::leaf::Input;
use mobilis_cuda::{CudaError, Gpu, Ptr};
use mobilis_kernels::memory::{Arena, External};

/// Contiguous values on the device.
struct Place {
    at: Ptr,
    dtype: DType,
    count: usize,
}

/// A node with what the CPU prepared for it.
pub struct Node {
    bound: cpu::Bound,
    arena: Arena,
    inputs: Vec<Place>,
    outputs: Vec<Place>,
}

/// The node's graph: its inputs are arguments, its outputs are results.
fn alone(graph: &Graph, node: &GraphNode) -> Graph {
    let mut all = Graph { scopes: graph.scopes.clone(), streams: graph.streams, ..Graph::default() };
    for (i, v) in node.inputs.iter().enumerate() {
        let ty = graph.ty(*v).clone();
        all.inputs.push(InputDecl { name: format!("input {}", i + 1), ty: ty.clone(), element: "" });
        let op = Op::Input(Input { index: i as u32, ty: ty.clone() });
        all.nodes.push(GraphNode { op, inputs: vec![], types: vec![ty], scope: node.scope });
    }
    let id = node.inputs.len() as u32;
    let inputs = (0..id).map(|node| Value { node, port: 0 }).collect();
    all.nodes.push(GraphNode { inputs, ..node.clone() });
    all.outputs = (0..node.types.len()).map(|port| Value { node: id, port: port as u16 }).collect();
    all
}

/// Lowers the node at hand to the host.
pub fn lower(cx: &mut Lower, sizes: &Sizes) -> Result<(), String> {
    let node = &cx.graph.nodes[cx.node as usize];
    let bound = cpu::bind(&alone(cx.graph, node), sizes)?;
    let count = |sizes: &[usize]| sizes.iter().product::<usize>();
    let inputs = (0..cx.inputs())
        .map(|i| Place { at: cx.input(i), dtype: cx.input_dtype(i), count: count(cx.input_sizes(i)) })
        .collect();
    let outputs = (0..node.types.len())
        .map(|port| Place { at: cx.output(port), dtype: cx.output_dtype(port), count: count(cx.output_sizes(port)) })
        .collect();
    let arena = Arena::new(bound.arena_bytes());
    cx.on_host(Node { bound, arena, inputs, outputs });
    Ok(())
}

enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
    Bool(Vec<u8>),
}

impl Node {
    /// Where it reads and writes.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Ptr> {
        self.inputs.iter().chain(&self.outputs).map(|place| place.at)
    }

    /// Computes it. `real` gives the addresses.
    ///
    /// # Errors
    /// What the CPU refuses, and failures of the device.
    pub fn run(&mut self, gpu: &Gpu, real: impl Fn(Ptr) -> Ptr) -> Result<(), String> {
        let read = |place: &Place| -> Result<Values, CudaError> {
            let at = real(place.at);
            Ok(match place.dtype {
                DType::F32 => {
                    let mut values = vec![0.0; place.count];
                    gpu.read(at, &mut values)?;
                    Values::F32(values)
                }
                DType::I32 => {
                    let mut values = vec![0; place.count];
                    gpu.read(at, &mut values)?;
                    Values::I32(values)
                }
                DType::Bool => {
                    let mut values = vec![0; place.count];
                    gpu.read(at, &mut values)?;
                    Values::Bool(values)
                }
            })
        };
        let inputs: Result<Vec<Values>, CudaError> = self.inputs.iter().map(read).collect();
        let mut inputs = inputs.map_err(|e| e.to_string())?;
        let externals = inputs.iter_mut().map(|values| match values {
            Values::F32(v) => External::ReadF32(v),
            Values::I32(v) => External::ReadI32(v),
            Values::Bool(v) => External::U8(v),
        });
        let outputs = &self.outputs;
        let mut written = Ok(());
        let each = |v: Value, out: Out| {
            let at = real(outputs[v.port as usize].at);
            let result = match out {
                Out::F32(values) => gpu.write(at, values),
                Out::I32(values) => gpu.write(at, values),
                Out::Bool(values) => gpu.write(at, values),
            };
            if written.is_ok() {
                written = result;
            }
        };
        let dtype = |v: Value| outputs[v.port as usize].dtype;
        self.bound.run(&mut self.arena, externals, dtype, each).map_err(|e| e.message)?;
        written.map_err(|e| e.to_string())
    }
}
