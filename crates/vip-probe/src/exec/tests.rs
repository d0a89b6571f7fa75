use super::{Folders, runner};
use crate::Prober;
use crate::testing::target;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UnixListener;
use tokio::task::LocalSet;
use vip_core::{CheckWords, Failure};

const AT: &str = "192.0.2.7:8080";

/// A folder of programs, and a runner of them that lives as long as `asks` runs.
struct Place {
    dir: tempfile::TempDir,
    /// A runner ends all children of its process that are not its own.
    _alone: MutexGuard<'static, ()>,
}

fn checks_in(folder: PathBuf) -> Folders {
    Folders { checks: Some(folder), movers: None }
}

static ALONE: Mutex<()> = Mutex::new(());

impl Place {
    fn new() -> Self {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { dir: tempfile::tempdir().expect("a folder"), _alone }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("checks")
    }

    fn program(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.folder()).expect("a folder");
        let path = self.folder().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode");
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("exec.sock")
    }

    async fn during<T>(&self, asks: impl Future<Output = T>) -> T {
        let listener = UnixListener::bind(self.socket()).expect("bound");
        let serves = runner::serve(listener, checks_in(self.folder()), std::future::pending());
        let done = tokio::select! {
            _ = serves => panic!("it ended"),
            done = asks => done,
        };
        std::fs::remove_file(self.socket()).expect("removed");
        done
    }

    async fn ask(&self, check: &str, timeout_ms: u64) -> Result<(), Failure> {
        let at: SocketAddr = AT.parse().expect("an address");
        let target = target(at, CheckWords::of(check), timeout_ms);
        Prober::new(Some(self.socket()), None).probe(&target).await
    }
}

fn there(why: &str) -> Result<(), Failure> {
    Err(Failure::There(why.to_owned()))
}

/// The runner uses tasks that stay on their thread.
fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(LocalSet::new().run_until(test));
}

#[test]
fn a_program_says_by_its_end_how_the_server_is() {
    let place = Place::new();
    place.program("well", "exit 0");
    place.program(
        "unwell",
        "echo; echo \"  disk $1 of $VIPD_ADDRESS $VIPD_PORT is full\" >&2; exit 2",
    );
    place.program("mute", "exit 1");
    place.program("dies", "kill -9 $$");
    place.program("hangs", "echo begun; exec sleep 100");
    place.program("floods", "yes 0123456789");
    on_one_thread(place.during(async {
        assert_eq!(place.ask("exec:well", 5000).await, Ok(()));
        let says = "unwell ended with 2: disk $(id) of 192.0.2.7 8080 is full";
        assert_eq!(place.ask("exec:unwell,$(id)", 5000).await, there(says));
        assert_eq!(place.ask("exec:mute", 5000).await, there("mute ended with 1"));
        let killed = Err(Failure::Here("dies was killed by signal 9".to_owned()));
        assert_eq!(place.ask("exec:dies", 5000).await, killed);
        let late = there("no end of hangs within 3 s: begun");
        let floods = there("no end of floods within 3 s: 0123456789");
        let both = tokio::join!(place.ask("exec:hangs", 3000), place.ask("exec:floods", 3000));
        assert_eq!(both, (late, floods));
    }));
}

/// Nobody but root chooses what runs, and what this host lacks is no server's failure.
#[test]
fn what_is_not_roots_alone_is_not_run() {
    let place = Place::new();
    for name in ["all", "open", "others", "still"] {
        place.program(name, "exit 0");
    }
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
    };
    let folder = place.folder();
    mode(&folder.join("open"), 0o775);
    mode(&folder.join("still"), 0o644);
    std::os::unix::fs::chown(folder.join("others"), Some(65_534), None).expect("given away");
    std::os::unix::fs::symlink("/bin/true", folder.join("elsewhere")).expect("linked");
    place.program("unread", "exit 0");
    mode(&folder.join("unread"), 0o711);
    on_one_thread(place.during(async {
        let here = async |check: &str| match place.ask(check, 5000).await {
            Err(Failure::Here(why)) => why,
            other => panic!("{check}: {other:?}"),
        };
        for (check, says) in [
            ("exec:none", "No such file"),
            ("exec:open", "is not root's alone"),
            ("exec:others", "is not root's alone"),
            ("exec:still", "no file that can be run"),
            ("exec:unread", "no file that can be run"),
            ("exec:elsewhere", "no file that can be run"),
        ] {
            let why = here(check).await;
            assert!(why.contains(says), "{check}: {why}");
        }
        assert_eq!(place.ask("exec:all", 5000).await, Ok(()));
        for bad in [0o777, 0o1777, 0o775] {
            mode(&folder, bad);
            assert!(here("exec:all").await.contains("is not root's alone"), "{bad:o}");
        }
        mode(&folder, 0o755);
        assert_eq!(place.ask("exec:all", 5000).await, Ok(()));
        // Another name of the folder, by a link that somebody may change.
        let really = place.dir.path().join("really");
        std::fs::rename(&folder, &really).expect("moved");
        std::os::unix::fs::symlink(&really, &folder).expect("linked");
        assert!(here("exec:all").await.contains("leads elsewhere"));
        std::fs::remove_file(&folder).expect("removed");
        std::fs::rename(&really, &folder).expect("moved back");
        std::os::unix::fs::chown(place.dir.path(), Some(65_534), None).expect("given away");
        assert!(here("exec:all").await.contains("is not root's alone"), "it could be renamed");
    }));
    on_one_thread(async {
        let why = place.ask("exec:all", 5000).await.expect_err("nobody is there");
        assert!(matches!(&why, Failure::Here(why) if why.contains("nobody runs")), "{why:?}");
        let listener = UnixListener::bind(place.socket()).expect("bound");
        let begun = Instant::now();
        let why = place.ask("exec:all", 100).await.expect_err("nobody answers");
        assert!(matches!(&why, Failure::Here(why) if why == super::SILENT), "{why:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        drop(listener);
    });
}

