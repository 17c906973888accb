//! Programs for a batch, as stages for one item.
//!
//! Between stages an item travels alone: `Array![Frames, Mels]`, as long as it is. A program is compiled
//! for many at once: `Tensor![Batch, Frames, Mels]`, all of one length, beside it the true lengths.
//! [`Padded`] is that pair, as one argument or one result of a compiled function, so that lengths cannot
//! count another axis than the one they belong to. [`Program::per_item`] makes the program a stage that
//! takes items: it pads them with zeros to the longest, runs, and cuts what comes out to the lengths that
//! the program gives.
//!
//! That an item's result does not depend on those beside it is for the module to keep, by masking
//! wherever frames are mixed; here, items that cannot share a batch, or whose batch fails, run alone. On
//! the CPU even the last bit does not depend on them: programs for items sum in one order for any number of
//! rows ([`Program::alike`]).

use super::Stage;
use crate::array::{Array, HostOf};
use crate::devices::Device;
use crate::language::axis::Axis;
use crate::language::element::{Element, Host, Is};
use crate::language::elements::Lengths;
use crate::language::shape::Shape;
use crate::module::store::Data;
use crate::program::host::{HostRef, HostSlice};
use crate::program::{Arguments, Collected, Feed, Program, ProgramError, Results};
use crate::tensor::Tensor;

/// A shape whose first axis counts the items.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch of items",
    note = "its first axis counts the items: `[Batch, Frames, Mels]` holds items `[Frames, Mels]`"
)]
pub trait Batched: Shape {
    /// The first axis.
    type Batch: Axis;
    /// What is left without it.
    type Item: Shape;
}

/// A [`Batched`] shape whose second axis differs in length from item to item.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch of sequences",
    note = "its first axis counts the items and its second is padded: `[Batch, Frames, Mels]`"
)]
pub trait Sequences: Batched {
    /// The second axis.
    type Time: Axis;
}

macro_rules! batched {
    ($($($a:ident)*;)*) => {$(
        impl<Z: Axis, $($a: Axis),*> Batched for (Z, $($a,)*) {
            type Batch = Z;
            type Item = ($($a,)*);
        }
        batched!(@time $($a)*);
    )*};
    (@time) => {};
    (@time $t:ident $($a:ident)*) => {
        impl<Z: Axis, $t: Axis, $($a: Axis),*> Sequences for (Z, $t, $($a,)*) {
            type Time = $t;
        }
    };
}
batched! { ; A; A B; A B C; A B C D; A B C D F; A B C D F G; A B C D F G H; }

/// Sequences of different lengths in one tensor, and their lengths: `Padded<(Batch, Frames, Mels), MelSpectrogram>`.
/// An argument or a result of a compiled function.
pub struct Padded<S: Sequences, E: Element> {
    /// The values. Those beyond an item's length mean nothing.
    pub values: Tensor<S, E>,
    /// How much of the second axis each item uses.
    pub lengths: Tensor<(S::Batch,), Lengths<S::Time>>,
}

impl<S: Sequences, E: Element> Clone for Padded<S, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: Sequences, E: Element> Copy for Padded<S, E> {}

impl<S: Sequences, E: Element> Padded<S, E> {
    /// Joins values and lengths.
    pub fn new(values: Tensor<S, E>, lengths: Tensor<(S::Batch,), Lengths<S::Time>>) -> Self {
        Padded { values, lengths }
    }
}

/// A [`Padded`] on the host: what a program with such an argument is given, and gives.
pub struct PaddedArray<S: Sequences, E: Element> {
    /// The values. Those beyond an item's length mean nothing.
    pub values: Array<S, E>,
    /// How much of the second axis each item uses.
    pub lengths: Array<(S::Batch,), Lengths<S::Time>>,
}

impl<S: Sequences, E: Element> Arguments for Padded<S, E> {
    fn declare(first: &mut usize) -> Self {
        let values = Arguments::declare(first);
        Padded { values, lengths: Arguments::declare(first) }
    }
}

impl<S: Sequences, E: Is<F>, F: Element> Feed<Padded<S, F>> for PaddedArray<S, E> {
    fn feed<'a>(&'a self, to: &mut Vec<HostRef<'a>>) {
        Feed::<Tensor<S, F>>::feed(&self.values, to);
        to.push(HostRef { sizes: self.lengths.sizes(), values: HostSlice::I32(self.lengths.data()) });
    }
}

