//! Matrix products joined into one: what [`crate::transforms::products`] makes of contractions
//! that share an operand or are added to each other.
//!
//! Result `j` is `sum over i of left_i right_ij`, with `left_i` of equal height: queries, keys and
//! values are three results of one left side, and the gradient of what they were projected from is
//! one result of three left sides. Each operand is a matrix by two groups of its dimensions.
//!
//! A result may go through a chain while it is in cache ([`crate::transforms::epilogue`]).

use super::{Cost, GradContext, NoGradient, Rule};
use crate::graph::trace::Handle;
use crate::graph::{DType, Extent, TensorType};
use crate::ops::chain::Chain;
use crate::ops::contraction::Einsum;
use std::ops::Range;

/// The left sides of a product at most.
pub const LEFTS: usize = 4;
/// The results of a product at most.
pub const RESULTS: usize = mobilis_kernels::cpu::epilogue::RESULTS;

/// A tensor as a matrix: which of its dimensions, in this order, are the rows and the columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Axes {
    /// The dimensions of the rows.
    pub rows: Vec<usize>,
    /// The dimensions of the columns.
    pub columns: Vec<usize>,
}

impl Axes {
    fn fit(&self, ty: &TensorType) -> bool {
        let mut all: Vec<usize> = self.rows.iter().chain(&self.columns).copied().collect();
        all.sort_unstable();
        ty.dtype == DType::F32 && all.iter().copied().eq(0..ty.rank())
    }
}

/// What becomes of a result.
#[derive(Clone, Debug)]
pub struct After {
    /// The chain that it goes through.
    pub chain: Chain,
    /// The chain's inputs by number among the product's inputs; `None` is the result.
    pub inputs: Vec<Option<usize>>,
    /// Whether the result itself is wanted too.
    pub keep: bool,
}

/// Joined products. Inputs: the left sides; for each result, the right side for each of them; what
/// chains read. The dimensions of a result are the rows of the left sides and then the columns of
/// its right sides. Outputs: for each result itself, if no chain follows or it is kept, and then
/// the chain's results.
#[derive(Clone, Debug)]
pub struct Product {
    /// The left sides, whose columns are summed over.
    pub left: Vec<Axes>,
    /// For each result the right sides, whose rows are summed over.
    pub right: Vec<Vec<Axes>>,
    /// For each result what follows.
    pub after: Vec<Option<After>>,
}

impl Product {
    /// A contraction as a product, and which of its operands are the left and the right side;
    /// nothing where it is a batch of products, or none.
    pub fn of(op: &Einsum) -> Option<(Product, [usize; 2])> {
        let [first, second] = op.operands.as_slice() else { return None };
        let unique = |labels: &[u8]| labels.iter().enumerate().all(|(i, l)| !labels[..i].contains(l));
        if ![first, second, &op.output].into_iter().all(|l| unique(l)) {
            return None;
        }
        [(first, second, [0, 1]), (second, first, [1, 0])].into_iter().find_map(|(left, right, order)| {
            let height = op.output.iter().take_while(|l| left.contains(l)).count();
            let (rows, columns) = op.output.split_at(height);
            let inner: Vec<u8> = left.iter().copied().filter(|l| !rows.contains(l)).collect();
            let whole =
                |x: &[u8], a: &[u8], b: &[u8]| x.len() == a.len() + b.len() && a.iter().chain(b).all(|l| x.contains(l));
            if !whole(left, rows, &inner) || !whole(right, &inner, columns) {
                return None;
            }
            let places = |x: &[u8], labels: &[u8]| -> Vec<usize> {
                labels.iter().filter_map(|l| x.iter().position(|k| k == l)).collect()
            };
            let left = Axes { rows: places(left, rows), columns: places(left, &inner) };
            let right = Axes { rows: places(right, &inner), columns: places(right, columns) };
            Some((Product { left: vec![left], right: vec![vec![right]], after: vec![None] }, order))
        })
    }

