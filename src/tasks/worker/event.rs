//! What a worker tells a program of its attempts, as they happen.

use std::sync::Arc;
use std::time::Duration;

use super::super::handler::TaskContext;
use super::super::status::TaskStatus;
use super::WorkerBuilder;

/// Something that has happened to a worker's attempt.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskEvent<'a> {
    /// The attempt is charged, and its handler runs next.
    Started(&'a TaskContext),
    /// The handler has returned, and what the attempt came to is in the database.
    Ended {
        /// The task.
        task: &'a TaskContext,
        /// Where it stands now; `None` if its lease was lost, or its end could not be written, so
        /// that the outcome was discarded.
        status: Option<TaskStatus>,
        /// How long the handler took.
        took: Duration,
    },
    /// The handler has lost the task and has not returned since the last heartbeat: its thread
    /// hangs. Told on a thread of the worker's own, because the handler's will not come.
    Stuck(&'a TaskContext),
}

/// A function that is called with each event of the worker.
pub(super) type Listener = Arc<dyn Fn(&TaskEvent<'_>) + Send + Sync>;

impl WorkerBuilder {
    /// Has `listener` told of each attempt's start and end, on the thread that runs its handler,
    /// before the next one starts there. No lock is held meanwhile; a panic of it goes no further.
    /// A second one replaces the first.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// # use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskEvent, TaskQueue, TaskStatus, TaskType, Worker};
    /// # let folder = std::env::temp_dir().join(format!("fulmar-event-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// # let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// # queue.register(TaskType::new("mail"))?;
    /// let worker = Worker::builder(&queue)
    ///     .handle("mail", |_: &TaskContext| Ok::<_, TaskError>(()))
    ///     .on_event(|event| match event {
    ///         TaskEvent::Ended { task, status: Some(TaskStatus::Failed), .. } => eprintln!("{} failed", task.identifier()),
    ///         _ => {}
    ///     })
    ///     .start()?;
    /// # worker.drain(None)?;
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    pub fn on_event(mut self, listener: impl Fn(&TaskEvent<'_>) + Send + Sync + 'static) -> WorkerBuilder {
        self.listener = Some(Arc::new(listener));
        self
    }
}
