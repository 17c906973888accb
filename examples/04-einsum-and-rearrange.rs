//! Products, permutations and reductions are written in axes, not in positions: attention in
//! three lines, and each line is checked.
//!
//! `cargo run --example 04-einsum-and-rearrange`

use mobilis::prelude::*;

axes! {
    pub Batch;
    pub Time;
    /// The positions that are attended to: as many as `Time`, but another axis, so that scores
    /// are `[.., Time, Source]` and cannot be transposed by mistake.
    pub Source = Time;
    pub Heads = 2;
    pub HeadDim = 4;
    pub Hidden = Heads * HeadDim;
}

fn attention(
    q: Tensor![Batch, Time, Hidden],
    k: Tensor![Batch, Source, Hidden],
    v: Tensor![Batch, Source, Hidden],
) -> Tensor![Batch, Time, Hidden] {
    // Split: `(h d)` is Hidden, and the types on the left say which axes h and d are. The
    // compiler proves that Heads * HeadDim = Hidden.
    let q: Tensor![Batch, Heads, Time, HeadDim] = rearrange!(q[b t (h d)] => [b h t d]);
    let k: Tensor![Batch, Heads, Source, HeadDim] = rearrange!(k[b s (h d)] => [b h s d]);
    let v: Tensor![Batch, Heads, Source, HeadDim] = rearrange!(v[b s (h d)] => [b h s d]);

    // Contract: d is on the left of `=>` and not on the right, so it is summed.
    let scores = einsum!(q[b h t d] * k[b h s d] => [b h t s]) / 2.0;
    let mixed = einsum!(scores.softmax(Source) [b h t s] * v[b h s d] => [b h t d]);

    // Merge: the product of h and d goes by the name of Hidden again.
    rearrange!(mixed[b h t d] => [b t (h d) as Hidden])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = Model::init((), 0)?.compile(|_, (q, k, v)| attention(q, k, v))?;
    let q = <Array![Batch, Time, Hidden]>::from_fn([1, 3, 8], |[_, t, i]| ((t * 8 + i) as f32).sin())?;
    let k = q.clone().relabel::<(Batch, Source, Hidden)>();
    // Values that do not depend on the position come out as they went in, whatever the scores.
    let v = <Array![Batch, Source, Hidden]>::from_fn([1, 3, 8], |[_, _, i]| i as f32)?;
    let y = program.run((&q, &k, &v))?;
    println!("attention: {:.3?}", &y.data()[..8]);

    // Reductions name what they do and what stays.
    let model = Model::init((), 0)?;
    let statistics = model.compile(|_, x: Tensor![Batch, Time, Hidden]| {
        let mean = reduce!(mean: x[b t i] => [b i]);
        let peak = reduce!(max: x[b t i] => [t]);
        (mean, peak)
    })?;
    let (mean, peak) = statistics.run(&y)?;
    println!("mean: {:.3?}", mean.data());
    println!("peak: {:.3?}", peak.data());
    Ok(())
}
