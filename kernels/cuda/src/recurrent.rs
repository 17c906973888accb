//! LSTM and GRU over sequences (`recurrent.cu`, `recurrent_small.cu`), forward and backward, as the op set
//! defines them: the product of the weights with the inputs is done before and comes as `gates`.
//!
//! Where the recurrent weights fit into shared memory all steps are one launch, else each step is one.

use crate::parts;
use crate::size::{count, int, tiles};
use crate::{Arg, CudaError, Launch, Ptr, args};

const NAME: &str = "recurrent layer";
/// Shared memory that every device since sm_80 gives a block.
const SHARED: usize = 160 << 10;

/// Sizes of a layer, and the order of its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// Sequences.
    pub batch: usize,
    /// Steps.
    pub time: usize,
    /// Hidden units.
    pub hidden: usize,
    /// From the last step (of each sequence) to the first.
    pub backward: bool,
    /// How many steps of each sequence count, `[batch]` of `i32`; null where all do.
    pub lengths: Ptr,
}

impl Steps {
    fn arguments(&self) -> Result<Vec<Arg>, CudaError> {
        count(NAME, "the gates", &[self.batch, self.time, 4, self.hidden])?;
        count(NAME, "the weight", &[4, self.hidden, self.hidden])?;
        let n = |what, v| int(NAME, what, v);
        let [batch, time, hidden] = [n("sequences", self.batch)?, n("steps", self.time)?, n("units", self.hidden)?];
        Ok(args![self.lengths, batch, time, hidden, self.backward as i32])
    }

    /// Bytes of shared memory for all steps in one launch, where they fit.
    fn shared(&self, gates: usize) -> Option<u32> {
        let h = self.hidden;
        let bytes = 4 * (4 * h + 4 * gates * h + gates * h * (h | 1));
        (h <= 128 && bytes <= SHARED).then_some(bytes as u32)
    }

    fn empty(&self) -> bool {
        self.batch * self.hidden == 0
    }

    /// The steps in the order in which they are taken.
    fn order(&self) -> Vec<usize> {
        (0..self.time).map(|i| if self.backward { self.time - 1 - i } else { i }).collect()
    }

    /// The launch of one step: a block for 8 units of 32 sequences.
    fn step(&self, kernel: &'static str, pointers: &[Ptr], t: i32, sizes: &[Arg]) -> Launch {
        let args = pointers.iter().map(|p| Arg::from(*p)).chain([Arg::from(t)]).chain(sizes.iter().cloned());
        Launch::new(kernel, [tiles(self.hidden, 8), tiles(self.batch, 32), 1], 256, args.collect())
    }

    fn whole(&self, kernel: &'static str, shared: u32, pointers: &[Ptr], sizes: &[Arg]) -> Launch {
        let args = pointers.iter().map(|p| Arg::from(*p)).chain(sizes.iter().cloned()).collect();
        Launch::new(kernel, [tiles(self.batch, 4), 1, 1], 256, args).shared(shared)
    }

    fn last(&self, steps: Ptr, initial: Ptr, out: Ptr, sizes: &[Arg]) -> Launch {
        let args = args![steps, initial, out].into_iter().chain(sizes.iter().cloned()).collect();
        Launch::new("last_state_f32", [tiles(self.batch * self.hidden, 256), 1, 1], 256, args)
    }

    /// Blocks of a part of the weight's gradient, and its parts.
    fn parts(&self, gates: usize) -> ([u32; 2], usize, usize) {
        let grid = [tiles(self.hidden, 128), tiles(gates * self.hidden, 64)];
        let (parts, part) = parts::split(self.batch * self.time, (grid[0] * grid[1]) as usize);
        (grid, parts, part)
    }

    /// Bytes of scratch that the gradient of a layer of `gates` gates (4 LSTM, 3 GRU) takes.
    pub fn grad_workspace(&self, gates: usize) -> usize {
        let (_, parts, _) = self.parts(gates);
        if parts == 1 { 0 } else { parts * gates * self.hidden * self.hidden * 4 }
    }

