//! What leases feel of load balancers that ask a holder without pause.

use super::case::VIP;
use super::felt::{self, felt};
use super::{figures, load, results};
use crate::packages::{WRK, install};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options};
use serde_json::{Value, json};
use std::time::Duration;

/// The README shows runs of this length.
pub(super) const SECONDS: u64 = 20;
/// Connections at once, each for one request.
const AT_ONCE: &str = "32";

/// What wrk says of a line, as a number.
fn number(told: &str, line: &str) -> Result<f64> {
    let found = told.lines().find_map(|text| text.trim().strip_prefix(line));
    let text = found.with_context(|| format!("no {line:?} in {told}"))?;
    let digits = text.trim().trim_end_matches(|c: char| !c.is_ascii_digit());
    Ok(digits.parse()?)
}

pub(super) fn run(seconds: u64) -> Result<()> {
    install(&[WRK])?;
    let settings = vec!["http.listen=0.0.0.0:7480".to_owned()];
    let cluster = Cluster::formed(&Options { settings, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", &format!("{VIP}/24")])?;
    let holder = cluster.wait_until_at_leader("n1")?;
    let at = format!("http://{}:7480/v1/vip/web", cluster.host(&holder).address);
    let lasting = Duration::from_secs(seconds);
    let (told, leases) = felt(&cluster, lasting, || {
        let time = format!("{seconds}s");
        let ask = ["-t", "1", "-c", AT_ONCE, "-d", &time, &at];
        cluster.lab.exec("client", "wrk", &ask)?.ok()
    })?;
    let refused = told.lines().find(|line| line.contains("Non-2xx")).map(str::trim);
    let found = json!({
        "holder": holder,
        "a second": number(&told, "Requests/sec:")?,
        "refused": refused,
        "leases": leases,
        "load": load()?,
    });
    std::fs::write(results("balancers.json"), serde_json::to_vec_pretty(&found)?)?;
    println!("{found:#}");
    figures::show("balancers", seconds < SECONDS, &text(&found))
}

/// For the README.
fn text(found: &Value) -> String {
    format!(
        "- The holder, which led, was asked for its VIP by HTTP {:.0} times a second, each on a \
         connection of its own, all on this machine: {} (load {}).",
        found["a second"].as_f64().unwrap_or(f64::NAN),
        felt::told(&found["leases"]),
        found["load"].as_str().unwrap_or_default()
    )
}