/// Whatever it started: in its group, and in sessions of their own, of parents that ended.
#[test]
fn a_program_ends_with_all_that_it_started() {
    let place = Place::new();
    let pids = place.dir.path().join("pids");
    let starts = format!(
        "echo $$ >> {0}\nsleep 1000 & echo $! >> {0}\n\
         setsid sh -c 'echo $$ >> {0}; setsid sh -c \"echo \\$\\$ >> {0}; exec sleep 1000\" & wait' &\n\
         while [ $(wc -l < {0}) -lt 4 ]; do sleep 0.01; done",
        pids.display()
    );
    place.program("ends", &starts);
    place.program("hangs", &format!("{starts}\nexec sleep 1000"));
    place.program("sound", "sleep 0.5; exit 0");
    on_one_thread(place.during(async {
        for (program, timeout_ms) in [("ends", 20_000), ("hangs", 4000)] {
            std::fs::write(&pids, "").expect("written");
            let check = format!("exec:{program}");
            let (ran, beside) =
                tokio::join!(place.ask(&check, timeout_ms), place.ask("exec:sound", 10_000));
            assert_eq!(ran.is_ok(), program == "ends", "{ran:?}");
            assert_eq!(beside, Ok(()), "another run is left alone");
            let all = std::fs::read_to_string(&pids).expect("read");
            assert_eq!(all.lines().count(), 4, "{all}");
            let is_there = |pid: &str| Path::new("/proc").join(pid).exists();
            let until = Instant::now() + Duration::from_secs(20);
            while all.lines().any(is_there) {
                assert!(Instant::now() < until, "{program} left some of {all}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }));
}

/// As when a virtual server is removed: nobody waits for it.
#[test]
fn who_hangs_up_has_the_program_ended() {
    let place = Place::new();
    let pid = place.dir.path().join("pid");
    place.program(
        "hangs",
        &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", pid.display()),
    );
    on_one_thread(place.during(async {
        let until = Instant::now() + Duration::from_secs(20);
        let soon = || async {
            assert!(Instant::now() < until, "too late");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut begun = None;
        let runs = place.ask("exec:hangs", 60_000);
        tokio::select! {
            ran = runs => panic!("it ended: {ran:?}"),
            () = async {
                while !pid.exists() {
                    soon().await;
                }
                begun = std::fs::read_to_string(&pid).ok();
            } => {}
        }
        let process = Path::new("/proc").join(begun.expect("begun").trim());
        while process.exists() {
            soon().await;
        }
    }));
}

/// It is no server's failure that many run.
#[test]
fn there_is_room_for_some_at_once() {
    let place = Place::new();
    let go = place.dir.path().join("go");
    place.program("waits", &format!("until [ -e {} ]; do sleep 0.05; done", go.display()));
    on_one_thread(place.during(async {
        let mut all: FuturesUnordered<_> =
            (0..80).map(|_| place.ask("exec:waits", 60_000)).collect();
        for refused in 0..16 {
            let ran = all.next().await.expect("one more");
            let is_full = |why: &str| why.contains("run here already");
            assert!(matches!(&ran, Err(Failure::Here(why)) if is_full(why)), "{refused}: {ran:?}");
        }
        std::fs::write(&go, "").expect("written");
        let ran: Vec<_> = all.collect().await;
        assert!(ran.len() == 64 && ran.iter().all(Result::is_ok), "{ran:?}");
    }));
}

/// As when its unit is stopped.
#[test]
fn with_the_runner_all_ends_that_it_runs() {
    let place = Place::new();
    let pids = place.dir.path().join("pids");
    let starts = format!(
        "echo $$ >> {0}; setsid sh -c 'echo $$ >> {0}; exec sleep 1000' & exec sleep 1000",
        pids.display()
    );
    place.program("hangs", &starts);
    on_one_thread(async {
        let listener = UnixListener::bind(place.socket()).expect("bound");
        let both_run = async {
            let until = Instant::now() + Duration::from_secs(20);
            while std::fs::read_to_string(&pids).unwrap_or_default().lines().count() < 2 {
                assert!(Instant::now() < until, "it does not begin");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let serves = runner::serve(listener, checks_in(place.folder()), both_run);
        let (served, ran) = tokio::join!(serves, place.ask("exec:hangs", 60_000));
        served.expect("it ended in order");
        assert!(matches!(ran, Err(Failure::Here(_))), "{ran:?}");
        let all = std::fs::read_to_string(&pids).expect("read");
        let left: Vec<_> =
            all.lines().filter(|pid| Path::new("/proc").join(pid).exists()).collect();
        assert!(left.is_empty(), "{left:?} of {all}");
    });
}
