//! An axis is a type. Declared once, it names a dimension, knows its size or learns it when the
//! program runs, and takes part in arithmetic that the compiler proves.
//!
//! `cargo run --example 01-axes`

use mobilis::prelude::*;

axes! {
    /// Recordings in a batch: a run-time axis, its size comes with the data.
    pub Batch;
    /// Audio samples: also known at run time only.
    pub Samples;
    /// 25 ms windows every 10 ms at 16 kHz: derived from `Samples`, whatever that will be.
    pub Frames = floor(Samples / 160) + 1;
    /// A static axis: the compiler knows its size.
    pub Heads = 4;
    pub HeadDim = 16;
    /// Derived from static axes. `Hidden / 3` would not compile: it leaves a remainder.
    pub Hidden = Heads * HeadDim;
}

/// A function of symbolic tensors. The signature is checked: forget an axis, swap two of them or
/// return another shape, and the compiler says so in these names.
fn heads_first(x: Tensor![Batch, Frames, Hidden]) -> Tensor![Batch, Heads, Frames, HeadDim] {
    rearrange!(x[b t (h d)] => [b h t d])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What the compiler knows, it knows in constants.
    assert_eq!(Hidden::SIZE, Some(64));
    assert_eq!(Frames::SIZE, None);

    // What it does not know is computed from the run-time axes.
    let sizes = Sizes::new().with::<Samples>(16_000);
    println!("one second of audio has {} frames", sizes.of::<Frames>().ok_or("Samples has a size")?);

    // Compile the function once: `()` is the model without parameters.
    let program = Model::init((), 0)?.compile(|_, x| heads_first(x))?;

    // Then run it for any sizes. `Array!` is the host's counterpart of `Tensor!`: it has values.
    for frames in [3, 101] {
        let x = <Array![Batch, Frames, Hidden]>::zeros([2, frames, 64])?;
        let y = program.run(&x)?;
        println!("{:?} in, {:?} out", x.sizes(), y.sizes());
    }

    // Sizes are checked when arrays meet a program or each other, and messages name the axis.
    let wrong = <Array![Batch, Frames, Hidden]>::zeros([2, 3, 60]);
    println!("error: {}", wrong.expect_err("Hidden is 64"));
    Ok(())
}
