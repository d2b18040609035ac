//! Enqueuing, and ending tasks, on a connection of the caller's own.

use std::path::Path;

use rusqlite::{Connection, Savepoint, Transaction};

use super::super::caller::{Acceptable, CallersTransaction, Ending, Keeping};
use super::super::durable::Kept;
use super::super::engine::Stepped;
use super::super::error::{Result, TaskError};
use super::super::queue::TaskQueue;
use super::super::unique::Accepted;
use super::connection::{database_id, failed};
use super::{SqliteEngine, journal, produce, steps};

impl CallersTransaction for Connection {
    fn accept(&self, queue: &TaskQueue, Acceptable(tasks): Acceptable) -> Result<Vec<Accepted>> {
        within(self, queue, |now| produce::enqueue(self, now, &tasks))
    }

    fn end(&self, queue: &TaskQueue, Ending(step): Ending) -> Result<bool> {
        let stepped = within(self, queue, |now| steps::step(self, now, &[step]))?;
        Ok(matches!(*stepped, [Stepped::Done(_)]))
    }

    fn keep(&self, queue: &TaskQueue, Keeping(holder, entry): Keeping) -> Result<bool> {
        // Whatever the time: the lease was good when the step's transaction began, and nothing has
        // taken the task away since, because that would have to write.
        let kept = within(self, queue, |_| journal::keep(self, i64::MIN, &holder, &entry))?;
        Ok(kept == Kept::Done)
    }
}

/// As people write it: a reference to the transaction.
macro_rules! on_the_connection {
    ($($transaction:ty),*) => {$(
        impl CallersTransaction for $transaction {
            fn accept(&self, queue: &TaskQueue, tasks: Acceptable) -> Result<Vec<Accepted>> {
                Connection::accept(self, queue, tasks)
            }

            fn end(&self, queue: &TaskQueue, ending: Ending) -> Result<bool> {
                Connection::end(self, queue, ending)
            }

            fn keep(&self, queue: &TaskQueue, keeping: Keeping) -> Result<bool> {
                Connection::keep(self, queue, keeping)
            }
        }
    )*};
}

on_the_connection!(Transaction<'_>, Savepoint<'_>);

/// Does `work` in the transaction that is open on `db`, all of it or nothing. It gets the time.
fn within<R>(db: &Connection, queue: &TaskQueue, work: impl FnOnce(i64) -> Result<R>) -> Result<R> {
    let engine = queue.engine().as_any().downcast_ref::<SqliteEngine>();
    let id = match database_id(db) {
        // Nothing is known of it then.
        Err(error @ TaskError::Busy { .. }) => return Err(error),
        id => id.ok(),
    };
    let Some(engine) = engine.filter(|engine| id.is_some_and(|id| id == engine.database)) else {
        return Err(TaskError::Invalid("the connection is to another database than the queue's: use its own".into()));
    };
    engine.files.check()?;
    // A copy goes by the same name.
    if db.path().is_some_and(|path| !engine.files.are_at(Path::new(path))) {
        return Err(TaskError::Invalid("the connection is to a copy of the queue's database: use its own file".into()));
    }
    if db.is_autocommit() {
        return Err(TaskError::Invalid("no transaction is open on the connection: begin one first".into()));
    }
    let run = |sql| db.execute_batch(sql).map_err(failed("working in a transaction of the caller's"));
    run("SAVEPOINT fulmar_caller")?;
    let done = work(engine.settings.clock.now());
    if done.is_err() && !db.is_autocommit() {
        run("ROLLBACK TO fulmar_caller")?;
    }
    if !db.is_autocommit() {
        run("RELEASE fulmar_caller")?;
    }
    done
}
