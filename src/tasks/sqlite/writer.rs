//! One writer at a time in a process, and one commit for all who wait.
//!
//! A commit with full durability costs a flush of the disk, whatever it holds. So a thread that wants to write puts its
//! work into a list. If the connection is free, it takes it, and with it the whole list: it runs each piece of work in a
//! savepoint of its own, commits once, and tells everybody. Meanwhile the next list grows. Alone, a thread never waits
//! for another; under load, the commits grow instead of the queue.
//!
//! Those who are told come back soon, each by itself, and the first of them would commit alone while the others line up
//! behind it. So whoever leads waits for as many as wrote the last time, for no longer than some microseconds in which
//! nobody came.
//!
//! A thread of its own would do the same at the price of two changes of threads for each write.
//!
//! Work may run twice: if the commit of many fails, each is done again alone, so that one that can't be committed (the
//! disk is full) harms no other.
//!
//! Source: Hendler, Incze, Shavit, Tzafrir, "Flat Combining and the Synchronization-Parallelism Tradeoff", SPAA 2010.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::super::error::{Result, TaskError};
use super::connection::{Clock, data_version, failed, patiently};
use super::file::Files;
use crate::panics;
use crate::sync::{Condvar, Mutex, spin_turn};

/// The most work in one commit, so that nobody waits for an endless one.
const MOST_AT_ONCE: usize = 256;

/// How many looks, with a turn of spinning after each, a leader takes without anybody having come: a small part of a commit.
const PATIENCE: usize = 20;

pub(super) struct Writer {
    state: Mutex<State>,
    files: Files,
    busy_limit: Duration,
    clock: Clock,
}

struct State {
    waiting: VecDeque<Box<dyn Work>>,
    /// `None` while somebody writes.
    db: Option<Connection>,
    /// How many threads wrote, or wanted to, when the last commit was through.
    regulars: usize,
    /// The version of the data at the last look.
    version: Option<i64>,
}

impl Writer {
    pub(super) fn new(db: Connection, files: Files, busy_limit: Duration, clock: Clock) -> Writer {
        let state = State { waiting: VecDeque::new(), db: Some(db), regulars: 0, version: None };
        Writer { state: Mutex::new(state), files, busy_limit, clock }
    }

    /// Runs `work` in a transaction, which is committed when this returns. It gets the time, in milliseconds.
    pub(super) fn write<R: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnMut(&Connection, i64) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let slot = Arc::new(Slot { state: Mutex::new(Settled::Not { lead: false }), changed: Condvar::new() });
        let mut state = self.state.lock();
        state.waiting.push_back(Box::new(Piece { doing, work, result: None, slot: slot.clone() }));
        loop {
            if let Some(db) = state.db.take() {
                drop(state);
                self.gather();
                state = self.state.lock();
                let many = state.waiting.len().min(MOST_AT_ONCE);
                let mut batch: Vec<Box<dyn Work>> = state.waiting.drain(..many).collect();
                drop(state);
                // If something panics in here, the others would wait for the connection for ever.
                if let Err(panic) = panics::catch(|| self.commit(&db, &mut batch)) {
                    let error = TaskError::Database { doing, source: format!("a panic: {panic}").into() };
                    batch.iter_mut().for_each(|work| work.fail(&error));
                }
                state = self.state.lock();
                state.db = Some(db);
                state.regulars = batch.len() + state.waiting.len();
                // Before anything else: whoever is told finds the connection free, or somebody who has his work.
                if let Some(next) = state.waiting.front() {
                    next.lead();
                }
                drop(state);
                batch.into_iter().for_each(|work| work.tell());
            } else {
                drop(state);
                slot.wait();
            }
            if let Some(result) = slot.take() {
                return result;
            }
            state = self.state.lock();
        }
    }

    /// Whether other connections have committed since the last look. False while a thread writes, so look again.
    pub(super) fn has_foreign_commits(&self) -> bool {
        let mut state = self.state.lock();
        let Some(version) = state.db.as_ref().and_then(|db| data_version(db).ok()) else {
            return false;
        };
        state.version.replace(version) != Some(version)
    }

    /// Waits until all who wrote the last time are there again, or nobody comes any more.
    fn gather(&self) {
        let (mut seen, mut idle) = (0, 0);
        while idle < PATIENCE {
            let state = self.state.lock();
            let (waiting, regulars) = (state.waiting.len(), state.regulars.min(MOST_AT_ONCE));
            drop(state);
            if waiting >= regulars {
                return;
            }
            idle = if waiting > seen { 0 } else { idle + 1 };
            seen = waiting;
            spin_turn();
        }
    }

    fn commit(&self, db: &Connection, batch: &mut [Box<dyn Work>]) {
        if let Err(error) = self.transaction(db, batch) {
            if batch.len() > 1 && !matches!(error, TaskError::Busy { .. }) {
                for work in batch.chunks_mut(1) {
                    if let Err(error) = self.transaction(db, work) {
                        work[0].fail(&error);
                    }
                }
            } else {
                batch.iter_mut().for_each(|work| work.fail(&error));
            }
        }
    }

    /// Does all of `batch`, or, with an error, nothing.
    fn transaction(&self, db: &Connection, batch: &mut [Box<dyn Work>]) -> Result<()> {
        let doing = batch.first().map_or("writing", |work| work.doing());
        let run =
            |sql: &str| db.prepare_cached(sql).and_then(|mut sql| sql.execute([]).map(drop)).map_err(failed(doing));
        if !db.is_autocommit() {
            // Left behind by one that could not be rolled back.
            run("ROLLBACK")?;
        }
        patiently(self.busy_limit, doing, || run("BEGIN IMMEDIATE"))?;
        let now = self.clock.now();
        let alone = batch.len() == 1;
        let result = (|| {
            for work in batch {
                if !alone {
                    run("SAVEPOINT work")?;
                }
                let kept = work.attempt(db, now);
                // Some errors, such as a full disk, end the whole transaction.
                if db.is_autocommit() {
                    return Err(work.error());
                }
                match (kept, alone) {
                    (true, true) => {}
                    (false, true) => return run("ROLLBACK"),
                    (true, false) => run("RELEASE work")?,
                    (false, false) => {
                        if work.is_out_of_space() {
                            // Alone it may fit, or not; the others must not suffer.
                            return Err(work.error());
                        }
                        run("ROLLBACK TO work")?;
                        run("RELEASE work")?;
                    }
                }
            }
            // As late as it can be: what goes into a file that nobody will find is not acknowledged.
            self.files.check()?;
            run("COMMIT")
        })();
        if !db.is_autocommit() && (result.is_err() || alone) {
            // What can't even be rolled back now is rolled back before the next one begins, or by whoever opens the file next.
            let _ = run("ROLLBACK");
        }
        result
    }
}

