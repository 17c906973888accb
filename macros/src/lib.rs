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
//! | [`pipeline!`] | `pipeline/` |

#![warn(missing_docs)]

mod axes;
mod axis_expr;
mod elements;
mod equations;
mod errors;
mod module;
mod pipeline;
mod tensor;

use proc_macro::TokenStream;

#[doc = include_str!("../docs/axes.md")]
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

#[doc = include_str!("../docs/elements.md")]
#[proc_macro]
pub fn elements(input: TokenStream) -> TokenStream {
    elements::elements(input.into()).into()
}

#[doc = include_str!("../docs/tensor.md")]
#[allow(non_snake_case)]
#[proc_macro]
pub fn Tensor(input: TokenStream) -> TokenStream {
    tensor::expand("Tensor", input.into()).into()
}

/// The type of a host array by its axes: `Array![Batch, Time; TokenId]`, written like
/// [`Tensor!`](macro@Tensor).
#[allow(non_snake_case)]
#[proc_macro]
pub fn Array(input: TokenStream) -> TokenStream {
    tensor::expand("Array", input.into()).into()
}

/// The type of a trained parameter by its axes: `Param![Out, In]`, written like
/// [`Tensor!`](macro@Tensor).
#[allow(non_snake_case)]
#[proc_macro]
pub fn Param(input: TokenStream) -> TokenStream {
    tensor::expand("Param", input.into()).into()
}

/// The type of a buffer, a value that the forward pass updates, by its axes: `Buffer![Hidden]`,
/// written like [`Tensor!`](macro@Tensor).
#[allow(non_snake_case)]
#[proc_macro]
pub fn Buffer(input: TokenStream) -> TokenStream {
    tensor::expand("Buffer", input.into()).into()
}

#[doc = include_str!("../docs/einsum.md")]
#[proc_macro]
pub fn einsum(input: TokenStream) -> TokenStream {
    equations::einsum::expand(input.into()).into()
}

#[doc = include_str!("../docs/rearrange.md")]
#[proc_macro]
pub fn rearrange(input: TokenStream) -> TokenStream {
    equations::rearrange::expand(input.into()).into()
}

#[doc = include_str!("../docs/reduce.md")]
#[proc_macro]
pub fn reduce(input: TokenStream) -> TokenStream {
    equations::reduce::expand(input.into()).into()
}

#[doc = include_str!("../docs/neural_module.md")]
#[proc_macro_attribute]
pub fn neural_module(arguments: TokenStream, input: TokenStream) -> TokenStream {
    module::neural_module(arguments.into(), input.into()).into()
}

#[doc = include_str!("../docs/pipeline.md")]
#[proc_macro]
pub fn pipeline(input: TokenStream) -> TokenStream {
    pipeline::pipeline(input.into()).into()
}
