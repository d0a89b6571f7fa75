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
            many nobody took over while the client watched."
}

fn cell(case: Case, runs: &[Value]) -> String {
    if runs.is_empty() {
        return "-".into();
    }
    let counted = |word: &str, is_so: &dyn Fn(&Value) -> bool| {
        let count = runs.iter().filter(|run| is_so(run)).count();
        if count > 0 { format!(", **{word}** {count}") } else { String::new() }
    };
    // One holder to the next is one change; more is two at a time. After a
    // restart of all the VIP may follow the leader more than once.
    let two = |run: &Value| case != Case::Restart && run["stretches"].as_u64() > Some(2);
    let two = counted("two", &two);
    let figure = if case == Case::Restart { "takeover_ms" } else { "outage_ms" };
    // Where another took over and nobody was silent, there is no outage either.
    let never = |run: &Value| run["takeover_ms"].is_null() && run[figure].is_null();
    match spread(runs, figure) {
        Some((low, middle, high)) => {
            let never = counted("never", &never);
            format!("{middle:.0} ({low:.0} - {high:.0}) of {}{never}{two}", runs.len())
        }
        None => format!("never, of {}{two}", runs.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(takeover: Option<f64>, outage: Option<f64>) -> Value {
        json!({ "takeover_ms": takeover, "outage_ms": outage, "stretches": 2 })
    }

    /// The worst of all would else be what makes a row look better.
    #[test]
    fn a_run_in_which_nobody_took_over_is_named() {
        let restarts = [run(Some(400.0), None), run(None, None), run(Some(300.0), None)];
        assert_eq!(cell(Case::Restart, &restarts), "400 (300 - 400) of 3, **never** 1");
        let cuts = [run(Some(210.0), Some(200.0)), run(None, None)];
        assert_eq!(cell(Case::PowerOff, &cuts), "200 (200 - 200) of 2, **never** 1");
        assert_eq!(cell(Case::PowerOff, &cuts[1..]), "never, of 1");
        let seamless = [run(Some(3.0), Some(2.0)), run(Some(3.0), None)];
        assert_eq!(cell(Case::Mute, &seamless), "2 (2 - 2) of 2");
    }
}
