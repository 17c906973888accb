//! The language of Mobilis.
//!
//! Every macro goes one way: parse into a typed tree, validate (collecting all mistakes, each at
//! the user's own tokens), expand. After a mistake the expansion still declares what the user
//! declared, so that one mistake is one message. The generated code names everything through
//! `::mobilis::__private`, which re-exports what it needs.
//!
//! | macro | folder |
//! |---|---|
//! | [`axes!`] | `axes/`, with the expressions of `axis_expr.rs` |
//! | [`elements!`] | `elements/` |
//! | [`Tensor!`], [`Array!`], [`Param!`], [`Buffer!`] | `tensor/` |
//! | [`einsum!`], [`rearrange!`], [`reduce!`] | `equations/` |
//! | [`#[neural_module]`](macro@neural_module) | `module/` |

mod axes;
mod axis_expr;
mod elements;
mod equations;
mod errors;
mod module;
mod tensor;

use proc_macro::TokenStream;

/// Declares axes: types that name a dimension, and know its size where it is fixed.
///
/// See the [crate's documentation](crate).
#[proc_macro]
pub fn axes(input: TokenStream) -> TokenStream {
    axes::axes(input.into()).into()
}

/// The second half of an instance's expansion, when its bundle was declared elsewhere.
#[doc(hidden)]
#[proc_macro]
pub fn __bundle(input: TokenStream) -> TokenStream {
    axes::instance(input.into()).into()
}

/// Declares elements: types that say what the numbers of a tensor mean.
#[proc_macro]
pub fn elements(input: TokenStream) -> TokenStream {
    elements::elements(input.into()).into()
}

/// The type of a symbolic tensor by its axes.
#[allow(non_snake_case)]
#[proc_macro]
pub fn Tensor(input: TokenStream) -> TokenStream {
    tensor::expand("Tensor", input.into()).into()
}

/// The type of a host array by its axes.
#[allow(non_snake_case)]
#[proc_macro]
pub fn Array(input: TokenStream) -> TokenStream {
    tensor::expand("Array", input.into()).into()
}

/// The type of a trained parameter by its axes.
#[allow(non_snake_case)]
#[proc_macro]
pub fn Param(input: TokenStream) -> TokenStream {
    tensor::expand("Param", input.into()).into()
}

/// The type of a buffer by its axes.
#[allow(non_snake_case)]
#[proc_macro]
pub fn Buffer(input: TokenStream) -> TokenStream {
    tensor::expand("Buffer", input.into()).into()
}

/// A sum of products by axis names.
#[proc_macro]
pub fn einsum(input: TokenStream) -> TokenStream {
    equations::einsum::expand(input.into()).into()
}

/// Splits, permutes, repeats and merges axes.
#[proc_macro]
pub fn rearrange(input: TokenStream) -> TokenStream {
    equations::rearrange::expand(input.into()).into()
}

/// Reduces axes.
#[proc_macro]
pub fn reduce(input: TokenStream) -> TokenStream {
    equations::reduce::expand(input.into()).into()
}

/// Makes a struct a module, and the public methods of its `impl` entry points.
#[proc_macro_attribute]
pub fn neural_module(arguments: TokenStream, input: TokenStream) -> TokenStream {
    module::neural_module(arguments.into(), input.into()).into()
}
