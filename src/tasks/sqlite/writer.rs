//! One writer at a time in a process, and one commit for all who wait: the [`Combiner`]'s
//! transaction, with a savepoint for each work.

use std::any::Any;
use std::time::Duration;

use rusqlite::Connection;

use super::super::durable::place;
use super::super::error::{Result, TaskError};
use super::connection::{Clock, data_version, failed, patiently};
use super::file::Files;
use crate::combine::{Combiner, Outcomes, Taken, Transaction};
use crate::panics;
use crate::sync::Mutex;

/// The most work in one commit, so that no thread waits for an endless one.
const MOST_AT_ONCE: usize = 256;

pub(super) struct Writer {
    combiner: Combiner<Commits>,
    commits: Commits,
    /// The version of the data at the last look.
    version: Mutex<Option<i64>>,
}

impl Writer {
    pub(super) fn new(db: Connection, files: Files, busy_timeout: Duration, clock: Clock) -> Writer {
        let commits = Commits { files, busy_timeout, clock };
        Writer { combiner: Combiner::new([db]), commits, version: Mutex::new(None) }
    }

    /// Runs `work` in a transaction, which is committed when this returns. It gets the time, in
    /// milliseconds.
    pub(super) fn write<R: Send + 'static>(
        &self,
        doing: &'static str,
        mut work: impl FnMut(&Connection, i64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let run = Box::new(move |db: &Connection, now| work(db, now).map(|done| Box::new(done) as Box<dyn Any + Send>));
        let done = self.combiner.run(&self.commits, Work { doing, run })?;
        let strange = |_| TaskError::Database { doing, source: "it came to something of another type".into() };
        done.downcast().map(|done| *done).map_err(strange)
    }

    /// Whether other connections have committed since the last look. False while a thread writes,
    /// so look again.
    pub(super) fn has_foreign_commits(&self) -> bool {
        let Some(version) = self.combiner.peek(|db| data_version(db).ok()).flatten() else {
            return false;
        };
        self.version.lock().replace(version) != Some(version)
    }
}

/// A piece of work of any type.
struct Work {
    doing: &'static str,
    run: Box<Run>,
}

type Run = dyn FnMut(&Connection, i64) -> Result<Box<dyn Any + Send>> + Send;

/// What the transactions of all threads have in common.
struct Commits {
    files: Files,
    busy_timeout: Duration,
    clock: Clock,
}

impl Transaction for Commits {
    type Work = Work;
    type Outcome = Box<dyn Any + Send>;
    type Error = TaskError;
    type Place = Connection;

    const PATIENCE: usize = 20;

    fn fits(&self, taken: &Taken, _: &Work) -> bool {
        taken.pieces < MOST_AT_ONCE
    }

    /// Runs the works in one transaction, each in a savepoint of its own if there are several. A
    /// work that fails is rolled back alone, and its error is its outcome. The whole transaction is
    /// rolled back, and fails, if the disk is full, if a work ends it, if the file was replaced, or
    /// if the commit fails.
    fn commit(&self, db: &mut Connection, works: &mut [Work]) -> Outcomes<Commits> {
        let doing = works.first().map_or("writing", |work| work.doing);
        let run =
            |sql: &str| db.prepare_cached(sql).and_then(|mut sql| sql.execute([]).map(drop)).map_err(failed(doing));
        if !db.is_autocommit() {
            // Left behind by one that could not be rolled back.
            run("ROLLBACK")?;
        }
        patiently(self.busy_timeout, doing, || run("BEGIN IMMEDIATE"))?;
        let now = self.clock.now();
        let alone = works.len() == 1;
        let result = (|| {
            let mut outcomes = Vec::with_capacity(works.len());
            for work in works {
                if !alone {
                    run("SAVEPOINT work")?;
                }
                place();
                let outcome = work.attempt(db, now);
                // Some errors, such as a full disk, end the whole transaction.
                if db.is_autocommit() {
                    let ended = || TaskError::Database { doing, source: "the transaction was ended".into() };
                    return Err(outcome.err().unwrap_or_else(ended));
                }
                match (&outcome, alone) {
                    (Ok(_), true) => {}
                    (Err(_), true) => {
                        outcomes.push(outcome);
                        run("ROLLBACK")?;
                        return Ok(outcomes);
                    }
                    (Ok(_), false) => run("RELEASE work")?,
                    (Err(TaskError::DiskFull { .. }), false) => {
                        // Alone it may fit, or not; the others must not suffer.
                        return Err(outcome.err().unwrap_or(TaskError::ReadOnly));
                    }
                    (Err(_), false) => {
                        run("ROLLBACK TO work")?;
                        run("RELEASE work")?;
                    }
                }
                outcomes.push(outcome);
            }
            // As late as it can be: what goes into a file that no process will find is not
            // acknowledged.
            self.files.check()?;
            place();
            run("COMMIT")?;
            place();
            Ok(outcomes)
        })();
        if result.is_err() && !db.is_autocommit() {
            // What can't even be rolled back now is rolled back before the next one begins, or by
            // the process that opens the file next.
            let _ = run("ROLLBACK");
        }
        result
    }

    fn of_all(&self, error: &TaskError) -> Option<TaskError> {
        match error {
            TaskError::Busy { waited } => Some(TaskError::Busy { waited: *waited }),
            _ => None,
        }
    }

    fn panicked(&self, message: &str) -> TaskError {
        TaskError::Database { doing: "writing", source: format!("a panic: {message}").into() }
    }
}

impl Work {
    fn attempt(&mut self, db: &Connection, now: i64) -> Result<Box<dyn Any + Send>> {
        panics::catch(|| (self.run)(db, now)).unwrap_or_else(|panic| {
            Err(TaskError::Database { doing: self.doing, source: format!("a panic: {panic}").into() })
        })
    }
}
