//! Compiling functions of a model.

use super::typed::trace_function;
use super::{Arguments, Executable, Program, ProgramError, Results};
use crate::devices::Device;
use crate::graph::trace::Mode;
use crate::graph::{Graph, Sizes};
use crate::module::model::Model;
use crate::module::{Module, NeuralModule};

impl<M: Module> Model<M> {
    /// The device that the model's programs run on: [`Device::Cpu`] unless [`on`](Self::on) chose
    /// another.
    pub fn device(&self) -> Device {
        self.store().lock().device()
    }

    /// The same model on another device. Its values are converted; programs that were compiled
    /// before are for the old device and must be compiled again. Whether the device is here shows when a
    /// program first runs, or from [`Device::found`].
    #[must_use]
    pub fn on(self, device: Device) -> Self {
        self.store().set_device(device);
        self
    }

    /// Traces a function of the module and symbolic arguments into a graph, without compiling it.
    ///
    /// # Errors
    /// The first mistake made while tracing that the type system could not see.
    pub fn trace<I: Arguments, O: Results>(
        &self,
        mode: Mode,
        f: impl FnOnce(&M, I) -> O,
    ) -> Result<Graph, ProgramError> {
        Ok(trace_function(self.module(), mode, &|name| self.is_frozen(name), f)?)
    }

    /// Compiles a function for inference. The program shares the model's values: it sees what
    /// training changes.
    ///
    /// ```
    /// use mobilis_runtime::prelude::*;
    /// # extern crate mobilis_runtime as mobilis;
    /// axes! { pub Batch; pub Hidden = 3; }
    /// #[neural_module]
    /// struct Scale { weight: Param![Hidden] }
    /// let model = Model::init(Scale::default(), 0)?;
    /// model.set("weight", &[1f32, 2., 3.])?;
    /// let program = model.compile(|m, x: Tensor![Batch, Hidden]| x * m.weight.get())?;
    /// let y = program.run(<Array![Batch, Hidden]>::full([1, 3], 10.0)?)?;
    /// assert_eq!(y.data(), [10., 20., 30.]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first mistake made while tracing that the type system could not see.
    pub fn compile<I: Arguments, O: Results>(&self, f: impl FnOnce(&M, I) -> O) -> Result<Program<I, O>, ProgramError> {
        let graph = self.trace(Mode::Eval, f)?;
        Ok(Program::new(self.executable(graph)))
    }

    /// Compiles the module's `forward` for inference:
    /// `model.compile_forward::<Tensor![Batch, Time, Hidden]>()`.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_forward<I: Arguments>(&self) -> Result<Program<I, M::Output>, ProgramError>
    where
        M: NeuralModule<I>,
        M::Output: Results,
    {
        self.compile(|module, input: I| module.call(input))
    }

    /// As [`compile`](Self::compile), with sizes for run-time axes that no argument tells: those of
    /// states, such as the slots of a cache.
    ///
    /// # Errors
    /// As there.
    pub fn compile_with<I: Arguments, O: Results>(
        &self,
        sizes: &Sizes,
        f: impl FnOnce(&M, I) -> O,
    ) -> Result<Program<I, O>, ProgramError> {
        let graph = self.trace(Mode::Eval, f)?;
        let mut known = self.sizes().clone();
        sizes.iter().for_each(|(tag, n)| known.set(tag, n));
        Ok(Program::new(Executable::new(graph, self.device(), self.store().clone(), known)))
    }

    /// Makes a graph of this model's variables runnable on its device.
    pub fn executable(&self, graph: Graph) -> Executable {
        Executable::new(graph, self.device(), self.store().clone(), self.sizes().clone())
    }
}
