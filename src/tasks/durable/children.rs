//! Children: tasks that a function waits for, as rows.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::function::{Durable, FOR_EVER};
use super::journal::{Child, Entry, Kept, Kind, Standing, State};
use crate::tasks::engine::Wait;
use crate::tasks::error::{Result, TaskError};
use crate::tasks::look::Statuses;
use crate::tasks::new_task::{NewTask, check_length, check_size, to_json};
use crate::tasks::queue::TaskQueue;
use crate::tasks::status::TaskStatus;
use crate::tasks::steer::Steering;

/// The most children of one call.
pub const MOST_CHILDREN: usize = 100_000;

/// How many levels of children a tree may have below its root.
pub const MOST_DEPTH: usize = 32;

/// What is too large, if it is.
const RESULTS: &str = "results of all children";

/// How many tasks are cancelled in one transaction.
const BATCH: usize = 100;

/// What became of children, as it is stored: what they gave, null for those that failed; and of
/// those their places, types, identifiers, reasons, and whether they were cancelled.
type Outcomes<T> = (Vec<Option<T>>, Vec<Failure>);

type Failure = (usize, String, String, String, bool);

impl Durable<'_> {
    /// A child, for [`all`](Durable::all): a task of a registered type, whose identifier is the
    /// function's own with `/` and `name` behind it.
    pub fn child(&self, task_type: &str, name: &str, input: &(impl Serialize + ?Sized)) -> NewTask {
        NewTask::new(task_type, format!("{}/{name}", self.task().identifier())).input(input)
    }

    /// Enqueues all children in one step, waits until all have ended, and gives what they stored,
    /// in their order. Meanwhile the function holds no thread, and the last child's end wakes it.
    /// The first child that fails, or is cancelled, has the others cancelled.
    ///
    /// At most [`MOST_CHILDREN`] at once, [`MOST_DEPTH`] deep; all their results together have 64
    /// MiB. If they have more, none of them is read.
    ///
    /// # Errors
    /// [`TaskError::Child`] for the first of them that failed, when all have ended;
    /// [`TaskError::Invalid`] beyond the limits, or for a child with a key; those of
    /// [`enqueue_many`](TaskQueue::enqueue_many), with nothing enqueued; those of
    /// [`sleep`](Durable::sleep).
    pub fn all<T: DeserializeOwned>(&self, name: &str, children: impl IntoIterator<Item = NewTask>) -> Result<Vec<T>> {
        let (results, failures) = self.outcomes(name, children, true)?;
        // Those that were cancelled were so for the sake of one that was not.
        let first = failures.iter().find(|failure| !failure.4).or(failures.first()).cloned();
        match first {
            Some(failure) => Err(error(failure)),
            None => results.into_iter().map(|result| self.given(name, result)).collect(),
        }
    }

    /// As [`all`](Durable::all), but a failure cancels no other: what became of each.
    ///
    /// # Errors
    /// Those of [`all`](Durable::all), but [`TaskError::Child`].
    pub fn all_ended<T: DeserializeOwned>(
        &self,
        name: &str,
        children: impl IntoIterator<Item = NewTask>,
    ) -> Result<Vec<Result<T>>> {
        let (results, failures) = self.outcomes(name, children, false)?;
        let mut failures: HashMap<usize, Failure> = failures.into_iter().map(|failure| (failure.0, failure)).collect();
        let each = |(place, result)| match failures.remove(&place) {
            Some(failure) => Ok(Err(error(failure))),
            None => self.given(name, result).map(Ok),
        };
        results.into_iter().enumerate().map(each).collect()
    }

    /// A result that is there; what is nothing may be one, too.
    fn given<T: DeserializeOwned>(&self, name: &str, result: Option<T>) -> Result<T> {
        result.map_or_else(|| self.read(name, 0, b"null"), Ok)
    }

    fn outcomes<T: DeserializeOwned>(
        &self,
        name: &str,
        children: impl IntoIterator<Item = NewTask>,
        fail_fast: bool,
    ) -> Result<Outcomes<T>> {
        let entry = self.ask(name, Kind::Children)?;
        let number = entry.number;
        let body = match (entry.state, &entry.body) {
            (State::Done | State::Failed, body) => body.clone().unwrap_or_default(),
            (State::Begun, Some(ids)) => self.gather(name, &entry, &Arc::clone(ids), fail_fast)?,
            (State::Begun, None) => self.spawn(name, &entry, children, fail_fast)?,
        };
        self.read(name, number, &body)
    }

    /// Enqueues the children and stores their ids in `entry`, in one transaction: a crash leaves
    /// all of them or none, and the next run finds them in the entry. Returns the error that pauses
    /// the function; without children, their empty results.
    fn spawn(
        &self,
        name: &str,
        entry: &Entry,
        children: impl IntoIterator<Item = NewTask>,
        fail_fast: bool,
    ) -> Result<Arc<[u8]>> {
        let children: Vec<NewTask> = children.into_iter().take(MOST_CHILDREN + 1).collect();
        if children.len() > MOST_CHILDREN {
            return Err(TaskError::Invalid(format!(
                "`{name}` has more than {MOST_CHILDREN} children: use fewer at once"
            )));
        }
        if children.iter().any(|child| child.key.is_some() || child.unique.is_some()) {
            return Err(TaskError::Invalid(format!(
                "a child of `{name}` has a key, which children can't have: leave it out"
            )));
        }
        if children.is_empty() {
            let body: Arc<[u8]> = Arc::from(&b"[[],[]]"[..]);
            self.keep(Entry { state: State::Done, body: Some(Arc::clone(&body)), ..entry.clone() })?;
            return Ok(body);
        }
        if self.journal(|journal| journal.depth(self.task().id(), MOST_DEPTH))? >= MOST_DEPTH {
            return Err(TaskError::Invalid(format!("`{name}` would be more than {MOST_DEPTH} levels below the root")));
        }
        let count = children.len();
        let children = self.task().queue().checked(children)?;
        let holder = self.task().holder();
        match self.journal(|journal| journal.spawn(&holder, entry, &children, fail_fast))? {
            Kept::Done => Err(self.wait(&format!("waits for {count} children: `{name}`"), no_limit())),
            Kept::Stale => Err(self.stale()),
        }
    }

    /// What the children came to, once all have ended.
    fn gather(&self, name: &str, entry: &Entry, ids: &[u8], fail_fast: bool) -> Result<Arc<[u8]>> {
        let ids: Vec<i64> = self.read(name, entry.number, ids)?;
        let mut has_cancelled = false;
        let has_ended = |status| TaskStatus::from_code(status).is_ok_and(TaskStatus::is_ended);
        let finished = TaskStatus::Finished.code();
        let children = loop {
            let standing = self.journal(|journal| journal.standing(&ids))?;
            let left = standing.iter().filter(|child| !has_ended(child.status)).count();
            if left == 0 {
                let given = standing.iter().filter(|child| child.status == finished);
                // Before they are read: all together they may be more than there is memory for.
                check_length(RESULTS, given.map(|child| child.bytes.unsigned_abs()).sum())?;
                let children = self.journal(|journal| journal.children(&ids))?;
                if children.iter().all(|child| has_ended(child.status)) {
                    break children;
                }
                // One was retried between the two looks.
                continue;
            }
            let failed = |child: &Standing| has_ended(child.status) && child.status != finished;
            let is_over = fail_fast && (standing.len() < ids.len() || standing.iter().any(failed));
            if !is_over || has_cancelled {
                return Err(self.wait(&format!("waits for {left} of {} children: `{name}`", ids.len()), no_limit()));
            }
            let (queue, id) = (self.task().queue(), self.task().id());
            self.task().outlast(|| queue.cancel_children(Some(id), "another child of its parent failed"))?;
            has_cancelled = true;
        };
        let mut found: HashMap<i64, Child> = children.into_iter().map(|child| (child.id, child)).collect();
        let (mut body, mut failures): (_, Vec<Failure>) = (b"[[".to_vec(), Vec::new());
        for (place, id) in ids.iter().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            match given_by(place, found.remove(id)) {
                Ok(value) => body.extend(value),
                Err(failure) => {
                    body.extend_from_slice(b"null");
                    failures.push(failure);
                }
            }
        }
        body.extend_from_slice(b"],");
        body.extend(to_json(&failures).map_err(|why| why.error(RESULTS, "what failed"))?);
        body.push(b']');
        check_size(RESULTS, &body)?;
        let body: Arc<[u8]> = body.into();
        self.keep(Entry { state: State::Done, body: Some(Arc::clone(&body)), ..entry.clone() })?;
        self.journal(|journal| journal.disband(self.task().id()))?;
        Ok(body)
    }
}

