//! Transactions of the caller's own, on a connection of the queue.

use std::cell::{Cell, RefCell};
use std::fmt;

use super::super::caller::{Acceptable, CallersTransaction, Ending, Keeping};
use super::super::durable::Kept;
use super::super::engine::Stepped;
use super::super::error::{Result, TaskError};
use super::super::queue::TaskQueue;
use super::super::signal::News;
use super::super::unique::Accepted;
use super::connection::{Rows, Transaction};
use super::fault::{Fault, told};
use super::{PostgresEngine, journal, produce, steps};

const DOING: &str = "working in a transaction of the caller's";

/// A transaction on the queue's server, for work of the caller's own and for tasks that are there
/// if, and only if, it commits: see [`TaskQueue::postgres_transaction`].
///
/// Its statements are for a few rows beside a task. Who does more has a PostgreSQL client, and
/// enqueues with the SQL function `fulmar_enqueue`.
pub struct PostgresTransaction<'a> {
    transaction: RefCell<Transaction<'a>>,
    engine: &'a PostgresEngine,
    enqueued: Cell<bool>,
}

impl TaskQueue {
    /// Runs `work` in a transaction on one of this queue's own connections. It commits if `work`
    /// returns `Ok`; an error or a panic rolls it back. Waiting workers are told of tasks that were
    /// enqueued in it.
    ///
    /// ```no_run
    /// use fulmar::tasks::{NewTask, TaskError, TaskQueue};
    ///
    /// let queue = TaskQueue::connect("postgres://app@db.example/shop")?;
    /// queue.postgres_transaction(|tx| {
    ///     tx.execute("INSERT INTO orders (buyer, pieces) VALUES ($1, $2)", &[Some("me"), Some("3")])?;
    ///     queue.enqueue_in(tx, [NewTask::new("mail", "order-1").input("thank you")])
    /// })?;
    /// # Ok::<(), TaskError>(())
    /// ```
    ///
    /// # Blocking
    /// It holds one of the queue's connections meanwhile. A call of the queue inside of `work`
    /// takes another one, and does not see what this one has not committed. A statement may take 60
    /// s. If `work` asks nothing for 61 s, the server ends the session, unless
    /// `SET LOCAL idle_in_transaction_session_timeout = 0` tells it not to. All that `work` sets,
    /// and locks, in the session ends with the transaction: the session is made anew, which costs a
    /// millisecond or two.
    ///
    /// # Errors
    /// Those of `work`. [`TaskError::Unreachable`] if the server can't be reached within
    /// [`busy_timeout`](super::super::QueueBuilder::busy_timeout); if its source is that the
    /// connection broke, it may have been committed, and `work` can tell best.
    /// [`TaskError::Invalid`] if the queue is not on PostgreSQL, or if `work` ended the transaction
    /// by itself.
    pub fn postgres_transaction<R, E: From<TaskError>>(
        &self,
        work: impl FnOnce(&PostgresTransaction<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let engine = self.engine().as_any().downcast_ref::<PostgresEngine>();
        let engine = engine.ok_or_else(|| {
            TaskError::Invalid(
                "the queue is not on PostgreSQL: open it with `TaskQueue::connect` to use a PostgreSQL transaction"
                    .into(),
            )
        })?;
        let mut work = Some(work);
        engine.core.patiently(DOING, |db, _| {
            db.estrange();
            let mut begun = db.begin()?;
            // Ours likes indexes so much that it would take one for everything.
            begun.script("SET LOCAL enable_seqscan = on")?;
            // Until here nothing was done, so that another try is harmless; from here on there is
            // none.
            let work = work.take().ok_or_else(|| TaskError::Invalid("a transaction was begun twice".into()))?;
            Ok(engine.transaction(begun, work))
        })?
    }
}

impl PostgresEngine {
    /// Runs `work` in the transaction `begun`, and commits if it returns `Ok`. If it returns an
    /// error or panics, the transaction is rolled back. After the commit the engine tells workers
    /// of the tasks that `work` enqueued. `Invalid` if `work` ended the transaction by itself.
    fn transaction<R, E: From<TaskError>>(
        &self,
        begun: Transaction<'_>,
        work: impl FnOnce(&PostgresTransaction<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let transaction =
            PostgresTransaction { transaction: RefCell::new(begun), engine: self, enqueued: Cell::new(false) };
        let done = work(&transaction)?;
        let PostgresTransaction { transaction, enqueued, .. } = transaction;
        let mut transaction = transaction.into_inner();
        if !transaction.is_in_transaction() {
            return Err(TaskError::Invalid("the transaction was ended inside: leave that to its `Ok`".into()).into());
        }
        let committed = transaction.cleanse().and_then(|()| transaction.commit());
        committed.map_err(|error| told("committing a transaction of the caller's", error))?;
        if enqueued.get() {
            self.tell(News::Work);
        }
        Ok(done)
    }
}

impl PostgresTransaction<'_> {
    /// Runs one statement with its parameters, `$1`, `$2`, .., as text that the server reads as
    /// what it needs; `None` is null. Returns how many rows it changed.
    ///
    /// If the operation that runs it is cancelled, or the attempt at the task is to stop, the
    /// server is asked to give the statement up, over TLS if the connection has it. The transaction
    /// is then rolled back. A commit is not interrupted.
    ///
    /// # Errors
    /// [`TaskError::Database`] with the server's reason: then only a rollback is left. After a
    /// cancel its code is `57014`.
    pub fn execute(&self, sql: &str, params: &[Option<&str>]) -> Result<u64> {
        Ok(self.run(sql, params)?.affected())
    }

