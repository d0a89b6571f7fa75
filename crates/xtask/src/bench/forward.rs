//! What forwarding costs: paired rounds of each way beside plain routing over the same
//! hops, and beside nftables.

mod lab;
mod load;
mod picture;
mod told;

use super::{load as machine_load, results};
use crate::packages::{NGINX, Need, WRK, install, unpack};
use crate::shell::root;
use anyhow::Result;
use lab::{Testbed, Way};
use load::{Figure, Kind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A median of fewer says little: single rounds differ by a tenth.
pub(super) const ROUNDS: usize = 20;
/// The picture for the README.
const PICTURE: &str = "deploy/forward.svg";
/// nftables is there for the tests already.
const NEEDED: [Need; 1] = [WRK];

/// Figures of all rounds, by way and kind.
type Rounds = BTreeMap<(Way, Kind), Vec<Figure>>;

pub(super) fn run(rounds: usize) -> Result<()> {
    install(&NEEDED)?;
    unpack(&NGINX)?;
    let bed = Testbed::new()?;
    let mut all = Rounds::new();
    let mut rng = fastrand::Rng::new();
    for round in 1..=rounds {
        for kind in Kind::ALL {
            // In another order each time: what came before leaves its connections.
            let mut ways = Way::ALL;
            rng.shuffle(&mut ways);
            for way in ways {
                let figure = bed.measure(way, kind)?;
                println!("{round}: {way:?} {kind:?}: {figure:?}");
                all.entry((way, kind)).or_default().push(figure);
            }
        }
    }
    let table = told::table(&all, rounds, &machine_load()?);
    println!("\n{table}");
    let figures: Vec<Value> = all
        .iter()
        .map(|((way, kind), figures)| {
            let rates: Vec<f64> = figures.iter().map(|figure| figure.rate).collect();
            json!({ "way": format!("{way:?}"), "kind": format!("{kind:?}"), "rates": rates })
        })
        .collect();
    std::fs::write(results("forward.json"), serde_json::to_vec_pretty(&figures)?)?;
    if rounds >= ROUNDS {
        std::fs::write(root().join(PICTURE), picture::svg(&all))?;
    }
    super::figures::show("forward", rounds < ROUNDS, &table)
}
