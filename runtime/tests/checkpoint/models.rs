//! Models from checkpoints: strict, with sizes solved from shapes.

use super::Scratch;
use mobilis::checkpoint::{Checkpoint, Encoding, Writer};
use mobilis::graph::DType;
use mobilis::module::store::Data;
use mobilis::prelude::*;
use std::path::Path;

axes! {
    pub Vocab;
    pub Hidden;
    pub Ffn = 4 * Hidden;
    pub Half = floor(Hidden / 2);
}

#[neural_module]
struct Mlp {
    up: Param<(Ffn, Hidden)>,
    bias: Param<(Ffn,)>,
}

#[neural_module]
struct Net {
    #[name("wte.weight")]
    embed: Param<(Vocab, Hidden)>,
    mlp: Mlp,
    half: Buffer<(Half,)>,
    steps: Buffer<(), Index>,
    mask: Buffer<(Hidden,), Mask>,
    #[name("head.weight")]
    #[tie(embed)]
    head: Param<(Vocab, Hidden)>,
}

fn sizes() -> Sizes {
    Sizes::new().with::<Vocab>(5).with::<Hidden>(4)
}

fn net(seed: u64) -> Model<Net> {
    Model::init_with(Net::default(), seed, sizes()).unwrap()
}

fn equal(a: &Model<Net>, b: &Model<Net>) -> bool {
    let values = |m: &Model<Net>| {
        let store = m.store().lock();
        m.catalog().vars().iter().map(|d| store.get(d.id).unwrap().data.clone()).collect::<Vec<_>>()
    };
    values(a) == values(b)
}

/// A checkpoint of `Net` with one thing changed: tensors by name, sizes and values.
struct Draft(Vec<(String, Vec<usize>, Data)>);

impl Draft {
    fn new() -> Draft {
        let reals = |n: usize| Data::F32((0..n).map(|i| i as f32).collect());
        let item = |name: &str, sizes: &[usize], data| (name.to_string(), sizes.to_vec(), data);
        Draft(vec![
            item("wte.weight", &[5, 4], reals(20)),
            item("mlp.up", &[16, 4], reals(64)),
            item("mlp.bias", &[16], reals(16)),
            item("half", &[2], reals(2)),
            item("steps", &[], Data::I32(vec![3])),
            item("mask", &[4], Data::Bool(vec![1, 0, 1, 0])),
        ])
    }
    fn without(mut self, name: &str) -> Draft {
        self.0.retain(|t| t.0 != name);
        self
    }
    fn with(mut self, name: &str, sizes: &[usize], data: Data) -> Draft {
        self.0.push((name.into(), sizes.to_vec(), data));
        self
    }
    fn named(mut self, f: impl Fn(&str) -> String) -> Draft {
        self.0.iter_mut().for_each(|t| t.0 = f(&t.0));
        self
    }
    fn save(&self, path: &Path) {
        let writer = self.0.iter().try_fold(Writer::new(), |w, (name, sizes, data)| w.add(name, sizes, data));
        writer.unwrap().save(path).unwrap();
    }
    fn load(&self, options: LoadOptions) -> Result<Model<Net>, String> {
        let scratch = Scratch::new();
        let path = scratch.path("m.safetensors");
        self.save(&path);
        options.load(Net::default(), &path).map_err(|e| e.to_string().replace(&*path.to_string_lossy(), "m"))
    }
    fn refused(&self) -> String {
        self.load(LoadOptions::new()).expect_err("an error")
    }
}

fn zeros(n: usize) -> Data {
    Data::F32(vec![0.0; n])
}

