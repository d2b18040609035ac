//! Bare statements: what the database can do without a queue. One table, one index, one connection a thread.
//!
//! Threads with connections of their own, which wait for each other by SQLite's own busy handler, collapse under
//! contention, as programs do that are written this way. So a discipline ends after so long, with what was done until then.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fulmar::tasks::rusqlite::{Connection, Error, ErrorCode};

use crate::tasks_common::{Load, Rates, rate};

/// How long each discipline goes on.
const LONGEST: Duration = Duration::from_secs(2);

pub(crate) fn run(load: Load, folder: &Path) -> Rates {
    create(folder);
    let enqueue = on_threads(load, folder, |db, until| fill(db, load, until));
    // Filled up to what is to be worked off, quickly.
    connect(folder).execute_batch("DELETE FROM task").expect("emptied");
    fill(&connect(folder), Load { threads: 1, batch: 1_000, ..load }, None);
    let work = on_threads(load, folder, |db, until| drain(db, load, until));
    Rates { enqueue, work, through: None }
}

fn connect(folder: &Path) -> Connection {
    let db = Connection::open(folder.join("floor.db")).expect("the file opens");
    db.busy_timeout(Duration::from_secs(1)).expect("a timeout");
    db.pragma_update(None, "journal_mode", "WAL").expect("a write-ahead log");
    db.pragma_update(None, "synchronous", "FULL").expect("full durability");
    db
}

fn create(folder: &Path) {
    let table = "CREATE TABLE task (id INTEGER PRIMARY KEY, status INTEGER NOT NULL, input BLOB);
        CREATE INDEX ready ON task (id) WHERE status = 0;";
    connect(folder).execute_batch(table).expect("a table");
}

/// Runs `work` on as many threads as the load has, each with a connection; it says how many tasks it did.
fn on_threads(load: Load, folder: &Path, work: impl Fn(&Connection, Option<Instant>) -> usize + Sync) -> Option<f64> {
    let connections: Vec<Connection> = (0..load.threads).map(|_| connect(folder)).collect();
    let (start, done) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for db in connections {
            scope.spawn(|| {
                let db = db;
                done.fetch_add(work(&db, Some(start + LONGEST)), Ordering::Relaxed);
            });
        }
    });
    rate(done.into_inner(), start.elapsed())
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}

/// What `work` gives, committed; `None` when the time is over.
fn transaction<R>(db: &Connection, until: Option<Instant>, work: impl Fn() -> Result<R, Error>) -> Option<R> {
    while !is_over(until) {
        let done = db.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
            let done = work()?;
            db.execute_batch("COMMIT")?;
            Ok(done)
        });
        match done {
            Ok(done) => return Some(done),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            Err(error) => panic!("{error}"),
        }
    }
    None
}

fn fill(db: &Connection, load: Load, until: Option<Instant>) -> usize {
    let mut filled = 0;
    for first in (0..load.share()).step_by(load.batch) {
        let numbers = first..load.share().min(first + load.batch);
        let inserted = transaction(db, until, || {
            for _ in numbers.clone() {
                db.prepare_cached("INSERT INTO task (status, input) VALUES (0, 'null')")?.execute([])?;
            }
            Ok(numbers.len())
        });
        filled += inserted.unwrap_or(0);
    }
    filled
}

/// Takes a batch in one commit and finishes it in one.
fn drain(db: &Connection, load: Load, until: Option<Instant>) -> usize {
    let mut drained = 0;
    loop {
        let taken = transaction(db, until, || {
            let mut select = db.prepare_cached("SELECT id FROM task WHERE status = 0 ORDER BY id LIMIT ?1")?;
            let ids = select.query_map([load.batch as i64], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
            for id in &ids {
                db.prepare_cached("UPDATE task SET status = 1 WHERE id = ?1")?.execute([id])?;
            }
            Ok(ids)
        });
        let Some(ids) = taken.filter(|ids| !ids.is_empty()) else { return drained };
        let finished = transaction(db, until, || {
            for id in &ids {
                db.prepare_cached("UPDATE task SET status = 2 WHERE id = ?1")?.execute([id])?;
            }
            Ok(ids.len())
        });
        drained += finished.unwrap_or(0);
    }
}
