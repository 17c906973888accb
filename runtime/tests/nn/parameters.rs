//! A gradient reaches every parameter of every layer.

use super::*;
use mobilis::nn::*;

#[test]
fn linear_layers_and_embeddings() {
    reaches_every_parameter(&Linear::<Hidden, Ffn>::new(), |m| {
        m.forward(argument::<(Batch, Time, Hidden), Real>()).raw()
    });
    reaches_every_parameter(&Linear::<Hidden, Ffn>::new().no_bias(), |m| {
        m.forward(argument::<(Hidden,), Real>()).raw()
    });
    let embedding = Embedding::<Vocab, Hidden>::default();
    reaches_every_parameter(&embedding, |m| m.forward(argument::<(Batch, Time), Index>()).raw());
    reaches_every_parameter(&embedding, |m| m.attend(argument::<(Batch, Hidden), Real>()).raw());
}

#[test]
fn norms() {
    reaches_every_parameter(&LayerNorm::<Hidden>::default(), |m| m.forward(argument::<(Batch, Hidden), Real>()).raw());
    reaches_every_parameter(&RmsNorm::<Hidden>::default(), |m| m.forward(argument::<(Batch, Hidden), Real>()).raw());
    reaches_every_parameter(&GroupNorm::<3, Channels6>::default(), |m| {
        m.forward(argument::<(Batch, Channels6, Time), Real>()).raw()
    });
    reaches_every_parameter(&InstanceNorm::<Channels6>::default().affine(), |m| {
        m.forward(argument::<(Batch, Channels6, Time), Real>()).raw()
    });
    reaches_every_parameter(&BatchNorm::<Channels6>::default(), |m| {
        m.forward(argument::<(Batch, Channels6, Time), Real>()).raw()
    });
}

#[test]
fn feed_forward_layers() {
    reaches_every_parameter(&Mlp::<Hidden, Ffn>::default(), |m| m.forward(argument::<(Batch, Hidden), Real>()).raw());
    reaches_every_parameter(&SwiGlu::<Hidden, Ffn>::default(), |m| {
        m.forward(argument::<(Batch, Hidden), Real>()).raw()
    });
}

#[test]
fn attention_layers() {
    let input = argument::<(Batch, Time, Hidden), Real>;
    let plain = SelfAttention::<Hidden, Heads, HeadDim>::default();
    reaches_every_parameter(&plain, |m| m.forward(input()).raw());
    // A bias of the keys shifts all scores of a query alike: it has no gradient, so only those of
    // queries and values are on.
    let mut full = SelfAttention::<Hidden, Heads, HeadDim>::default().causal().rope(Rotary::default()).qk_norm(1e-6);
    full.q_proj.bias = Some(Default::default());
    full.v_proj.bias = Some(Default::default());
    full.o_proj.bias = Some(Default::default());
    reaches_every_parameter(&full, |m| m.forward(input()).raw());
    let grouped = GroupedSelfAttention::<Hidden, Heads, Groups, HeadDim>::default().causal().qk_norm(1e-6).dropout(0.2);
    reaches_every_parameter(&grouped, |m| m.forward(input()).raw());
    let cross = CrossAttention::<Hidden, Wide, Heads, HeadDim>::default().qk_norm(1e-6);
    reaches_every_parameter(&cross, |m| m.forward(input(), argument::<(Batch, Source, Wide), Real>()).raw());
}

#[test]
fn blocks() {
    let input = argument::<(Batch, Time, Hidden), Real>;
    let rope = AttentionOptions { causal: true, rope: Some(Rotary::default()), ..Default::default() };
    // With rotation a bias of the keys has a gradient: it is turned differently at each position.
    let pre = PreNormBlock::<Hidden, Heads, HeadDim, Ffn>::default().attention(rope.clone()).dropout(0.1);
    let pre = pre.attention(rope.clone());
    reaches_every_parameter(&pre, |m| m.forward(input()).raw());
    let post = PostNormBlock::<Hidden, Heads, HeadDim, Ffn>::default().attention(rope).activation(Activation::Relu);
    reaches_every_parameter(&post, |m| m.forward(input()).raw());
}

#[test]
fn positions() {
    let input = argument::<(Batch, Time, Hidden), Real>;
    reaches_every_parameter(&LearnedPositions::<Limit, Hidden>::default(), |m| m.forward(input()).raw());
    reaches_every_parameter(&RelativeBias::<Limit, Heads>::default(), |m| m.bias::<Time, Source>().raw());
}
