//! Parameters and buffers: typed declarations of values that live between runs.

use super::init::{Init, WithInit};
use super::{AnyVar, Member, Visitor};
use crate::graph::trace::{self, Handle};
use crate::graph::{DType, Dim, TensorType, VarDecl, VarId, VarKind};
use crate::language::axis::AxisInfo;
use crate::language::element::{Base, Element, Real};
use crate::language::shape::{Shape, dims};
use crate::tensor::Tensor;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

impl VarId {
    /// An identity that no other variable of this process has.
    pub fn fresh() -> VarId {
        VarId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A declared variable: identity, initializer, kind. `Param` and `Buffer` are its two faces.
pub struct Variable<S, E, K> {
    declaration: Declaration,
    types: PhantomData<fn() -> (S, E, K)>,
}

/// A variable without its type. Everything that is done with variables is done with this, so
/// that distinct shapes cost next to no code.
#[derive(Clone)]
struct Declaration {
    id: VarId,
    init: Init,
    dims: Dims,
    dtype: DType,
    kind: VarKind,
}

/// What a variable's dimensions are.
#[derive(Clone)]
enum Dims {
    /// Axes of a type.
    Axes(&'static [AxisInfo]),
    /// Any.
    Listed(Arc<[Dim]>),
}

impl Dims {
    fn list(&self) -> Vec<Dim> {
        match self {
            Dims::Axes(axes) => dims(axes),
            Dims::Listed(dims) => dims.to_vec(),
        }
    }
}

impl Declaration {
    fn read(&self) -> Handle {
        let decl = || VarDecl {
            id: self.id,
            name: format!("var{}", self.id.0),
            ty: self.ty(),
            kind: self.kind,
            init: self.init.clone(),
            frozen: false,
        };
        trace::variable(decl, self.id)
    }

    /// Matrices start fan-in uniform, vectors and buffers at zero.
    fn default_init(rank: usize, kind: VarKind) -> Init {
        if rank >= 2 && kind == VarKind::Param { Init::default() } else { Init::Zeros }
    }
}

impl AnyVar for Declaration {
    fn id(&self) -> VarId {
        self.id
    }
    fn ty(&self) -> TensorType {
        TensorType::new(self.dims.list(), self.dtype)
    }
    fn var_kind(&self) -> VarKind {
        self.kind
    }
    fn init(&self) -> Init {
        self.init.clone()
    }
}

/// Marks trained variables.
pub struct Trained;
/// Marks variables that the forward pass updates.
pub struct Tracked;

/// Marks variables that belong to a program or a session.
pub struct Kept;

/// What a variable is for, as a type.
pub trait Role: 'static {
    /// The same as a value.
    const KIND: VarKind;
}
impl Role for Trained {
    const KIND: VarKind = VarKind::Param;
}
impl Role for Tracked {
    const KIND: VarKind = VarKind::Buffer;
}

impl Role for Kept {
    const KIND: VarKind = VarKind::State;
}

/// A role whose variables change while a program runs.
#[diagnostic::on_unimplemented(
    message = "a parameter is not set by the forward pass",
    note = "training changes parameters; what the forward pass changes is a `Buffer` (saved with the model) or a `State`"
)]
pub trait Updated: Role {}
impl Updated for Tracked {}
impl Updated for Kept {}

/// A trained parameter of shape `S`: a field of a module. Its value is in the model's store.
pub type Param<S, E = Real> = Variable<S, E, Trained>;
/// A value saved with the model that the forward pass reads and updates (running statistics).
pub type Buffer<S, E = Real> = Variable<S, E, Tracked>;
/// A value that the forward pass reads and updates and that is not saved: a cache. It starts when
/// a program first runs, so its axes may be bound by the program's arguments. In a module, mark
/// the field `#[skip]`.
pub type State<S, E = Real> = Variable<S, E, Kept>;

