//! What `axes!` declares.

use crate::axis_expr::AxisExpr;
use proc_macro2::Ident;
use syn::{Attribute, Visibility};

/// One declaration.
pub enum Item {
    Axis(Axis),
    Family(Family),
    Instance(Instance),
}

/// `pub Hidden = 128;`
pub struct Axis {
    pub attrs: Vec<Attribute>,
    pub vis: Visibility,
    pub name: Ident,
    /// `None`: bound at run time.
    pub size: Option<AxisExpr>,
    /// The declaration could not be read to its end.
    pub broken: bool,
}

/// `pub trait LlamaAxes { Vocab, Hidden, HeadDim = Hidden / Heads }`
pub struct Family {
    pub attrs: Vec<Attribute>,
    pub vis: Visibility,
    pub name: Ident,
    pub axes: Vec<Axis>,
}

/// `pub struct Llama3: LlamaAxes { Vocab = 128256 }`
pub struct Instance {
    pub attrs: Vec<Attribute>,
    pub vis: Visibility,
    pub name: Ident,
    pub family: syn::Path,
    /// `None`: every axis is bound at run time.
    pub axes: Option<Vec<Axis>>,
}
