//! Failovers of a VIP with many virtual servers beside one with none, in turns; and how long
//! a change of one takes until its holder forwards so.

use super::case::{Case, Kind};
use super::measure::observe;
use super::vipd::Nodes;
use super::{figures, keep, load, results, spread};
use anyhow::Result;
use serde_json::{Value, json};

/// The README shows what so many cost.
pub(super) const SERVERS: u16 = 1000;
pub(super) const RUNS: usize = 5;
const CASES: [Case; 5] =
    [Case::PowerOff, Case::Isolation, Case::Planned, Case::Killed, Case::Replaced];
const PROFILES: [Kind; 2] = [Kind::VipdLan, Kind::VipdFast];

pub(super) fn run(servers: u16, runs: usize) -> Result<()> {
    let mut found = json!({});
    let mut changes = vec![];
    for round in 1..=runs {
        for kind in PROFILES {
            for case in CASES {
                for count in [0, servers] {
                    let profile = kind.profile().unwrap_or_default();
                    let nodes = Nodes::new(profile, case)?;
                    changes.extend(nodes.add_servers(count)?);
                    let run = observe(Box::new(nodes), case, round)?;
                    println!("{round}: {profile} {} {count}: {run}", case.title());
                    keep(&mut found[cell(kind, case, count)], run);
                }
            }
        }
    }
    changes.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let last = changes.len().saturating_sub(1);
        changes.get((changes.len() * percent / 100).min(last)).copied().unwrap_or(f64::NAN)
    };
    let text = format!(
        "{}\n- One real server more, beside {servers} virtual servers, until the holder forwards \
         to it: {:.0} ms, one in ten {:.0} (`vipctl` included; load {}).",
        told(&found, servers),
        at(50),
        at(90),
        load()?
    );
    println!("\n{text}");
    std::fs::write(results("servers.json"), serde_json::to_vec_pretty(&found)?)?;
    figures::show("servers", runs < RUNS || servers < SERVERS, &text)
}

fn cell(kind: Kind, case: Case, count: u16) -> String {
    format!("{} {} {count}", kind.title(), case.title())
}

fn told(found: &Value, servers: u16) -> String {
    let silences = |kind, case, count| {
        let runs = found[cell(kind, case, count)].as_array().map_or(&[][..], Vec::as_slice);
        spread(runs, "outage_ms").map_or("-".to_owned(), |(least, median, most)| {
            format!("{median:.0} ({least:.0} - {most:.0}) of {}", runs.len())
        })
    };
    let mut text = format!(
        "| ms without an answer | no virtual server | {servers} virtual servers |\n|---|---|---|\n"
    );
    for kind in PROFILES {
        for case in CASES {
            let [without, with] = [0, servers].map(|count| silences(kind, case, count));
            let profile = kind.profile().unwrap_or_default();
            text += &format!("| {profile}, {} | {without} | {with} |\n", case.title());
        }
    }
    text
}