    /// The weight's gradient from those of the gates, `[dgates, saved, y, h0]`.
    fn weight(
        &self,
        gates: usize,
        from: [Ptr; 4],
        w: Ptr,
        workspace: Ptr,
        sizes: &[Arg],
    ) -> Result<Vec<Launch>, CudaError> {
        let (grid, parts, part) = self.parts(gates);
        let weights = gates * self.hidden * self.hidden;
        count(NAME, "the weight gradient's parts", &[parts, weights])?;
        let to = if parts == 1 { w } else { workspace };
        let [dgates, saved, y, h0] = from;
        let args = args![dgates, saved, y, h0, to, (gates * self.hidden) as i32, int(NAME, "steps", part)?];
        let args = args.into_iter().chain(sizes.iter().cloned()).collect();
        let mut all = vec![Launch::new("recurrent_weight_f32", [grid[0], grid[1], parts as u32], 256, args)];
        all.extend((parts > 1).then(|| parts::sum(to, w, parts, weights)));
        Ok(all)
    }
}

/// What an LSTM reads: `gates [batch, time, 4 hidden]`, `weight [4 hidden, hidden]`, `h` and `c` `[batch, hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct LstmInput {
    /// What inputs contribute to the gates.
    pub gates: Ptr,
    /// The recurrent weight.
    pub weight: Ptr,
    /// The state before.
    pub h: Ptr,
    /// The cells before.
    pub c: Ptr,
}

/// What an LSTM writes: `y [batch, time, hidden]`, the last `h` and `c`, activated `gates [batch, time, 4 hidden]` and
/// `cells [batch, time, hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct LstmOutput {
    /// The states after each step, zeros at steps that do not count.
    pub y: Ptr,
    /// The last state.
    pub h: Ptr,
    /// The last cells.
    pub c: Ptr,
    /// Activated gates.
    pub gates: Ptr,
    /// Cells after each step.
    pub cells: Ptr,
}

/// All steps of an LSTM.
///
/// # Errors
/// Arrays of 2³¹ values or more.
pub fn lstm(s: &Steps, x: &LstmInput, out: &LstmOutput) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.empty() {
        return Ok(vec![]);
    }
    let pointers = [x.gates, x.weight, x.h, x.c, out.y, out.gates, out.cells];
    let mut all = match s.shared(4) {
        Some(shared) => vec![s.whole("lstm_small_f32", shared, &pointers, &sizes)],
        None => s.order().into_iter().map(|t| s.step("lstm_step_f32", &pointers, t as i32, &sizes)).collect(),
    };
    all.extend([s.last(out.y, x.h, out.h, &sizes), s.last(out.cells, x.c, out.c, &sizes)]);
    Ok(all)
}

/// What the gradient of an LSTM reads: inputs and outputs of the forward steps, and gradients of `y` and of the
/// last state and cells.
#[derive(Clone, Copy, Debug)]
pub struct LstmGradInput {
    /// The recurrent weight.
    pub weight: Ptr,
    /// The state before.
    pub h: Ptr,
    /// The cells before.
    pub c: Ptr,
    /// States after each step.
    pub y: Ptr,
    /// Activated gates.
    pub gates: Ptr,
    /// Cells after each step.
    pub cells: Ptr,
    /// Gradients of `y`.
    pub dy: Ptr,
    /// Gradients of the last state.
    pub dh: Ptr,
    /// Gradients of the last cells.
    pub dc: Ptr,
}

/// Gradients by the gates, the weight, the state and the cells before.
#[derive(Clone, Copy, Debug)]
pub struct LstmGradOutput {
    /// `[batch, time, 4 hidden]`
    pub gates: Ptr,
    /// `[4 hidden, hidden]`
    pub weight: Ptr,
    /// `[batch, hidden]`
    pub h: Ptr,
    /// `[batch, hidden]`
    pub c: Ptr,
}

/// The gradient of [`lstm`], with [`Steps::grad_workspace`] of 4 gates as scratch.
///
/// # Errors
/// As [`lstm`].
pub fn lstm_grad(s: &Steps, x: &LstmGradInput, out: &LstmGradOutput, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.hidden == 0 {
        return Ok(vec![]);
    }
    let pointers = [x.weight, x.c, x.gates, x.cells, x.dy, x.dh, x.dc, out.gates, out.h, out.c];
    let mut all = match s.shared(4) {
        Some(shared) => vec![s.whole("lstm_back_small_f32", shared, &pointers, &sizes)],
        None => {
            let steps = s.order().into_iter().rev().map(|t| t as i32).chain([-1]);
            steps.map(|t| s.step("lstm_back_step_f32", &pointers, t, &sizes)).collect()
        }
    };
    all.extend(s.weight(4, [out.gates, Ptr::NULL, x.y, x.h], out.weight, workspace, &sizes)?);
    Ok(all)
}

