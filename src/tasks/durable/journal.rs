//! What a database has to do for durable functions, beside what it does for tasks: one transaction
//! a call, fenced as a step of a task is.

use std::sync::Arc;
use std::time::Duration;

use super::super::engine::TaskRef;
use super::super::error::{Result, TaskError};
use super::super::new_task::Checked;
use super::super::status::{Response, TaskStatus};
use super::super::worker_id::WorkerId;

pub(in crate::tasks) trait Journal: Send + Sync {
    /// All steps of a task in the order of their first use, and before them the database's time.
    fn steps(&self, task: i64) -> Result<(i64, Vec<Entry>)>;

    /// Stores what a step came to. `Stale`, with nothing stored: the holder has lost its task, or
    /// an entry of the same name and number is done or failed already. But if an earlier try, whose
    /// answer was lost, has stored this entry for this holder, it is `Done`. That holds for
    /// `take_event` and `spawn`, too.
    fn keep(&self, holder: &Holder, entry: &Entry) -> Result<Kept>;

    /// Takes the oldest event of the entry's name, and stores it as the entry's body. Without one
    /// it notes that the function waits, for at most `limit` from the first call on. `Stale` if the
    /// holder has lost its task.
    fn take_event(&self, holder: &Holder, entry: &Entry, limit: Option<Duration>) -> Result<Taken>;

    /// Stores an event for a task that has not ended. If the task waits for an event of this name,
    /// it may run at once. `false`: the task has had an event of this name and `key`, and nothing
    /// was changed; without a key it is always `true`. `NotFound`; `WrongStatus` if the task has
    /// ended.
    fn send_event(&self, task: &TaskRef, name: &str, key: Option<&str>, body: &[u8]) -> Result<bool>;

    /// Enqueues children of the holder's task, and stores their numbers as the entry's body, all or
    /// nothing. The end of the last child wakes the task; with `fail_fast` already the end of the
    /// first that does not finish. `Stale` if the holder has lost its task; and the errors of an
    /// enqueuing.
    fn spawn(&self, holder: &Holder, entry: &Entry, children: &[Checked], fail_fast: bool) -> Result<Kept>;

    /// Where children stand and how many bytes they gave, without those; one that was deleted is
    /// left out.
    fn standing(&self, ids: &[i64]) -> Result<Vec<Standing>>;

    /// Where children stand and what they gave, in the order of `ids`; one that was deleted is left
    /// out.
    fn children(&self, ids: &[i64]) -> Result<Vec<Child>>;

    /// The numbers of up to `limit` children that have not ended and were not asked to stop: those
    /// of `parent`, or with `None` those of all tasks that failed or were cancelled. Reads only.
    fn orphans(&self, parent: Option<i64>, limit: usize) -> Result<Vec<i64>>;

    /// How many tasks stand above a task in its tree, counted up to `limit`; 0 without a parent.
    fn depth(&self, task: i64, limit: usize) -> Result<usize>;

    /// Enqueues `to`, and gives it copies of the steps of task `from` whose `ord` is below
    /// `before`. Returns the number of the new task. `Duplicate`, `QueueFull`, `UnknownType`.
    fn copy(&self, from: i64, to: &Checked, before: i64) -> Result<i64>;

    /// What a task has beside its row and its input, for another queue.
    fn carried(&self, task: i64) -> Result<Carried>;

    /// Enqueues a task of another queue with what it carries. `Duplicate`, `QueueFull`,
    /// `UnknownType`.
    fn restore(&self, to: &Checked, carried: &Carried) -> Result<()>;

    /// Deletes the count of the children that the task waits for: it waits for none any more.
    fn disband(&self, task: i64) -> Result<()>;

    /// A task's number; `None` if there is no such task.
    fn find(&self, task: &TaskRef) -> Result<Option<i64>>;

    /// The numbers, types and identifiers of a task's children, oldest first.
    fn family(&self, parent: i64, limit: usize) -> Result<Vec<(i64, TaskRef)>>;
}

/// Who writes.
#[derive(Clone, Debug)]
pub(in crate::tasks) struct Holder {
    pub(in crate::tasks) task: i64,
    pub(in crate::tasks) token: i64,
    pub(in crate::tasks) worker: WorkerId,
}

/// A step in the database.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::tasks) struct Entry {
    pub(in crate::tasks) name: String,
    /// How often the name was used before.
    pub(in crate::tasks) number: i64,
    pub(in crate::tasks) ord: i64,
    pub(in crate::tasks) kind: Kind,
    pub(in crate::tasks) state: State,
    pub(in crate::tasks) attempts: i64,
    pub(in crate::tasks) until: Option<i64>,
    pub(in crate::tasks) is_json: bool,
    pub(in crate::tasks) body: Option<Arc<[u8]>>,
}

/// The numbers are those in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tasks) enum Kind {
    Step = 0,
    Sleep = 1,
    Event = 2,
    Children = 3,
    Patch = 4,
}