    /// As [`execute`](PostgresTransaction::execute): the rows it gives, in PostgreSQL's text form.
    ///
    /// # Errors
    /// Those of [`execute`](PostgresTransaction::execute).
    pub fn query(&self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Vec<Option<String>>>> {
        Ok(self.run(sql, params)?.texts())
    }

    fn demand_same(&self, queue: &TaskQueue) -> Result<()> {
        let engine = queue.engine().as_any().downcast_ref::<PostgresEngine>();
        if engine.is_some_and(|engine| std::ptr::eq(engine, self.engine)) {
            return Ok(());
        }
        Err(TaskError::Invalid("the transaction is another queue's: use that queue, or a clone of it".into()))
    }

    fn run(&self, sql: &str, params: &[Option<&str>]) -> Result<Rows> {
        self.transaction.borrow_mut().query_interruptibly(sql, params).map_err(|error| told(DOING, error))
    }
}

impl CallersTransaction for PostgresTransaction<'_> {
    fn accept(&self, queue: &TaskQueue, Acceptable(tasks): Acceptable) -> Result<Vec<Accepted>> {
        self.demand_same(queue)?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let ids = produce::enqueue_within(&mut self.transaction.borrow_mut(), &tasks, true).map_err(fault)?;
        self.enqueued.set(true);
        Ok(ids)
    }

    fn end(&self, queue: &TaskQueue, Ending(step): Ending) -> Result<bool> {
        self.demand_same(queue)?;
        let stepped = steps::step_within(&mut self.transaction.borrow_mut(), &step).map_err(fault)?;
        // Those who wait are told when the worker hears of the end: it is committed then.
        Ok(matches!(stepped, Stepped::Done(_)))
    }

    fn keep(&self, queue: &TaskQueue, Keeping(holder, entry): Keeping) -> Result<bool> {
        self.demand_same(queue)?;
        let kept = journal::keep(&mut self.transaction.borrow_mut(), &holder, &entry, false).map_err(fault)?;
        Ok(kept == Kept::Done)
    }
}

impl fmt::Debug for PostgresTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTransaction").finish_non_exhaustive()
    }
}

fn fault(fault: Fault) -> TaskError {
    match fault {
        Fault::Pg(error) => told(DOING, error),
        Fault::Task(error) => error,
    }
}
