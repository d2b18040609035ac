//! A copy of the file while others write to it.

use std::fs::{self, File};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::super::access::ReadOnly;
use super::super::error::{Result, TaskError};
use super::super::queue::TaskQueue;
use super::connection::{failed, patiently};
use super::{SqliteEngine, SqliteSettings};

const DOING: &str = "backing the database up";

impl TaskQueue {
    /// Writes a copy of the whole SQLite file, your own tables included, as of one moment, to
    /// `path`, while all other calls go on. When this returns the copy is on the disk, under its
    /// name; before that it is at `path` with `.part` behind it. It is compact: pages that are free
    /// are left out. Meanwhile the write-ahead log grows, because a reader stands in its way.
    ///
    /// The copy is a queue: open it as any other. Tasks that were at work at that moment are so in
    /// the copy, too, until their leases end; so don't run workers on both.
    ///
    /// # Errors
    /// [`TaskError::Invalid`] if something is at `path`, or if the queue is on PostgreSQL, which
    /// has `pg_dump`; [`TaskError::DiskFull`]; what the file system says. What there is of the copy
    /// is removed then.
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<()> {
        let engine = self.engine().as_any();
        let read_only = engine.downcast_ref::<ReadOnly<SqliteEngine>>().map(|ReadOnly(engine)| engine);
        let engine = engine.downcast_ref::<SqliteEngine>().or(read_only);
        let engine = engine
            .ok_or_else(|| TaskError::Invalid("only a SQLite file can be backed up: PostgreSQL has pg_dump".into()))?;
        engine.files.check()?;
        let path = path.as_ref();
        let refused = |why: &str| TaskError::Invalid(format!("`{}` {why}", path.display()));
        if path.file_name().is_none() {
            return Err(refused("does not name a file"));
        }
        if path.exists() {
            return Err(refused("is there already: remove it first, or take another name"));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = Path::new(&part);
        let done = copy(&engine.settings, part).and_then(|()| publish(part, path));
        if done.is_err() {
            let _ = fs::remove_file(part);
        }
        done
    }
}

fn copy(settings: &SqliteSettings, part: &Path) -> Result<()> {
    // Left behind by one that was killed.
    match fs::remove_file(part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(on_disk(error)),
        _ => {}
    }
    let name = part.to_str().ok_or_else(|| TaskError::Invalid("the path of a backup must be UTF-8".into()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&settings.path, flags).map_err(failed(DOING))?;
    patiently(settings.busy_timeout, DOING, || db.execute("VACUUM INTO ?1", [name]).map(drop).map_err(failed(DOING)))
}

/// Gives the copy its name when it is on the disk, and waits until the name is.
fn publish(part: &Path, path: &Path) -> Result<()> {
    File::open(part).and_then(|file| file.sync_all()).map_err(on_disk)?;
    // Unlike a rename, a link replaces nothing that came meanwhile.
    fs::hard_link(part, path).or_else(|_| fs::rename(part, path)).map_err(on_disk)?;
    let _ = fs::remove_file(part);
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(on_disk)?;
    }
    Ok(())
}

fn on_disk(error: std::io::Error) -> TaskError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => TaskError::DiskFull { doing: DOING, source: error.into() },
        _ => TaskError::Database { doing: DOING, source: error.into() },
    }
}
