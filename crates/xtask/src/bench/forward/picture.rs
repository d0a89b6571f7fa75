//! The rounds as a picture: what a way does beside plain routing over the same hops.

use super::Rounds;
use super::lab::Way;
use super::load::Kind;
use super::told::ratio;

/// Each with whether it is ours.
const WAYS: [(Way, &str, bool); 5] = [
    (Way::EbpfDr, "vipd dr", true),
    (Way::NftDr, "nftables, netdev fwd", false),
    (Way::EbpfNat, "vipd nat", true),
    (Way::NftNat, "nftables, dnat and conntrack", false),
    (Way::Attached, "plain, vipd attached beside it", true),
];
const KINDS: [(Kind, &str); 2] = [(Kind::Kept, "requests"), (Kind::New, "connections")];
const LEFT: f64 = 290.0;
const WIDTH: f64 = 460.0;
const BAR: f64 = 15.0;
const GAP: f64 = 14.0;
/// From nothing to this.
const MOST: f64 = 1.2;

fn x(ratio: f64) -> f64 {
    LEFT + WIDTH * ratio.clamp(0.0, MOST) / MOST
}

/// An SVG document.
pub(super) fn svg(all: &Rounds) -> String {
    let mut body = String::new();
    let mut top = 44.0;
    for (way, title, is_ours) in WAYS {
        for (kind, what) in KINDS {
            let fill = if is_ours { "#2f6fb2" } else { "#8a8a8a" };
            let [low, middle, high] = ratio(all, way, way.limit(), kind);
            let (text, half) = (top + 11.0, top + BAR / 2.0);
            body += &format!(
                "<text x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\">{title}, {what}</text>\n\
                 <rect x=\"{LEFT:.0}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{fill}\"/>\n\
                 <line x1=\"{:.1}\" y1=\"{half:.1}\" x2=\"{:.1}\" y2=\"{half:.1}\" stroke=\"#222\"/>\n\
                 <text x=\"{:.0}\" y=\"{text:.0}\">{middle:.2}</text>\n",
                LEFT - 10.0,
                top + 1.0,
                x(middle) - LEFT,
                BAR - 2.0,
                x(low),
                x(high),
                x(high) + 6.0,
            );
            top += BAR;
        }
        top += GAP;
    }
    let one = x(1.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {top:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"800\" height=\"{top:.0}\" fill=\"white\"/>\n\
         <text x=\"{one:.0}\" y=\"22\" text-anchor=\"middle\">plain routing = 1</text>\n{body}\
         <line x1=\"{one:.1}\" y1=\"30\" x2=\"{one:.1}\" y2=\"{top:.0}\" stroke=\"#b00\"/>\n</svg>\n"
    )
}
