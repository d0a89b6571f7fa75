//! Tables for people; for scripts JSON and YAML of the messages as they are, whose
//! fields only ever become more.

use crate::Failure;
use crate::cli::Format;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vip_proto::Word;

/// Prints a value as asked for; `table` makes the people's form.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?
        }
        Format::Yaml => {
            serde_norway::to_string(value).map_err(|e| Failure::Failed(e.to_string()))?
        }
    };
    say(text.trim_end())
}

/// A line on standard output, at once.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Unheard,
        _ => Failure::Unprinted(format!("standard output: {e}")),
    })
}

pub(crate) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<_> = table.to_string().lines().map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A moment, ms since 1970, in UTC.
pub(crate) fn moment(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// How long ago, in its two largest units.
pub(crate) fn ago(ms: u64, now: SystemTime) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(ms);
    match now.duration_since(then) {
        _ if ms == 0 => "-".into(),
        Ok(since) => {
            let text = humantime::format_duration(Duration::from_secs(since.as_secs()));
            text.to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
        }
        Err(_) => "to come".into(),
    }
}

/// What a line of a table has no room for, in full.
pub(crate) fn all_of(name: &str, what: &str, all: &[String]) -> String {
    if all.len() < 3 { String::new() } else { format!("\n{what} of {name}: {}", all.join(" ")) }
}

/// As many as a line of a table has room for; `-o json` has all.
pub(crate) fn few(all: &[String]) -> String {
    match all {
        [first, rest @ ..] if rest.len() > 1 => format!("{first} +{}", rest.len()),
        all => all.join(" "),
    }
}

pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// The word of an enum's value, as in JSON.
pub(crate) fn word<E: Word>(number: i32) -> String {
    E::word(number).map_or_else(|| number.to_string(), ToOwned::to_owned)
}

/// What went wrong with a file.
pub(crate) fn in_file(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |e| Failure::Failed(format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_proto::v1;

    #[test]
    fn an_age_has_two_units_and_a_time_to_come_none() {
        let now = UNIX_EPOCH + Duration::from_secs(100_000);
        assert_eq!(ago(100_000_000 - 93_784_000, now), "1day 2h");
        assert_eq!(ago(100_060_000, now), "to come");
        assert_eq!(ago(0, now), "-");
    }

    /// What scripts read: names, words, and null for what is not there.
    #[test]
    fn a_message_is_printed_as_scripts_know_it() {
        let vip = v1::Vip {
            name: "web".to_owned(),
            addresses: vec!["192.0.2.9/24".to_owned()],
            epoch: 7,
            cause: Some(v1::Cause::HolderLost.into()),
            placement: v1::Placement::Sticky.into(),
            via: v1::Via::Exec.into(),
            params: [("file".to_owned(), "move".to_owned())].into(),
            hindered: vec![v1::Hindrance {
                vip: "web".to_owned(),
                node: "n1".to_owned(),
                why: "no".to_owned(),
            }],
            ..Default::default()
        };
        let json = serde_json::to_value(&vip).expect("plain");
        let expected = serde_json::json!({
            "name": "web", "addresses": ["192.0.2.9/24"], "holder": null, "epoch": 7,
            "since_ms": 0, "cause": "holder-lost", "answers": false, "interface": null,
            "placement": "sticky", "pinned": null,
            "hindered": [{ "vip": "web", "node": "n1", "why": "no" }],
            "no_probe": false, "fresh": false, "silent": false,
            "via": "exec", "params": { "file": "move" },
        });
        assert_eq!(json, expected);
        let node = v1::Node { role: v1::Role::Voter.into(), state: 99, ..Default::default() };
        let json = serde_json::to_value(&node).expect("plain");
        // Of a later version: its number says that there is something.
        assert_eq!((&json["role"], &json["state"]), (&"voter".into(), &99.into()));
        assert_eq!((&json["trouble"], &json["vips"]), (&().into(), &serde_json::json!([])));
    }
}
