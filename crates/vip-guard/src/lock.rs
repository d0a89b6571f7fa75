//! One guard per socket, and one per network namespace.
//!
//! A lock on a socket's neighbour keeps the next guard in line. That on the
//! namespace keeps out a guard that has another socket: both would purge what
//! the other holds. It is a file in a folder that nobody else can write to, so
//! that no stranger can keep a guard from starting.

use crate::config::GuardError;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use vip_datapath::Inherited;

/// Where the namespaces' locks are, and what a later guard has to know of one.
const PLACE: &str = "/run/vipd-guard";
/// The namespace of this process.
const NAMESPACE: &str = "/proc/self/ns/net";

/// Waits, without a limit, until no other guard has the socket.
///
/// # Errors
/// The lock file cannot be made.
pub fn wait_in_line(socket: &Path) -> Result<(), GuardError> {
    let (path, handle) = lock_file(socket)?;
    let locked = Flock::lock(handle, FlockArg::LockExclusive);
    locked.map(drop).map_err(|(_, e)| GuardError::File { path, source: e.into() })
}

/// Takes the socket's lock, or says who has it.
pub(crate) fn socket(socket: &Path) -> Result<Flock<File>, GuardError> {
    let (_, handle) = lock_file(socket)?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, _)| GuardError::AlreadyRunning(socket.to_owned()))
}

fn lock_file(socket: &Path) -> Result<(PathBuf, File), GuardError> {
    let path = socket.with_extension("lock");
    let file = |source| GuardError::File { path: path.clone(), source };
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).map_err(file)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let handle = options.open(&path).map_err(file)?;
    // Whoever may read it could lock it, and keep a guard away. It may be an
    // earlier version's.
    handle.set_permissions(Permissions::from_mode(0o600)).map_err(file)?;
    Ok((path, handle))
}

/// A lock for the next run of this process, which has it all the while.
///
/// # Errors
/// There is no room for a descriptor.
pub(crate) fn leave(lock: &Flock<File>) -> io::Result<Inherited> {
    Inherited::of(&**lock)
}

/// As an earlier run left it.
///
/// # Errors
/// Somebody else has it.
pub(crate) fn inherit(left: Inherited) -> io::Result<Flock<File>> {
    let file = File::from(left.take()?);
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// A [`Namespace`] for the next run of this process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeftNamespace {
    lock: Inherited,
    records: PathBuf,
}

/// The present network namespace, for one guard alone.
pub(crate) struct Namespace {
    lock: Flock<File>,
    records: PathBuf,
}

impl Namespace {
    /// Takes it.
    pub(crate) fn take() -> Result<Self, GuardError> {
        let (place, namespace) = (Path::new(PLACE), Path::new(NAMESPACE));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| GuardError::File { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(place).map_err(file(place))?;
        let there = std::fs::symlink_metadata(place).map_err(file(place))?;
        let own = nix::unistd::geteuid().as_raw();
        let trusted = there.uid() == 0 || there.uid() == own;
        if !there.is_dir() || !trusted || there.mode() & 0o022 != 0 {
            return Err(GuardError::LockPlace(place.to_owned()));
        }
        let number = std::fs::metadata(namespace).map_err(file(namespace))?.ino();
        let path = place.join(format!("net-{number}.lock"));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let handle = options.open(&path).map_err(file(&path))?;
        let lock = Flock::lock(handle, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, _)| GuardError::NamespaceTaken)?;
        Ok(Self { lock, records: path })
    }

    /// For the next run of this process.
    ///
    /// # Errors
    /// There is no room for a descriptor.
    pub(crate) fn leave(&self) -> io::Result<LeftNamespace> {
        Ok(LeftNamespace { lock: leave(&self.lock)?, records: self.records.clone() })
    }

    /// As an earlier run left it.
    ///
    /// # Errors
    /// Somebody else has it.
    pub(crate) fn inherit(left: LeftNamespace) -> io::Result<Self> {
        Ok(Self { lock: inherit(left.lock)?, records: left.records })
    }

    /// The file for what was set here and is to be put back.
    pub(crate) fn settings(&self) -> PathBuf {
        self.records.with_extension("settings")
    }

    /// The file for the addresses that bear no mark.
    pub(crate) fn addresses(&self) -> PathBuf {
        self.records.with_extension("addresses")
    }
}