impl<S: Shape, E: Element, K: Role> Variable<S, E, K> {
    /// A new variable with its own identity.
    pub fn new(init: Init) -> Self {
        let (dims, dtype, kind) = (Dims::Axes(S::INFOS), <E::Base as Base>::DTYPE, K::KIND);
        let declaration = Declaration { id: VarId::fresh(), init, dims, dtype, kind };
        Variable { declaration, types: PhantomData }
    }

    /// The same variable in a second place: both names mean one value, saved once.
    #[must_use]
    pub fn tie(&self) -> Self {
        Variable { declaration: self.declaration.clone(), types: PhantomData }
    }

    /// Another initializer.
    #[must_use]
    pub fn with_init(mut self, init: Init) -> Self {
        self.declaration.init = init;
        self
    }

    /// The variable's value in the function being traced.
    pub fn get(&self) -> Tensor<S, E> {
        Tensor::from_raw(self.declaration.read())
    }
}

impl<S: Shape, E: Element, K: Role> WithInit for Variable<S, E, K> {
    fn with_init(self, init: Init) -> Self {
        Variable::with_init(self, init)
    }
}

impl<S: Shape, E: Element, K: Updated> Variable<S, E, K> {
    /// Gives the variable a new value when the run ends; later reads in this trace see it.
    pub fn set(&self, value: Tensor<S, E>) {
        self.get();
        trace::update(self.declaration.id, value.raw());
    }
}

impl<S: Shape, E: Element, K: Role> Default for Variable<S, E, K> {
    /// Matrices start fan-in uniform, vectors and buffers at zero.
    fn default() -> Self {
        Self::new(Declaration::default_init(S::RANK, K::KIND))
    }
}

impl<S: Shape, E: Element, K: Role> AnyVar for Variable<S, E, K> {
    fn id(&self) -> VarId {
        self.declaration.id()
    }
    fn ty(&self) -> TensorType {
        self.declaration.ty()
    }
    fn var_kind(&self) -> VarKind {
        self.declaration.var_kind()
    }
    fn init(&self) -> Init {
        self.declaration.init()
    }
}

impl<S: Shape, E: Element, K: Role> Member for Variable<S, E, K> {
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
        visitor.var(name, &self.declaration);
    }
}

/// A variable whose dimensions are listed when its module is made, not by a type: of layers in a list that differ in
/// width, as a configuration has them. A dimension is a number ([`Dim::fixed`]) or an axis ([`Dim::of`]). It reads as
/// an untyped handle; what is made of such layers is a module with typed ports, and the graph checks the sizes
/// between them.
pub struct Listed<K, E = Real> {
    declaration: Declaration,
    types: PhantomData<fn() -> (K, E)>,
}

/// A trained parameter of listed dimensions.
pub type ListedParam = Listed<Trained>;
/// A value of listed dimensions that is saved with the model, and that the forward pass reads and updates.
pub type ListedBuffer<E = Real> = Listed<Tracked, E>;

impl<K: Role, E: Element> Listed<K, E> {
    /// A new variable of these dimensions.
    pub fn new(init: Init, dims: &[Dim]) -> Self {
        let (dims, dtype, kind) = (Dims::Listed(dims.into()), <E::Base as Base>::DTYPE, K::KIND);
        Listed { declaration: Declaration { id: VarId::fresh(), init, dims, dtype, kind }, types: PhantomData }
    }

    /// Another initializer.
    #[must_use]
    pub fn with_init(mut self, init: Init) -> Self {
        self.declaration.init = init;
        self
    }

    /// The variable's value in the function being traced.
    pub fn get(&self) -> Handle {
        self.declaration.read()
    }
}

impl<K: Updated, E: Element> Listed<K, E> {
    /// Gives the variable a new value when the run ends; later reads in this trace see it.
    pub fn set(&self, value: Handle) {
        self.get();
        trace::update(self.declaration.id, value);
    }
}

impl<K: Role, E: Element> Member for Listed<K, E> {
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
        visitor.var(name, &self.declaration);
    }
}
