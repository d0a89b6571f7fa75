//! The results as a picture: silence after each fault, on a logarithmic scale.

use super::case::{Case, Kind};
use super::{runs, spread};
use clap::ValueEnum;
use serde_json::Value;

const CASES: [Case; 5] =
    [Case::Planned, Case::PowerOff, Case::Isolation, Case::Freeze, Case::Killed];
const LEFT: f64 = 200.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 15.0;
const GAP: f64 = 14.0;
/// The scale goes from 1 ms to this.
const MOST_MS: f64 = 10_000.0;

fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Keepalived1s => "#b5b5b5",
        Kind::Keepalived100ms => "#8a8a8a",
        Kind::VipdLan => "#2f6fb2",
        Kind::VipdFast => "#1b9e77",
    }
}

fn x(ms: f64) -> f64 {
    LEFT + WIDTH * ms.clamp(1.0, MOST_MS).log10() / MOST_MS.log10()
}

/// An SVG document.
pub(super) fn svg(results: &Value) -> String {
    let kinds = Kind::value_variants();
    let group = BAR * 4.0 + GAP;
    let height = 70.0 + group * 5.0;
    let mut body = String::new();
    for tick in [1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        let (at, bottom) = (x(tick), height - 30.0);
        body += &format!(
            "<line x1=\"{at:.0}\" y1=\"40\" x2=\"{at:.0}\" y2=\"{bottom:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{tick:.0} ms</text>\n",
            height - 12.0
        );
    }
    for (number, kind) in kinds.iter().enumerate() {
        let at = LEFT + 140.0 * f64::from(u8::try_from(number).unwrap_or(0));
        body += &format!(
            "<rect x=\"{at:.0}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{:.0}\" y=\"22\">{}</text>\n",
            color(*kind),
            at + 18.0,
            kind.title()
        );
    }
    let mut top = 44.0;
    for case in CASES {
        body += &format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 10.0,
            top + BAR * 2.0 + 4.0,
            case.title()
        );
        for kind in kinds {
            body += &bar(*kind, top, runs(results, case, *kind));
            top += BAR;
        }
        top += GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"800\" height=\"{height:.0}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// To the median, with a line to the worst.
fn bar(kind: Kind, top: f64, runs: &[Value]) -> String {
    let (y, fill) = (top + 1.0, color(kind));
    let two = runs.iter().any(|run| run["stretches"].as_u64() > Some(2));
    let note = if two { "two holders answer" } else { "" };
    let Some((_, middle, high)) = spread(runs, "outage_ms") else {
        let text = if runs.is_empty() { "" } else { "nobody takes over" };
        let (at, y) = (LEFT + 4.0, y + 11.0);
        return format!("<text x=\"{at:.0}\" y=\"{y:.0}\" fill=\"#b00\">{text}</text>\n");
    };
    let (end, worst, half) = (x(middle), x(high), y + (BAR - 2.0) / 2.0);
    format!(
        "<rect x=\"{LEFT:.0}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{fill}\"/>\
         <line x1=\"{end:.1}\" y1=\"{half:.1}\" x2=\"{worst:.1}\" y2=\"{half:.1}\" stroke=\"{fill}\"/>\
         <text x=\"{:.0}\" y=\"{:.0}\">{middle:.0} <tspan fill=\"#b00\">{note}</tspan></text>\n",
        end - LEFT,
        BAR - 2.0,
        worst + 5.0,
        y + 11.0
    )
}
