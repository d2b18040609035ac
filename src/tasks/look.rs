//! Looking at tasks: a filter, page after page, and how many there are.
//!
//! Pages go by the tasks' numbers (a keyset, no offset), and one page reads a bounded number of
//! rows, however many there are: so a look at a queue of millions costs milliseconds. What is not
//! on a page because of that bound is on the next.

use std::iter;
use std::time::Duration;

use super::error::Result;
use super::queue::TaskQueue;
use super::status::{TaskInfo, TaskStatus};

/// How many rows one page reads at most; those of the log that a [text](TaskFilter::saying) is
/// looked for in come on top.
pub(super) const MOST_ROWS: i64 = 10_000;

/// How many tasks a page of [`TaskQueue::list_all`] has.
const PAGE: usize = 1_000;

/// Which tasks to look at, or to steer: all conditions have to hold. Without any it fits every
/// task.
///
/// ```
/// use fulmar::tasks::{TaskFilter, TaskStatus};
/// use std::time::Duration;
///
/// let stuck = TaskFilter::new()
///     .of_type("mail")
///     .status([TaskStatus::Failed])
///     .older_than(Duration::from_secs(3_600))
///     .saying("connection refused");
/// # let _ = stuck;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a filter does nothing by itself"]
pub struct TaskFilter {
    pub(super) task_type: Option<String>,
    pub(super) statuses: Option<Statuses>,
    pub(super) key: Option<String>,
    pub(super) older: Option<Duration>,
    pub(super) younger: Option<Duration>,
    pub(super) text: Option<String>,
    pub(super) newest_first: bool,
    pub(super) after: Option<i64>,
}

impl TaskFilter {
    /// Every task, oldest first.
    pub fn new() -> TaskFilter {
        TaskFilter::default()
    }

    /// Tasks of this type.
    pub fn of_type(mut self, task_type: impl Into<String>) -> TaskFilter {
        self.task_type = Some(task_type.into());
        self
    }

    /// Tasks that stand at one of these. Of `Failed` and `Cancelled`, and of `Scheduled` and
    /// `Running`, no others are read.
    pub fn status(mut self, statuses: impl IntoIterator<Item = TaskStatus>) -> TaskFilter {
        self.statuses = Some(Statuses::of(statuses));
        self
    }

    /// Tasks with this key in their [order](super::NewTask::ordered).
    pub fn key(mut self, key: impl Into<String>) -> TaskFilter {
        self.key = Some(key.into());
        self
    }

    /// Tasks that were accepted that long ago or longer, by the database's clock.
    pub fn older_than(mut self, age: Duration) -> TaskFilter {
        self.older = Some(age);
        self
    }

    /// Tasks that were accepted less than that long ago, by the database's clock.
    pub fn younger_than(mut self, age: Duration) -> TaskFilter {
        self.younger = Some(age);
        self
    }

    /// Tasks whose [last message](TaskInfo::message) holds this text, capital letters or not as
    /// they are: the error of those that have failed, or that wait for another attempt.
    pub fn saying(mut self, text: impl Into<String>) -> TaskFilter {
        self.text = Some(text.into());
        self
    }

    /// The tasks with the highest numbers first. Defaults to the lowest first.
    pub fn newest_first(mut self) -> TaskFilter {
        self.newest_first = true;
        self
    }

    /// Begins behind the task of this number: [`TaskPage::next`] of the page before. Defaults to
    /// the beginning.
    pub fn after(mut self, task: i64) -> TaskFilter {
        self.after = Some(task);
        self
    }

    /// Those that the filter fits and that stand at one of `statuses`.
    pub(super) fn among(&self, statuses: Statuses) -> TaskFilter {
        let both = Statuses(self.statuses.unwrap_or(Statuses::ANY).0 & statuses.0);
        TaskFilter { statuses: Some(both), ..self.clone() }
    }

    /// What it looks for in texts.
    #[cfg(feature = "postgres")]
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.task_type, &self.key, &self.text].into_iter().filter_map(Option::as_deref)
    }

    /// The rows that have to be read for it.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn source(&self) -> Source {
        let statuses = self.statuses.unwrap_or(Statuses::ANY);
        let within = |few: Statuses| statuses.0 & !few.0 == 0;
        match () {
            () if within(Statuses::of([TaskStatus::Failed, TaskStatus::Cancelled])) => Source::Failed,
            () if within(Statuses::of([TaskStatus::Scheduled, TaskStatus::Running])) => Source::Held,
            () => Source::All,
        }
    }
}

/// Which index leads to the tasks.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    All,
    /// Those that have failed or were cancelled.
    Failed,
    /// Those that workers hold: few.
    Held,
}

/// A set of statuses: a bit each, at their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statuses(pub(super) i64);

impl Statuses {
    pub(super) const ANY: Statuses = Statuses(0x7f);

    pub(super) fn of(statuses: impl IntoIterator<Item = TaskStatus>) -> Statuses {
        Statuses(statuses.into_iter().fold(0, |set, status| set | 1 << status.code()))
    }

    pub(super) fn has(self, status: TaskStatus) -> bool {
        self.0 >> status.code() & 1 == 1
    }
}

/// Some of the tasks that a filter fits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskPage {
    /// In the order of their numbers. There may be fewer than were asked for, or none, with more
    /// behind them: a page reads no more than some thousand rows.
    pub tasks: Vec<TaskInfo>,
    /// Where the next page begins, for [`TaskFilter::after`]; `None` if this was the last one.
    pub next: Option<i64>,
}

impl TaskQueue {
    /// The first `limit` tasks that a filter fits, or fewer: see [`TaskPage`]. A row that makes no
    /// sense is passed over.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskError, TaskFilter, TaskQueue, TaskStatus, TaskType};
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-look-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("mail"))?;
    /// queue.enqueue_many((0..3).map(|n| NewTask::new("mail", n.to_string())))?;
    ///
    /// let waiting = TaskFilter::new().of_type("mail").status([TaskStatus::Accepted]);
    /// let page = queue.list(&waiting, 2)?;
    /// assert_eq!(page.tasks[1].identifier, "1");
    /// let rest = queue.list(&waiting.after(page.next.expect("there is one more")), 2)?;
    /// assert_eq!((rest.tasks.len(), rest.next), (1, None));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// Those of the database.
    pub fn list(&self, filter: &TaskFilter, limit: usize) -> Result<TaskPage> {
        self.engine().list(filter, limit.max(1))
    }

    /// All tasks that a filter fits, one after the other, read page by page: not all of one moment.
    /// It ends with the first error.
    pub fn list_all(&self, filter: &TaskFilter) -> impl Iterator<Item = Result<TaskInfo>> + '_ {
        let mut rest = Some(filter.clone());
        iter::from_fn(move || {
            let filter = rest.take()?;
            let page = self.list(&filter, PAGE);
            if let Ok(TaskPage { next: Some(next), .. }) = &page {
                rest = Some(filter.after(*next));
            }
            Some(page)
        })
        .flat_map(|page| match page {
            Ok(page) => page.tasks.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })
    }

    /// How many tasks a filter fits. Unlike a page it reads all rows that may fit, and keeps no
    /// other call waiting meanwhile; for counts by status, [`stats`](TaskQueue::stats) is cheaper.
    ///
    /// # Errors
    /// Those of the database.
    pub fn count(&self, filter: &TaskFilter) -> Result<u64> {
        self.engine().count(filter)
    }
}
