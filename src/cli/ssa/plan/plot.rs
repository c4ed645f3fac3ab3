//! The figures as a picture: imbalance and routes per pod against the number of pods, one line for each number of
//! slices.

use std::fmt::Write as _;

use ipnet::Ipv6Net;

use super::Figures;

/// One colour for each line, told apart by those who do not see all colours as well.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555"];
/// The inside of one panel.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 200.0;
const TOP: f64 = 60.0;
/// An imbalance above this many percent is bad enough; drawn to scale it would flatten all others.
const WORST: f64 = 50.0;

/// An SVG document of two panels, with numbers of pods at `ticks`.
pub(super) fn svg(prefix: Ipv6Net, figures: &[Figures], ticks: &[u32]) -> String {
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 780 330\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"780\" height=\"330\" fill=\"white\"/>\n",
    );
    _ = writeln!(svg, "<text x=\"50\" y=\"22\" font-size=\"14\">Slices of {prefix}</text>");
    panel(&mut svg, 50.0, "imbalance, %", figures, ticks, |one| one.imbalance.min(WORST));
    panel(&mut svg, 440.0, "routes per pod", figures, ticks, Figures::routes_each);
    for (at, group) in figures.chunk_by(|one, other| one.bits == other.bits).enumerate() {
        let (x, colour) = (50 + 90 * at, COLOURS[at % COLOURS.len()]);
        _ = writeln!(svg, "<text x=\"{x}\" y=\"318\" fill=\"{colour}\">slices={}</text>", group[0].bits);
    }
    svg + "</svg>\n"
}

fn panel(
    svg: &mut String,
    left: f64,
    title: &str,
    figures: &[Figures],
    ticks: &[u32],
    value: impl Fn(&Figures) -> f64,
) {
    let pods = figures.iter().map(|one| f64::from(one.pods));
    let (fewest, most) = (pods.clone().fold(f64::MAX, f64::min), pods.fold(1.0, f64::max));
    let highest = figures.iter().map(&value).fold(1.0, f64::max);
    let span = (most / fewest).ln().max(f64::MIN_POSITIVE);
    let x = |pods: u32| left + WIDTH * (f64::from(pods) / fewest).ln() / span;
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / highest);
    let (right, bottom) = (left + WIDTH, TOP + HEIGHT);
    _ = writeln!(svg, "<text x=\"{left}\" y=\"48\">{title}</text>");
    _ = writeln!(svg, "<path d=\"M{left} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>");
    for part in [0.0, 0.5, 1.0] {
        let (text, at) = (highest * part, y(highest * part));
        _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{text:.1}</text>", left - 4.0, at + 4.0);
    }
    for &pods in ticks {
        let at = x(pods);
        _ = writeln!(svg, "<text x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{pods}</text>", bottom + 16.0);
    }
    _ = writeln!(svg, "<text x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\">pods</text>", bottom + 32.0);
    for (at, group) in figures.chunk_by(|one, other| one.bits == other.bits).enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<_> = group.iter().map(|one| format!("{:.1},{:.1}", x(one.pods), y(value(one)))).collect();
        let points = points.join(" ");
        _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
    }
}
