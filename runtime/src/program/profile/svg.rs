//! The roofline as a picture: what was reached over what the machine can do, both axes logarithmic.
//!
//! A point is a kind of operation (round) or a module (square) at its floating-point operations
//! per byte and per second. The slanted lines are bandwidths, the level one the peak: no point lies
//! above the line of the memory that its operands come from. Points carry numbers, which stand
//! beside them wherever there is room, and a legend says what they are.

use super::table::{clip, giga, percent, seconds};
use super::{Profile, Row};
use std::fmt::Write;

/// The whole picture, and the plot in it.
const SIZE: (f64, f64) = (1120.0, 640.0);
const PLOT: (f64, f64, f64, f64) = (78.0, 56.0, 700.0, 578.0);
/// How many of each are shown.
const OPERATIONS: usize = 12;
const MODULES: usize = 10;

const STYLE: &str = "text{font:13px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
.small{font-size:11.5px}.grey{fill:#57606a}.title{font-size:17px;font-weight:600}.grid{stroke:#e4e7eb;stroke-width:1}\
.edge{stroke:#8c959f;fill:none}.roof{stroke:#cf222e;stroke-width:2;fill:none}.slope{stroke:#0969da;stroke-width:1.5;fill:none}\
.operation{fill:#8250df}.module{fill:#1a7f37}.lead{stroke:#8c959f;stroke-width:.8}.halo{fill:#fff;stroke:#fff;stroke-width:4px;stroke-linejoin:round}\
.number{font-size:11.5px;font-weight:600}.right{text-anchor:end}.middle{text-anchor:middle}";

struct Point<'a> {
    row: &'a Row,
    label: String,
    module: bool,
}

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let part = (value.max(1e-30).log10() - self.low) / (self.high - self.low);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Powers of ten on it.
    fn decades(&self) -> impl Iterator<Item = i32> {
        self.low.ceil() as i32..=self.high.floor() as i32
    }
}

/// A rectangle that is taken: left, top, right, bottom.
type Area = [f64; 4];

fn overlaps(a: &Area, b: &Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// A text on a white outline, so that lines behind it do not cross it.
fn haloed(out: &mut String, class: &str, place: &str, text: &str) {
    for class in [format!("{class} halo"), class.into()] {
        let _ = writeln!(out, "<text class=\"{class}\" {place}>{text}</text>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Profile {
    /// The roofline as an SVG file that needs nothing else.
    pub fn to_svg(&self, title: &str) -> String {
        let points = self.points();
        let (limits, threads) = (self.limits, self.threads);
        let peak = limits.peak().of(threads, limits.threads);
        let slopes: Vec<(&str, f64)> =
            limits.read.iter().map(|r| (r.name, r.rate.of(threads, limits.threads))).collect();
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.filter(|v| *v > 0.0).fold((f64::INFINITY, 0f64), |(a, b), v| (a.min(v), b.max(v)))
        };
        let (least, most) = range(&mut points.iter().map(|p| p.row.intensity()));
        let (slowest, fastest) = range(&mut points.iter().map(|p| p.row.rate()));
        // The ridges of all levels are in the picture, and every point.
        let ridges = || slopes.iter().map(|s| peak / s.1);
        let left = ridges().fold(least, f64::min).log10() - 0.6;
        let right = ridges().fold(most, f64::max).log10() + 0.5;
        let bottom = (slowest.min(peak / 30.0)).log10() - 0.3;
        let x = Axis { low: left, high: right, from: PLOT.0, to: PLOT.2 };
        let y = Axis { low: bottom, high: fastest.max(peak).log10() + 0.25, from: PLOT.3, to: PLOT.1 };

        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\">\
             <title>{t}</title><style>{STYLE}</style><rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n\
             <text class=\"title\" x=\"{l}\" y=\"28\">{t}</text>\n",
            w = SIZE.0,
            h = SIZE.1,
            l = PLOT.0,
            t = escaped(&clip(title, 100)),
        );
        let _ = writeln!(
            out,
            "<text class=\"small grey\" x=\"{}\" y=\"46\">{} a run, {} threads, {} GFLOP/s: {} of the peak</text>",
            PLOT.0,
            seconds(self.seconds),
            threads,
            giga(self.modules[0].row.flops / self.seconds.max(1e-12)),
            percent(self.modules[0].row.flops / self.seconds.max(1e-12) / peak),
        );
        grid(&mut out, &x, &y);
        let mut taken: Vec<Area> = vec![];
        roofs(&mut out, (&x, &y), peak, &slopes, &mut taken);
        self.draw(&mut out, (&x, &y), &points, &mut taken);
        self.legend(&mut out, &points);
        out.push_str("</svg>\n");
        out
    }

    /// The slowest operations and modules that compute something.
    fn points(&self) -> Vec<Point<'_>> {
        let computes = |r: &Row| r.flops > 0.0 && r.bytes > 0.0 && r.seconds > 0.0;
        let operations = self.operations.iter().filter(|r| computes(r)).take(OPERATIONS);
        let mut points: Vec<Point> =
            operations.map(|row| Point { row, label: row.name.clone(), module: false }).collect();
        // The whole is in the heading; a module that has all of its parent's time says nothing new.
        let mut modules: Vec<_> = self.modules[1..]
            .iter()
            .filter(|m| computes(&m.row) && m.row.seconds < 0.999 * self.modules[m.parent].row.seconds)
            .collect();
        modules.sort_by(|a, b| b.row.seconds.total_cmp(&a.row.seconds));
        points.extend(modules.into_iter().take(MODULES).map(|m| Point {
            row: &m.row,
            label: format!("{} ({})", m.row.name, m.kind),
            module: true,
        }));
        points
    }

    fn draw(&self, out: &mut String, (x, y): (&Axis, &Axis), points: &[Point], taken: &mut Vec<Area>) {
        let place = |p: &Point| (x.at(p.row.intensity()), y.at(p.row.rate()));
        for p in points {
            let (cx, cy) = place(p);
            taken.push([cx - 5.5, cy - 5.5, cx + 5.5, cy + 5.5]);
        }
        let mut labels = String::new();
        for (i, p) in points.iter().enumerate() {
            let (cx, cy) = place(p);
            let text = (i + 1).to_string();
            let (w, h) = (7.0 * text.len() as f64 + 3.0, 13.0);
            // Nearest free place around the point, in rings.
            let spots = (0..10).flat_map(|ring| {
                (0..16).map(move |k| {
                    let (angle, radius) = (k as f64 * std::f64::consts::TAU / 16.0, 13.0 + 9.0 * ring as f64);
                    (cx + angle.cos() * (radius + 2.0), cy - angle.sin() * radius, ring)
                })
            });
            let area = |sx: f64, sy: f64| [sx - w / 2.0, sy - h / 2.0, sx + w / 2.0, sy + h / 2.0];
            let inside = |a: &Area| a[0] > PLOT.0 && a[2] < PLOT.2 && a[1] > PLOT.1 && a[3] < PLOT.3;
            let free = spots.into_iter().find(|(sx, sy, _)| {
                let a = area(*sx, *sy);
                inside(&a) && !taken.iter().any(|t| overlaps(t, &a))
            });
            // The legend tells where it would be.
            let Some((sx, sy, ring)) = free else { continue };
            taken.push(area(sx, sy));
            if ring > 0 {
                let _ = writeln!(out, "<path class=\"lead\" d=\"M{cx:.1} {cy:.1}L{sx:.1} {sy:.1}\"/>");
            }
            haloed(&mut labels, "number middle", &format!("x=\"{sx:.1}\" y=\"{:.1}\"", sy + 4.0), &text);
        }
        for p in points {
            let (cx, cy) = place(p);
            let _ = match p.module {
                false => writeln!(out, "<circle class=\"operation\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4.5\"/>"),
                true => writeln!(
                    out,
                    "<rect class=\"module\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>",
                    cx - 4.0,
                    cy - 4.0
                ),
            };
        }
        out.push_str(&labels);
    }

    fn legend(&self, out: &mut String, points: &[Point]) {
        let (left, right) = (PLOT.2 + 28.0, SIZE.0 - 20.0);
        let columns = [right - 124.0, right - 62.0, right];
        let mut top = PLOT.1 + 4.0;
        let head = |out: &mut String, title: &str, top: f64| {
            let _ = writeln!(out, "<text x=\"{left}\" y=\"{top}\" font-weight=\"600\">{title}</text>");
            for (x, word) in columns.iter().zip(["time", "GFLOP/s", "of limit"]) {
                let _ = writeln!(out, "<text class=\"small grey right\" x=\"{x}\" y=\"{top}\">{word}</text>");
            }
        };
        for module in [false, true] {
            if !points.iter().any(|p| p.module == module) {
                continue;
            }
            head(out, if module { "modules" } else { "operations" }, top);
            for (i, p) in points.iter().enumerate().filter(|(_, p)| p.module == module) {
                top += 20.0;
                let mark = match module {
                    false => {
                        format!("<circle class=\"operation\" cx=\"{}\" cy=\"{}\" r=\"4.5\"/>", left + 4.0, top - 4.0)
                    }
                    true => {
                        format!("<rect class=\"module\" x=\"{left}\" y=\"{}\" width=\"8\" height=\"8\"/>", top - 8.0)
                    }
                };
                let name = escaped(&clip(&p.label, 26));
                let _ = writeln!(
                    out,
                    "{mark}<text class=\"number right\" x=\"{}\" y=\"{top}\">{}</text><text class=\"small\" x=\"{}\" y=\"{top}\">{name}</text>",
                    left + 30.0,
                    i + 1,
                    left + 37.0,
                );
                let part = percent(p.row.seconds / self.seconds.max(1e-12));
                let cells = [part, giga(p.row.rate()), p.row.share().map(percent).unwrap_or_default()];
                for (x, cell) in columns.iter().zip(cells) {
                    let _ = writeln!(out, "<text class=\"small right\" x=\"{x}\" y=\"{top}\">{cell}</text>");
                }
            }
            top += 32.0;
        }
        let silent: f64 = self.operations.iter().filter(|r| r.flops == 0.0).map(|r| r.seconds).sum();
        if silent > 0.0 {
            let _ = writeln!(
                out,
                "<text class=\"small grey\" x=\"{left}\" y=\"{top}\">{} of the time moves values only</text>",
                percent(silent / self.seconds.max(1e-12))
            );
        }
    }
}

fn grid(out: &mut String, x: &Axis, y: &Axis) {
    for d in x.decades() {
        let at = x.at(10f64.powi(d));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {}V{}\"/><text class=\"small grey middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            PLOT.1,
            PLOT.3,
            PLOT.3 + 18.0,
            power(d),
        );
    }
    for d in y.decades() {
        let at = y.at(10f64.powi(d));
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{} {at:.1}H{}\"/><text class=\"small grey right\" x=\"{}\" y=\"{:.1}\">{}</text>",
            PLOT.0,
            PLOT.2,
            PLOT.0 - 7.0,
            at + 4.0,
            power(d - 9),
        );
    }
    let _ = writeln!(
        out,
        "<rect class=\"edge\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\
         <text class=\"middle\" x=\"{}\" y=\"{}\">floating-point operations per byte</text>\
         <text class=\"middle\" transform=\"translate(22 {}) rotate(-90)\">GFLOP/s</text>",
        PLOT.0,
        PLOT.1,
        PLOT.2 - PLOT.0,
        PLOT.3 - PLOT.1,
        (PLOT.0 + PLOT.2) / 2.0,
        PLOT.3 + 42.0,
        (PLOT.1 + PLOT.3) / 2.0,
    );
}

