//! Uniqueness: of tasks with one key, one at a time is enough.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::Result;
use super::task_type::check_name;

/// Of the tasks of a type with the same key, one is enough: while one waits, or runs, or for a
/// time.
///
/// Enqueuing such a task when there is another one gives a handle to that
/// ([`TaskHandle::existed`](super::TaskHandle::existed)), and what is done to it is a setting here.
/// The look and the enqueuing are one step, on all machines. A task that failed or was cancelled
/// stands in no way.
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskType, Unique};
/// use std::time::Duration;
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-unique-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
/// let queue = TaskQueue::open(folder.join("queue.db"))?;
/// queue.register(TaskType::new("index"))?;
/// // Every change of a page asks for it; it is done once, ten seconds after the last one, with what that said.
/// let change = |text: &str| {
///     let page = Unique::by_key("page-7").push_back();
///     queue.enqueue(NewTask::unnamed("index").input(text).run_after(Duration::from_secs(10)).unique(page))
/// };
/// let first = change("a")?;
/// let second = change("b")?;
/// assert!(second.existed() && second.identifier() == first.identifier());
/// # std::fs::remove_dir_all(&folder).ok();
/// # }
/// # Ok::<(), fulmar::tasks::TaskError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it does nothing until a task has it"]
pub struct Unique {
    key: Option<String>,
    pub(super) scope: Scope,
    pub(super) conflict: Conflict,
}

/// Which tasks with the key are in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Waiting,
    Unended,
    Period(Duration),
}

/// What becomes of one that is in the way, and has not been taken by a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    Keep,
    Replace,
    PushBack,
}

impl Unique {
    /// By this key, among the tasks of the type.
    pub fn by_key(key: impl Into<String>) -> Unique {
        Unique { key: Some(key.into()), scope: Scope::Waiting, conflict: Conflict::Keep }
    }

    /// By the input, byte for byte: the same value written in another order is another one, as a
    /// `HashMap` may be.
    pub fn by_input() -> Unique {
        Unique { key: None, scope: Scope::Waiting, conflict: Conflict::Keep }
    }

    /// One that has not started is in the way; one that runs is not, because what has changed since
    /// it started may have escaped it. The default.
    pub fn while_waiting(mut self) -> Unique {
        self.scope = Scope::Waiting;
        self
    }

    /// One that has not ended is in the way: one that waits, runs, is paused, or waits for another
    /// attempt.
    pub fn until_ended(mut self) -> Unique {
        self.scope = Scope::Unended;
        self
    }

    /// One that was accepted less than `period` ago is in the way, finished or not. The type's
    /// [retention](super::TaskType::retention) has to be as long: what is deleted is forgotten.
    ///
    /// For the task of a [schedule](super::Schedule), make it shorter than the time between two
    /// runs, for instance half as long. A worker enqueues each run a moment after its time. If that
    /// moment is shorter than it was for the run before, less than the whole time has passed since
    /// that one was accepted, and the new run is left out.
    pub fn for_period(mut self, period: Duration) -> Unique {
        self.scope = Scope::Period(period);
        self
    }

    /// What is there stays as it is. The default.
    pub fn keep(mut self) -> Unique {
        self.conflict = Conflict::Keep;
        self
    }

    /// What waits gets the input and the priority of the new one, and keeps its time, its
    /// identifier and its key of order. One that a worker has taken, now or for an earlier attempt,
    /// stays as it is, because its input may have been read already, and its steps be stored. If
    /// [`while_waiting`](Unique::while_waiting) is the scope, it isn't in the way either.
    pub fn replace(mut self) -> Unique {
        self.conflict = Conflict::Replace;
        self
    }

    /// As [`replace`](Unique::replace), and what waits gets the time of the new one: it runs when
    /// none has come for so long. If they never stop coming, it never runs.
    pub fn push_back(mut self) -> Unique {
        self.conflict = Conflict::PushBack;
        self
    }

    /// Of a schedule's task: see [`CheckedUnique::to_json`].
    pub(super) fn from_json(json: &Value) -> Option<Unique> {
        let scope = match (&json["scope"], json["period"].as_u64()) {
            (scope, _) if scope == "waiting" => Scope::Waiting,
            (scope, _) if scope == "unended" => Scope::Unended,
            (scope, Some(millis)) if scope == "period" => Scope::Period(Duration::from_millis(millis)),
            _ => return None,
        };
        let conflict = match json["conflict"].as_str()? {
            "keep" => Conflict::Keep,
            "replace" => Conflict::Replace,
            "push back" => Conflict::PushBack,
            _ => return None,
        };
        let key = json["key"].as_str()?;
        Some(Unique { key: key.strip_prefix(BY_KEY).map(str::to_owned), scope, conflict })
    }

