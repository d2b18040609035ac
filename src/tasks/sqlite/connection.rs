//! Connections, their settings, their errors, and the clock.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::super::access::Access;
use super::super::error::{Result, TaskError};
use super::{Durability, SqliteSettings};
use crate::backoff::Backoff;
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering};

/// SQLite has no clock of its own: its time is the machine's, which all of its processes share. The
/// offset is for tests.
#[derive(Clone, Debug, Default)]
pub(in crate::tasks) struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        // Relaxed: it protects nothing. The bits are those of a signed number.
        now.saturating_add(self.0.load(Ordering::Relaxed) as i64)
    }

    pub(in crate::tasks) fn set(&self, millis: i64) {
        self.0.store(millis as u64, Ordering::Relaxed);
    }
}

pub(super) fn to_time(millis: i64) -> SystemTime {
    // What the system's clock can't express is as good as never, or as long ago.
    UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(millis).unwrap_or(0))).unwrap_or(UNIX_EPOCH)
}

/// A write-ahead log of more bytes than this is longer than one that can be emptied: SQLite does
/// that at 4 MiB, and large payloads go beyond it.
pub(super) const LONG_LOG: u64 = 16 << 20;

/// Opens a connection for writing, or with `ReadOnly` one that reads only. Creates the file if
/// `access` allows that. One that writes gets a write-ahead log, for which it waits up to
/// `busy_timeout` if other processes are in the way, and the durability and the largest file size
/// of the settings. `Database` if SQLite refuses a write-ahead log.
pub(super) fn open_writer(settings: &SqliteSettings) -> Result<Connection> {
    let doing = "opening the database";
    let access = match settings.access {
        Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Existing => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let db =
        Connection::open_with_flags(&settings.path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed(doing))?;
    // Waiting is ours to do: see `patiently`.
    db.busy_timeout(Duration::ZERO).map_err(failed(doing))?;
    keep_plans(&db).map_err(failed(doing))?;
    db.set_prepared_statement_cache_capacity(128);
    let synchronous = match settings.durability {
        Durability::Full => "FULL",
        Durability::Process => "NORMAL",
    };
    if settings.access == Access::ReadOnly {
        return Ok(db);
    }
    patiently(settings.busy_timeout, doing, || {
        let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed(doing))?;
        if mode != "wal" {
            let text = format!("the journal is `{mode}`, and a write-ahead log was refused");
            return Err(TaskError::Database { doing, source: text.into() });
        }
        Ok(())
    })?;
    db.pragma_update(None, "synchronous", synchronous).map_err(failed(doing))?;
    // A log that has grown keeps its size on the disk otherwise.
    db.query_row(&format!("PRAGMA journal_size_limit = {LONG_LOG}"), [], |_| Ok(())).map_err(failed(doing))?;
    db.pragma_update(None, "temp_store", "MEMORY").map_err(failed(doing))?;
    db.pragma_update(None, "cache_size", -16_000).map_err(failed(doing))?;
    if let Some(bytes) = settings.max_file_size {
        let page: u64 = db.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed(doing))?;
        let pages = i64::try_from(bytes / page.max(1)).unwrap_or(i64::MAX).max(1);
        db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).map_err(failed(doing))?;
    }
    Ok(db)
}

