//! One definition, sizes from a file: a model family is generic over a bundle of axes. An instance
//! that the compiler knows and one that a `config.json` describes are the same code.
//!
//! `cargo run --example 05-runtime-axes-from-a-file`

use mobilis::prelude::*;

axes! {
    pub Batch;
    /// What a member of the family may choose.
    pub trait MlpAxes {
        Inputs,
        Hidden,
        Outputs,
    }
    /// A member with sizes that the compiler knows: mistakes in them are compile errors.
    pub struct Small: MlpAxes { Inputs = 4, Hidden = 8, Outputs = 2 }
    /// The member whose sizes are bound at run time.
    pub struct Any: MlpAxes;
}

/// The family, written once.
#[neural_module]
pub struct Mlp<A: MlpAxes> {
    up: Param![A::Hidden, A::Inputs],
    down: Param![A::Outputs, A::Hidden],
}

#[neural_module]
impl<A: MlpAxes> Mlp<A> {
    pub fn forward(&self, x: Tensor![Batch, A::Inputs]) -> Tensor![Batch, A::Outputs] {
        let hidden = einsum!(x[b i] * self.up.get()[h i] => [b h]).relu();
        einsum!(hidden[b h] * self.down.get()[o h] => [b o])
    }
}

/// Code that uses a model is generic in the same way.
fn predict<A: MlpAxes>(model: &Model<Mlp<A>>, x: &[f32]) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let x = <Array![Batch, A::Inputs]>::new([1, x.len()], x.to_vec())?;
    Ok(model.compile(|m, x| m.forward(x))?.run(x)?.into_vec())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("mobilis-example-05-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;

    // A small model is made and saved, with a description beside it.
    let small = Model::init(Mlp::<Small>::default(), 1)?;
    small.save(folder.join("model.safetensors"))?;
    std::fs::write(folder.join("config.json"), r#"{ "inputs": 4, "hidden": 8, "outputs": 2 }"#)?;

    // Somewhere else nothing is known but the folder.
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let size = |key: &str| config[key].as_u64().map(|n| n as usize).ok_or(format!("config.json has no \"{key}\""));
    let sizes = Sizes::new()
        .with::<<Any as MlpAxes>::Inputs>(size("inputs")?)
        .with::<<Any as MlpAxes>::Hidden>(size("hidden")?)
        .with::<<Any as MlpAxes>::Outputs>(size("outputs")?);
    let any = Model::load_with(Mlp::<Any>::default(), folder.join("model.safetensors"), sizes)?;

    // Both compute the same.
    let x = [0.5, -1.0, 0.25, 2.0];
    let (known, found) = (predict(&small, &x)?, predict(&any, &x)?);
    println!("known to the compiler: {known:?}");
    println!("read from the file:    {found:?}");
    assert_eq!(known, found);

    // A file that contradicts itself is refused, in the model's words.
    let wrong = Sizes::new().with::<<Any as MlpAxes>::Hidden>(9);
    match Model::load_with(Mlp::<Any>::default(), folder.join("model.safetensors"), wrong) {
        Ok(_) => return Err("a hidden size of 9 was accepted".into()),
        Err(e) => println!("error: {e}"),
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
