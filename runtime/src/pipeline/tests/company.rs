//! Networks that mix frames, and products by every kernel: nobody's bits depend on company.

use super::*;
use crate::graph::trace::type_of;
use crate::graph::{DType, TensorType};
use crate::nn::{
    BiLstm, Conv1d, CrossAttention, DepthwiseConv1d, Embedding, Gru, LayerNorm, Linear, Lstm, RmsNorm, SelfAttention,
};
use crate::ops::elementwise::{self as ew, CompareKind};
use crate::ops::{leaf, movement, reduce, scan, softmax};
use crate::pipeline::items::ItemResults;
use crate::program::WeightFormat;

axes! { Wide = 40; Deep = 600; Heads = 2; Each = 20; Memory = 24; Classes = 5; Half = ceil(Time / 2); Asked = 3; }

/// `x [Batch, Time, ..]` with `fill` behind the end of each item.
fn kept<T: Axis, C: Axis>(x: Tensor<(Batch, T, C)>, lengths: Count<T>, fill: f64) -> Tensor<(Batch, T, C)> {
    let dims = type_of(x.raw()).dims;
    let places = TensorType::new(dims[..2].to_vec(), DType::I32);
    let lengths = reduce::restore(lengths.raw(), &places.dims, &[1]);
    let inside = ew::compare(CompareKind::Lt, leaf::iota(1, &places), lengths);
    Tensor::from_raw(ew::select(reduce::restore(inside, &dims, &[2]), x.raw(), leaf::scalar(fill)))
}

type Count<T> = Tensor<(Batch,), Lengths<T>>;
type Frames<T> = Tensor<(Batch, T, Wide)>;
type Planes<T, C> = Tensor<(Batch, C, T)>;

/// A vector for each item, beside every frame.
fn spread<T: Axis>(x: Tensor<(Batch, Wide)>, like: Frames<T>) -> Frames<T> {
    Tensor::from_raw(reduce::restore(x.raw(), &type_of(like.raw()).dims, &[1]))
}

/// The sum over time.
fn summed<T: Axis>(x: Frames<T>) -> Tensor<(Batch, Wide)> {
    Tensor::from_raw(reduce::reduce(x.raw(), reduce::Kind::Sum, &[1]))
}

fn turned<A: Axis, B: Axis>(x: Tensor<(Batch, A, B)>) -> Tensor<(Batch, B, A)> {
    Tensor::from_raw(movement::permute(x.raw(), &[0, 2, 1]))
}

/// A layer of each kind. A network is a list of their numbers.
#[neural_module]
struct Parts {
    start: Linear<Width, Wide>,
    half: Conv1d<Wide, Wide, 3, 2, 1>,
    up: Linear<Wide, Deep>,
    down: Linear<Deep, Wide>,
    conv: Conv1d<Wide, Wide, 11, 1, 5>,
    deep: Conv1d<Deep, Wide, 3, 1, 1>,
    point: Conv1d<Wide, Wide, 1>,
    each: DepthwiseConv1d<Wide, 7, 1, 3>,
    attention: SelfAttention<Wide, Heads, Each>,
    asking: Param<(Asked, Wide)>,
    cross: CrossAttention<Wide, Wide, Heads, Each>,
    joined: Linear<Prod<Asked, Wide>, Wide>,
    lstm: Lstm<Wide, Wide>,
    both: BiLstm<Wide, Memory>,
    from_both: Linear<Prod<Const<2>, Memory>, Wide>,
    gru: Gru<Wide, Wide>,
    norm: LayerNorm<Wide>,
    rms: RmsNorm<Wide>,
    gate: Linear<Wide, Wide>,
    scores: Linear<Wide, Wide>,
    classes: Linear<Wide, Classes>,
}

const KINDS: u64 = 14;

impl Parts {
    fn mean<T: Axis>(&self, x: Frames<T>, lengths: Count<T>) -> Tensor<(Batch, Wide)> {
        let sum: Tensor<(Batch, Wide)> = summed(kept(x, lengths, 0.0));
        let dims = type_of(sum.raw()).dims;
        let count = ew::cast(lengths.raw(), DType::F32);
        Tensor::from_raw(ew::div(sum.raw(), reduce::restore(count, &dims, &[1])))
    }

    fn layer<T: Axis>(&self, kind: u64, x: Frames<T>, lengths: Count<T>) -> Frames<T> {
        let clean = kept(x, lengths, 0.0);
        let same = |y: Tensor<(Batch, Wide, _)>| -> Frames<T> {
            Tensor::from_raw(movement::relabel(movement::permute(y.raw(), &[0, 2, 1]), type_of(x.raw()).dims))
        };
        match kind {
            0 => x + self.down.forward(self.up.forward(self.norm.forward(x)).gelu()),
            1 => x + same(self.conv.forward(turned(clean)).relabel::<(Batch, Wide, T)>()).relu(),
            2 => {
                let deep: Tensor<(Batch, T, Deep)> = kept(self.up.forward(x).relu(), lengths, 0.0);
                let planes: Planes<T, Deep> = turned(deep);
                x + same(self.deep.forward(planes).relabel::<(Batch, Wide, T)>())
            }
            3 => same(self.point.forward(turned(x)).relabel::<(Batch, Wide, T)>()).tanh(),
            4 => same(self.each.forward(turned(clean)).relabel::<(Batch, Wide, T)>()).silu(),
            5 => x + self.attention.forward_with(self.norm.forward(x), |a| a.lengths(lengths)),
            6 => x + self.attention.forward_with(self.rms.forward(x), |a| a.lengths(lengths).window(3)),
            7 => self.lstm.forward_padded(x, lengths, None).0,
            8 => self.from_both.forward(self.both.forward_padded(x, lengths, None).0),
            9 => self.gru.forward_padded(x, lengths, None).0,
            10 => x * spread(self.gate.forward(self.mean(x, lengths)).sigmoid(), x),
            11 => {
                let scores = kept(self.scores.forward(x), lengths, f64::NEG_INFINITY);
                let weights: Frames<T> = Tensor::from_raw(softmax::softmax(scores.raw(), 1));
                let mean = summed(weights * clean);
                self.norm.forward(x + spread(self.gate.forward(mean), x))
            }
            12 => {
                let asked = self.asking.get().broadcast::<(Batch, Asked, Wide)>();
                let memory = self.cross.memory(x);
                let heard = self.cross.attend(asked, memory, |a| a.lengths(lengths));
                x + spread(self.joined.forward(heard.reshape::<(Batch, Prod<Asked, Wide>)>()), x)
            }
            _ => self.norm.forward(Frames::<T>::from_raw(scan::cumsum(clean.raw(), 1, false))),
        }
    }