impl<S: Sequences, E: Element> Results for Padded<S, E> {
    type Arrays = PaddedArray<S, E>;
    fn declare(&self) {
        self.values.declare();
        self.lengths.declare();
    }
    fn collect(run: &mut Collected) -> PaddedArray<S, E> {
        let values = Tensor::<S, E>::collect(run);
        PaddedArray { values, lengths: Tensor::collect(run) }
    }
}

/// An item's part of an argument.
pub struct ItemRef<'a> {
    host: HostRef<'a>,
    /// Whether its first axis is padded.
    padded: bool,
}

/// Items that fit the arguments `A` of a program for a batch.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no item of what this program takes",
    label = "the program takes batches for `{A}`",
    note = "an item has the axes of the program's argument without the first, and the same element"
)]
pub trait ItemFeed<A> {
    /// Shows the item's arrays in order.
    fn parts<'a>(&'a self, to: &mut Vec<ItemRef<'a>>);
}

impl<S: Batched, T: Shape, E: Is<F>, F: Element> ItemFeed<Tensor<S, F>> for Array<T, E>
where
    S: Batched<Item = T>,
{
    fn parts<'a>(&'a self, to: &mut Vec<ItemRef<'a>>) {
        let host = HostRef { sizes: self.sizes(), values: Host::slice(self.data()) };
        to.push(ItemRef { host, padded: false });
    }
}
impl<S: Sequences, T: Shape, E: Is<F>, F: Element> ItemFeed<Padded<S, F>> for Array<T, E>
where
    S: Batched<Item = T>,
{
    fn parts<'a>(&'a self, to: &mut Vec<ItemRef<'a>>) {
        let host = HostRef { sizes: self.sizes(), values: Host::slice(self.data()) };
        to.push(ItemRef { host, padded: true });
    }
}

/// Results of a program for a batch, item by item.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken apart into items",
    note = "each result has the batch as its first axis: `Tensor![Batch, ..]`, or `Padded<..>` where lengths differ"
)]
pub trait ItemResults: Results {
    /// One item's result.
    type Item;
    /// How many arrays of a run it is made of.
    const COUNT: usize;
    /// One result for each item.
    ///
    /// # Errors
    /// A result that is not `items` long, and lengths that are longer than the values.
    fn split(values: &mut std::vec::IntoIter<(Vec<usize>, Data)>, items: usize) -> Result<Vec<Self::Item>, ItemError>;
}

/// Rows of a result as typed arrays, cut to `lengths` where there are some.
fn rows<S: Batched, E: Element>(
    sizes: &[usize],
    data: Data,
    items: usize,
    lengths: Option<&[i32]>,
) -> Result<Vec<Array<S::Item, E>>, ItemError> {
    let found = sizes.first().copied().unwrap_or(0);
    if found != items || lengths.is_some_and(|l| l.len() != items) {
        return Err(ItemError::Batch { axis: S::NAMES[0], expected: items, found });
    }
    let all: Vec<HostOf<E>> = Host::from_data(data);
    let row: usize = sizes[1..].iter().product();
    let mut out = Vec::with_capacity(items);
    for item in 0..items {
        let mut own = sizes[1..].to_vec();
        if let Some(lengths) = lengths {
            let (length, longest) = (lengths[item], sizes[1]);
            own[0] = usize::try_from(length).ok().filter(|n| *n <= longest).ok_or(ItemError::Length {
                axis: S::NAMES[1],
                item,
                length,
                longest,
            })?;
        }
        let count: usize = own.iter().product();
        out.push(Array::from_parts(&own, all[item * row..item * row + count].to_vec()));
    }
    Ok(out)
}

impl<S: Batched, E: Element> ItemResults for Tensor<S, E> {
    type Item = Array<S::Item, E>;
    const COUNT: usize = 1;
    fn split(values: &mut std::vec::IntoIter<(Vec<usize>, Data)>, items: usize) -> Result<Vec<Self::Item>, ItemError> {
        let (sizes, data) = values.next().expect("a run gives every output");
        rows::<S, E>(&sizes, data, items, None)
    }
}