#[test]
fn save_and_load_give_the_same_model() {
    let scratch = Scratch::new();
    let model = net(1);
    model.set("steps", &[77i32]).unwrap();
    model.set("mask", &[true, false, true, true]).unwrap();
    for name in ["m.safetensors", "folder"] {
        let path = scratch.path(name);
        model.save(&path).unwrap();
        // No sizes given: they follow from the shapes.
        let loaded = Model::load(Net::default(), &path).unwrap();
        assert!(equal(&model, &loaded));
        assert_eq!(loaded.sizes().of::<Hidden>(), Some(4));
        assert_eq!(loaded.sizes().of::<Vocab>(), Some(5));
    }
    // Tied once, under the first name; buffers too.
    let file = Checkpoint::open(scratch.path("m.safetensors")).unwrap();
    let names: Vec<&str> = file.tensors().map(|(n, _)| n).collect();
    assert_eq!(names, ["half", "mask", "mlp.bias", "mlp.up", "steps", "wte.weight"]);
    // Saving again gives the same bytes.
    let bytes = std::fs::read(scratch.path("m.safetensors")).unwrap();
    model.save(scratch.path("again.safetensors")).unwrap();
    assert_eq!(std::fs::read(scratch.path("again.safetensors")).unwrap(), bytes);
}

#[test]
fn precision_and_parts_when_saving() {
    let scratch = Scratch::new();
    let model = net(1);
    let path = scratch.path("small");
    model.save_with(&path, &SaveOptions { reals: Some(Encoding::BF16), shard_bytes: 64 }).unwrap();
    let file = Checkpoint::open(&path).unwrap();
    assert!(file.parts().len() > 1);
    assert_eq!(file.find("mlp.up").unwrap().encoding, Encoding::BF16);
    assert_eq!(file.find("steps").unwrap().encoding, Encoding::I32);
    let loaded = Model::load(Net::default(), &path).unwrap();
    for (a, b) in model.get::<f32>("mlp.up").unwrap().iter().zip(loaded.get::<f32>("mlp.up").unwrap()) {
        assert!((a - b).abs() <= a.abs() / 256.0);
    }
    let e = model.save_with(&path, &SaveOptions { reals: Some(Encoding::I64), ..SaveOptions::default() });
    assert!(e.unwrap_err().to_string().contains("f32 values are not written as I64"));
    // The reference device's values are kept whole.
    let wide = net(1).on(Device::Reference);
    wide.save(scratch.path("wide.safetensors")).unwrap();
    let file = Checkpoint::open(scratch.path("wide.safetensors")).unwrap();
    assert_eq!(file.find("mlp.up").unwrap().encoding, Encoding::F64);
    LoadOptions::new().load_into(&wide, scratch.path("wide.safetensors")).unwrap();
    assert!(matches!(file.read_wide("mlp.up", DType::F32).unwrap(), Data::F64(_)));
}

#[test]
fn loading_into_a_model_reaches_its_programs_and_fails_whole() {
    let scratch = Scratch::new();
    let path = scratch.path("m.safetensors");
    let (model, other) = (net(1), net(2));
    let store = model.store().clone();
    other.save(&path).unwrap();
    LoadOptions::new().load_into(&model, &path).unwrap();
    assert!(equal(&model, &other));
    assert!(store.same(model.store()));
    // The last tensor read is faulty: nothing is changed.
    let broken = net(3);
    Draft::new().without("steps").with("steps", &[], Data::F32(vec![0.5])).save(&path);
    assert!(LoadOptions::new().load_into(&broken, &path).is_err());
    assert!(equal(&broken, &net(3)));
}

