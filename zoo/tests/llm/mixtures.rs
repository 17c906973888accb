//! Models of experts and recurrent models in the sizes and settings that the reference data does not
//! have: texts in pieces and in batches against whole ones, sizes that the compiler knows, the loss of
//! routers, and configurations that make no sense.

use mobilis_runtime::prelude::*;
use mobilis_runtime::transforms::grad::gradients;
use mobilis_zoo::llm::deepseek::{self, AnyDeepseek, Deepseek, DeepseekAxes};
use mobilis_zoo::llm::family::{TextModel, text_model};
use mobilis_zoo::llm::mamba::{self, AnyMamba};
use mobilis_zoo::llm::mamba2::{self, AnyMamba2, Mamba2, Mamba2Axes};
use mobilis_zoo::llm::mixtral::{self, AnyMixtral, Mixtral, MixtralAxes};
use mobilis_zoo::llm::moe::{self, balance_loss};
use mobilis_zoo::llm::qwen_moe::{self, AnyQwenMoe};
use mobilis_zoo::llm::session::{SessionOptions, Want};
use mobilis_zoo::llm::{Batch, CausalLm, Config, Context, Ids, Time};
use serde_json::{Value, json};

const VOCAB: u32 = 41;

/// A configuration with odd widths, changed by another.
fn config(model_type: &str, changes: &Value) -> Config {
    let mut all = json!({
        "model_type": model_type, "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "max_position_embeddings": 64, "num_experts_per_tok": 2, "tie_word_embeddings": false,
    });
    let own = match model_type {
        "mixtral" => json!({ "num_local_experts": 5 }),
        "deepseek_v3" => json!({
            "n_routed_experts": 6, "moe_intermediate_size": 9, "kv_lora_rank": 10, "q_lora_rank": 14,
            "qk_nope_head_dim": 5, "qk_rope_head_dim": 4, "v_head_dim": 7, "n_group": 3, "topk_group": 2,
            "first_k_dense_replace": 1, "n_shared_experts": 2,
        }),
        "mamba" => json!({ "state_size": 3 }),
        "mamba2" => json!({ "num_heads": 4, "head_dim": 12, "n_groups": 2, "state_size": 5 }),
        _ => json!({ "num_experts": 5, "moe_intermediate_size": 9, "shared_expert_intermediate_size": 7 }),
    };
    for more in [&own, changes] {
        for (key, value) in more.as_object().expect("an object") {
            all[key] = value.clone();
        }
    }
    Config::new("a test", all)
}

/// A model of random weights.
fn random(config: &Config) -> Box<dyn TextModel> {
    fn made<M: CausalLm>(config: &Config, module: M, sizes: Sizes) -> Box<dyn TextModel> {
        text_model(config, Model::init_with(module, 3, sizes).expect("a model"))
    }
    let whole = "a configuration that makes sense";
    match config.model_type().expect("a family") {
        "mixtral" => {
            let sizes = mixtral::sizes::<AnyMixtral>(config).expect(whole);
            made(config, mixtral::mixtral::<AnyMixtral>(config).expect(whole), sizes)
        }
        "deepseek_v3" => {
            let sizes = deepseek::sizes::<AnyDeepseek>(config).expect(whole);
            made(config, deepseek::deepseek::<AnyDeepseek>(config).expect(whole), sizes)
        }
        "mamba" => {
            let sizes = mamba::sizes::<AnyMamba>(config).expect(whole);
            made(config, mamba::mamba::<AnyMamba>(config).expect(whole), sizes)
        }
        "mamba2" => {
            let sizes = mamba2::sizes::<AnyMamba2>(config).expect(whole);
            made(config, mamba2::mamba2::<AnyMamba2>(config).expect(whole), sizes)
        }
        _ => {
            let sizes = qwen_moe::sizes::<AnyQwenMoe>(config).expect(whole);
            made(config, qwen_moe::qwen_moe::<AnyQwenMoe>(config).expect(whole), sizes)
        }
    }
}

fn text(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| (i * i * 7 + i * 31 + seed * 97 + 5) % VOCAB).collect()
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let far = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(far <= 1e-5 * largest + 1e-6, "{what}: {far} of {largest}");
}