/// What a GRU reads: `gates [batch, time, 3 hidden]`, `weight [3 hidden, hidden]`, `bias [3 hidden]`,
/// `h [batch, hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct GruInput {
    /// What inputs contribute to the gates.
    pub gates: Ptr,
    /// The recurrent weight.
    pub weight: Ptr,
    /// The recurrent bias.
    pub bias: Ptr,
    /// The state before.
    pub h: Ptr,
}

/// What a GRU writes: `y [batch, time, hidden]`, the last `h`, and `r, z, n, q` as `saved [batch, time, 4 hidden]`.
#[derive(Clone, Copy, Debug)]
pub struct GruOutput {
    /// The states after each step, zeros at steps that do not count.
    pub y: Ptr,
    /// The last state.
    pub h: Ptr,
    /// What the gradient reads.
    pub saved: Ptr,
}

/// All steps of a GRU.
///
/// # Errors
/// As [`lstm`].
pub fn gru(s: &Steps, x: &GruInput, out: &GruOutput) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.empty() {
        return Ok(vec![]);
    }
    let pointers = [x.gates, x.weight, x.bias, x.h, out.y, out.saved];
    let mut all = match s.shared(3) {
        Some(shared) => vec![s.whole("gru_small_f32", shared, &pointers, &sizes)],
        None => s.order().into_iter().map(|t| s.step("gru_step_f32", &pointers, t as i32, &sizes)).collect(),
    };
    all.push(s.last(out.y, x.h, out.h, &sizes));
    Ok(all)
}

/// What the gradient of a GRU reads.
#[derive(Clone, Copy, Debug)]
pub struct GruGradInput {
    /// The recurrent weight.
    pub weight: Ptr,
    /// The state before.
    pub h: Ptr,
    /// States after each step.
    pub y: Ptr,
    /// `r, z, n, q` of each step.
    pub saved: Ptr,
    /// Gradients of `y`.
    pub dy: Ptr,
    /// Gradients of the last state.
    pub dh: Ptr,
}

/// Gradients by the gates, the weight, the bias and the state before.
#[derive(Clone, Copy, Debug)]
pub struct GruGradOutput {
    /// `[batch, time, 3 hidden]`
    pub gates: Ptr,
    /// `[3 hidden, hidden]`
    pub weight: Ptr,
    /// `[3 hidden]`
    pub bias: Ptr,
    /// `[batch, hidden]`
    pub h: Ptr,
}

/// The gradient of [`gru`], with [`Steps::grad_workspace`] of 3 gates as scratch.
///
/// # Errors
/// As [`lstm`].
pub fn gru_grad(s: &Steps, x: &GruGradInput, out: &GruGradOutput, workspace: Ptr) -> Result<Vec<Launch>, CudaError> {
    let sizes = s.arguments()?;
    if s.hidden == 0 {
        return Ok(vec![]);
    }
    let pointers = [x.weight, x.h, x.y, x.saved, x.dy, x.dh, out.gates, out.h];
    let mut all = match s.shared(3) {
        Some(shared) => vec![s.whole("gru_back_small_f32", shared, &pointers, &sizes)],
        None => {
            let steps = s.order().into_iter().rev().map(|t| t as i32).chain([-1]);
            steps.map(|t| s.step("gru_back_step_f32", &pointers, t, &sizes)).collect()
        }
    };
    all.extend(s.weight(3, [out.gates, x.saved, x.y, x.h], out.weight, workspace, &sizes)?);
    let steps = int(NAME, "steps", s.batch * s.time)?;
    let args = args![out.gates, x.saved, out.bias, steps, s.hidden as i32];
    all.push(Launch::new("gru_bias_f32", [tiles(3 * s.hidden, 32), 1, 1], 256, args));
    Ok(all)
}
