//! Enqueuing inside a transaction of the caller's own: the task is there if, and only if, that
//! commits.

use super::durable::{Entry, Holder};
use super::engine::{Step, TaskRef};
use super::error::Result;
use super::handle::TaskHandle;
use super::new_task::{Checked, NewTask};
use super::queue::TaskQueue;
use super::unique::Accepted;

/// A transaction of the caller's own: with feature `sqlite`, a `rusqlite::Transaction` or
/// `Savepoint`, or a `rusqlite::Connection` on which one is open; with feature `postgres`, what
/// [`postgres_transaction`](TaskQueue) hands out.
pub trait CallersTransaction {
    /// Not for users.
    ///
    /// # Errors
    /// As [`TaskQueue::enqueue_in`].
    #[doc(hidden)]
    fn accept(&self, queue: &TaskQueue, tasks: Acceptable) -> Result<Vec<Accepted>>;

    /// Not for users. False: the worker has lost the task.
    ///
    /// # Errors
    /// As [`TaskContext::finish_in`](super::TaskContext::finish_in).
    #[doc(hidden)]
    fn end(&self, queue: &TaskQueue, ending: Ending) -> Result<bool>;

    /// Not for users. False: the worker has lost the task, or the step was stored before.
    ///
    /// # Errors
    /// As [`Durable::step_in`](super::durable::Durable::step_in).
    #[doc(hidden)]
    fn keep(&self, queue: &TaskQueue, keeping: Keeping) -> Result<bool>;
}

/// The end of an attempt.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Ending(pub(super) Step);

/// What a step has come to.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Keeping(pub(super) Holder, pub(super) Entry);

/// Tasks that an engine may store as they are.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Acceptable(pub(super) Vec<Checked>);

impl TaskQueue {
    /// Accepts all of `tasks`, or none, inside the transaction that is open on `connection`: they
    /// are there if, and only if, that commits. The connection must be one to the queue's own
    /// database.
    ///
    /// Waiting workers of this process are not told, because only the caller knows when it commits:
    /// they find the tasks within the poll interval. On SQLite begin the transaction as
    /// `IMMEDIATE`: one that has read before it writes may be refused by SQLite.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskType, rusqlite};
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-own-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// let file = folder.join("shop.db");
    /// let queue = TaskQueue::open(&file)?;
    /// queue.register(TaskType::new("mail"))?;
    ///
    /// let mut shop = rusqlite::Connection::open(&file)?;
    /// shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, buyer TEXT)", [])?;
    /// let order = shop.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    /// order.execute("INSERT INTO orders (buyer) VALUES ('me')", [])?;
    /// queue.enqueue_in(&order, [NewTask::new("mail", "order-1").input("thank you")])?;
    /// order.rollback()?;
    /// assert!(matches!(queue.status("mail", "order-1"), Err(TaskError::NotFound { .. })));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`enqueue_many`](TaskQueue::enqueue_many); the transaction is as it was before, and
    /// goes on. On SQLite [`TaskError::DiskFull`](super::TaskError::DiskFull) may have rolled it
    /// back, and [`TaskError::Busy`](super::TaskError::Busy) comes as soon as your own connection's
    /// busy handler gives up. [`TaskError::Invalid`](super::TaskError::Invalid) if no transaction
    /// is open, or it is another database.
    pub fn enqueue_in<C: CallersTransaction + ?Sized>(
        &self,
        connection: &C,
        tasks: impl IntoIterator<Item = NewTask>,
    ) -> Result<Vec<TaskHandle>> {
        let tasks = self.checked(tasks)?;
        let names: Vec<TaskRef> = tasks.iter().map(Checked::name).collect();
        let accepted = connection.accept(self, Acceptable(tasks))?;
        Ok(accepted.into_iter().zip(names).map(|(task, name)| TaskHandle::accepted(self.clone(), task, name)).collect())
    }
}