/// What a writer waits for.
struct Slot<R> {
    state: Mutex<Settled<R>>,
    changed: Condvar,
}

enum Settled<R> {
    Not { lead: bool },
    Done(Result<R>),
    Taken,
}

impl<R> Slot<R> {
    /// Until it is settled, or told to lead.
    fn wait(&self) {
        let mut state = self.state.lock();
        while matches!(*state, Settled::Not { lead: false }) {
            self.changed.wait(&mut state);
        }
        if let Settled::Not { lead } = &mut *state {
            *lead = false;
        }
    }

    fn take(&self) -> Option<Result<R>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, Settled::Taken) {
            Settled::Done(result) => Some(result),
            before => {
                *state = before;
                None
            }
        }
    }
}

/// A piece of work of any type.
trait Work: Send {
    fn doing(&self) -> &'static str;
    /// Says whether what it wrote is to be kept.
    fn attempt(&mut self, db: &Connection, now: i64) -> bool;
    /// It comes to nothing for a reason that is not its own.
    fn fail(&mut self, error: &TaskError);
    fn is_out_of_space(&self) -> bool;
    /// Its own error, for the others.
    fn error(&self) -> TaskError;
    /// Hands the result over.
    fn tell(self: Box<Self>);
    /// Has its thread look whether the connection is free.
    fn lead(&self);
}

struct Piece<F, R> {
    doing: &'static str,
    work: F,
    result: Option<Result<R>>,
    slot: Arc<Slot<R>>,
}

impl<F, R> Work for Piece<F, R>
where
    F: FnMut(&Connection, i64) -> Result<R> + Send,
    R: Send,
{
    fn doing(&self) -> &'static str {
        self.doing
    }

    fn attempt(&mut self, db: &Connection, now: i64) -> bool {
        let result = panics::catch(|| (self.work)(db, now)).unwrap_or_else(|panic| {
            Err(TaskError::Database { doing: self.doing, source: format!("a panic: {panic}").into() })
        });
        let kept = result.is_ok();
        self.result = Some(result);
        kept
    }

    fn fail(&mut self, error: &TaskError) {
        self.result = Some(Err(copy(error, self.doing)));
    }

    fn is_out_of_space(&self) -> bool {
        matches!(self.result, Some(Err(TaskError::DiskFull { .. })))
    }

    fn error(&self) -> TaskError {
        match &self.result {
            Some(Err(error)) => copy(error, self.doing),
            _ => TaskError::Database { doing: self.doing, source: "the transaction was ended".into() },
        }
    }

    fn tell(self: Box<Self>) {
        let lost = || Err(TaskError::Database { doing: self.doing, source: "it was not attempted".into() });
        *self.slot.state.lock() = Settled::Done(self.result.unwrap_or_else(lost));
        self.slot.changed.notify_one();
    }

    fn lead(&self) {
        if let Settled::Not { lead } = &mut *self.slot.state.lock() {
            *lead = true;
        }
        self.slot.changed.notify_one();
    }
}

/// One error for each of those whose commit failed. The source keeps its text, not its type.
fn copy(error: &TaskError, doing: &'static str) -> TaskError {
    let text = |source: &crate::error::BoxError| source.to_string().into();
    match error {
        TaskError::Busy { waited } => TaskError::Busy { waited: *waited },
        TaskError::FileReplaced { path } => TaskError::FileReplaced { path: path.clone() },
        TaskError::DiskFull { source, .. } => TaskError::DiskFull { doing, source: text(source) },
        TaskError::Database { source, .. } => TaskError::Database { doing, source: text(source) },
        other => TaskError::Database { doing, source: other.to_string().into() },
    }
}