impl<S: Sequences, E: Element> ItemResults for Padded<S, E> {
    type Item = Array<S::Item, E>;
    const COUNT: usize = 2;
    fn split(values: &mut std::vec::IntoIter<(Vec<usize>, Data)>, items: usize) -> Result<Vec<Self::Item>, ItemError> {
        let (sizes, data) = values.next().expect("a run gives every output");
        let (_, lengths) = values.next().expect("a run gives every output");
        rows::<S, E>(&sizes, data, items, Some(&i32::from_data(lengths)))
    }
}

/// Joins what several results give for an item.
macro_rules! tuples {
    ($($($t:ident $a:ident $i:tt),+;)+) => {$(
        impl<$($t, $a: ItemFeed<$t>),+> ItemFeed<($($t,)+)> for ($($a,)+) {
            fn parts<'a>(&'a self, to: &mut Vec<ItemRef<'a>>) {
                $(self.$i.parts(to);)+
            }
        }
        impl<$($t: ItemResults),+> ItemResults for ($($t,)+) {
            type Item = ($($t::Item,)+);
            const COUNT: usize = 0 $(+ $t::COUNT)+;
            fn split(values: &mut std::vec::IntoIter<(Vec<usize>, Data)>, items: usize) -> Result<Vec<Self::Item>, ItemError> {
                let mut all = ($($t::split(values, items)?.into_iter(),)+);
                const EACH: &str = "every result has one part for each item";
                Ok((0..items).map(|_| ($(all.$i.next().expect(EACH),)+)).collect())
            }
        }
    )+};
}
tuples! {
    A A2 0;
    A A2 0, B B2 1;
    A A2 0, B B2 1, C C2 2;
    A A2 0, B B2 1, C C2 2, D D2 3;
}

/// Why a program for a batch gave no result for an item.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// The program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Items that cannot share a batch. They are then run alone, so this is not seen outside.
    #[error("items of sizes {first:?} and {found:?} do not share a batch")]
    Sizes {
        /// The first item's sizes.
        first: Vec<usize>,
        /// The other's.
        found: Vec<usize>,
    },
    /// A result has another number of items than were given.
    #[error("a result has {found} along `{axis}` for a batch of {expected} items")]
    Batch {
        /// The first axis of the result.
        axis: &'static str,
        /// How many items were given.
        expected: usize,
        /// How many the result has.
        found: usize,
    },
    /// The program gives a length that its own values do not have.
    #[error("the program gives item {item} {length} of {longest} `{axis}`")]
    Length {
        /// The padded axis.
        axis: &'static str,
        /// The item.
        item: usize,
        /// Its length.
        length: i32,
        /// How long the values are.
        longest: usize,
    },
}

/// Values of a port of all items, one behind the other.
enum Stacked {
    F32(Vec<f32>),
    I32(Vec<i32>),
    Bool(Vec<bool>),
}

/// The arguments of a program for these items.
fn stack(items: &[Vec<ItemRef>]) -> Result<Vec<(Vec<usize>, Stacked)>, ItemError> {
    let mut out = vec![];
    let Some(first) = items.first() else { return Ok(out) };
    for (port, ItemRef { host, padded }) in first.iter().enumerate() {
        let parts = || items.iter().map(|item| &item[port].host);
        let mut sizes = host.sizes.to_vec();
        for part in parts() {
            let skip = usize::from(*padded);
            if part.sizes[skip..] != host.sizes[skip..] {
                return Err(ItemError::Sizes { first: host.sizes.to_vec(), found: part.sizes.to_vec() });
            }
            if *padded {
                sizes[0] = sizes[0].max(part.sizes[0]);
            }
        }
        let row: usize = sizes.iter().product();
        sizes.insert(0, items.len());
        let values = match host.values {
            HostSlice::F32(_) => {
                Stacked::F32(pad(parts().map(|p| if let HostSlice::F32(s) = p.values { s } else { &[] }), row))
            }
            HostSlice::I32(_) => {
                Stacked::I32(pad(parts().map(|p| if let HostSlice::I32(s) = p.values { s } else { &[] }), row))
            }
            HostSlice::Bool(_) => {
                Stacked::Bool(pad(parts().map(|p| if let HostSlice::Bool(s) = p.values { s } else { &[] }), row))
            }
        };
        out.push((sizes, values));
        if *padded {
            // A length beyond `i32` does not fit into memory.
            let lengths = parts().map(|p| i32::try_from(p.sizes[0]).unwrap_or(i32::MAX)).collect();
            out.push((vec![items.len()], Stacked::I32(lengths)));
        }
    }
    Ok(out)
}