    /// Left side `i` times its right side for result `j`, as a contraction.
    pub fn term(&self, j: usize, i: usize) -> Einsum {
        let (left, right) = (&self.left[i], &self.right[j][i]);
        // The rows, then what is summed over, then the columns.
        let labels = |axes: &Axes, first: usize| {
            let mut labels = vec![0; axes.rows.len() + axes.columns.len()];
            axes.rows.iter().chain(&axes.columns).enumerate().for_each(|(l, d)| labels[*d] = (first + l) as u8);
            labels
        };
        let (height, depth, width) = (left.rows.len(), left.columns.len(), right.columns.len());
        let output = (0..height).chain(height + depth..height + depth + width).map(|l| l as u8);
        Einsum { operands: vec![labels(left, 0), labels(right, height)], output: output.collect() }
    }

    /// The output that is result `j` itself, and those that its chain gives.
    pub fn ports(&self, j: usize) -> (Option<usize>, Range<usize>) {
        let count = |after: &Option<After>| match after {
            None => (1, 0),
            Some(after) => (after.keep as usize, after.chain.results.len()),
        };
        let first = self.after[..j].iter().map(|a| count(a).0 + count(a).1).sum::<usize>();
        let (own, more) = count(&self.after[j]);
        ((own > 0).then_some(first), first + own..first + own + more)
    }

    /// The place of a right side among the inputs.
    pub fn right_input(&self, result: usize, left: usize) -> usize {
        self.left.len() * (result + 1) + left
    }
}

impl Rule for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn infer(&self, inputs: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let count = self.left.len();
        if count == 0 || inputs.len() < count * (1 + self.right.len()) {
            return Err(format!("takes {} inputs, is given {}", count * (1 + self.right.len()), inputs.len()));
        }
        let extents = |ty: &TensorType, axes: &[usize]| -> Vec<Extent> {
            axes.iter().map(|a| ty.dims[*a].extent.clone()).collect()
        };
        let mut outputs = vec![];
        for (j, right) in self.right.iter().enumerate() {
            let mut first = None;
            for (i, (a, b)) in self.left.iter().zip(right).enumerate() {
                let (left, right) = (inputs[i], inputs[self.right_input(j, i)]);
                let fits = b.fit(right)
                    && a.fit(left)
                    && extents(left, &a.columns) == extents(right, &b.rows)
                    && extents(left, &a.rows) == extents(inputs[0], &self.left[0].rows);
                if !fits {
                    return Err(format!("does not multiply {left} by {right}"));
                }
                let dims = a.rows.iter().map(|d| &left.dims[*d]).chain(b.columns.iter().map(|d| &right.dims[*d]));
                let ty = TensorType::new(dims.cloned().collect(), DType::F32);
                match &first {
                    None => first = Some(ty),
                    Some(known) if ty.same_extents(known) => {}
                    Some(known) => return Err(format!("does not add {ty} to {known}")),
                }
            }
            match &self.after[j] {
                None => outputs.extend(first),
                Some(after) => {
                    outputs.extend(first.filter(|_| after.keep));
                    outputs.extend(after.chain.infer(&[])?);
                }
            }
        }
        Ok(outputs)
    }

    fn grad(&self, _: &GradContext) -> Result<Vec<Option<Handle>>, NoGradient> {
        Err(NoGradient("products are joined after differentiation".into()))
    }

    fn cost(&self, inputs: &[&TensorType], outputs: &[TensorType]) -> Cost {
        let count = |axes: &[usize], ty: &TensorType| Extent::product(axes.iter().map(|d| &ty.dims[*d].extent));
        let mut flops = Extent::constant(0);
        for (j, right) in self.right.iter().enumerate() {
            let width = count(&right[0].columns, inputs[self.right_input(j, 0)]);
            let chain = self.after[j].iter().flat_map(|a| &a.chain.steps).filter(|s| !s.args.is_empty()).count();
            let values = Extent::mul(count(&self.left[0].rows, inputs[0]), width);
            flops = Extent::add(flops, Extent::mul(values.clone(), Extent::constant(chain as u64)));
            for (i, left) in self.left.iter().enumerate() {
                let depth = count(&left.columns, inputs[i]);
                let work = Extent::mul(Extent::mul(values.clone(), depth), Extent::constant(2));
                flops = Extent::add(flops, work);
            }
        }
        Cost::streaming(flops, inputs, outputs)
    }

    fn attributes(&self) -> String {
        let mut words = vec![];
        if self.left.len() * self.right.len() > 1 {
            words.push(format!("{}x{}", self.left.len(), self.right.len()));
        }
        words.extend(self.after.iter().flatten().map(|a| a.chain.attributes()));
        words.join(" ")
    }
}
