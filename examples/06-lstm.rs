//! An LSTM reads sequences of different lengths in one batch and remembers how each began.
//!
//! `cargo run --release --example 06-lstm`

use mobilis::nn::{Embedding, Linear, Lstm};
use mobilis::prelude::*;
use mobilis::train::{AdamW, TrainOptions};

axes! {
    /// Sequences in a batch and the length that they are padded to: known when programs run.
    pub Batch;
    pub Time;
    pub Symbols = 8;
    pub Features = 16;
    pub Memory = 32;
}

/// Tells which symbol a sequence began with, after reading all of it.
#[neural_module]
pub struct Reader {
    embed: Embedding<Symbols, Features>,
    lstm: Lstm<Features, Memory>,
    head: Linear<Memory, Symbols>,
}

#[neural_module]
impl Reader {
    /// Lengths of any other axis than `Time` do not compile here.
    pub fn forward(
        &self,
        symbols: Tensor![Batch, Time; TokenId],
        lengths: Tensor![Batch; Lengths<Time>],
    ) -> Tensor![Batch, Symbols] {
        // Steps beyond a sequence's length leave its state alone.
        let (_, (state, _cell)) = self.lstm.forward_padded(self.embed.forward(symbols), lengths, None);
        self.head.forward(state.squeeze(Const::<1>))
    }
}

type Symbol = Array![Batch; Labels];
type Text = (Array![Batch, Time; TokenId], Array![Batch; Lengths<Time>]);

/// Random sequences of 5 to `time` random symbols, and the first symbol of each.
fn batch(count: usize, time: usize, seed: &mut u64) -> Result<(Text, Symbol), ArrayError> {
    let mut random = |bound: usize| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 33) % bound as u64) as i32
    };
    let symbols = <Array![Batch, Time; TokenId]>::from_fn([count, time], |_| random(8))?;
    let lengths = (0..count).map(|_| 5 + random(time - 4)).collect();
    let first = symbols.data().chunks(time).map(|row| row[0]).collect();
    Ok(((symbols, Array::from_vec(lengths)?), Array::from_vec(first)?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::init(Reader::default(), 1)?;
    type Args = (Tensor![Batch, Time; TokenId], Tensor![Batch; Lengths<Time>], Tensor![Batch; Labels]);
    let mut step = model.train_step(AdamW::new(0.01), TrainOptions::default(), |m: &Reader, (x, n, y): Args| {
        m.forward(x, n).cross_entropy(y)
    })?;
    let mut seed = 7;
    for i in 1..=400 {
        let ((x, n), y) = batch(32, 12, &mut seed)?;
        let report = step.run((&x, &n, &y))?;
        if i % 50 == 0 {
            println!("step {i}: loss {:.4}", report.loss);
        }
    }

    // Sequences longer than any in training: the same program, bound to other sizes.
    type Question = (Tensor![Batch, Time; TokenId], Tensor![Batch; Lengths<Time>]);
    let guess = model.compile(|m, (x, n): Question| m.forward(x, n).argmax(Symbols))?;
    for time in [12, 20] {
        let ((x, n), y) = batch(500, time, &mut seed)?;
        let right = guess.run((&x, &n))?.iter().zip(y.iter()).filter(|(a, b)| a == b).count();
        println!("of up to {time} symbols, the first is remembered in {:.1} %", right as f64 / 5.0);
    }
    Ok(())
}