#[test]
fn everything_wrong_is_listed_at_once() {
    let draft = Draft::new()
        .without("mlp.bias")
        .with("mlp.bais", &[16], zeros(16))
        .without("half")
        .without("wte.weight")
        .with("wte.weight", &[5, 3], zeros(15))
        .without("steps")
        .with("steps", &[], Data::F32(vec![1.0]))
        .with("extra", &[1], zeros(1));
    // `Hidden` is learnt from the first parameter that tells it, here the embedding.
    assert_eq!(
        draft.refused(),
        "`m` does not fit the model `Net`\
         \n  2 missing: the model has, the file lacks\
         \n    mlp.bias [Ffn=12]; the file has `mlp.bais`\
         \n    half [Half=1]\
         \n  2 unexpected: the file has, the model lacks\
         \n    extra [1]\
         \n    mlp.bais [16]; did you mean `mlp.bias`?\
         \n  2 of another shape:\
         \n    mlp.up the model has [Ffn=12, Hidden=3], the file [16, 4]: `Ffn` is 12 (Hidden = 3 from `wte.weight`), \
         not 16; `Hidden` is 3 (Hidden = 3 from `wte.weight`), not 4\
         \n    mask the model has [Hidden=3], the file [4]: `Hidden` is 3 (Hidden = 3 from `wte.weight`), not 4\
         \n  1 of another kind of number:\
         \n    steps the model holds i32, the file F32\
         \n  `LoadOptions::rename` maps names; `allow_missing` and `allow_unexpected` take the checkpoint as it is"
    );
}

#[test]
fn given_sizes_are_insisted_on() {
    let load = |sizes| Draft::new().load(LoadOptions::new().sizes(sizes));
    assert!(load(Sizes::new().with::<Hidden>(4)).is_ok());
    let e = load(Sizes::new().with::<Hidden>(8)).unwrap_err();
    assert!(e.contains("wte.weight the model has [Vocab=5, Hidden=8], the file [5, 4]: `Hidden` is 8, not 4"), "{e}");
    let e = load(Sizes::new().with::<Ffn>(18)).unwrap_err();
    assert!(e.contains("4 * Hidden has no whole solution"), "{e}");
}

#[test]
fn ranks_and_impossible_sizes() {
    let e = Draft::new().without("mlp.bias").with("mlp.bias", &[16, 1], zeros(16)).refused();
    assert!(e.contains("mlp.bias the model has [Ffn=16], the file [16, 1]"), "{e}");

    #[neural_module]
    struct Lone {
        bias: Param<(Ffn,)>,
    }
    let scratch = Scratch::new();
    let path = scratch.path("m.safetensors");
    let load = |n: usize| {
        Draft(vec![("bias".into(), vec![n], zeros(n))]).save(&path);
        Model::load(Lone::default(), &path).map(|m| m.sizes().of::<Hidden>()).map_err(|e| e.to_string())
    };
    assert_eq!(load(12), Ok(Some(3)));
    let e = load(10).unwrap_err();
    assert!(e.contains("`Ffn` = 4 * Hidden is never 10"), "{e}");
}

#[test]
fn an_axis_that_no_tensor_tells_must_be_given() {
    #[neural_module]
    struct Lone {
        half: Buffer<(Half,)>,
    }
    let scratch = Scratch::new();
    let path = scratch.path("m.safetensors");
    Draft(vec![("half".into(), vec![3], zeros(3))]).save(&path);
    let e = Model::load(Lone::default(), &path).unwrap_err().to_string();
    assert!(e.contains("`Hidden` (of `half`)"), "{e}");
    for (hidden, good) in [(6, true), (7, true), (8, false)] {
        let loaded = Model::load_with(Lone::default(), &path, Sizes::new().with::<Hidden>(hidden));
        assert_eq!(loaded.is_ok(), good, "{hidden}");
    }
}

#[test]
fn tied_parameters_are_stored_once_or_equal() {
    let reals: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let by_second = Draft::new().named(|n| n.replace("wte.weight", "head.weight"));
    assert_eq!(by_second.load(LoadOptions::new()).unwrap().get::<f32>("wte.weight").unwrap(), reals);
    let twice = Draft::new().with("head.weight", &[5, 4], Data::F32(reals.clone()));
    assert!(twice.load(LoadOptions::new()).is_ok());
    let e = Draft::new().with("head.weight", &[5, 4], zeros(20)).refused();
    assert!(e.contains("`head.weight` and `wte.weight` are one parameter in the model, but differ in the file"), "{e}");
    // NaN in both places is equal.
    let nan = || Data::F32(vec![f32::NAN; 20]);
    let both =
        Draft::new().without("wte.weight").with("wte.weight", &[5, 4], nan()).with("head.weight", &[5, 4], nan());
    assert!(both.load(LoadOptions::new()).is_ok());
}

