//! Sentence embeddings: `embed minilm TEXTS TOKENS` gives the mean of MiniLM's last stream over
//! each text, of length 1.

use crate::run::Fixed;
use mobilis::prelude::*;
use mobilis_zoo::llm::bert::{self, BertAxes};
use mobilis_zoo::llm::encoder::{Pooling, Texts, Visible, normalized};
use mobilis_zoo::llm::{Batch, Config, Context, Ids, Time};
use protocol::{Case, Refusal, number, tokens, weight};

axes! {
    pub struct MiniLm: BertAxes {
        Vocab = 30522, Positions = 512, Types = 2, Hidden = 384, Heads = 12, HeadDim = 32, Ffn = 1536, Labels = 2
    }
}

type Lengths = Tensor<(Batch,), Index>;

pub fn embed(words: &[&str]) -> Result<Box<dyn Case>, Refusal> {
    if words[1] != "minilm" {
        return Err(format!("no shape `{}`", words[1]).into());
    }
    let (texts, count) = (number(words, 2)?, number(words, 3)?);
    let config = Config::parse("MiniLM", r#"{"num_hidden_layers": 6}"#)?;
    let model = Model::init(bert::encoder::<MiniLm>(&config, false, None)?, 1)?;
    for p in model.parameters() {
        model.set(p.name(), &weight(&p.name().replace("LayerNorm", "norm"), &p.sizes))?;
    }
    let program = model.compile(|m, (ids, lengths): (Ids, Lengths)| {
        let texts = Texts { ids, types: None, visible: Visible::Lengths(lengths) };
        normalized(Pooling::Mean.apply(m.forward(&texts, &Context::whole()), lengths))
    })?;
    let ids = <Array<(Batch, Time), Index>>::new([texts, count], tokens("texts", texts * count, 30522))?;
    let lengths = <Array<(Batch,), Index>>::new([texts], vec![count as i32; texts])?;
    Ok(Box::new(Fixed { program, arrays: (ids, lengths) }))
}
