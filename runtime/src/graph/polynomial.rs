//! Extents as polynomials: what sums of costs are printed and evaluated as.
//!
//! An [`Extent`] keeps the shape in which it was written; the cost of a module is a sum over
//! hundreds of them. Collected by powers of the run-time axes such a sum is one short line:
//! `98.3K*Batch*Time + 512*Batch*Time^2`. Quotients stay whole, as symbols of their own.

use super::extent::{Expr, Extent, Sizes};
use std::collections::BTreeMap;
use std::fmt;

/// What a polynomial is over: an axis, or a quotient that does not expand.
#[derive(Clone, Debug)]
struct Symbol {
    text: String,
    extent: Extent,
}

impl Symbol {
    /// The fingerprint tells apart two axes of one name.
    fn key(&self) -> (&str, &[u64; 8]) {
        (&self.text, self.extent.print())
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Symbol {}
impl PartialOrd for Symbol {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Symbol {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A product of powers of symbols, sorted.
type Monomial = Vec<(Symbol, u32)>;

/// A sum of products of axes with whole coefficients.
///
/// ```
/// # use mobilis_runtime as mobilis;
/// use mobilis::graph::{Extent, Polynomial, extent::AxisTag};
/// let time = Extent::of_tag(AxisTag { name: "Time", path: "docs::Time" });
/// let mut cost = Polynomial::from(&Extent::mul(time.clone(), Extent::constant(3)));
/// cost += &Polynomial::from(&Extent::mul(time.clone(), time));
/// assert_eq!(cost.to_string(), "Time^2 + 3*Time");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polynomial(BTreeMap<Monomial, i128>);

impl Polynomial {
    /// A known number.
    pub fn constant(n: i128) -> Polynomial {
        let mut terms = BTreeMap::new();
        if n != 0 {
            terms.insert(vec![], n);
        }
        Polynomial(terms)
    }

    fn symbol(extent: &Extent) -> Polynomial {
        let symbol = Symbol { text: extent.to_string(), extent: extent.clone() };
        let mut of = Polynomial::default();
        of.add_term(vec![(symbol, 1)], 1);
        of
    }

    /// The number, where no axis is left.
    pub fn as_constant(&self) -> Option<i128> {
        match self.0.len() {
            0 => Some(0),
            1 => self.0.get(&vec![]).copied(),
            _ => None,
        }
    }

    /// The same with every symbol that has a size replaced by it.
    #[must_use]
    pub fn bind(&self, sizes: &Sizes) -> Polynomial {
        let mut out = Polynomial::default();
        for (monomial, coefficient) in &self.0 {
            let mut rest = vec![];
            let mut known = *coefficient;
            for (symbol, power) in monomial {
                match symbol.extent.eval(sizes) {
                    Ok(n) => known = known.saturating_mul((n as i128).saturating_pow(*power)),
                    Err(_) => rest.push((symbol.clone(), *power)),
                }
            }
            out.add_term(rest, known);
        }
        out
    }

    fn add_term(&mut self, monomial: Monomial, coefficient: i128) {
        let slot = self.0.entry(monomial).or_insert(0);
        *slot = slot.saturating_add(coefficient);
        if *slot == 0 {
            self.0.retain(|_, c| *c != 0);
        }
    }

    fn product(&self, other: &Polynomial) -> Polynomial {
        let mut out = Polynomial::default();
        for (a, x) in &self.0 {
            for (b, y) in &other.0 {
                let mut powers = a.clone();
                for (symbol, power) in b {
                    match powers.binary_search_by(|known| known.0.cmp(symbol)) {
                        Ok(i) => powers[i].1 += power,
                        Err(i) => powers.insert(i, (symbol.clone(), *power)),
                    }
                }
                out.add_term(powers, x.saturating_mul(*y));
            }
        }
        out
    }

    /// The terms from the highest degree down, each with its coefficient.
    fn sorted(&self) -> Vec<(&Monomial, i128)> {
        let degree = |m: &Monomial| m.iter().map(|s| s.1).sum::<u32>();
        let mut terms: Vec<_> = self.0.iter().map(|(m, c)| (m, *c)).collect();
        terms.sort_by(|a, b| degree(b.0).cmp(&degree(a.0)).then_with(|| a.0.cmp(b.0)));
        terms
    }

    /// For people: coefficients to three figures, at most `most` terms.
    pub fn brief(&self, most: usize) -> String {
        self.write(most, &|n| quantity(n as f64))
    }

    fn write(&self, most: usize, number: &dyn Fn(i128) -> String) -> String {
        let terms = self.sorted();
        if terms.is_empty() {
            return "0".into();
        }
        let mut out = String::new();
        for (i, (monomial, coefficient)) in terms.iter().take(most).enumerate() {
            let size = number(coefficient.saturating_abs());
            out += match (i, *coefficient < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            let factors: Vec<String> = monomial
                .iter()
                .map(|(s, power)| if *power == 1 { s.text.clone() } else { format!("{}^{power}", s.text) })
                .collect();
            match (factors.is_empty(), coefficient.saturating_abs() == 1) {
                (true, _) => out += &size,
                (false, true) => out += &factors.join("*"),
                (false, false) => out += &format!("{size}*{}", factors.join("*")),
            }
        }
        if terms.len() > most {
            out += &format!(" + {} more", terms.len() - most);
        }
        out
    }
}

impl From<&Extent> for Polynomial {
    fn from(extent: &Extent) -> Polynomial {
        match extent.expr() {
            Expr::Const(n) => Polynomial::constant(*n as i128),
            Expr::Add(a, b) => {
                let mut sum = Polynomial::from(a);
                sum += &Polynomial::from(b);
                sum
            }
            Expr::Sub(a, b) => {
                let mut sum = Polynomial::from(b).product(&Polynomial::constant(-1));
                sum += &Polynomial::from(a);
                sum
            }
            Expr::Mul(a, b) => Polynomial::from(a).product(&Polynomial::from(b)),
            Expr::Floor(a, b) | Expr::Ceil(a, b) => match (Polynomial::from(a), b.as_constant()) {
                // Nothing is rounded where the divisor divides every term.
                (Polynomial(terms), Some(n)) if n > 0 && terms.values().all(|c| c % n as i128 == 0) => {
                    Polynomial(terms.into_iter().map(|(m, c)| (m, c / n as i128)).collect())
                }
                _ => Polynomial::symbol(extent),
            },
            Expr::Axis(_) => Polynomial::symbol(extent),
        }
    }
}

impl std::ops::AddAssign<&Polynomial> for Polynomial {
    fn add_assign(&mut self, other: &Polynomial) {
        for (monomial, coefficient) in &other.0 {
            self.add_term(monomial.clone(), *coefficient);
        }
    }
}

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write(usize::MAX, &|n| n.to_string()))
    }
}

/// A number for people: whole below 10,000, then three figures and a letter: `1.31M`.
pub fn quantity(n: f64) -> String {
    if n.abs() < 10_000.0 {
        return format!("{n}");
    }
    let mut scaled = n;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        // What would round to four figures belongs to the next letter.
        if scaled.abs() < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    let decimals = if scaled.abs() < 9.995 { 2 } else { usize::from(scaled.abs() < 99.95) };
    format!("{scaled:.decimals$}{unit}")
}

/// Bytes for people: `1.25 MiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut scaled = n as f64;
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    format!("{scaled:.2} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::AxisTag;

    fn axis(name: &'static str) -> Extent {
        Extent::of_tag(AxisTag { name, path: name })
    }

    #[test]
    fn sums_are_collected() {
        let (b, t) = (axis("Batch"), axis("Time"));
        let mut sum = Polynomial::default();
        for _ in 0..3 {
            sum += &Polynomial::from(&Extent::mul(Extent::mul(b.clone(), t.clone()), Extent::constant(512)));
            sum += &Polynomial::from(&Extent::mul(t.clone(), Extent::mul(t.clone(), b.clone())));
        }
        assert_eq!(sum.to_string(), "3*Batch*Time^2 + 1536*Batch*Time");
    }

    #[test]
    fn products_of_sums_expand_and_differences_cancel() {
        let t = axis("Time");
        let square =
            Extent::mul(Extent::add(t.clone(), Extent::constant(1)), Extent::sub(t.clone(), Extent::constant(1)));
        assert_eq!(Polynomial::from(&square).to_string(), "Time^2 - 1");
        let nothing = Extent::sub(Extent::add(t.clone(), Extent::constant(2)), t);
        assert_eq!(Polynomial::from(&nothing).as_constant(), Some(2));
    }

    #[test]
    fn quotients_are_symbols_and_bind() {
        let (t, tag) = (axis("Samples"), AxisTag { name: "Samples", path: "Samples" });
        let frames = Extent::add(Extent::floor_div(t, Extent::constant(160)), Extent::constant(1));
        let frames = Polynomial::from(&Extent::mul(frames, Extent::constant(80)));
        assert_eq!(frames.to_string(), "80*floor(Samples / 160) + 80");
        let mut sizes = Sizes::new();
        assert_eq!(frames.bind(&sizes), frames);
        sizes.set(tag, 16_000);
        assert_eq!(frames.bind(&sizes).as_constant(), Some(8080));
        let half = Extent::floor_div(Extent::mul(axis("Time"), Extent::constant(6)), Extent::constant(2));
        assert_eq!(Polynomial::from(&half).to_string(), "3*Time");
    }

    #[test]
    fn axes_of_one_name_stay_apart() {
        let other = Extent::of_tag(AxisTag { name: "Time", path: "other::Time" });
        let mut sum = Polynomial::from(&axis("Time"));
        sum += &Polynomial::from(&other);
        assert_eq!(sum.to_string().matches("Time").count(), 2);
    }

    #[test]
    fn quantities() {
        let cases = [
            (0.0, "0"),
            (9999.0, "9999"),
            (10_000.0, "10.0K"),
            (1_310_720.0, "1.31M"),
            (999_600.0, "1.00M"),
            (123_456_789_012.0, "123G"),
        ];
        for (n, text) in cases {
            assert_eq!(quantity(n), text);
        }
    }

    #[test]
    fn bytes_for_people() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1_310_720, "1.25 MiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }
}