fn pad<'a, T: Copy + Default + 'a>(parts: impl Iterator<Item = &'a [T]>, row: usize) -> Vec<T> {
    let mut out = vec![];
    for (i, part) in parts.enumerate() {
        out.extend_from_slice(part);
        out.resize((i + 1) * row, T::default());
    }
    out
}

/// A program for a batch, as a stage for one item: see [`Program::per_item`].
pub struct PerItem<I, O> {
    program: Program<I, O>,
    most: usize,
}

impl<I: Arguments, O: Results> Program<I, O> {
    /// The program as a stage that takes one item, without the batch axis, and batches them where a
    /// pipeline has several.
    ///
    /// ```
    /// # extern crate mobilis_runtime as mobilis;
    /// use mobilis::pipeline::Padded;
    /// use mobilis::prelude::*;
    /// axes! { Batch; Frames; Mels = 2; }
    /// type Mel = Padded<(Batch, Frames, Mels), MelSpectrogram>;
    /// let model = Model::init((), 0)?;
    /// let stage = model.compile(|(), x: Mel| Padded::new(x.values.plain() * 2.0, x.lengths))?.per_item();
    /// let items: Vec<Array![Frames, Mels; MelSpectrogram]> = vec![[[1.0, 2.0]].into(), [[1.0, 2.0], [3.0, 4.0]].into()];
    /// let out: Vec<Array![Frames, Mels]> = stage.run_batch(items).into_iter().collect::<Result<_, _>>()?;
    /// assert_eq!((out[0].sizes(), out[1].sizes()), (&[1, 2][..], &[2, 2][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn per_item(self) -> PerItem<I, O> {
        PerItem { program: self.alike(), most: usize::MAX }
    }
}

impl<I: Arguments, O: ItemResults> PerItem<I, O> {
    /// The same with at most `items` in a run, to bound memory.
    #[must_use]
    pub fn at_most(self, items: usize) -> Self {
        PerItem { most: items.max(1), ..self }
    }

    /// The program.
    pub fn program(&self) -> &Program<I, O> {
        &self.program
    }

    fn together<In: ItemFeed<I>>(&self, items: &[In]) -> Result<Vec<O::Item>, ItemError> {
        let parts = items.iter().map(|item| {
            let mut parts = vec![];
            item.parts(&mut parts);
            parts
        });
        let stacked = stack(&parts.collect::<Vec<_>>())?;
        let arguments: Vec<HostRef> = stacked
            .iter()
            .map(|(sizes, values)| {
                let values = match values {
                    Stacked::F32(v) => HostSlice::F32(v),
                    Stacked::I32(v) => HostSlice::I32(v),
                    Stacked::Bool(v) => HostSlice::Bool(v),
                };
                HostRef { sizes, values }
            })
            .collect();
        let results = self.program.run_raw(&arguments)?;
        O::split(&mut results.into_iter(), items.len())
    }
}

impl<I: Arguments, O: ItemResults, In: ItemFeed<I>> Stage<In> for PerItem<I, O> {
    type Output = O::Item;
    type Error = ItemError;

    fn run(&self, input: In) -> Result<O::Item, ItemError> {
        let mut results = self.together(std::slice::from_ref(&input))?;
        results.pop().ok_or(ItemError::Batch { axis: "Batch", expected: 1, found: 0 })
    }

    fn run_batch(&self, inputs: Vec<In>) -> Vec<Result<O::Item, ItemError>> {
        let mut out = Vec::with_capacity(inputs.len());
        for group in inputs.chunks(self.most) {
            match self.together(group) {
                Ok(results) => out.extend(results.into_iter().map(Ok)),
                // One of them is to blame: each finds out for itself.
                Err(_) if group.len() > 1 => {
                    out.extend(group.iter().map(|item| {
                        let mut results = self.together(std::slice::from_ref(item))?;
                        results.pop().ok_or(ItemError::Batch { axis: "Batch", expected: 1, found: 0 })
                    }));
                }
                Err(e) => out.push(Err(e)),
            }
        }
        out
    }

    fn kind(&self) -> String {
        self.program.module_kind()
    }

    fn memory(&self) -> usize {
        self.program.executable().memory().map_or(0, |(arena, _)| arena)
    }

    fn devices(&self) -> Vec<Device> {
        vec![self.program.executable().device()]
    }
}
