//! Task types whose inputs have a type: what is enqueued and what handles it name the same
//! constant.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handler::{Handler, TaskContext};
use super::new_task::NewTask;
use super::task_type::TaskType;
use crate::error::BoxError;

/// A task type's name together with the type of its tasks' inputs. As a constant that enqueuing and
/// handling share, neither can have a wrong name or another input.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use fulmar::tasks::{TaskError, TaskQueue, TypedTask, Worker};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Mail { to: String }
///
/// const MAIL: TypedTask<Mail> = TypedTask::new("mail");
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-typed-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
/// let queue = TaskQueue::open(folder.join("queue.db"))?;
/// queue.register(MAIL.task_type())?;
/// let task = queue.enqueue(MAIL.task("order-7", &Mail { to: "you".into() }))?;
/// let worker = Worker::builder(&queue)
///     .handle_typed(MAIL, |task, mail| {
///         task.store_json(&format!("sent to {}", mail.to))?; // `?` takes any error.
///         Ok(())
///     })
///     .start()?;
/// task.wait(None)?;
/// assert_eq!(task.response()?.expect("a response").json::<String>()?, "sent to you");
/// # worker.drain(None)?;
/// # std::fs::remove_dir_all(&folder).ok();
/// # }
/// # Ok::<(), fulmar::tasks::TaskError>(())
/// ```
pub struct TypedTask<I> {
    name: &'static str,
    input: PhantomData<fn(I)>,
}

impl<I> TypedTask<I> {
    /// The tasks of this type have inputs of the type `I`, as JSON. The name is checked when the
    /// type is registered.
    pub const fn new(name: &'static str) -> TypedTask<I> {
        TypedTask { name, input: PhantomData }
    }

    /// The type's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Settings of the type, to be [registered](super::TaskQueue::register).
    pub fn task_type(&self) -> TaskType {
        TaskType::new(self.name)
    }
}

impl<I: Serialize> TypedTask<I> {
    /// A task with this identifier and input: [`NewTask::new`].
    pub fn task(&self, identifier: impl Into<String>, input: &I) -> NewTask {
        NewTask::new(self.name, identifier).input(input)
    }

    /// A task with this input and an identifier of chance: [`NewTask::unnamed`].
    pub fn unnamed(&self, input: &I) -> NewTask {
        NewTask::unnamed(self.name).input(input)
    }
}

impl<I: DeserializeOwned + 'static> TypedTask<I> {
    /// The handler that reads the input and calls `work` with it. An input that doesn't fit fails
    /// the attempt.
    pub(super) fn handler(
        self,
        work: impl Fn(&TaskContext, I) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> impl Handler {
        move |task: &TaskContext| work(task, task.input()?)
    }
}

/// A handler whose errors are boxed, so that `?` takes any of them, and a closure needs no types:
///
/// ```
/// use fulmar::tasks::{Handler, handler};
///
/// fn is_a_handler(_: impl Handler) {}
///
/// is_a_handler(handler(|task| {
///     let seconds: u64 = task.input()?;
///     println!("{} took {seconds} s", task.identifier());
///     Ok(())
/// }));
/// ```
pub fn handler(work: impl Fn(&TaskContext) -> Result<(), BoxError> + Send + Sync + 'static) -> impl Handler {
    work
}

impl<I> Clone for TypedTask<I> {
    fn clone(&self) -> TypedTask<I> {
        *self
    }
}

impl<I> Copy for TypedTask<I> {}

impl<I> fmt::Debug for TypedTask<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedTask").field(&self.name).finish()
    }
}
