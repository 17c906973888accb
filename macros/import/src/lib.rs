//! [`import_model!`]: a checkpoint that the compiler checks.
//!
//! This macro is a crate of its own because it asks the zoo: the same code that loads a checkpoint
//! when a program runs matches its headers with the family's parameters while the compiler runs, so
//! that both give the same answer. No value is read.

use mobilis_zoo::import::{Headers, Pretrained};
use mobilis_zoo::llm::config::Config;
use mobilis_zoo::llm::open::open;
use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::quote;
use std::path::{Path, PathBuf};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Ident, LitInt, LitStr, Token, Visibility};

/// Files up to this size tell the compiler by their content that they have changed.
const WATCHED: u64 = 256 << 20;

/// Declares the axes of a checkpoint, and fails the build where the checkpoint does not fit its
/// family.
///
/// ```ignore
/// use mobilis::zoo::llm::llama::{Llama, LlamaAxes};
///
/// mobilis::import_model! {
///     /// The model that we ship.
///     pub struct SmolLm2: LlamaAxes = "models/smollm2";
/// }
///
/// type Model = Llama<SmolLm2>;    // Tensor![Batch, Time, Hidden] with Hidden = 576
/// ```
///
/// The place is a folder or a file of any form that `mobilis inspect` reads, relative to the
/// crate's `Cargo.toml`. While the compiler runs, `config.json` and the headers of the tensors are
/// read: the family that `model_type` names is built, and its parameters are matched with the
/// tensors. The struct is an instance of the family's bundle of axes with the sizes of the
/// checkpoint, and has
///
/// * `PATH`: the place, absolute;
/// * `CONFIG`: the text of its configuration.
///
/// The crate is compiled anew when the configuration changes, or the tensors, where their file has
/// at most 256 MiB; for larger ones let a build script say `cargo:rerun-if-changed`. Either way
/// the checkpoint is checked again when it is loaded.
///
/// # Errors
/// The build fails, at the place's name, with all missing, unexpected and misshapen tensors at
/// once and the nearest names; for a family that is not known or whose axes are another bundle's.
#[proc_macro]
pub fn import_model(input: TokenStream) -> TokenStream {
    let base = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    expand(input.into(), &base).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// `pub struct SmolLm2: LlamaAxes = "models/smollm2";`
struct Import {
    attrs: Vec<Attribute>,
    vis: Visibility,
    name: Ident,
    bundle: syn::Path,
    place: LitStr,
}

impl Parse for Import {
    fn parse(input: ParseStream) -> syn::Result<Import> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        input.parse::<Token![struct]>()?;
        let name = input.parse()?;
        input.parse::<Token![:]>()?;
        let bundle = input.call(syn::Path::parse_mod_style)?;
        input.parse::<Token![=]>()?;
        let place = input.parse()?;
        input.parse::<Option<Token![;]>>()?;
        Ok(Import { attrs, vis, name, bundle, place })
    }
}

