//! A program of the operator's own that moves a VIP.
//!
//! It is called as `FILE observe`, `FILE take` and `FILE release`, with what [`Move`] says in
//! its environment.
//!
//! | | `observe` | `take`, `release` |
//! |---|---|---|
//! | ends with 0 | the VIP is at this node | it is done; `take` is observed before it counts |
//! | ends with 3 | it is not; the first line that it says is the token | |
//! | anything else | it failed, for the reason in the first line | the same |
//!
//! `release` is for a VIP that was removed: it is to be at this node no more, and is left
//! alone if it is at another.
//!
//! A token names what was observed: an etag, a revision, who has it. `take` gets it back in
//! `VIPD_TOKEN`, and is to change that state and no other. A program is ended with all that
//! it started, when its time is over and when the lease of its node is.

use super::{GRACE, Ran, Run, SILENT, Sort, ask};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use vip_core::{CloudReply, Epoch, MAX_TOKEN, Name, Verb};

/// What a program is told of a VIP.
#[derive(Clone, Debug)]
pub struct Move {
    /// Its file, without a folder.
    pub file: String,
    pub vip: Name,
    pub addresses: Vec<IpAddr>,
    /// This node's name.
    pub node: Name,
    /// Where its peers reach it.
    pub advertise: String,
    pub epoch: Epoch,
    pub verb: Verb,
    /// How long it may take.
    pub limit: Duration,
}

/// The end that says that the VIP is not here.
const ELSEWHERE: i32 = 3;

impl Move {
    fn run(&self) -> Run {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let mut env = BTreeMap::from([
            ("VIPD_VIP", self.vip.to_string()),
            ("VIPD_ADDRESSES", addresses.join(" ")),
            ("VIPD_NODE", self.node.to_string()),
            ("VIPD_ADVERTISE", self.advertise.clone()),
            ("VIPD_EPOCH", self.epoch.to_string()),
        ]);
        if let Verb::Take(token) = &self.verb {
            env.insert("VIPD_TOKEN", token.clone());
        }
        Run {
            sort: Sort::Mover,
            file: self.file.clone(),
            arguments: vec![self.verb.as_str().to_owned()],
            env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            timeout_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Has it run at `socket`. Dropped, it is ended with all that it started.
pub async fn run_mover(socket: &Path, wanted: &Move) -> CloudReply {
    let ran = match timeout(wanted.limit + GRACE, ask(socket, &wanted.run())).await {
        Err(_) => return CloudReply::Failed(SILENT.to_owned()),
        Ok(Ok(ran)) => ran,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                let text = format!("nobody runs programs here, at {}", socket.display());
                return CloudReply::Failed(text);
            }
            _ => return CloudReply::Failed(format!("no program can be run here: {error}")),
        },
    };
    said(wanted, ran)
}

fn said(wanted: &Move, ran: Ran) -> CloudReply {
    let file = &wanted.file;
    let observes = wanted.verb == Verb::Observe;
    let (what, says) = match ran {
        Ran::Ended { code: 0, .. } if observes => return CloudReply::Here,
        Ran::Ended { code: 0, .. } => return CloudReply::Done,
        Ran::Ended { code: ELSEWHERE, says } if observes && says.len() > MAX_TOKEN => {
            (format!("the token of {file} is longer than {MAX_TOKEN} bytes"), String::new())
        }
        Ran::Ended { code: ELSEWHERE, says } if observes => return CloudReply::Elsewhere(says),
        Ran::Ended { code, says } => (format!("{file} ended with {code}"), says),
        Ran::Killed { signal, says } => (format!("{file} was killed by signal {signal}"), says),
        Ran::Late { says } => {
            (format!("no end of {file} within {}", crate::spoken(wanted.limit)), says)
        }
        Ran::NotRun { why } => (why, String::new()),
    };
    CloudReply::Failed(if says.is_empty() { what } else { format!("{what}: {says}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(verb: Verb) -> Move {
        Move {
            file: "move".into(),
            vip: "web".parse().expect("a name"),
            addresses: vec![[10, 0, 0, 9].into(), [10, 0, 0, 10].into()],
            node: "n1".parse().expect("a name"),
            advertise: "10.0.0.1:7400".into(),
            epoch: Epoch(7),
            verb,
            limit: Duration::from_secs(3),
        }
    }

    #[test]
    fn a_program_is_told_what_to_do_and_for_how_long() {
        let run = wanted(Verb::Take("e7".into())).run();
        assert_eq!(
            (run.file.as_str(), run.arguments.as_slice()),
            ("move", &["take".to_owned()][..])
        );
        let told = |key: &str| run.env.get(key).map(String::as_str);
        assert_eq!(told("VIPD_ADDRESSES"), Some("10.0.0.9 10.0.0.10"));
        assert_eq!((told("VIPD_TOKEN"), told("VIPD_EPOCH")), (Some("e7"), Some("7")));
        assert_eq!(run.timeout_ms, 3000);
        for (verb, word) in [(Verb::Observe, "observe"), (Verb::Release, "release")] {
            let run = wanted(verb).run();
            assert_eq!(run.arguments, [word]);
            assert!(!run.env.contains_key("VIPD_TOKEN"));
        }
    }

    #[test]
    fn how_it_ends_says_where_the_vip_is() {
        let (observe, take) = (wanted(Verb::Observe), wanted(Verb::Take("e7".into())));
        let ended = |code, says: &str| Ran::Ended { code, says: says.into() };
        assert_eq!(said(&observe, ended(0, "x")), CloudReply::Here);
        assert_eq!(said(&observe, ended(3, "e7")), CloudReply::Elsewhere("e7".into()));
        assert_eq!(said(&observe, ended(3, "")), CloudReply::Elsewhere(String::new()));
        assert_eq!(said(&take, ended(0, "")), CloudReply::Done);
        let failed = |of: &Move, ran| match said(of, ran) {
            CloudReply::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(&take, ended(3, "stale")), "move ended with 3: stale");
        assert!(failed(&observe, ended(3, &"x".repeat(257))).contains("longer than 256"));
        assert_eq!(failed(&take, Ran::Late { says: String::new() }), "no end of move within 3 s");
        assert_eq!(failed(&take, Ran::NotRun { why: "not root's".into() }), "not root's");
    }
}
