//! The log store: openraft's own suite, and what a crash leaves.

mod common;

use common::NoRules;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use vip_raft::{LogStore, StateMachine, StoreError, TypeConfig};

fn open(dir: &Path) -> Result<LogStore, StoreError> {
    LogStore::open(dir, Arc::new(NoRules::default()))
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().expect("temporary directory");
        let store = open(dir.path()).expect("opens");
        let (machine, _) = StateMachine::open(dir.path()).expect("opens");
        Ok((dir, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_own_storage_suite_passes() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

fn log_id(index: u64) -> LogIdOf<TypeConfig> {
    serde_json::from_value(serde_json::json!({ "leader_id": { "term": 1 }, "index": index }))
        .or_else(|_| serde_json::from_value(serde_json::json!({ "leader_id": 1, "index": index })))
        .expect("a log id")
}

fn entry(index: u64) -> EntryOf<TypeConfig> {
    EntryOf::<TypeConfig>::new_blank(log_id(index))
}

fn vote(term: u64) -> VoteOf<TypeConfig> {
    let json = serde_json::json!({
        "leader_id": { "term": term, "voted_for": 1 }, "committed": false
    });
    serde_json::from_value(json).expect("a vote")
}

/// Set in the child process of the tests below.
const CHILD: &str = "VIPD_STORE_CHILD";

/// Not a test: what the child does. Appends, with a vote now and then, and
/// tells each index on standard output once it is acknowledged.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut store = open(Path::new(&dir)).expect("opens");
        let state = store.get_log_state().await.expect("readable");
        let mut next = state.last_log_id.map_or(1, |id| id.index + 1);
        let mut out = std::io::stdout();
        loop {
            store.blocking_append([entry(next)]).await.expect("appended");
            let mut line = format!("acknowledged {next}\n");
            if next.is_multiple_of(5) {
                store.save_vote(&vote(next)).await.expect("saved");
                line += &format!("voted {next}\n");
            }
            if next.is_multiple_of(50) {
                store.purge(log_id(next - 20)).await.expect("purged");
            }
            out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("written");
            next += 1;
        }
    });
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["child_appends_until_it_is_killed", "--exact", "--nocapture", "--quiet"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Last index and last vote that the child acknowledged before it was killed
/// after `lines` of its output.
fn killed_after(dir: &Path, lines: usize) -> (u64, u64) {
    let mut child = child(dir).spawn().expect("started");
    let out = child.stdout.take().expect("piped");
    let (mut last, mut voted) = (0, 0);
    let mut take = |line: &str| match line.split_once(' ') {
        Some(("acknowledged", n)) => last = n.parse().unwrap_or(last),
        Some(("voted", n)) => voted = n.parse().unwrap_or(voted),
        _ => {}
    };
    let mut reader = BufReader::new(out).lines();
    let mut seen = 0;
    while seen < lines {
        let line = reader.next().expect("goes on").expect("readable");
        seen += usize::from(line.starts_with("acknowledged"));
        take(&line);
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    // What it had said before it died counts too.
    for line in reader.map_while(Result::ok) {
        take(&line);
    }
    (last, voted)
}

/// SIGKILL says nothing about power, but everything about our own buffers.
#[tokio::test]
async fn two_hundred_kills_lose_nothing_acknowledged() {
    let dir = TempDir::new().expect("temporary directory");
    let mut vote_before = 0;
    for round in 0..200 {
        let (last, voted) = killed_after(dir.path(), 1 + round % 7);
        let mut store = open(dir.path()).expect("opens after a kill");
        let state = store.get_log_state().await.expect("readable");
        let there = state.last_log_id.map_or(0, |id| id.index);
        assert!(there >= last, "round {round}: {last} acknowledged, {there} there");
        vote_before = voted.max(vote_before);
        let saved = store.saved_vote().expect("readable").term.0;
        assert!(saved >= vote_before, "round {round}: voted {vote_before}, {saved} there");
    }
}

#[tokio::test]
async fn a_candidacy_is_written_when_the_rules_are_free() {
    let dir = TempDir::new().expect("temporary directory");
    let rules = Arc::new(NoRules { waits: 5.into(), ..NoRules::default() });
    let mut store = LogStore::open(dir.path(), rules.clone()).expect("opens");
    store.save_vote(&vote(3)).await.expect("saved");
    assert!(!rules.early.load(Ordering::Relaxed), "it was written while this node was bound");
    assert_eq!(rules.waits.load(Ordering::Relaxed), 0);
}

/// One call that strace saw.
enum Seen {
    Write { offset: usize, bytes: Vec<u8> },
    Sync,
    Acknowledged(u64),
}

/// `pwrite64(5</path/db>, "\x01\x02", 2, 512) = 2`, all bytes in hex, those of
/// the path too.
fn seen(line: &str) -> Option<Seen> {
    if line.contains("fdatasync") && line.contains("= 0") {
        return Some(Seen::Sync);
    }
    let (_, rest) = line.split_once('"')?;
    let (text, rest) = rest.split_once('"')?;
    let bytes: Vec<u8> = text
        .split("\\x")
        .skip(1)
        .map(|hex| u8::from_str_radix(hex, 16).expect("strace prints hex"))
        .collect();
    let path: String = "/store/db".bytes().map(|b| format!("\\x{b:02x}")).collect();
    if line.contains(&(path + ">")) && line.contains("pwrite64") {
        let offset = rest.split(',').nth(2)?.trim();
        // A call that strace shows in two halves ends differently.
        let offset = offset.split([')', ' ']).next()?.parse().ok()?;
        return Some(Seen::Write { offset, bytes });
    }
    let said = String::from_utf8(bytes).ok()?;
    let index = said.strip_prefix("acknowledged ")?.split('\n').next()?.parse().ok()?;
    Some(Seen::Acknowledged(index))
}

/// Power loss: whatever was not synced is gone. The file is built again from
/// the writes that strace saw, leaving out those after the last fdatasync
/// before an acknowledgement; the acknowledged entry must be in it.
#[tokio::test]
async fn what_was_acknowledged_survives_the_loss_of_all_unsynced_writes() {
    let dir = TempDir::new().expect("temporary directory");
    let trace = dir.path().join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-xx", "-e", "trace=fdatasync,write,pwrite64", "-s", "10000000", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program"))
        .args(["child_appends_until_it_is_killed", "--exact", "--nocapture", "--quiet"])
        .env(CHILD, dir.path().join("store"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = strace.spawn().expect("strace (cargo xtask test installs it)");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let lines = out.lines().map_while(Result::ok).filter(|l| l.starts_with("acknowledged"));
    assert_eq!(lines.take(60).count(), 60);
    child.kill().expect("killed");
    child.wait().expect("ended");

    let (mut durable, mut unsynced) = (vec![], vec![]);
    let mut checked = 0;
    let text = std::fs::read_to_string(&trace).expect("a trace");
    for (number, call) in text.lines().filter_map(seen).enumerate() {
        match call {
            Seen::Write { offset, bytes } => unsynced.push((offset, bytes)),
            Seen::Sync => {
                for (offset, bytes) in unsynced.drain(..) {
                    let end = offset + bytes.len();
                    if durable.len() < end {
                        durable.resize(end, 0);
                    }
                    durable[offset..end].copy_from_slice(&bytes);
                }
            }
            Seen::Acknowledged(index) => {
                let copy = dir.path().join(format!("copy{number}"));
                std::fs::create_dir(&copy).expect("made");
                std::fs::write(copy.join("db"), &durable).expect("written");
                std::fs::copy(dir.path().join("store/conf"), copy.join("conf")).expect("copied");
                let mut recovered = open(&copy).expect("opens after a power loss");
                let state = recovered.get_log_state().await.expect("readable");
                let last = state.last_log_id.map_or(0, |id| id.index);
                assert!(last >= index, "{index} acknowledged, {last} survived");
                checked += 1;
            }
        }
    }
    assert!(checked >= 50, "only {checked} acknowledgements were checked");
}

/// sled takes damage at the end for the end; only the seal knows better, and
/// it may lag a second behind unless the store was closed.
#[tokio::test]
async fn damage_to_the_last_entries_is_found_after_a_close() {
    let dir = TempDir::new().expect("temporary directory");
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let mut store = open(&path).expect("opens");
    store.blocking_append((1..=50).map(entry)).await.expect("appended");
    store.close().await.expect("closed");
    std::fs::create_dir(&copy).expect("made");
    for file in ["conf", "seal"] {
        std::fs::copy(path.join(file), copy.join(file)).expect("copied");
    }
    let mut bytes = std::fs::read(path.join("db")).expect("readable");
    let used = bytes.iter().rposition(|b| *b != 0).expect("not empty");
    bytes[used / 2..used].iter_mut().for_each(|b| *b ^= 0xff);
    std::fs::write(copy.join("db"), &bytes).expect("written");
    assert!(matches!(open(&copy), Err(StoreError::Damaged { .. } | StoreError::Open { .. })));
}

#[tokio::test]
async fn a_flipped_bit_is_found_or_does_not_matter() {
    let dir = TempDir::new().expect("temporary directory");
    let path = dir.path().join("store");
    {
        let mut store = open(&path).expect("opens");
        store.save_vote(&vote(7)).await.expect("saved");
        store.blocking_append((1..=50).map(entry)).await.expect("appended");
    }
    let good = std::fs::read(path.join("db")).expect("readable");
    let used = good.iter().rposition(|b| *b != 0).expect("not empty");
    let mut refused = 0;
    for at in (0..used).step_by(used / 40) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::write(path.join("db"), &bad).expect("written");
        match open(&path) {
            Err(_) => refused += 1,
            Ok(mut store) => {
                let entries = store.try_get_log_entries(1..=50).await.expect("readable");
                assert_eq!(entries.len(), 50, "byte {at}: entries are missing");
                assert_eq!(store.saved_vote().expect("readable").term.0, 7, "byte {at}");
            }
        }
        // sled may have repaired what it found.
        for entry in std::fs::read_dir(&path).expect("readable") {
            let entry = entry.expect("readable").path();
            if entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with("snap")) {
                std::fs::remove_file(entry).expect("removed");
            }
        }
    }
    assert!(refused > 0, "no flipped bit was noticed");
}

/// Killed while sled wrote a snapshot of its own: that is begun under another
/// name, and what it would have said is in the log.
#[tokio::test]
async fn half_a_snapshot_of_the_page_table_is_none() {
    let dir = TempDir::new().expect("temporary directory");
    let path = dir.path().join("store");
    {
        let mut store = open(&path).expect("opens");
        store.save_vote(&vote(7)).await.expect("saved");
        store.blocking_append((1..=50).map(entry)).await.expect("appended");
        store.close().await.expect("closed");
    }
    let files = std::fs::read_dir(&path).expect("readable").flatten();
    let snapshots = files.map(|file| file.path());
    let whole = snapshots.filter(|path| path.to_string_lossy().contains("snap."));
    for snapshot in whole.collect::<Vec<_>>() {
        std::fs::remove_file(snapshot).expect("removed");
    }
    std::fs::write(path.join("snap.00000000001B8FEC.generating"), []).expect("written");
    let mut store = open(&path).expect("opens");
    let entries = store.try_get_log_entries(1..=50).await.expect("readable");
    assert_eq!((entries.len(), store.saved_vote().expect("readable").term.0), (50, 7));
}