#[test]
fn exceptions_are_explicit() {
    let draft = Draft::new().without("mlp.bias").with("extra", &[1], zeros(1));
    let e = draft.refused();
    assert!(e.contains("1 missing") && e.contains("1 unexpected"), "{e}");
    assert!(draft.load(LoadOptions::new().allow_missing()).is_err());
    assert!(draft.load(LoadOptions::new().allow_unexpected()).is_err());
    let model = draft.load(LoadOptions::new().allow_missing().allow_unexpected().seed(5)).unwrap();
    assert_eq!(model.get::<f32>("mlp.bias").unwrap(), [0.0; 16]);
    // A missing parameter is filled as in a new model of the seed.
    let model = Draft::new().without("mlp.up").load(LoadOptions::new().allow_missing().seed(5)).unwrap();
    assert_eq!(model.get::<f32>("mlp.up").unwrap(), net(5).get::<f32>("mlp.up").unwrap());
    // Another shape is never allowed.
    let bent = Draft::new().without("half").with("half", &[3], zeros(3));
    assert!(bent.load(LoadOptions::new().allow_missing().allow_unexpected()).is_err());
}

#[test]
fn prefix_and_rename() {
    let prefixed = Draft::new().named(|n| format!("model.net.{n}")).with("other.weight", &[1], zeros(1));
    let e = prefixed.refused();
    assert!(
        e.ends_with(
            "all missing tensors are there under `model.net.`: load with `LoadOptions::new().prefix(\"model.net.\")`"
        ),
        "{e}"
    );
    let model = prefixed.load(LoadOptions::new().prefix("model.net.")).unwrap();
    assert_eq!(model.get::<i32>("steps").unwrap(), [3]);
    let renamed = Draft::new().named(|n| n.replace("mlp", "feed_forward"));
    assert!(renamed.load(LoadOptions::new()).is_err());
    assert!(renamed.load(LoadOptions::new().rename(|n| n.replace("mlp", "feed_forward"))).is_ok());
}

#[test]
fn other_encodings_are_converted() {
    let halves = |draft: Draft| {
        let scratch = Scratch::new();
        let path = scratch.path("m.safetensors");
        let writer = draft.0.iter().try_fold(Writer::new(), |w, (name, sizes, data)| match data {
            Data::F32(_) => w.add_as(name, sizes, data, Encoding::F16),
            Data::I32(_) => w.add_as(name, sizes, data, Encoding::I64),
            _ => w.add_as(name, sizes, data, Encoding::U8),
        });
        writer.unwrap().save(&path).unwrap();
        Model::load(Net::default(), &path).unwrap()
    };
    // Small whole numbers are exact in every encoding.
    assert!(equal(&halves(Draft::new()), &Draft::new().load(LoadOptions::new()).unwrap()));
}

#[test]
fn the_public_goldens_open() {
    let root = std::env::var("MOBILIS_GOLDEN")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden").into());
    let Ok(folders) = std::fs::read_dir(&root) else {
        println!("skipped: there is no `{root}`; set MOBILIS_GOLDEN to the reference models");
        return;
    };
    let mut files = 0;
    for folder in folders.flatten().filter(|f| f.path().is_dir()) {
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            if file.path().extension().is_some_and(|e| e == "safetensors") {
                let checkpoint = Checkpoint::open(file.path()).unwrap_or_else(|e| panic!("{e}"));
                for (name, stored) in checkpoint.tensors() {
                    let dtype = [DType::F32, DType::I32, DType::Bool]
                        .into_iter()
                        .find(|d| mobilis::checkpoint::values::readable(stored.encoding, *d))
                        .expect(name);
                    assert_eq!(checkpoint.read_wide(name, dtype).unwrap().len(), stored.count(), "{name}");
                }
                files += 1;
            }
        }
    }
    println!("{files} files read");
    assert!(files > 0);
}