    /// What a database has to know, of a task with this input.
    pub(super) fn checked(self, input: &[u8]) -> Result<CheckedUnique> {
        let Unique { key, scope, conflict } = self;
        let key = match key {
            Some(key) => {
                check_name("the key of a task's uniqueness", &key)?;
                format!("{BY_KEY}{key}")
            }
            None => Sha256::digest(input).iter().fold("i:".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        };
        Ok(CheckedUnique { key, scope, conflict })
    }
}

/// Tells the keys of users from those of inputs.
const BY_KEY: &str = "k:";

/// What an engine stores of it.
#[derive(Clone, Debug)]
pub(super) struct CheckedUnique {
    pub(super) key: String,
    pub(super) scope: Scope,
    pub(super) conflict: Conflict,
}

impl CheckedUnique {
    pub(super) fn to_json(&self) -> Value {
        let scope = match self.scope {
            Scope::Waiting => "waiting",
            Scope::Unended => "unended",
            Scope::Period(_) => "period",
        };
        let conflict = match self.conflict {
            Conflict::Keep => "keep",
            Conflict::Replace => "replace",
            Conflict::PushBack => "push back",
        };
        let period = self.period().map(|period| u64::try_from(period.as_millis()).unwrap_or(u64::MAX));
        json!({ "key": self.key, "scope": scope, "period": period, "conflict": conflict })
    }

    /// The statuses of tasks that are in the way, as a bit each at their codes.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn statuses(&self) -> super::look::Statuses {
        use super::status::TaskStatus::{Accepted, Finished, Paused, Running, Scheduled};
        super::look::Statuses::of(match (self.scope, self.conflict) {
            (Scope::Waiting, Conflict::Keep) => vec![Accepted, Scheduled],
            (Scope::Waiting, Conflict::Replace | Conflict::PushBack) => vec![Accepted],
            (Scope::Unended, _) => vec![Accepted, Scheduled, Running, Paused],
            (Scope::Period(_), _) => vec![Accepted, Scheduled, Running, Paused, Finished],
        })
    }

    /// Whether only a task is in the way that may be changed.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn is_of_fresh(&self) -> bool {
        self.scope == Scope::Waiting && self.conflict != Conflict::Keep
    }

    /// What the log of a task says that was changed by one with this message.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn words(&self, message: &str) -> String {
        let what = if self.conflict == Conflict::PushBack { "pushed back by another" } else { "replaced by another" };
        if message.is_empty() { what.into() } else { super::new_task::clean(&format!("{what}: {message}")) }
    }

    /// How old one may be that is in the way.
    pub(super) fn period(&self) -> Option<Duration> {
        match self.scope {
            Scope::Period(period) => Some(period),
            Scope::Waiting | Scope::Unended => None,
        }
    }
}

/// A task that was accepted, or that was found in its place.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub(super) id: i64,
    /// The identifier of the one that was there.
    pub(super) existing: Option<String>,
}

impl Accepted {
    pub(super) fn new(id: i64) -> Accepted {
        Accepted { id, existing: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schedule_stores_is_what_it_was_given() {
        let every = [
            Unique::by_input(),
            Unique::by_key("k:k").until_ended().replace(),
            Unique::by_key("x").for_period(Duration::from_secs(90)).push_back(),
        ];
        for unique in every {
            let checked = unique.clone().checked(b"1").expect("sound");
            assert_eq!(Unique::from_json(&checked.to_json()).expect("readable"), unique);
        }
        assert_eq!(Unique::from_json(&json!({ "key": "k:x", "scope": "period", "conflict": "keep" })), None);
    }

    #[test]
    fn a_key_is_a_name_and_no_input_s() {
        let hash = Unique::by_input().checked(b"null").expect("sound").key;
        assert_eq!(hash.len(), 2 + 64);
        assert_ne!(Unique::by_key(&*hash).checked(b"null").expect("sound").key, hash);
        assert!(Unique::by_key("").checked(b"null").is_err());
    }
}
