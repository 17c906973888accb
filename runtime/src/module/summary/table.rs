//! A summary as a table: a tree of names, types or shapes, counts, states.

use super::{Child, Leaf, Node, State, Summary};
use std::fmt;

/// Name with its branches; type or shape; count; state.
type Row = [String; 4];

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fold = !f.alternate();
        let mut rows: Vec<Row> = vec![
            ["module or parameter", "type or shape", "values", "in training"].map(String::from),
            [self.root.kind.clone(), settings(&self.root), grouped(self.root.count), String::new()],
        ];
        branches(&self.root, "", fold, &mut rows);
        let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
        let (name, kind, count) = (width(0), width(1), width(2));
        for (i, row) in rows.iter().enumerate() {
            let line = format!("{:name$}  {:kind$}  {:>count$}  {}", row[0], row[1], row[2], row[3]);
            writeln!(f, "{}", line.trim_end())?;
            if i == 0 {
                writeln!(f, "{}", "─".repeat(name + kind + count + width(3) + 6))?;
            }
        }
        if !self.axes.is_empty() {
            let axes: Vec<String> = self.axes.iter().map(|(axis, n)| format!("{axis} = {n}")).collect();
            writeln!(f, "axes: {}", axes.join(", "))?;
        }
        write!(
            f,
            "parameters: {} ({} trained, {} frozen), {}; buffers: {}",
            grouped(self.parameters()),
            grouped(self.trainable),
            grouped(self.frozen),
            bytes(4 * self.parameters() as u64),
            grouped(self.buffers),
        )
    }
}

fn branches(node: &Node, indent: &str, fold: bool, rows: &mut Vec<Row>) {
    let mut i = 0;
    while i < node.children.len() {
        let child = &node.children[i];
        let equal = node.children[i + 1..].iter().take_while(|other| fold && alike(child, other)).count();
        let last = &node.children[i + equal];
        i += equal + 1;
        let (branch, below) = if i == node.children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        match (child, last) {
            (Child::Module(first), Child::Module(last)) => {
                let (name, count) = match equal {
                    0 => (first.name.clone(), grouped(first.count)),
                    n => (format!("{} … {}", first.name, last.name), format!("{} × {}", n + 1, grouped(first.count))),
                };
                rows.push([
                    format!("{indent}{branch}{name}"),
                    first.kind.clone() + &settings(first),
                    count,
                    String::new(),
                ]);
                branches(first, &format!("{indent}{below}"), fold, rows);
            }
            (Child::Var(leaf), _) | (_, Child::Var(leaf)) => rows.push(row(leaf, &format!("{indent}{branch}"))),
        }
    }
}

fn row(leaf: &Leaf, indent: &str) -> Row {
    let (count, state) = match &leaf.state {
        State::Trained => (grouped(leaf.count), "trained".into()),
        State::Frozen => (grouped(leaf.count), "frozen".into()),
        State::Buffer => (format!("({})", grouped(leaf.count)), "buffer".into()),
        State::Tied(first) => (String::new(), format!("tied to {first}")),
    };
    let shape = match leaf.dtype {
        crate::graph::DType::F32 => leaf.shape.clone(),
        other => format!("{} {other}", leaf.shape),
    };
    [format!("{indent}{}", leaf.name), shape, count, state]
}

/// Whether two neighbours look the same but for their names. Parameters stand alone.
fn alike(a: &Child, b: &Child) -> bool {
    fn modules(a: &Node, b: &Node) -> bool {
        a.kind == b.kind
            && a.hyper == b.hyper
            && a.children.len() == b.children.len()
            && a.children.iter().zip(&b.children).all(|(a, b)| match (a, b) {
                (Child::Module(a), Child::Module(b)) => a.name == b.name && modules(a, b),
                (Child::Var(a), Child::Var(b)) => a.name == b.name && a.shape == b.shape && a.state == b.state,
                _ => false,
            })
    }
    matches!((a, b), (Child::Module(a), Child::Module(b)) if modules(a, b))
}

/// `(eps = 1e-6)`
fn settings(node: &Node) -> String {
    let all: Vec<String> = node.hyper.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if all.is_empty() { String::new() } else { format!("({})", all.join(", ")) }
}

/// `1,234,567`
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `4.9 MB`
fn bytes(n: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(["0", "999", "1,000", "12,345,678"], [0, 999, 1000, 12_345_678].map(grouped)[..]);
        assert_eq!(["12 bytes", "1.0 kB", "4.9 MB"], [12, 1000, 4_938_268].map(bytes)[..]);
    }
}
