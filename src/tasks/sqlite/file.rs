//! Whether the files that are open are still those at their path. SQLite goes on writing into a
//! file that was removed or renamed, and a process that opens the path next finds another one, or
//! none: what was acknowledged would be lost.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::error::{Result, TaskError};

/// The database and the two files beside it, as they were when they were opened.
///
/// As long as a connection is open, SQLite itself removes neither of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    path: PathBuf,
    identities: [Option<Identity>; 3],
}

/// What the system tells files apart by.
type Identity = (u64, u64);

const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

impl Files {
    /// Those at `path` now. A connection must have read from them.
    pub(super) fn at(path: &Path) -> Files {
        Files { path: path.to_owned(), identities: BESIDE.map(|suffix| identity(&beside(path, suffix))) }
    }

    /// # Errors
    /// [`TaskError::FileReplaced`].
    pub(super) fn check(&self) -> Result<()> {
        for (suffix, opened) in BESIDE.iter().zip(self.identities) {
            let path = beside(&self.path, suffix);
            if identity(&path) != opened {
                return Err(TaskError::FileReplaced { path });
            }
        }
        Ok(())
    }

    /// How large the write-ahead log is, in bytes.
    pub(super) fn log_size(&self) -> Option<u64> {
        std::fs::metadata(beside(&self.path, "-wal")).ok().map(|file| file.len())
    }

    /// When the write-ahead log was written last.
    pub(super) fn log_written(&self) -> Option<SystemTime> {
        std::fs::metadata(beside(&self.path, "-wal")).ok()?.modified().ok()
    }

    /// Whether `path` leads to the same files: not to a copy, nor past the log by another name.
    pub(super) fn are_at(&self, path: &Path) -> bool {
        Files::at(path).identities == self.identities
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Asks for no times. Linux (since 6.13) notes that they were asked for, and then gives the file a
/// new one at its next write: each `fsync` of the log would have to write the file's inode as well.
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> Option<Identity> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(file) => Some((makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino)),
        // It isn't there, or a sandbox refuses `statx`.
        Err(_) => identity_by_metadata(path),
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn identity(path: &Path) -> Option<Identity> {
    identity_by_metadata(path)
}

#[cfg(unix)]
fn identity_by_metadata(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Elsewhere the system doesn't let a file be moved or removed while it is open.
#[cfg(not(unix))]
fn identity(_: &Path) -> Option<Identity> {
    None
}
