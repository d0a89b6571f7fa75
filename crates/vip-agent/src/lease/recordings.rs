//! What the lease decisions were lately, as files: for whoever looks into a
//! surprise, here or elsewhere (`cargo xtask replay FILE`).

use super::LeaseShared;
use crate::wall_clock::wall_clock_ms;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder in the data directory.
const FOLDER: &str = "recordings";
/// Files that are kept: two surprises, of at most some 20 MB a file.
const KEPT: usize = 4;

/// Writes what was kept up to now, a file for each stretch. There is nobody's key
/// or token in it.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn write_out(shared: &LeaseShared, data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = data_dir.join(FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let mut written = vec![];
    for (number, recording) in shared.take_recordings().into_iter().enumerate() {
        let path = folder.join(format!("lease-{:013}-{number}.jsonl", wall_clock_ms()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut file = BufWriter::new(file);
        recording.write(&mut file)?;
        file.flush()?;
        written.push(path);
    }
    forget_old(&folder)?;
    Ok(written)
}

fn forget_old(folder: &Path) -> io::Result<()> {
    let files = std::fs::read_dir(folder)?.map(|file| Ok(file?.path()));
    let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
    // Their names have the time in them.
    files.sort();
    let old = files.len().saturating_sub(KEPT);
    files.drain(..old).try_for_each(std::fs::remove_file)
}

/// The same at the end of the process, or because somebody asked; said in the log.
pub(crate) fn tell(shared: &LeaseShared, data_dir: &Path) {
    match write_out(shared, data_dir) {
        Ok(files) => {
            let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            tracing::warn!(?files, "wrote what the lease decisions were lately");
        }
        Err(error) => tracing::error!(%error, "the lease decisions cannot be written out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_files_stay() {
        let folder = tempfile::tempdir().expect("made");
        for number in 0..KEPT + 3 {
            std::fs::write(folder.path().join(format!("lease-{number:03}")), "x").expect("made");
        }
        forget_old(folder.path()).expect("cleared");
        let left = std::fs::read_dir(folder.path()).expect("readable");
        let mut left: Vec<_> =
            left.map(|file| file.expect("one").file_name().into_string().expect("text")).collect();
        left.sort();
        assert_eq!((left.len(), left[0].as_str()), (KEPT, "lease-003"));
    }
}
