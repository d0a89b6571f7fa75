//! The rounds as a table for the README.

use super::Rounds;
use super::lab::Way;
use super::load::{Figure, Kind};
use std::time::Duration;

fn title(way: Way) -> &'static str {
    match way {
        Way::PlainDr => "plain routing, answered past it",
        Way::EbpfDr => "**vipd dr**",
        Way::NftDr => "nftables, netdev fwd",
        Way::PlainNat => "plain routing, both ways",
        Way::EbpfNat => "**vipd nat**",
        Way::NftNat => "nftables, dnat and conntrack",
        Way::Attached => "plain, vipd attached beside it",
    }
}

/// Lower quartile, median, upper quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at =
        |part: usize| values.get((values.len() * part / 4).min(values.len().saturating_sub(1)));
    [1, 2, 3].map(|part| at(part).copied().unwrap_or(f64::NAN))
}

fn median(values: impl Iterator<Item = Duration>) -> f64 {
    quartiles(values.map(|value| value.as_secs_f64()).collect())[1]
}

fn figures(all: &Rounds, way: Way, kind: Kind) -> &[Figure] {
    all.get(&(way, kind)).map_or(&[], Vec::as_slice)
}

/// Round by round beside another way.
pub(super) fn ratio(all: &Rounds, way: Way, limit: Way, kind: Kind) -> [f64; 3] {
    let pairs = figures(all, way, kind).iter().zip(figures(all, limit, kind));
    quartiles(pairs.map(|(one, other)| one.rate / other.rate).collect())
}

fn rate(all: &Rounds, way: Way, kind: Kind) -> String {
    let [_, median, _] = quartiles(figures(all, way, kind).iter().map(|f| f.rate).collect());
    let rate = match kind {
        Kind::Kept | Kind::New => format!("{:.1}k", median / 1e3),
        Kind::Bulk => format!("{:.1} Gb/s", median * 8.0 / 1e9),
    };
    if way == way.limit() {
        return rate;
    }
    let [low, middle, high] = ratio(all, way, way.limit(), kind);
    format!("{rate}, {middle:.2} [{low:.2} {high:.2}]")
}

pub(super) fn table(all: &Rounds, rounds: usize, load: &str) -> String {
    let mut text = String::from(
        "| | requests/s kept | connections/s | bulk | p50, p99 kept, ms | CPU a request, a connection, us |\n\
         |---|---|---|---|---|---|\n",
    );
    for way in Way::ALL {
        let [kept, new, bulk] = Kind::ALL.map(|kind| rate(all, way, kind));
        let of = |kind, value: fn(&Figure) -> Duration| {
            median(figures(all, way, kind).iter().map(value))
        };
        text += &format!(
            "| {} | {kept} | {new} | {bulk} | {:.2}, {:.2} | {:.1}, {:.0} |\n",
            title(way),
            of(Kind::Kept, |f| f.p50) * 1e3,
            of(Kind::Kept, |f| f.p99) * 1e3,
            of(Kind::Kept, |f| f.cpu) * 1e6,
            of(Kind::New, |f| f.cpu) * 1e6,
        );
    }
    let beside = |one, other, kind| {
        let [low, middle, high] = ratio(all, one, other, kind);
        format!("{middle:.2} [{low:.2} {high:.2}]")
    };
    text + &format!(
        "\nMedian of {rounds} rounds of 1 s in random order (load {load}); behind it the median \
         [quartiles] of the ratio to plain routing over the same hops, round by round. vipd beside \
         nftables: dr {} of its requests and {} of its connections, nat {} and {}. One client \
         thread, one nginx, both processors used up; CPU is that of all.",
        beside(Way::EbpfDr, Way::NftDr, Kind::Kept),
        beside(Way::EbpfDr, Way::NftDr, Kind::New),
        beside(Way::EbpfNat, Way::NftNat, Kind::Kept),
        beside(Way::EbpfNat, Way::NftNat, Kind::New),
    )
}
