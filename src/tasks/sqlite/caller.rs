//! Enqueuing on a connection of the caller's own.

use rusqlite::Connection;

use super::super::caller::{Acceptable, CallersTransaction};
use super::super::error::{Result, TaskError};
use super::super::queue::TaskQueue;
use super::connection::{database_id, failed};
use super::{SqliteEngine, produce};

impl CallersTransaction for Connection {
    fn accept(&self, queue: &TaskQueue, Acceptable(tasks): Acceptable) -> Result<Vec<i64>> {
        let engine = queue.engine().as_any().downcast_ref::<SqliteEngine>();
        let id = match database_id(self) {
            // Nothing is known of it then.
            Err(error @ TaskError::Busy { .. }) => return Err(error),
            id => id.ok(),
        };
        let Some(engine) = engine.filter(|engine| id.is_some_and(|id| id == engine.database)) else {
            return Err(TaskError::Invalid(
                "the connection is to another database than the queue's: use its own".into(),
            ));
        };
        if self.is_autocommit() {
            return Err(TaskError::Invalid("no transaction is open on the connection: begin one first".into()));
        }
        let run = |sql| self.execute_batch(sql).map_err(failed("enqueuing in a transaction of the caller's"));
        run("SAVEPOINT fulmar_enqueue")?;
        let accepted = produce::enqueue(self, engine.settings.clock.now(), &tasks);
        if accepted.is_err() && !self.is_autocommit() {
            run("ROLLBACK TO fulmar_enqueue")?;
        }
        if !self.is_autocommit() {
            run("RELEASE fulmar_enqueue")?;
        }
        accepted
    }
}
