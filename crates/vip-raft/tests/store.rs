//! The log store: openraft's own suite, and what a crash leaves. The disk that is used,
//! and others.

mod common;
mod disks;

use common::NoRules;
use disks::Kind;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vip_raft::{LogStore, StateMachine, StoreError, TypeConfig};

fn open(dir: &Path) -> Result<LogStore, StoreError> {
    Kind::Sled.open(dir)
}

struct Builder(Kind);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = TempDir::new().expect("temporary directory");
        let store = self.0.open(dir.path()).expect("opens");
        let (machine, _) = StateMachine::open(dir.path()).expect("opens");
        Ok((dir, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_own_storage_suite_passes() {
    for kind in Kind::ALL {
        let passes = Suite::test_all(Builder(kind)).await;
        passes.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
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

/// Set in the child process of the tests below: its directory, and its disk.
const CHILD: &str = "VIPD_STORE_CHILD";
const CHILDS_DISK: &str = "VIPD_STORE_CHILDS_DISK";

/// Not a test: what the child does. Appends, with a vote now and then, and
/// tells each index on standard output once it is acknowledged.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let disk = std::env::var(CHILDS_DISK).unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.file() == disk).expect("a disk");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut store = kind.open(Path::new(&dir)).expect("opens");
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

fn child(kind: Kind, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["child_appends_until_it_is_killed", "--exact", "--nocapture", "--quiet"])
        .env(CHILD, dir)
        .env(CHILDS_DISK, kind.file())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Last index and last vote that the child acknowledged before it was killed
/// after `lines` of its output.
fn killed_after(kind: Kind, dir: &Path, lines: usize) -> (u64, u64) {
    let mut child = child(kind, dir).spawn().expect("started");
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
async fn kills_lose_nothing_acknowledged(kind: Kind, kills: usize) {
    let dir = TempDir::new().expect("temporary directory");
    let mut vote_before = 0;
    for round in 0..kills {
        let (last, voted) = killed_after(kind, dir.path(), 1 + round % 7);
        let mut store = kind.open(dir.path()).expect("opens after a kill");
        let state = store.get_log_state().await.expect("readable");
        let there = state.last_log_id.map_or(0, |id| id.index);
        assert!(there >= last, "round {round}: {last} acknowledged, {there} there");
        vote_before = voted.max(vote_before);
        let saved = store.saved().vote.term.0;
        assert!(saved >= vote_before, "round {round}: voted {vote_before}, {saved} there");
    }
}

#[tokio::test]
async fn two_hundred_kills_lose_nothing_acknowledged() {
    kills_lose_nothing_acknowledged(Kind::Sled, 200).await;
}

#[tokio::test]
async fn kills_lose_nothing_acknowledged_on_other_disks() {
    for kind in [Kind::Redb, Kind::Segment] {
        kills_lose_nothing_acknowledged(kind, 40).await;
    }
}

#[tokio::test]
async fn a_candidacy_is_written_when_the_rules_are_free() {
    let dir = TempDir::new().expect("temporary directory");
    let rules = Arc::new(NoRules { waits: 5.into(), ..NoRules::default() });
    let mut store = LogStore::open(dir.path()).expect("opens");
    store.belongs_to(vip_core::NodeId(3), Duration::ZERO, rules.clone());
    store.save_vote(&vote(3)).await.expect("saved");
    assert!(!rules.early.load(Ordering::Relaxed), "it was written while this node was bound");
    assert_eq!(rules.waits.load(Ordering::Relaxed), 0);
}

/// One call that strace saw, of one of the files that are followed.
enum Seen {
    Write { file: usize, offset: usize, bytes: Vec<u8> },
    Length { file: usize, len: usize },
    Sync { file: usize },
    Acknowledged { index: u64, voted: Option<u64> },
}

/// Reads lines like `7 pwrite64(5</path/db>, "\x01\x02", 2, 512) = 2`, all bytes in hex,
/// those of the path too. A call that others interrupt has a line for each of its ends.
struct Trace {
    /// Names of the files that are followed.
    followed: [&'static str; 2],
    /// What each thread's call is about that has not returned.
    under_way: BTreeMap<String, usize>,
}

impl Trace {
    fn seen(&mut self, line: &str) -> Option<Seen> {
        let (thread, call) = line.split_once(' ')?;
        if line.contains("sync") {
            let file = self.followed(line).or_else(|| self.under_way.remove(thread))?;
            if line.contains("unfinished") {
                self.under_way.insert(thread.to_owned(), file);
            }
            return line.contains("= 0").then_some(Seen::Sync { file });
        }
        if call.trim_start().starts_with("ftruncate") {
            let (_, rest) = line.split_once(">, ")?;
            let len = rest.split([')', ' ']).next()?.parse().ok()?;
            return Some(Seen::Length { file: self.followed(line)?, len });
        }
        let (_, rest) = line.split_once('"')?;
        let (text, rest) = rest.split_once('"')?;
        let bytes: Vec<u8> = text
            .split("\\x")
            .skip(1)
            .map(|hex| u8::from_str_radix(hex, 16).expect("strace prints hex"))
            .collect();
        if call.trim_start().starts_with("pwrite64") {
            let file = self.followed(line)?;
            let offset = rest.split(',').nth(2)?.trim();
            let offset = offset.split([')', ' ']).next()?.parse().ok()?;
            return Some(Seen::Write { file, offset, bytes });
        }
        let said = String::from_utf8(bytes).ok()?;
        let number = |what| said.lines().find_map(|l| l.strip_prefix(what)?.parse().ok());
        Some(Seen::Acknowledged { index: number("acknowledged ")?, voted: number("voted ") })
    }

    /// The file that a call is about. One is made under another name.
    fn followed(&self, line: &str) -> Option<usize> {
        let is_of = |file: &str| {
            [format!("/store/{file}"), format!("/store/{file}.new")].iter().any(|path| {
                let hex: String = path.bytes().map(|b| format!("\\x{b:02x}")).collect();
                line.contains(&(hex + ">"))
            })
        };
        self.followed.iter().position(|file| is_of(file))
    }
}

/// A file, and what of it is on the disk.
#[derive(Default)]
struct OnDisk {
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl OnDisk {
    fn sync(&mut self) {
        for call in self.unsynced.drain(..) {
            match call {
                Unsynced::Write(offset, bytes) => {
                    let end = offset + bytes.len();
                    if self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    self.durable[offset..end].copy_from_slice(&bytes);
                }
                Unsynced::Length(len) => self.durable.resize(len, 0),
            }
        }
    }
}

/// Power loss: whatever was not synced is gone. The files are built again from
/// the writes that strace saw, leaving out those after the last sync of each
/// before an acknowledgement; the acknowledged entry and vote must be in them.
#[tokio::test]
async fn what_was_acknowledged_survives_the_loss_of_all_unsynced_writes() {
    for kind in Kind::ALL {
        survives_the_loss_of_all_unsynced_writes(kind).await;
    }
}

async fn survives_the_loss_of_all_unsynced_writes(kind: Kind) {
    let dir = TempDir::new().expect("temporary directory");
    let trace = dir.path().join("trace");
    let mut strace = Command::new("strace");
    let calls = "trace=fsync,fdatasync,ftruncate,write,pwrite64";
    strace
        .args(["-f", "-y", "-xx", "-e", calls, "-s", "10000000", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("this program"))
        .args(["child_appends_until_it_is_killed", "--exact", "--nocapture", "--quiet"])
        .env(CHILD, dir.path().join("store"))
        .env(CHILDS_DISK, kind.file())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = strace.spawn().expect("strace (cargo xtask test installs it)");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let lines = out.lines().map_while(Result::ok).filter(|l| l.starts_with("acknowledged"));
    assert_eq!(lines.take(60).count(), 60);
    child.kill().expect("killed");
    child.wait().expect("ended");

    let mut files: [OnDisk; 2] = Default::default();
    let (mut checked, mut votes, mut last_vote) = (0, 0, 0);
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let mut trace = Trace { followed: [kind.file(), "votes"], under_way: BTreeMap::new() };
    let followed = trace.followed;
    for (number, call) in text.lines().filter_map(|line| trace.seen(line)).enumerate() {
        match call {
            Seen::Write { file, offset, bytes } => {
                files[file].unsynced.push(Unsynced::Write(offset, bytes));
            }
            Seen::Length { file, len } => files[file].unsynced.push(Unsynced::Length(len)),
            Seen::Sync { file } => files[file].sync(),
            Seen::Acknowledged { index, voted } => {
                let copy = dir.path().join(format!("copy{number}"));
                std::fs::create_dir(&copy).expect("made");
                for (name, file) in followed.iter().zip(&files) {
                    std::fs::write(copy.join(name), &file.durable).expect("written");
                }
                if kind == Kind::Sled {
                    let conf = dir.path().join("store/conf");
                    std::fs::copy(conf, copy.join("conf")).expect("copied");
                }
                let mut recovered = kind.open(&copy).expect("opens after a power loss");
                let state = recovered.get_log_state().await.expect("readable");
                let last = state.last_log_id.map_or(0, |id| id.index);
                assert!(last >= index, "{kind:?}: {index} acknowledged, {last} survived");
                last_vote = voted.unwrap_or(last_vote);
                let saved = recovered.saved();
                assert!(saved.vote.term.0 >= last_vote, "voted {last_vote}, {saved:?} survived");
                assert_eq!(saved.lost_up_to, None);
                (checked, votes) = (checked + 1, votes + usize::from(voted.is_some()));
            }
        }
    }
    assert!(checked >= 50 && votes >= 10, "{kind:?}: only {checked}, {votes} were checked");
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
    for file in ["conf", "seal", "votes"] {
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
                assert_eq!(store.saved().vote.term.0, 7, "byte {at}");
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
    assert_eq!((entries.len(), store.saved().vote.term.0), (50, 7));
}

#[tokio::test]
async fn a_log_whose_votes_are_gone_is_damaged() {
    let dir = TempDir::new().expect("temporary directory");
    {
        let mut store = open(dir.path()).expect("opens");
        store.save_vote(&vote(7)).await.expect("saved");
        store.blocking_append((1..=5).map(entry)).await.expect("appended");
    }
    std::fs::remove_file(dir.path().join("votes")).expect("removed");
    assert!(matches!(open(dir.path()), Err(StoreError::Damaged { .. })));
}

/// Leaves a vote of this term where it was before it had a file.
fn vote_in_the_log(dir: &Path, term: u64) {
    std::fs::remove_file(dir.join("votes")).expect("removed");
    let db = sled::open(dir).expect("opens");
    let tree = db.open_tree("raft").expect("opens");
    let body = serde_json::to_vec(&vote(term)).expect("written");
    let framed = [&[1, 0, 0, 0, 1][..], &body].concat();
    let sealed = [&crc32fast::hash(&framed).to_be_bytes()[..], &framed].concat();
    tree.insert("v", sealed).expect("written");
    db.flush().expect("written");
}

#[tokio::test]
async fn a_vote_in_the_log_of_before_is_moved_to_its_file() {
    let dir = TempDir::new().expect("temporary directory");
    open(dir.path()).expect("opens").close().await.expect("closed");
    vote_in_the_log(dir.path(), 7);
    for _ in 0..2 {
        let saved = open(dir.path()).expect("opens").saved();
        assert_eq!((saved.vote.term.0, saved.longest), (7, None));
    }
    std::fs::remove_file(dir.path().join("votes")).expect("removed");
    let saved = open(dir.path()).expect("a log without an entry").saved();
    assert_eq!(saved.vote.term.0, 0, "an older version would take it for the latest");
}

/// sled took damage for the end, and has an earlier vote than was acknowledged.
#[tokio::test]
async fn a_vote_that_is_older_than_its_seal_is_not_moved() {
    let dir = TempDir::new().expect("temporary directory");
    open(dir.path()).expect("opens").close().await.expect("closed");
    vote_in_the_log(dir.path(), 5);
    let seal = |term: u64| {
        let body = [0_u64.to_le_bytes(), term.to_le_bytes()].concat();
        let sum = crc32fast::hash(&body).to_le_bytes();
        std::fs::write(dir.path().join("seal"), [&body[..], &sum].concat()).expect("written");
    };
    seal(7);
    assert!(matches!(open(dir.path()), Err(StoreError::Damaged { .. })));
    assert!(!dir.path().join("votes").exists(), "nothing was changed");
    seal(5);
    assert_eq!(open(dir.path()).expect("opens").saved().vote.term.0, 5);
}

/// Of a write and its sync, in microseconds: half of all, and one in a hundred.
fn figures(mut took: Vec<u128>) -> String {
    took.sort_unstable();
    format!("p50 {} us, p99 {} us", took[took.len() / 2], took[took.len() * 99 / 100])
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Not a test: the child of the one below.
#[tokio::test]
#[ignore = "a measurement"]
async fn child_that_measures_one_disk() {
    const ENTRIES: u64 = 5000;
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let disk = std::env::var(CHILDS_DISK).unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.file() == disk).expect("a disk");
    let (before, mut took) = (memory_kib(), vec![]);
    let mut store = kind.open(dir).expect("opens");
    for index in 1..=ENTRIES {
        let begun = Instant::now();
        store.blocking_append([entry(index)]).await.expect("appended");
        took.push(begun.elapsed().as_micros());
    }
    let memory = memory_kib() - before;
    store.close().await.expect("closed");
    drop(store);
    let used = |file: std::fs::DirEntry| file.metadata().map_or(0, |m| m.blocks() * 512);
    let used: u64 = std::fs::read_dir(dir).expect("readable").flatten().map(used).sum();
    let begun = Instant::now();
    drop(kind.open(dir).expect("opens again"));
    let opened = begun.elapsed();
    // The power fails while the last entries are written.
    let file = dir.join(kind.file());
    let bytes = std::fs::read(&file).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    std::fs::write(&file, &bytes[..end - 10]).expect("written");
    std::fs::remove_file(dir.join("seal")).expect("removed");
    let begun = Instant::now();
    let torn = match kind.open(dir) {
        Err(e) => format!("refused: {e}"),
        Ok(mut store) => {
            let last = store.get_log_state().await.expect("readable").last_log_id;
            format!("opens with {} in {:?}", last.map_or(0, |id| id.index), begun.elapsed())
        }
    };
    println!(
        "{kind:?}: {ENTRIES} entries, each synced: {}; memory {memory} KiB, disk {} KiB; opens in \
         {opened:?}; with the last bytes torn off: {torn}",
        figures(took),
        used / 1024
    );
}

/// What each disk costs; see `cargo xtask bench disks`.
#[test]
#[ignore = "a measurement"]
fn figures_of_disks() {
    for kind in Kind::ALL {
        let dir = TempDir::new().expect("temporary directory");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args([
                "child_that_measures_one_disk",
                "--exact",
                "--nocapture",
                "--quiet",
                "--ignored",
            ])
            .env(CHILD, dir.path())
            .env(CHILDS_DISK, kind.file());
        let said = command.output().expect("started").stdout;
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|line| line.starts_with(&format!("{kind:?}"))).expect("said");
        println!("{line}");
    }
}