/// The numbers are those in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tasks) enum State {
    Begun = 0,
    Done = 1,
    Failed = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tasks) enum Kept {
    Done,
    /// The worker has lost the task.
    Stale,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::tasks) enum Taken {
    Event(Arc<[u8]>),
    /// None came in time.
    TimedOut,
    /// None has come: wait until then, or for as long as it takes.
    Wait(Option<i64>),
    Stale,
}

/// What a task that is moved has in the database besides what it was enqueued with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::tasks) struct Carried {
    /// Another task waits for it.
    pub(in crate::tasks) is_child: bool,
    /// `None` for a task that has never been at work and has not ended.
    pub(in crate::tasks) past: Option<Past>,
    pub(in crate::tasks) steps: Vec<Entry>,
    pub(in crate::tasks) events: Vec<Event>,
}

/// What became of a task so far.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::tasks) struct Past {
    /// `Accepted`, `Paused`, or one that is final.
    pub(in crate::tasks) status: TaskStatus,
    pub(in crate::tasks) starts: u32,
    pub(in crate::tasks) failures: u32,
    pub(in crate::tasks) lost: u32,
    pub(in crate::tasks) progress: f32,
    /// Times are milliseconds since 1970.
    pub(in crate::tasks) created: i64,
    pub(in crate::tasks) ended: Option<i64>,
    pub(in crate::tasks) checkpoint: Option<Vec<u8>>,
    pub(in crate::tasks) response: Option<Response>,
    /// Time, status and message of each entry, oldest first.
    pub(in crate::tasks) log: Vec<(i64, TaskStatus, String)>,
}

/// An event in the database.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::tasks) struct Event {
    pub(in crate::tasks) number: i64,
    pub(in crate::tasks) name: String,
    pub(in crate::tasks) key: Option<String>,
    pub(in crate::tasks) body: Option<Arc<[u8]>>,
    pub(in crate::tasks) taken: bool,
}

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::tasks) struct Standing {
    pub(in crate::tasks) status: i64,
    /// The size of what it has stored.
    pub(in crate::tasks) bytes: i64,
}

/// A child as its parent sees it.
#[derive(Clone, Debug)]
pub(in crate::tasks) struct Child {
    pub(in crate::tasks) id: i64,
    pub(in crate::tasks) name: TaskRef,
    pub(in crate::tasks) status: i64,
    pub(in crate::tasks) body: Option<Vec<u8>>,
    pub(in crate::tasks) message: Option<String>,
}

impl Kind {
    pub(in crate::tasks) const ALL: [Kind; 5] = [Kind::Step, Kind::Sleep, Kind::Event, Kind::Children, Kind::Patch];

    pub(in crate::tasks) fn word(self) -> &'static str {
        ["step", "sleep", "event", "children", "patch"][self as usize]
    }
}

impl State {
    pub(in crate::tasks) const ALL: [State; 3] = [State::Begun, State::Done, State::Failed];

    pub(in crate::tasks) fn word(self) -> &'static str {
        ["begun", "done", "failed"][self as usize]
    }
}

impl Entry {
    /// About how much of it there is to send, in bytes.
    #[cfg(feature = "postgres")]
    pub(in crate::tasks) fn size(&self) -> usize {
        self.name.len() + self.body.as_ref().map_or(0, |body| body.len())
    }

    /// The body of an entry of children.
    pub(in crate::tasks) fn ids(ids: &[i64]) -> Arc<[u8]> {
        let texts: Vec<String> = ids.iter().map(i64::to_string).collect();
        format!("[{}]", texts.join(",")).into_bytes().into()
    }

    /// The codes of kind and state in the database.
    pub(in crate::tasks) fn decode(kind: i64, state: i64) -> Result<(Kind, State)> {
        let kinds = usize::try_from(kind).ok().and_then(|kind| Kind::ALL.get(kind).copied());
        let states = usize::try_from(state).ok().and_then(|state| State::ALL.get(state).copied());
        kinds.zip(states).ok_or_else(|| TaskError::Database {
            doing: "reading the steps of a function",
            source: format!("there is no step of kind {kind} and state {state}").into(),
        })
    }
}

/// Kills this process at a place of the caller's choice: for tests.
#[cfg(debug_assertions)]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fault {
    use crate::sync::{AtomicU64, OnceLock, Ordering};

    /// How many places are left; none that could be passed, at first.
    static LEFT: OnceLock<AtomicU64> = OnceLock::new();

    /// The process ends at the `n`th place from now on.
    pub fn die_at(n: u64) {
        LEFT.get_or_init(|| AtomicU64::new(0)).store(n, Ordering::SeqCst);
    }

    /// How many places are left until then.
    pub fn left() -> u64 {
        LEFT.get().map_or(0, |left| left.load(Ordering::SeqCst))
    }

    pub fn place() {
        if let Some(left) = LEFT.get() {
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                std::process::abort();
            }
        }
    }
}

/// A place where a crash would be noticed, if anywhere.
#[inline]
pub(in crate::tasks) fn place() {
    #[cfg(debug_assertions)]
    fault::place();
}