fn expand(input: Tokens, base: &Path) -> syn::Result<Tokens> {
    let Import { attrs, vis, name, bundle, place } = syn::parse2(input)?;
    let at = |message: String| syn::Error::new(place.span(), message);
    let path = base.join(place.value());
    // Ids of the Hub are not for builds: what is checked must be what is shipped.
    if !path.exists() {
        return Err(at(format!("there is no {}", path.display())));
    }
    let text = path.to_str().ok_or_else(|| at(format!("{} is no text", path.display())))?;
    let pretrained = Pretrained::open(text).map_err(|e| at(e.to_string()))?;
    let files = watched(&path);
    let config = Config::new(text, pretrained.config.clone());
    let model = open(&config, &Headers(pretrained.tensors)).map_err(|e| at(e.to_string()))?;
    let wanted = bundle.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
    let mut axes = vec![];
    for (tag, size) in model.sizes().iter() {
        let own = family(tag.path);
        if own != wanted {
            let message =
                format!("the axes of this checkpoint, a `{}`, are `{own}`", config.model_type().unwrap_or("?"));
            return Err(syn::Error::new_spanned(&bundle, message));
        }
        let axis = Ident::new(tag.name, Span::call_site());
        let size = LitInt::new(&size.to_string(), Span::call_site());
        axes.push(quote!(#axis = #size));
    }
    let json = pretrained.config.to_string();
    Ok(quote! {
        ::mobilis::axes! {
            #(#attrs)*
            #vis struct #name: #bundle { #(#axes),* }
        }
        impl #name {
            /// Where the checkpoint was that the compiler checked.
            pub const PATH: &'static str = #text;
            /// The text of its configuration.
            pub const CONFIG: &'static str = #json;
        }
        const _: &[&[u8]] = &[#(include_bytes!(#files)),*];
    })
}

/// The bundle of an axis of a family's own instance: `LlamaAxes` of `..::llama::AnyLlama::Vocab@3:9`.
fn family(axis: &str) -> String {
    let instance = axis.rsplit("::").nth(1).unwrap_or(axis);
    format!("{}Axes", instance.strip_prefix("Any").unwrap_or(instance))
}

/// The files whose change makes the compiler look again.
fn watched(place: &Path) -> Vec<String> {
    let files: Vec<PathBuf> = match std::fs::read_dir(place) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(_) => vec![place.into()],
    };
    let counts = |path: &PathBuf| {
        let kind =
            path.extension().is_some_and(|e| ["json", "safetensors", "gguf", "bin", "pt"].iter().any(|k| e == *k));
        kind && std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= WATCHED)
    };
    let mut names: Vec<String> =
        files.iter().filter(|p| counts(p)).filter_map(|p| p.to_str().map(String::from)).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &str) -> Result<String, String> {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let tokens: Tokens = input.parse().expect("tokens");
        expand(tokens, &base).map(|t| t.to_string()).map_err(|e| e.to_string())
    }

    /// A folder that is removed in the end.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// The folder of the tests' checkpoint with a changed configuration.
    fn changed(name: &str, from: &str, to: &str) -> Scratch {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny-llama");
        let folder = std::env::temp_dir().join(format!("mobilis-import-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::copy(source.join("model.safetensors"), folder.join("model.safetensors")).expect("a copy");
        let config = std::fs::read_to_string(source.join("config.json")).expect("a configuration");
        assert!(config.contains(from));
        std::fs::write(folder.join("config.json"), config.replace(from, to)).expect("a copy");
        Scratch(folder)
    }

    #[test]
    fn axes_have_the_sizes_of_the_checkpoint() {
        let out = expanded("pub struct Tiny: LlamaAxes = \"tiny-llama\";").expect("it fits");
        for part in ["Vocab = 40", "Hidden = 16", "KvHeads = 2", "Groups = 2", "HeadDim = 4", "Ffn = 24"] {
            assert!(out.contains(part), "{part} is not in {out}");
        }
        assert!(out.contains("model.safetensors"), "the compiler does not watch the file: {out}");
    }

    #[test]
    fn a_checkpoint_of_other_sizes_is_refused_with_every_tensor() {
        let folder = changed("sizes", "\"intermediate_size\": 24", "\"intermediate_size\": 32");
        let e = expanded(&format!("pub struct Tiny: LlamaAxes = {:?};", folder.0)).expect_err("is refused");
        for part in ["model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.down_proj.weight"] {
            assert!(e.contains(part), "{part} is not in {e}");
        }
    }

    #[test]
    fn missing_and_unexpected_tensors_are_refused() {
        let folder = changed("layers", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
        let e = expanded(&format!("struct Tiny: LlamaAxes = {:?};", folder.0)).expect_err("is refused");
        assert!(e.contains("model.layers.1.input_layernorm.weight"), "{e}");
        let folder = changed("more", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
        let e = expanded(&format!("struct Tiny: LlamaAxes = {:?};", folder.0)).expect_err("is refused");
        assert!(e.contains("model.layers.2.self_attn.q_proj.weight"), "{e}");
    }

    #[test]
    fn other_families_and_places_are_refused() {
        let e = expanded("struct Tiny: BertAxes = \"tiny-llama\";").expect_err("is refused");
        assert_eq!(e, "the axes of this checkpoint, a `llama`, are `LlamaAxes`");
        let e = expanded("struct Tiny: LlamaAxes = \"absent\";").expect_err("is refused");
        assert!(e.starts_with("there is no "), "{e}");
        let folder = changed("family", "\"model_type\": \"llama\"", "\"model_type\": \"lama\"");
        let e = expanded(&format!("struct Tiny: LlamaAxes = {:?};", folder.0)).expect_err("is refused");
        assert!(e.contains("did you mean `llama`"), "{e}");
    }
}