#[test]
fn pieces_and_batches_of_unequal_texts() {
    let all = [
        ("mixtral", json!({ "num_experts_per_tok": 1, "sliding_window": 3 })),
        ("mixtral", json!({ "num_experts_per_tok": 5, "tie_word_embeddings": true, "head_dim": null })),
        ("qwen2_moe", json!({ "decoder_sparse_step": 2, "norm_topk_prob": true, "qkv_bias": false })),
        ("qwen2_moe", json!({ "use_sliding_window": true, "sliding_window": 4, "mlp_only_layers": [1] })),
        ("qwen3_moe", json!({ "attention_bias": true, "use_sliding_window": true, "sliding_window": 5 })),
        ("deepseek_v3", json!({})),
        ("deepseek_v3", json!({ "q_lora_rank": null, "n_group": 1, "topk_group": 1, "rope_interleave": false })),
        ("deepseek_v3", json!({ "attention_bias": true, "n_shared_experts": 0, "norm_topk_prob": false })),
        ("mamba", json!({ "conv_kernel": 1, "time_step_rank": "auto" })),
        ("mamba", json!({ "conv_kernel": 2, "use_bias": true, "use_conv_bias": false, "expand": 3 })),
        ("mamba2", json!({ "time_step_limit": [0.3, 0.7], "conv_kernel": 6 })),
        ("mamba2", json!({ "n_groups": 4, "use_bias": true, "tie_word_embeddings": true })),
    ];
    for (family, changes) in all {
        let what = format!("{family} {changes}");
        let model = random(&config(family, &changes));
        let texts = [text(1, 17), text(2, 9)];
        let alone = texts.each_ref().map(|t| {
            let scores = model.score(1, t).expect("it runs").logits;
            scores.data.chunks(scores.sizes[2]).map(<[f32]>::to_vec).collect::<Vec<_>>()
        });
        for chunk in [1, 3, 32] {
            let mut session = model.session(SessionOptions { chunk, ..SessionOptions::new(2, 20) });
            let mut at = [0, 0];
            for step in [[7, 1], [0, 4], [1, 1], [1, 0], [8, 3]] {
                let pieces = [0, 1].map(|b| &texts[b][at[b]..at[b] + step[b]]);
                let logits = session.feed(&pieces, Want::All).expect("there is room");
                for b in 0..2 {
                    let places = at[b]..at[b] + step[b];
                    assert_eq!(logits.positions(b).count(), step[b]);
                    for (found, i) in logits.positions(b).zip(places) {
                        close(found, &alone[b][i], &format!("{what}: chunk {chunk}, sequence {b}, token {i}"));
                    }
                    at[b] += step[b];
                }
            }
        }
    }
}

/// The value and its gradient norms are those of transformers' `load_balancing_loss_func`.
#[test]
fn the_loss_that_balances_experts() -> Result<(), Box<dyn std::error::Error>> {
    type Logits = Tensor<(Batch, Time, Const<6>)>;
    let model = Model::init(mixtral::mixtral::<SmallMixtral>(&config("mixtral", &json!({})))?, 5)?;
    let program = model.compile(|_, (a, b, c): (Logits, Logits, Logits)| {
        let loss = balance_loss::<Const<6>, Const<2>>(&[a, b, c]);
        let by = gradients(loss.raw(), &[a.raw(), b.raw(), c.raw()]);
        let norms = by.into_iter().map(|g| Logits::from_raw(g).square().sum_all());
        std::iter::once(loss).chain(norms).collect::<Vec<Tensor<()>>>()
    })?;
    let layer = |l: usize| {
        let one = |i: usize| ((0.7 * i as f64 + 1.3 * l as f64).sin() * 2.0) as f32;
        Array::<(Batch, Time, Const<6>)>::from_parts(&[1, 8, 6], (0..48).map(one).collect())
    };
    let found: Vec<f32> = program.run((layer(0), layer(1), layer(2)))?.iter().map(|a| a.data()[0]).collect();
    assert!((found[0] - 2.023_440_8).abs() < 2e-6, "{found:?}");
    for (found, expected) in found[1..].iter().zip([0.014_854_624f32, 0.019_932_171, 0.017_593_86]) {
        assert!((found.sqrt() - expected).abs() < 1e-6, "{found}");
    }
    // Where all experts are alike, as many as are chosen.
    let alike = || Array::<(Batch, Time, Const<6>)>::from_parts(&[1, 8, 6], vec![0.5; 48]);
    let found = program.run((alike(), alike(), alike()))?;
    assert!((found[0].data()[0] - 2.0).abs() < 1e-5);
    Ok(())
}

axes! {
    struct SmallMixtral: MixtralAxes {
        Vocab = 41, Hidden = 24, KvHeads = 2, Groups = 2, HeadDim = 6, Experts = 5, Chosen = 2, Ffn = 20,
    }
    struct SmallDeepseek: DeepseekAxes {
        Vocab = 41, Hidden = 24, Heads = 4, NopeDim = 5, RopeDim = 4, ValueDim = 7, Latent = 10,
        QueryLatent = 14, Ffn = 20, ExpertGroups = 3, PerGroup = 2, ChosenGroups = 2, Chosen = 2,
        ExpertFfn = 9, SharedFfn = 18,
    }
    struct SmallMamba2: Mamba2Axes {
        Vocab = 41, Hidden = 24, StateGroups = 2, PerGroup = 2, HeadDim = 12, StateSize = 5, Window = 3,
    }
}

/// Logits of a text by a model whose sizes the compiler knows, and by one whose sizes are read.
fn both<M: CausalLm, N: CausalLm>(known: M, read: N, sizes: Sizes) {
    fn logits<M: CausalLm>(model: Model<M>) -> Vec<f32> {
        let program = model.compile(|m: &M, ids: Ids| m.logits(ids)).expect("it compiles");
        let ids = text(1, 11).into_iter().map(|t| t as i32).collect();
        program.run(Array::<(Batch, Time), Index>::from_parts(&[1, 11], ids)).expect("it runs").into_vec()
    }
    let known = logits(Model::init(known, 9).expect("a model"));
    assert_eq!(known, logits(Model::init_with(read, 9, sizes).expect("a model")));
    assert!(known.iter().all(|v| v.is_finite()));
}