    fn network<T: Axis>(&self, layers: &[u64], x: Frames<T>, lengths: Count<T>) -> Heard<T> {
        let y = layers.iter().fold(x, |x, kind| self.layer(*kind, x, lengths));
        let classes = self.classes.forward(self.mean(y, lengths)).log_softmax(Classes);
        (Padded::new(self.classes.forward(y), lengths), classes)
    }

    fn shorter(&self, x: Frames<Time>, lengths: Count<Time>) -> (Frames<Half>, Count<Half>) {
        let y = self.half.forward(turned(kept(x, lengths, 0.0))).relu();
        let lengths = (lengths.plain() + 1) / 2;
        (turned(y.relabel::<(Batch, Wide, Half)>()), lengths.assume())
    }
}

type Heard<T> = (Padded<(Batch, T, Classes), Real>, Tensor<(Batch, Classes)>);
type Items = Padded<(Batch, Time, Width), Channels>;

/// Random items, alone and in random company: the same bits.
fn compare<O: ItemResults>(stage: &PerItem<Items, O>, random: &Random, same: impl Fn(&O::Item, &O::Item) -> bool) {
    let most = [1, 9, 40, 150][random.below(4) as usize];
    let items: Vec<Array![Time, Width; Channels]> = (0..1 + random.below(17))
        .map(|_| {
            let length = 1 + random.below(most) as usize;
            Array::from_fn([length, 2], |_| random.below(2000) as f32 / 1000.0 - 1.0).expect("an item")
        })
        .collect();
    let alone: Vec<O::Item> = items.iter().map(|x| stage.run(x.clone()).expect("it runs")).collect();
    let mut first = 0;
    while first < items.len() {
        let count = (1 + random.below(17) as usize).min(items.len() - first);
        let together = stage.run_batch(items[first..first + count].to_vec());
        for (i, result) in together.into_iter().enumerate() {
            let result = result.expect("it runs");
            let (length, sizes) = (items[first + i].sizes()[0], items[first..first + count].iter());
            let sizes: Vec<usize> = sizes.map(|x| x.sizes()[0]).collect();
            assert!(same(&alone[first + i], &result), "an item of {length} among {sizes:?}");
        }
        first += count;
    }
}

fn bits(x: &[f32], y: &[f32]) -> bool {
    x.len() == y.len() && x.iter().zip(y).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn results_do_not_depend_on_who_shares_a_batch() {
    let model = Model::init(Parts::default(), 5).expect("a model");
    let random = Random(Cell::new(1));
    for round in 0..24u64 {
        // Every kind once, then at random.
        let mut layers: Vec<u64> = (0..1 + random.below(3)).map(|_| random.below(KINDS)).collect();
        layers.extend((round < KINDS).then_some(round));
        println!("{round}: {layers:?}");
        let format = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8_0][(round % 3) as usize];
        if round % 2 == 0 {
            let forward = |m: &Parts, x: Items| m.network(&layers, m.start.forward(x.values.plain()), x.lengths);
            let stage = model.compile(forward).expect("it compiles").with_weights(format).expect("weights");
            compare(&stage.per_item(), &random, |a, b| bits(a.0.data(), b.0.data()) && bits(a.1.data(), b.1.data()));
        } else {
            let forward = |m: &Parts, x: Items| {
                let (y, lengths) = m.shorter(m.start.forward(x.values.plain()), x.lengths);
                m.network(&layers, y, lengths)
            };
            let stage = model.compile(forward).expect("it compiles").with_weights(format).expect("weights");
            compare(&stage.per_item(), &random, |a, b| bits(a.0.data(), b.0.data()) && bits(a.1.data(), b.1.data()));
        }
    }
}

#[test]
fn one_bad_item_does_not_spoil_a_batch() {
    type Ids = Padded<(Batch, Time), TokenId>;
    let model = Model::init(Embedding::<Wide, Width>::default(), 0).expect("a table");
    let look_up = |m: &Embedding<Wide, Width>, x: Ids| Padded::new(m.forward(x.values), x.lengths);
    let stage = model.compile(look_up).expect("it compiles").per_item();
    let items: Vec<Array![Time; TokenId]> =
        [vec![1, 2], vec![99], vec![3]].into_iter().map(|v| Array::from_vec(v).expect("ids")).collect();
    let found: Vec<bool> = stage.run_batch(items).into_iter().map(|r| r.is_ok()).collect();
    assert_eq!(found, [true, false, true]);
}