/// Has SQLite keep a statement's plan. Otherwise it makes a new one each time that another value is
/// bound to `LIMIT ?`, which a claim does: that took a tenth of the time of a task.
fn keep_plans(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

pub(super) fn open_reader(settings: &SqliteSettings) -> Result<Connection> {
    let doing = "opening the database for reading";
    let access = match settings.access {
        Access::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Create | Access::Existing => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let db =
        Connection::open_with_flags(&settings.path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed(doing))?;
    db.busy_timeout(Duration::ZERO).map_err(failed(doing))?;
    keep_plans(&db).map_err(failed(doing))?;
    db.set_prepared_statement_cache_capacity(64);
    db.pragma_update(None, "query_only", true).map_err(failed(doing))?;
    Ok(db)
}

/// How many bytes of the write-ahead log can't be copied into the database, because a reader needs
/// it as it is without them.
pub(super) fn unfinished_log(db: &Connection) -> Result<u64> {
    let doing = "looking at the write-ahead log";
    let (frames, copied): (i64, i64) = db
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
        .map_err(failed(doing))?;
    let page: i64 = db.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed(doing))?;
    Ok(u64::try_from((frames - copied).saturating_mul(page)).unwrap_or(0))
}

/// Grows by one with the first look after commits of other connections, and never by this
/// connection's own.
pub(super) fn data_version(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// What tells this database from all others, if the schema is there.
pub(super) fn database_id(db: &Connection) -> Result<String> {
    let doing = "reading the database's name";
    let id = db
        .query_row("SELECT value FROM fulmar_setting WHERE name = 'database'", [], |row| row.get(0))
        .optional()
        .map_err(failed(doing))?;
    id.ok_or_else(|| TaskError::Database { doing, source: "it has none".into() })
}

/// Does `attempt` again and again as long as another process is in the way, for at most `limit`.
///
/// SQLite's own handler lets a writer starve for seconds under load, because its waits grow to 100
/// ms. These stay short, and differ, so that processes do not march in step. A process that was
/// frozen has not waited: what was in the way may have been frozen, too, and needs a moment.
pub(super) fn patiently<R>(limit: Duration, doing: &'static str, mut attempt: impl FnMut() -> Result<R>) -> Result<R> {
    let start = Instant::now();
    let waits = Backoff::new(Duration::from_micros(100)).factor(1.5).cap(Duration::from_millis(5)).jitter(0.75);
    let seed = u64::from(std::process::id()) ^ start.elapsed().as_nanos() as u64;
    let (mut looked, mut counted) = (start, Duration::ZERO);
    for tries in 0.. {
        match attempt() {
            Err(TaskError::Busy { .. }) => {}
            done => return done,
        }
        let now = Instant::now();
        counted += (now - looked).min(LONGEST_TURN);
        looked = now;
        if counted >= limit {
            let waited = start.elapsed();
            crate::trace::event!(WARN, "the database is held by another process", doing = doing, waited = waited);
            return Err(TaskError::Busy { waited });
        }
        // A condition variable that is never notified: no thread of ours can end the wait of
        // another process.
        let (idle, never) = (Mutex::new(()), Condvar::new());
        never.wait_until(&mut idle.lock(), Instant::now() + waits.delay_with(tries, seed.wrapping_add(tries.into())));
    }
    Err(TaskError::Busy { waited: start.elapsed() })
}

/// For how long one look and the wait after it may count: they take some milliseconds if no process
/// is frozen.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// Names what was being done when SQLite gave an error.
pub(super) fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> TaskError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => TaskError::Busy { waited: Duration::ZERO },
        Some(ErrorCode::DiskFull) => TaskError::DiskFull { doing, source: error.into() },
        _ => TaskError::Database { doing, source: error.into() },
    }
}

/// Whether an error is that of one row, which makes no sense, and not of the database or its disk.
pub(super) fn is_of_row(error: &TaskError) -> bool {
    let TaskError::Database { source, .. } = error else {
        return false;
    };
    match source.downcast_ref::<rusqlite::Error>().map(rusqlite::Error::sqlite_error_code) {
        None | Some(None) => true,
        Some(Some(code)) => matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch),
    }
}

/// Does `work`, and takes back what it wrote if it fails.
pub(super) fn in_savepoint<R>(db: &Connection, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let run = |sql: &str| {
        db.prepare_cached(sql).and_then(|mut sql| sql.execute([]).map(drop)).map_err(failed("setting a savepoint"))
    };
    run("SAVEPOINT one")?;
    let done = work();
    // Some errors, such as a full disk, end the whole transaction, and with it the savepoint.
    if db.is_autocommit() {
        return done;
    }
    if done.is_err() {
        run("ROLLBACK TO one")?;
    }
    run("RELEASE one")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_frozen_looks_again_and_who_was_not_gives_up() {
        let limit = LONGEST_TURN + LONGEST_TURN / 2;
        let mut looks = 0;
        let found = patiently(limit, "thawing", || {
            looks += 1;
            if looks > 1 {
                return Ok(looks);
            }
            // As if the process stood still.
            let (idle, never, until) = (Mutex::new(()), Condvar::new(), Instant::now() + 2 * limit);
            while Instant::now() < until {
                never.wait_until(&mut idle.lock(), until);
            }
            Err(TaskError::Busy { waited: Duration::ZERO })
        });
        assert!(matches!(found, Ok(2)), "{found:?}");
        let busy =
            patiently(Duration::from_millis(5), "waiting", || Err::<(), _>(TaskError::Busy { waited: Duration::ZERO }));
        assert!(matches!(busy, Err(TaskError::Busy { .. })), "{busy:?}");
    }
}