#[test]
fn sizes_known_to_the_compiler() -> Result<(), Box<dyn std::error::Error>> {
    let c = config("mixtral", &json!({}));
    let known: Mixtral<SmallMixtral> = mixtral::mixtral(&c)?;
    both(known, mixtral::mixtral::<AnyMixtral>(&c)?, mixtral::sizes::<AnyMixtral>(&c)?);
    let c = config("deepseek_v3", &json!({}));
    let known: Deepseek<SmallDeepseek> = deepseek::deepseek(&c)?;
    both(known, deepseek::deepseek::<AnyDeepseek>(&c)?, deepseek::sizes::<AnyDeepseek>(&c)?);
    let c = config("mamba2", &json!({}));
    let known: Mamba2<SmallMamba2> = mamba2::mamba2(&c)?;
    both(known, mamba2::mamba2::<AnyMamba2>(&c)?, mamba2::sizes::<AnyMamba2>(&c)?);
    Ok(())
}

/// The training loss is the cross-entropy and the balance of all layers' routers.
#[test]
fn training_sees_the_routers() -> Result<(), Box<dyn std::error::Error>> {
    type A = SmallMixtral;
    type Experts = <A as MixtralAxes>::Experts;
    type Chosen = <A as MixtralAxes>::Chosen;
    let model = Model::init(mixtral::mixtral::<A>(&config("mixtral", &json!({})))?, 5)?;
    let program = model.compile(|m: &Mixtral<A>, (ids, next): (Ids, Ids)| {
        let own: Tensor<()> = m.logits(ids).cross_entropy(next);
        let (_, layers) = moe::routers::<Experts, _>(|cx: &Context| m.stream(ids, cx));
        assert_eq!(layers.len(), 2);
        vec![moe::loss::<_, Experts, Chosen>(m, ids, next, 0.5), own, balance_loss::<Experts, Chosen>(&layers)]
    })?;
    let ids = |seed| text(seed, 12).into_iter().map(|t| t as i32).collect();
    let given = |seed| Array::<(Batch, Time), Index>::from_parts(&[2, 6], ids(seed));
    let found: Vec<f32> = program.run((given(1), given(2)))?.iter().map(|a| a.data()[0]).collect();
    assert!((found[0] - found[1] - 0.5 * found[2]).abs() < 1e-5, "{found:?}");
    assert!(found[2] >= 1.0, "{found:?}");
    Ok(())
}

#[test]
fn configurations_that_make_no_sense() {
    let told = |family: &str, changes: Value| {
        let c = config(family, &changes);
        let found = match family {
            "mixtral" => mixtral::sizes::<AnyMixtral>(&c),
            "deepseek_v3" => deepseek::sizes::<AnyDeepseek>(&c),
            "mamba" => mamba::sizes::<AnyMamba>(&c),
            "mamba2" => mamba2::sizes::<AnyMamba2>(&c),
            _ => qwen_moe::sizes::<AnyQwenMoe>(&c),
        };
        found.expect_err("it is wrong").to_string()
    };
    let chosen = "a test: `num_experts_per_tok` is 6, expected at most the 5 experts";
    assert_eq!(told("mixtral", json!({ "num_experts_per_tok": 6 })), chosen);
    assert_eq!(told("qwen3_moe", json!({ "num_experts_per_tok": 6 })), chosen);
    let many = told("mixtral", json!({ "num_local_experts": 4_000_000_000u64 }));
    assert!(many.contains("expected at most 65000 experts"), "{many}");
    let groups = told("deepseek_v3", json!({ "n_group": 4 }));
    assert!(groups.contains("a divisor of the 6 experts, with two or more in each"), "{groups}");
    assert!(told("deepseek_v3", json!({ "topk_group": 4 })).contains("at most the 3 groups"));
    let few = told("deepseek_v3", json!({ "num_experts_per_tok": 5 }));
    assert!(few.contains("at most the experts of 2 groups of 3"), "{few}");
    assert!(told("mamba", json!({ "conv_kernel": 0 })).contains("a whole number from 1 to 1024"));
    assert!(told("mamba", json!({ "expand": -1 })).contains("a positive factor"));
    assert!(told("mamba2", json!({ "n_groups": 3 })).contains("a divisor of the 4 heads"));
    assert!(told("mamba2", json!({ "num_heads": 5 })).contains("48 channels with 12 a head"));
    // Nothing is built of a number of experts that the checkpoint cannot have.
    let c = config("mixtral", &json!({ "num_local_experts": 60_000, "num_hidden_layers": 9_000 }));
    let count = moe::check_count(&c, &mixtral::EXPERTS, 9_000, 50).expect_err("it is wrong").to_string();
    assert!(count.contains("experts with three matrices in each of 9000 layers, of 50 tensors"), "{count}");
}
