//! Clients of the admin API that change one VIP through different nodes, and
//! note what they were told.

use crate::host::Control;
use crate::linear::{Action, Answer, Operation};
use anyhow::{Result, anyhow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one command may take.
const TIMEOUT: &str = "2s";
/// Between two commands of one client.
const PAUSE: Duration = Duration::from_millis(40);

/// Clients at work, one per node.
#[derive(Debug)]
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Operation>>>>,
}

impl Clients {
    /// Starts a client of each node; all change the VIP `name`, which nobody
    /// else may touch.
    #[must_use]
    pub(crate) fn start(nodes: Vec<Control>, name: &str, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        let client = |(number, node): (usize, Control)| {
            let (stop, name) = (stop.clone(), name.to_owned());
            let mut rng = fastrand::Rng::with_seed(seed ^ (number as u64) << 32);
            std::thread::spawn(move || {
                let mut history = vec![];
                while !stop.load(Ordering::Relaxed) {
                    let action = match rng.u8(..5) {
                        0 => Action::Set(1),
                        1 => Action::Set(2),
                        2 => Action::Clear,
                        _ => Action::Read,
                    };
                    let now = || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    let begin_ns = now();
                    let answer = perform(&node, &name, action)?;
                    let read_nothing = action == Action::Read && answer == Answer::Unknown;
                    if !read_nothing {
                        history.push(Operation { begin_ns, end_ns: now(), action, answer });
                    }
                    std::thread::sleep(PAUSE);
                }
                Ok(history)
            })
        };
        let threads = nodes.into_iter().enumerate().map(client).collect();
        Self { stop, threads }
    }

    /// Ends them and returns what all of them did.
    ///
    /// # Errors
    /// A command could not be started.
    pub(crate) fn finish(mut self) -> Result<Vec<Operation>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = vec![];
        for thread in self.threads.drain(..) {
            all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(all)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn address(value: u8) -> String {
    format!("10.77.0.{}/24", 200 + value)
}

fn perform(node: &Control, name: &str, action: Action) -> Result<Answer> {
    let timeout = ["--timeout", TIMEOUT];
    let address = |value| address(value);
    let outcome = match action {
        Action::Set(value) => {
            let address = address(value);
            let add = ["vip", "add", name, "--address", &address];
            node.ctl(&[&timeout[..], &add[..]].concat())?
        }
        Action::Clear => node.ctl(&[&timeout[..], &["vip", "remove", name]].concat())?,
        Action::Read => {
            let status = ["-o", "json", "status"];
            let text = node.ctl(&[&timeout[..], &status[..]].concat())?.stdout;
            return Ok(read(&text, name).unwrap_or(Answer::Unknown));
        }
    };
    let says = |text| outcome.stderr.contains(text);
    Ok(match (outcome.code, action) {
        (Some(0), _) => Answer::Done,
        // Added, and removed by another client before it answered.
        (Some(1), Action::Set(_)) if says("was carried out") => Answer::Done,
        (Some(1), Action::Set(_)) if says("exists already and differs") => Answer::Refused,
        (Some(1), Action::Clear) if says("there is no VIP") => Answer::Refused,
        _ => Answer::Unknown,
    })
}

/// The value, if the answer is the leader's: a node that does not reach it
/// tells what it knew last, and says so.
fn read(status: &str, name: &str) -> Option<Answer> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    if !status["fresh"].as_bool()? {
        return None;
    }
    let vip = status["vips"].as_array()?.iter().find(|vip| vip["name"] == name);
    let Some(vip) = vip else { return Some(Answer::Value(None)) };
    let value = [1, 2].into_iter().find(|value| vip["addresses"][0] == address(*value))?;
    Some(Answer::Value(Some(value)))
}