/// `0.01`, `1`, `1000`
fn power(d: i32) -> String {
    if d >= 0 { format!("1{}", "0".repeat(d as usize)) } else { format!("0.{}1", "0".repeat((-d - 1) as usize)) }
}

fn roofs(out: &mut String, (x, y): (&Axis, &Axis), peak: f64, slopes: &[(&str, f64)], taken: &mut Vec<Area>) {
    let first = slopes.iter().map(|s| s.1).fold(1.0, f64::max);
    let start = x.at(peak / first);
    let top = y.at(peak);
    let _ = writeln!(out, "<path class=\"roof\" d=\"M{start:.1} {top:.1}H{}\"/>", PLOT.2,);
    let place = format!("x=\"{}\" y=\"{:.1}\"", PLOT.2 - 6.0, top - 7.0);
    haloed(out, "small right", &place, &format!("peak {} GFLOP/s", giga(peak)));
    taken.push([PLOT.2 - 150.0, top - 22.0, PLOT.2, top - 2.0]);
    // On screen all bandwidths have one slope; their names go along them, each further down than the last.
    let low = 10f64.powf(y.low);
    for (i, (name, rate)) in slopes.iter().enumerate() {
        let from = 10f64.powf(x.low).max(low / rate);
        let (x0, y0) = (x.at(from), y.at(from * rate));
        let (x1, y1) = (x.at(peak / rate), y.at(peak));
        let _ = writeln!(out, "<path class=\"slope\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}\"/>");
        let (dx, dy) = (x1 - x0, y1 - y0);
        let length = dx.hypot(dy).max(1.0);
        let text = format!("{name} {} GB/s", giga(*rate));
        let width = 6.6 * text.chars().count() as f64;
        // Near the lower end, staggered so that names of near lines do not meet.
        let at = (24.0 + (i % 2) as f64 * (width + 18.0)).min(length - width).max(0.0);
        let (tx, ty) = (x0 + dx * at / length, y0 + dy * at / length);
        let angle = dy.atan2(dx).to_degrees();
        let place = format!("transform=\"translate({tx:.1} {ty:.1}) rotate({angle:.1})\" dy=\"-5\"");
        haloed(out, "small", &place, &text);
        // The slanted name as a row of small squares.
        for k in 0..=(width / 10.0) as usize {
            let s = at + 10.0 * k as f64;
            let (px, py) = (x0 + dx * s / length, y0 + dy * s / length);
            taken.push([px - 10.0, py - 16.0, px + 8.0, py + 4.0]);
        }
    }
}