/// The end of a child ends the wait, and no time does.
fn no_limit() -> Wait {
    Wait { after: FOR_EVER, ..Wait::default() }
}

/// What a child stored, as JSON, or why there is nothing.
fn given_by(place: usize, child: Option<Child>) -> std::result::Result<Vec<u8>, Failure> {
    let Some(Child { name, status, body, message, .. }) = child else {
        return Err((place, String::new(), String::new(), "it was deleted".into(), false));
    };
    let was_cancelled = status == TaskStatus::Cancelled.code();
    let failure = |reason| (place, name.task_type, name.identifier, reason, was_cancelled);
    if status != TaskStatus::Finished.code() {
        return Err(failure(message.unwrap_or_default()));
    }
    let value = body.unwrap_or_else(|| b"null".to_vec());
    let is_json = serde_json::from_slice::<IgnoredAny>(&value).is_ok();
    if is_json { Ok(value) } else { Err(failure("its response is not JSON".into())) }
}

fn error((_, task_type, identifier, reason, _): Failure) -> TaskError {
    TaskError::Child { task_type, identifier, reason }
}

impl TaskQueue {
    /// Cancels the children of `parent`, then those of every task that failed or was cancelled, so
    /// that grandchildren are cancelled, too. `None`: the latter alone. Returns how many were
    /// cancelled.
    pub(in crate::tasks) fn cancel_children(&self, parent: Option<i64>, reason: &str) -> Result<u64> {
        let from = Statuses::of(TaskStatus::ALL.into_iter().filter(|status| !status.is_ended()));
        let steering = Steering::Cancel { reason: reason.to_owned() };
        let (mut done, mut parent, mut before) = (0, parent, Vec::new());
        loop {
            let orphans = self.engine().journal().orphans(parent, BATCH)?;
            // The same list twice: `steer` passes over a row whose status it can't read. Without
            // this test such rows would keep us here for ever.
            let is_over = orphans.is_empty() || orphans == before;
            // `take`: after the children of `parent` the loop goes on with those of all tasks that
            // failed or were cancelled, the children from just now among them.
            if is_over && parent.take().is_none() {
                return Ok(done);
            }
            if !is_over {
                done += self.engine().steer(&orphans, from, &steering)?;
            }
            before = orphans;
        }
    }
}
