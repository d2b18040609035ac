//! Bare statements: what the database can do without a queue. One table, one index, one connection a thread.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulmar::tasks::rusqlite::{Connection, Error, ErrorCode};

use crate::Load;

fn connect(folder: &Path) -> Connection {
    let db = Connection::open(folder.join("floor.db")).expect("the file opens");
    // Longer than anything takes: a writer that starves is slow here, not wrong.
    db.busy_timeout(Duration::from_secs(600)).expect("a timeout");
    db.pragma_update(None, "journal_mode", "WAL").expect("a write-ahead log");
    db.pragma_update(None, "synchronous", "FULL").expect("full durability");
    db
}

fn create(folder: &Path) {
    let table = "CREATE TABLE task (id INTEGER PRIMARY KEY, status INTEGER NOT NULL, input BLOB);
        CREATE INDEX ready ON task (id) WHERE status = 0;";
    connect(folder).execute_batch(table).expect("a table");
}

/// Runs `work` on as many threads as the load has, each with a connection.
fn on_threads(load: Load, folder: &Path, work: impl Fn(&Connection) + Sync) -> Duration {
    let connections: Vec<Connection> = (0..load.threads).map(|_| connect(folder)).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for db in connections {
            scope.spawn(|| {
                let db = db;
                work(&db);
            });
        }
    });
    start.elapsed()
}

fn transaction(db: &Connection, work: impl Fn() -> Result<usize, Error>) -> usize {
    loop {
        let done = db.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
            let count = work()?;
            db.execute_batch("COMMIT")?;
            Ok(count)
        });
        match done {
            Ok(count) => return count,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn fill(db: &Connection, load: Load) {
    let share = load.tasks / load.threads;
    for first in (0..share).step_by(load.batch) {
        transaction(db, || {
            for _ in first..share.min(first + load.batch) {
                db.prepare_cached("INSERT INTO task (status, input) VALUES (0, 'null')")?.execute([])?;
            }
            Ok(0)
        });
    }
}

/// Takes a batch in one commit and finishes each in one of its own, or the batch in one.
fn drain(db: &Connection, load: Load) {
    loop {
        let ids = std::cell::RefCell::new(Vec::new());
        transaction(db, || {
            let mut select = db.prepare_cached("SELECT id FROM task WHERE status = 0 ORDER BY id LIMIT ?1")?;
            *ids.borrow_mut() =
                select.query_map([load.batch as i64], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
            for id in ids.borrow().iter() {
                db.prepare_cached("UPDATE task SET status = 1 WHERE id = ?1")?.execute([id])?;
            }
            Ok(0)
        });
        if ids.borrow().is_empty() {
            return;
        }
        transaction(db, || {
            for id in ids.borrow().iter() {
                db.prepare_cached("UPDATE task SET status = 2 WHERE id = ?1")?.execute([id])?;
            }
            Ok(0)
        });
    }
}

pub(crate) fn insert(load: Load, folder: PathBuf) -> Duration {
    create(&folder);
    on_threads(load, &folder, |db| fill(db, load))
}

pub(crate) fn take(load: Load, folder: PathBuf) -> Duration {
    create(&folder);
    fill(&connect(&folder), Load { threads: 1, batch: 1_000, ..load });
    on_threads(load, &folder, |db| drain(db, load))
}

pub(crate) fn end_to_end(load: Load, folder: PathBuf) -> Duration {
    create(&folder);
    let filled = on_threads(load, &folder, |db| fill(db, load));
    filled + on_threads(load, &folder, |db| drain(db, load))
}
