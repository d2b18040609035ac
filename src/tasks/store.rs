//! Named operations of a store, durable: the executor's four arguments, on a queue that survives a
//! crash.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::error::{Result, TaskError};
use super::handle::TaskHandle;
use super::handler::TaskContext;
use super::new_task::NewTask;
use super::queue::TaskQueue;
use super::status::{LogEntry, TaskStatus};
use super::task_type::TaskType;
use super::worker::WorkerBuilder;
use super::worker_id::random_name;
use crate::error::BoxError;
use crate::executor::{Args, Store};

/// What a task of a store carries: the operation and its arguments.
type Call = (String, Value);

impl TaskQueue {
    /// Accepts the operation `op` of the store that workers have [registered](WorkerBuilder::store)
    /// under the name `store`, and returns at once with a handle to its result.
    ///
    /// Requests on one store and one key keep their order on all machines, as those of an
    /// [`Executor`](crate::Executor::submit) do in one process: accessors share, a modifier
    /// (`is_modifier`) runs alone, and no request overtakes an earlier one that it clashes with.
    /// The key is that of the arguments ([`Args`]): the text member `"symbol"` or else `"key"`.
    /// Requests without a key are ordered among those of their store that have none.
    ///
    /// The store's type, `store:NAME`, is registered if it is not: an operation that fails is not
    /// retried, an attempt lost with its worker is restarted 3 times, and what has ended is kept
    /// for a week. [Register](TaskQueue::register) it yourself to choose otherwise.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{TaskError, TaskQueue, Worker};
    /// use fulmar::{BoxError, Store};
    /// use serde_json::{Value, json};
    /// use std::sync::Arc;
    ///
    /// struct Sums;
    /// impl Store for Sums {
    ///     fn name(&self) -> &str { "sums" }
    ///     fn call(&self, op: &str, args: Value) -> Result<Value, BoxError> {
    ///         match op {
    ///             "add" => Ok(json!(args["a"].as_i64().ok_or("`a`")? + args["b"].as_i64().ok_or("`b`")?)),
    ///             _ => Err(format!("no operation `{op}`").into()),
    ///         }
    ///     }
    /// }
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-store-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// let request = queue.submit("sums", "add", false, json!({"a": 1, "b": 2}))?; // survives a crash
    ///
    /// let worker = Worker::builder(&queue).store(Arc::new(Sums)).start()?; // here, or in another process
    /// assert_eq!(request.wait(None)?, json!(3));
    /// worker.drain(None)?;
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`enqueue`](TaskQueue::enqueue).
    pub fn submit(&self, store: &str, op: &str, is_modifier: bool, args: Value) -> Result<DurableRequest> {
        let task_type = type_name(store);
        let key = args.key().unwrap_or("").to_owned();
        let task = NewTask::new(&task_type, random_name()).input(&(op, &args)).message(op).ordered(key, is_modifier);
        let handle = match self.enqueue(task.clone()) {
            Err(TaskError::UnknownType(_)) => {
                self.register_store(store)?;
                self.enqueue(task)?
            }
            other => other?,
        };
        Ok(DurableRequest { handle })
    }

    fn register_store(&self, store: &str) -> Result<()> {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
        let task_type = TaskType::new(type_name(store)).retention(WEEK);
        task_type.check()?;
        // A process that registers it meanwhile knows better.
        self.engine().put_type(task_type, false)
    }
}

fn type_name(store: &str) -> String {
    format!("store:{store}")
}

impl WorkerBuilder {
    /// Has this worker run the operations that are [submitted](TaskQueue::submit) to the store of
    /// this name.
    pub fn store<S: Store + ?Sized + 'static>(self, store: std::sync::Arc<S>) -> WorkerBuilder {
        let name = type_name(store.name());
        self.handle(name, move |task: &TaskContext| -> Result<(), BoxError> {
            let (op, args): Call = task.input()?;
            let result = store.call(&op, args)?;
            Ok(task.store_json(&result)?)
        })
    }
}

/// The handle of a durable request. Dropping it changes nothing;
/// [`identifier`](DurableRequest::identifier) finds it again.
#[derive(Clone)]
pub struct DurableRequest {
    handle: TaskHandle,
}

impl DurableRequest {
    /// The task behind it.
    pub fn task(&self) -> &TaskHandle {
        &self.handle
    }

    /// What names it among the requests of its store.
    pub fn identifier(&self) -> &str {
        self.handle.identifier()
    }

    /// Where it stands.
    ///
    /// # Errors
    /// [`TaskError::NotFound`] once it was deleted, as of all that follow.
    pub fn status(&self) -> Result<TaskStatus> {
        self.handle.status()
    }

    /// Its log, oldest first.
    ///
    /// # Errors
    /// Those of [`status`](DurableRequest::status).
    pub fn log(&self) -> Result<Vec<LogEntry>> {
        self.handle.log()
    }

    /// Cancels it: [`TaskQueue::cancel`].
    ///
    /// # Errors
    /// Those of [`status`](DurableRequest::status).
    pub fn cancel(&self) -> Result<TaskStatus> {
        self.handle.cancel()
    }

    /// Waits for the result. It stays in the database, so another wait gives it again.
    ///
    /// # Errors
    /// [`TaskError::Timeout`]: nothing was cancelled, wait again. [`TaskError::Failed`] with the
    /// operation's error as text, [`TaskError::Cancelled`], and those of
    /// [`status`](DurableRequest::status).
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<Value> {
        match self.handle.wait(timeout)? {
            TaskStatus::Finished => {
                let response = self.handle.response()?;
                response.map_or(Ok(Value::Null), |response| response.json())
            }
            TaskStatus::Cancelled => Err(TaskError::Cancelled),
            _ => {
                let reason = self.handle.log()?.pop().map(|entry| entry.message).unwrap_or_default();
                Err(TaskError::Failed { reason })
            }
        }
    }
}

impl fmt::Debug for DurableRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableRequest").field("task", &self.handle.identifier()).finish_non_exhaustive()
    }
}
