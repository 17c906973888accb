//! The graph: what a traced function computes, with symbolic sizes and axis names.
//!
//! A [`Graph`] is a list of nodes in an order in which every node comes after its inputs. It is
//! built by [`trace`], rewritten by [`crate::transforms`], drawn by `print` and compiled by
//! [`crate::program`]. It holds no data: parameters and states are declarations whose values
//! live in a [`Store`](crate::module::store::Store).

pub mod extent;
#[cfg(feature = "draw")]
pub mod polynomial;
#[cfg(feature = "draw")]
pub mod print;
pub mod trace;

use crate::ops::Op;
pub use extent::{AxisTag, Dim, Extent, ExtentError, Sizes};
#[cfg(feature = "draw")]
pub use polynomial::Polynomial;
use std::fmt;

/// How values are stored in a program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// Real numbers in single precision (in `f64` on the reference device).
    F32,
    /// Whole numbers.
    I32,
    /// Truth values, one byte each, 0 or 1.
    Bool,
}

impl DType {
    /// Bytes per value.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::Bool => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::Bool => "bool",
        })
    }
}

/// The dimensions and storage of a value.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorType {
    /// From the slowest to the fastest.
    pub dims: Vec<Dim>,
    /// The storage.
    pub dtype: DType,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dims: Vec<Dim>, dtype: DType) -> TensorType {
        TensorType { dims, dtype }
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of values.
    pub fn count(&self) -> Extent {
        Extent::product(self.dims.iter().map(|d| &d.extent))
    }

    /// The same dimensions in another storage.
    pub fn with_dtype(&self, dtype: DType) -> TensorType {
        TensorType { dims: self.dims.clone(), dtype }
    }

    /// The size of each dimension under concrete sizes.
    pub fn sizes(&self, sizes: &Sizes) -> Result<Vec<usize>, ExtentError> {
        self.dims.iter().map(|d| d.extent.eval(sizes)).collect()
    }

    /// Whether all extents agree, whatever the axes are called.
    pub fn same_extents(&self, other: &TensorType) -> bool {
        self.rank() == other.rank() && self.dims.iter().zip(&other.dims).all(|(a, b)| a.extent == b.extent)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")?;
        match self.dtype {
            DType::F32 => Ok(()),
            other => write!(f, " {other}"),
        }
    }
}

/// The index of a node in its graph.
pub type NodeId = u32;

/// One output of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs.
    pub port: u16,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => write!(f, "%{}", self.node),
            p => write!(f, "%{}.{p}", self.node),
        }
    }
}

/// An operation applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// From what.
    pub inputs: Vec<Value>,
    /// The types of its outputs.
    pub types: Vec<TensorType>,
    /// The module in which it was traced: an index into [`Graph::scopes`].
    pub scope: u32,
}

/// A module that was entered while tracing.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// The path from the root: `blocks.0.attn`. Empty for the root.
    pub path: String,
    /// The module's type: `SelfAttention`.
    pub kind: &'static str,
    /// The enclosing scope; the root is its own parent.
    pub parent: u32,
}

/// A value that the caller gives at every run.
#[derive(Clone, Debug)]
pub struct InputDecl {
    /// The argument's name, where it is known, else `argument 1`.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// The name of its element.
    pub element: &'static str,
}

/// What a [`VarDecl`] is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum VarKind {
    /// Trained, saved.
    Param,
    /// Updated by the forward pass (running statistics), saved with the model.
    Buffer,
    /// Belongs to a program or a session: caches, optimizer moments, random counters.
    State,
}

/// A value that lives between runs: a parameter, a buffer or a state.
#[derive(Clone, Debug)]
pub struct VarDecl {
    /// The identity, equal for tied parameters.
    pub id: VarId,
    /// The checkpoint name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// What it is for.
    pub kind: VarKind,
    /// How a new one is filled.
    pub init: crate::module::init::Init,
    /// Whether training leaves it alone.
    pub frozen: bool,
}

/// The identity of a parameter, buffer or state in a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VarId(pub u64);

/// A traced computation.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Every node, inputs before users.
    pub nodes: Vec<Node>,
    /// Arguments, in order.
    pub inputs: Vec<InputDecl>,
    /// Parameters, buffers and states that the graph reads or writes.
    pub vars: Vec<VarDecl>,
    /// Results, in order.
    pub outputs: Vec<Value>,
    /// How long the lists are that some of the results stand in, outer ones before those within.
    pub lists: Vec<usize>,
    /// New values of variables, stored when the run ends: (index into `vars`, value).
    pub updates: Vec<(u32, Value)>,
    /// Values made readable by name.
    pub taps: Vec<(String, Value)>,
    /// Names of taps that every run prints.
    pub printed: Vec<String>,
    /// The module tree; entry 0 is the root.
    pub scopes: Vec<Scope>,
    /// How many random operations there are: each draws from a stream of its own.
    pub streams: u32,
}

impl Graph {
    /// The type of a value.
    pub fn ty(&self, v: Value) -> &TensorType {
        &self.nodes[v.node as usize].types[v.port as usize]
    }

    /// The node that computes a value.
    pub fn node(&self, v: Value) -> &Node {
        &self.nodes[v.node as usize]
    }

    /// Where a node was traced, for messages: `blocks.0.attn (SelfAttention)`.
    pub fn location(&self, scope: u32) -> String {
        match self.scopes.get(scope as usize) {
            Some(s) if s.path.is_empty() => s.kind.to_string(),
            Some(s) => format!("{} ({})", s.path, s.kind),
            None => "?".into(),
        }
    }

    /// Every value that must be there when a run ends: outputs, updates and taps.
    pub fn results(&self) -> impl Iterator<Item = Value> + '_ {
        self.outputs.iter().copied().chain(self.updates.iter().map(|u| u.1)).chain(self.taps.iter().map(|t| t.1))
    }

    /// Appends a node after applying the operation's shape rule.
    ///
    /// # Errors
    /// The shape rule's message.
    pub fn push(&mut self, op: Op, inputs: &[Value], scope: u32) -> Result<NodeId, String> {
        let types = {
            let input_types: Vec<&TensorType> = inputs.iter().map(|v| self.ty(*v)).collect();
            op.rule().infer(&input_types)?
        };
        self.nodes.push(Node { op, inputs: inputs.to_vec(), types, scope });
        Ok(self.nodes.len() as NodeId - 1)
    }
}
