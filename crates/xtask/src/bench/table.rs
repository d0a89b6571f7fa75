//! The results as a table.

use super::case::{Case, Kind};
use super::{runs, spread};
use clap::ValueEnum;
use serde_json::Value;

/// A Markdown table: ms without an answer, median (least - most) of the runs.
pub(super) fn markdown(results: &Value) -> String {
    let titles: Vec<_> = Kind::value_variants().iter().map(|k| k.title()).collect();
    let mut text = format!("| ms | {} |\n|---|---|---|---|---|\n", titles.join(" | "));
    for case in Case::value_variants() {
        let cells =
            Kind::value_variants().iter().map(|kind| cell(*case, runs(results, *case, *kind)));
        text += &format!("| {} | {} |\n", case.title(), cells.collect::<Vec<_>>().join(" | "));
    }
    text + "\nMedian (least - most) ms without an answer, of the runs given. \
            **two**: in so many runs the old and the new holder answered in turn; **never**: in so \
            many nobody answered while the client watched."
}

fn cell(case: Case, runs: &[Value]) -> String {
    if runs.is_empty() {
        return "-".into();
    }
    // One holder to the next is one change; more is two at a time. After a
    // restart of all the VIP may follow the leader more than once.
    let two = |run: &&Value| case != Case::Restart && run["stretches"].as_u64() > Some(2);
    let two = runs.iter().filter(two).count();
    let figure = if case == Case::Restart { "takeover_ms" } else { "outage_ms" };
    // Of the other cases, where nobody was silent there is no figure.
    let never = |run: &&Value| case == Case::Restart && run[figure].is_null();
    let never = runs.iter().filter(never).count();
    let mark = |what: &str, count| {
        if count > 0 { format!(", **{what}** {count}") } else { String::new() }
    };
    let two = mark("two", two);
    match spread(runs, figure) {
        Some((low, middle, high)) => {
            let never = mark("never", never);
            format!("{middle:.0} ({low:.0} - {high:.0}) of {}{never}{two}", runs.len())
        }
        None => format!("never, of {}{two}", runs.len()),
    }
}
