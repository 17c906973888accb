//! Modules: ordinary structs whose fields are parameters, sub-modules and hyper-parameters.
//!
//! `#[neural_module]` implements [`Module`] for a struct by visiting its fields in order. What a
//! field may be is [`Member`]: a parameter or buffer ([`param`]), another module, a collection
//! of these, or a plain value that is shown as a hyper-parameter. Everything that knows a model
//! from outside (initialisation, checkpoints, summaries, freezing, scopes in the graph) walks
//! this one interface. [`model`] joins a module with the values of its parameters
//! ([`store`]).

pub mod catalog;
pub mod encoded;
pub mod error;
pub mod init;
pub mod load;
pub mod mismatch;
pub mod model;
pub mod param;
pub mod pattern;
pub mod sequential;
pub mod store;
pub mod summary;
pub mod table;

use crate::graph::{TensorType, VarId, VarKind};
use std::marker::PhantomData;

/// A struct of parameters and sub-modules. Implement it with `#[neural_module]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module",
    label = "expected a module",
    note = "put `#[neural_module]` on the struct"
)]
pub trait Module {
    /// The type's short name: `SelfAttention`.
    fn kind(&self) -> &'static str;
    /// Shows every field, in order, to the visitor.
    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>);
    /// The full name of the type, to tell modules apart that lie at one address.
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }
    fn visit<'a>(&'a self, visitor: &mut dyn Visitor<'a>) {
        (**self).visit(visitor);
    }
}

/// The typed port signature: `Self` takes `In` and gives `Output`. `#[neural_module]` on an
/// `impl` derives it from `forward`.
#[diagnostic::on_unimplemented(
    message = "module `{Self}` does not take `{In}`",
    label = "this module's `forward` takes another shape or element",
    note = "compare the axes one by one: an axis that differs by name differs, even if the sizes agree"
)]
pub trait NeuralModule<In> {
    /// What comes out.
    type Output;
    /// Applies the module.
    fn call(&self, input: In) -> Self::Output;
}

/// A parameter, buffer or state, seen without its type.
pub trait AnyVar {
    /// The identity; equal for tied parameters.
    fn id(&self) -> VarId;
    /// Dimensions and storage.
    fn ty(&self) -> TensorType;
    /// What it is for.
    fn var_kind(&self) -> VarKind;
    /// How a new one is filled.
    fn init(&self) -> init::Init;
}

/// Sees the fields of a module.
pub trait Visitor<'a> {
    /// A sub-module.
    fn module(&mut self, name: &str, module: &'a dyn Module);
    /// A parameter, buffer or state.
    fn var(&mut self, name: &str, var: &'a dyn AnyVar);
    /// A plain value.
    fn hyper(&mut self, name: &str, value: String);
}

/// What a field of a module may be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a module",
    label = "not a parameter, a module or a plain number",
    note = "put `#[neural_module]` on its struct, or mark the field `#[hyper]` if it is a setting"
)]
pub trait Member {
    /// Shows itself to the visitor under `name`.
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>);
}

/// What `#[neural_module]` fills a field with when the module's `default()` is called.
#[diagnostic::on_unimplemented(
    message = "the field's type `{Self}` has no default",
    label = "no default to fill this field with",
    note = "give the field one: `#[default(expression)]`",
    note = "or write `#[neural_module(no_default)]` on the struct, and a constructor of your own"
)]
pub trait MadeByDefault {
    /// A new value.
    fn made() -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Default> MadeByDefault for T {
    fn made() -> Self {
        T::default()
    }
}

/// `n` new layers, for a field: `#[default(repeat(12))] blocks: Vec<Block>`.
#[must_use]
pub fn repeat<M: Default>(n: usize) -> Vec<M> {
    (0..n).map(|_| M::default()).collect()
}

impl<M: Module> Member for M {
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
        visitor.module(name, self);
    }
}

fn indexed<'a, M: Member + 'a>(items: impl IntoIterator<Item = &'a M>, name: &str, visitor: &mut dyn Visitor<'a>) {
    for (i, item) in items.into_iter().enumerate() {
        item.member(&format!("{name}.{i}"), visitor);
    }
}

impl<M: Member> Member for Vec<M> {
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
        indexed(self, name, visitor);
    }
}
impl<M: Member, const N: usize> Member for [M; N] {
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
        indexed(self, name, visitor);
    }
}
impl<M: Member> Member for Option<M> {
    fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
        if let Some(item) = self {
            item.member(name, visitor);
        }
    }
}
impl<T: ?Sized> Member for PhantomData<T> {
    fn member<'a>(&'a self, _: &str, _: &mut dyn Visitor<'a>) {}
}

macro_rules! plain {
    ($($t:ty)*) => {$(
        impl Member for $t {
            fn member<'a>(&'a self, name: &str, visitor: &mut dyn Visitor<'a>) {
                visitor.hyper(name, self.to_string());
            }
        }
    )*};
}
plain! { bool u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64 String &'static str }

/// What [`walk`] meets.
pub enum Item<'a> {
    /// A module, before its fields.
    Module(&'a dyn Module),
    /// A parameter, buffer or state.
    Var(&'a dyn AnyVar),
    /// A hyper-parameter.
    Hyper(String),
}

struct Walker<'f> {
    path: String,
    f: &'f mut dyn FnMut(&str, Item<'_>),
}

impl Walker<'_> {
    fn at(&mut self, name: &str, f: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !name.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        f(self);
        self.path.truncate(length);
    }
}

impl<'a> Visitor<'a> for Walker<'_> {
    fn module(&mut self, name: &str, module: &'a dyn Module) {
        self.at(name, |w| {
            let path = w.path.clone();
            (w.f)(&path, Item::Module(module));
            module.visit(w);
        });
    }
    fn var(&mut self, name: &str, var: &'a dyn AnyVar) {
        self.at(name, |w| {
            let path = w.path.clone();
            (w.f)(&path, Item::Var(var));
        });
    }
    fn hyper(&mut self, name: &str, value: String) {
        self.at(name, |w| {
            let path = w.path.clone();
            (w.f)(&path, Item::Hyper(value));
        });
    }
}

/// Visits a module and everything in it, with paths such as `blocks.0.attn.q_proj.weight`.
/// Tied parameters are met at each of their places.
pub fn walk(root: &dyn Module, f: &mut dyn FnMut(&str, Item<'_>)) {
    Walker { path: String::new(), f }.module("", root);
}
