//! One round of one way: wrk, and what the machine spent on it.

use anyhow::{Context, Result, ensure};
use chaos_tests::Lab;
use std::time::Duration;

/// Long enough for some ten thousand requests, and for twenty rounds of all ways.
const LASTING: &str = "1s";
const CONNECTIONS: &str = "32";
/// Downloads at a time.
const DOWNLOADS: &str = "4";

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Requests on connections that it keeps.
    Kept,
    /// A connection for each request.
    New,
    /// Downloads.
    Bulk,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Kept, Self::New, Self::Bulk];
}

/// What a round showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    /// Requests a second, or bytes of a download.
    pub(super) rate: f64,
    /// Of a request.
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// Processor time of the whole machine for each request.
    pub(super) cpu: Duration,
}

/// A number with its unit, such as 194.00us or 1.25GB.
fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: f64 = text.strip_suffix(unit.0)?.parse().ok()?;
    Some(number * unit.1)
}

fn time(text: &str) -> Option<Duration> {
    let seconds = number(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])?;
    Some(Duration::from_secs_f64(seconds))
}

fn bytes(text: &str) -> Option<f64> {
    const K: f64 = 1024.0;
    number(text, &[("GB", K * K * K), ("MB", K * K), ("KB", K), ("B", 1.0)])
}

/// The word after a label.
fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
    line.split_whitespace().next()
}

/// What all processors did since the start, without being idle.
fn busy() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().context("no processors")?;
    let spent: Vec<u64> = first.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    ensure!(spent.len() > 7, "{first}");
    // user nice system idle iowait irq softirq steal, in 1/100 s
    let busy = spent[0] + spent[1] + spent[2] + spent[5] + spent[6];
    Ok(Duration::from_millis(busy * 10))
}

pub(super) fn measure(lab: &Lab, kind: Kind, url: &str) -> Result<Figure> {
    let connections = if kind == Kind::Bulk { DOWNLOADS } else { CONNECTIONS };
    let mut arguments = vec!["-t1", "-c", connections, "-d", LASTING, "--latency"];
    if kind == Kind::New {
        arguments.extend(["-H", "Connection: close"]);
    }
    arguments.push(url);
    let before = busy()?;
    let said = lab.exec("client", "wrk", &arguments)?.ok()?;
    let spent = busy()?.saturating_sub(before);
    ensure!(!said.contains("Non-2xx"), "{said}");
    let requests: f64 = after(&said, "Requests/sec:").context("no rate")?.parse()?;
    let rate = match kind {
        Kind::Bulk => after(&said, "Transfer/sec:").and_then(bytes).context("no rate")?,
        Kind::Kept | Kind::New => requests,
    };
    let percentile = |label| after(&said, label).and_then(time).context("no latency");
    ensure!(requests > 0.0, "{said}");
    let cpu = Duration::from_secs_f64(spent.as_secs_f64() / requests);
    Ok(Figure { rate, p50: percentile("50%")?, p99: percentile("99%")?, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read_with_its_units() {
        let said = "  Latency Distribution\n     50%  194.00us\n     99%    1.25ms\n\
                    Requests/sec:  80213.52\nTransfer/sec:      1.50GB\n";
        assert_eq!(after(said, "50%").and_then(time), Some(Duration::from_micros(194)));
        assert_eq!(after(said, "99%").and_then(time), Some(Duration::from_micros(1250)));
        assert_eq!(after(said, "Requests/sec:"), Some("80213.52"));
        assert_eq!(after(said, "Transfer/sec:").and_then(bytes), Some(1.5 * 1024f64.powi(3)));
        assert_eq!(time("x"), None);
    }
}
