//! Which files may be run: those that nobody but root can have put there.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a file is not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRun {
    #[error("{} leads elsewhere: name {} in vipd.toml", path.display(), really.display())]
    Linked { path: PathBuf, really: PathBuf },
    #[error("{} cannot be looked at: {error}", path.display())]
    Unseen { path: PathBuf, error: std::io::Error },
    #[error("{} is not root's alone to change: that is for root to mend, by chown and chmod", .0.display())]
    NotRoots(PathBuf),
    #[error("{} is no file that can be run: a program has to stand there that all may read and run", .0.display())]
    NoProgram(PathBuf),
}

/// Bits of a mode: others than the owner may write; in a folder, only owners rename and remove.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// All who do not own it may run it, and their interpreter read it.
const OTHERS_RUN: u32 = 0o005;

/// The file of this name in the folder, if it is root's alone, and so are the folder and all
/// above it.
pub(super) fn file(folder: &Path, name: &str) -> Result<PathBuf, NotRun> {
    let unseen = |path: &Path| {
        let path = path.to_owned();
        move |error| NotRun::Unseen { path, error }
    };
    let really = folder.canonicalize().map_err(unseen(folder))?;
    // Whoever may change a link on the way chooses the folder.
    if !really.components().eq(folder.components()) {
        return Err(NotRun::Linked { path: folder.to_owned(), really });
    }
    let folder = really;
    for above in folder.ancestors() {
        let seen = above.metadata().map_err(unseen(above))?;
        // Where the folder itself is sticky, others could still add to it.
        let others_write = seen.mode() & OTHERS_WRITE != 0;
        let is_kept = above != folder && seen.mode() & STICKY != 0;
        if seen.uid() != 0 || others_write && !is_kept {
            return Err(NotRun::NotRoots(above.to_owned()));
        }
    }
    let path = folder.join(name);
    let seen = path.symlink_metadata().map_err(unseen(&path))?;
    if !seen.is_file() || seen.permissions().mode() & OTHERS_RUN != OTHERS_RUN {
        return Err(NotRun::NoProgram(path));
    }
    if seen.uid() != 0 || seen.mode() & OTHERS_WRITE != 0 {
        return Err(NotRun::NotRoots(path));
    }
    Ok(path)
}
