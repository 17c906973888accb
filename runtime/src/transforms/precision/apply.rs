//! The rewriting: roundings in front of products and behind them.

use super::classes::Classes;
use super::plan::{Planner, layers};
use super::policy::Precision;
use super::report::PrecisionReport;
use super::write::{Writer, put};
use crate::graph::{Graph, VarKind};
use crate::ops::elementwise::Unary;
use crate::transforms::rewrite::{push, rewrite};
use std::collections::HashMap;

/// Why a precision cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrecisionError {
    /// A setting is out of range.
    #[error("precision: {0}")]
    Setting(String),
    /// An exception is about nothing.
    #[error("precision: no parameter of this program matches \"{pattern}\"{hint}")]
    Stray {
        /// Its pattern.
        pattern: String,
        /// The nearest name.
        hint: String,
    },
}

/// What is known of a graph.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many nodes there were before gradients were taken; all for inference.
    pub forward: usize,
    /// Whether histories are kept. Without them delayed scaling scales by the value at hand.
    pub training: bool,
}

/// A graph with its precision.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The graph. Scales and histories are variables of it, with updates.
    pub graph: Graph,
    /// Its products.
    pub report: PrecisionReport,
}

/// Rewrites a graph so that its products are computed as a policy says.
///
/// # Errors
/// A setting out of range, or an exception that is about no parameter of the graph.
pub fn apply(graph: Graph, precision: &Precision, options: &Options) -> Result<Applied, PrecisionError> {
    precision.validate().map_err(PrecisionError::Setting)?;
    let names = || graph.vars.iter().filter(|v| v.kind == VarKind::Param).map(|v| v.name.as_str());
    if let Some(pattern) = precision.stray(names()) {
        let hint = crate::suggest::did_you_mean(pattern, names());
        return Err(PrecisionError::Stray { pattern: pattern.into(), hint });
    }
    let classes = Classes::of(&graph, options.forward);
    let planner = Planner { graph: &graph, precision, options, layers: layers(&graph), classes: &classes };
    let (mut plans, mut report) = (HashMap::new(), PrecisionReport::default());
    for id in 0..graph.nodes.len() as u32 {
        if let Some((gemm, plan)) = planner.plan(id) {
            report.gemms.push(gemm);
            plans.insert(id, plan);
        }
    }
    let mut writer = Writer::default();
    let mut at = 0;
    let mut graph = rewrite(graph, |graph, mut node| {
        let plan = plans.remove(&at);
        at += 1;
        let Some(plan) = plan else { return push(graph, node) };
        for (i, treat) in plan.operands {
            node.inputs[i] = writer.treat(graph, node.inputs[i], &treat, node.scope);
        }
        let scope = node.scope;
        let mut values = push(graph, node);
        for (port, kind) in plan.results {
            values[port] = put(graph, Unary { kind }, &[values[port]], scope);
        }
        values
    });
    graph.updates.extend(writer.updates);
    Ok(Applied { graph, report })
}
