//! Results in the order in which they come.

use std::sync::Arc;
use std::time::Duration;

use super::block::{Blocked, Waiter};
use super::graph::{Edges, refusal, would_deadlock};
use super::park::Watch;
use crate::error::{Error, Result};
use crate::executor::core::Core;
use crate::executor::current;
use crate::executor::handle::AsyncRequest;
use crate::executor::request::{Head, Inbox, Observer};
use crate::executor::waits::{Node, Wait};
use crate::sync::interrupt::InterruptibleWait;
use crate::sync::{spin_turn, spin_turns};
use crate::time::Deadline;

/// Hands out the results of `requests` as they come, each with its index, each request once.
///
/// `timeout` counts from this call and bounds the whole iteration; `None` means no limit. When it
/// has passed, each unfinished request comes as [`Error::Timeout`], and its handle is still good.
/// Inside an operation it waits as [`AsyncRequest::wait`] does; if that operation is cancelled,
/// what has not ended by then comes as [`Error::Interrupted`], and is good as well.
///
/// ```
/// use fulmar::{Executor, as_completed};
///
/// let executor = Executor::builder().threads(2).build()?;
/// let requests = executor.submit_many(&std::sync::Arc::new(10), |ten: &u64, n: u64| Ok::<_, fulmar::Error>(ten * n), false, 1..=3)?;
/// let sum: u64 = as_completed(&requests, None).map(|(_index, result)| result).sum::<Result<u64, _>>()?;
/// assert_eq!(sum, 60);
/// # Ok::<(), fulmar::Error>(())
/// ```
pub fn as_completed<T>(
    requests: &[AsyncRequest<T>],
    timeout: impl Into<Option<Duration>>,
) -> impl Iterator<Item = (usize, Result<T>)> {
    let take = |index: usize| requests[index].try_take().unwrap_or(Err(Error::ResultTaken));
    ends_of(requests, timeout.into()).map(move |(index, ended)| (index, ended.and_then(|()| take(index))))
}

/// The indices of `requests` as they end.
pub(in crate::executor) fn ends_of<R: Awaitable>(
    requests: &[R],
    timeout: Option<Duration>,
) -> impl Iterator<Item = (usize, Result<()>)> {
    Completions::of(requests, Deadline::start(timeout))
}

/// What can be waited for, whatever the type of its result.
pub(in crate::executor) trait Awaitable {
    fn core(&self) -> &Arc<Core>;
    fn head(&self) -> &Head;
    fn node(&self) -> Node;
}

impl<T> Awaitable for AsyncRequest<T> {
    fn core(&self) -> &Arc<Core> {
        AsyncRequest::core(self)
    }

    fn head(&self) -> &Head {
        AsyncRequest::head(self)
    }

    fn node(&self) -> Node {
        AsyncRequest::node(self)
    }
}

impl<R: Awaitable + ?Sized> Awaitable for &R {
    fn core(&self) -> &Arc<Core> {
        (**self).core()
    }

    fn head(&self) -> &Head {
        (**self).head()
    }

    fn node(&self) -> Node {
        (**self).node()
    }
}

/// The requests that have ended, as they do so, each once, by their index; with an error those that
/// are not waited for any longer.
pub(super) struct Completions<'a, R: Awaitable> {
    requests: &'a [R],
    inbox: Arc<Inbox>,
    deadline: Deadline,
    /// By index: not handed out yet.
    pending: Vec<bool>,
    left: usize,
    /// All before it were handed out.
    first_pending: usize,
}

impl<R: Awaitable> Iterator for Completions<'_, R> {
    type Item = (usize, Result<()>);

    fn next(&mut self) -> Option<(usize, Result<()>)> {
        if self.left == 0 {
            return None;
        }
        let (index, ended) = match self.wait() {
            Ok(index) => (index, Ok(())),
            Err(error) => (self.first_pending(), Err(error)),
        };
        self.pending[index] = false;
        self.left -= 1;
        Some((index, ended))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: Awaitable> Drop for Completions<'_, R> {
    fn drop(&mut self) {
        // What is unfinished, or came as a timeout, still has this iteration among its observers.
        for request in self.requests.iter().filter(|request| !request.head().is_done()) {
            let mine = |other: &Observer| matches!(other, Observer::Inbox(inbox, _) if Arc::ptr_eq(inbox, &self.inbox));
            request.core().observers.remove(request.head(), mine);
        }
    }
}

impl<'a, R: Awaitable> Completions<'a, R> {
    pub(super) fn of(requests: &'a [R], deadline: Deadline) -> Completions<'a, R> {
        let inbox = Inbox::new();
        for (index, request) in requests.iter().enumerate() {
            let observer = Observer::Inbox(inbox.clone(), index);
            if request.core().observers.register(request.head(), observer).is_err() {
                inbox.put(index);
            }
        }
        let (pending, left) = (vec![true; requests.len()], requests.len());
        Completions { requests, inbox, deadline, pending, left, first_pending: 0 }
    }

    /// The index of the next one that has ended.
    fn wait(&self) -> Result<usize> {
        let is_pending = |index: usize| self.pending[index];
        next_ended(&self.inbox, self.deadline, is_pending, || self.pending_nodes(), self.left as u64)
    }

    fn pending_nodes(&self) -> Vec<Node> {
        let pending = self.requests.iter().zip(&self.pending).filter(|(_, pending)| **pending);
        pending.map(|(request, _)| request.node()).collect()
    }

    fn first_pending(&mut self) -> usize {
        while self.pending.get(self.first_pending) == Some(&false) {
            self.first_pending += 1;
        }
        self.first_pending
    }
}

/// Waits until `inbox` has the index of a request that has ended. `nodes` are those that it waits
/// for, of which there are `left`, and `is_pending` says of an index whether it is one of theirs:
/// what came as a timeout or an error may end later, and isn't handed out again.
pub(in crate::executor) fn next_ended(
    inbox: &Inbox,
    deadline: Deadline,
    is_pending: impl Fn(usize) -> bool,
    nodes: impl FnOnce() -> Vec<Node>,
    left: u64,
) -> Result<usize> {
    let take = || std::iter::from_fn(|| inbox.take()).find(|index| is_pending(*index));
    let timeout = || Error::Timeout { limit: deadline.limit(), left };
    if let Some(index) = take() {
        return Ok(index);
    }
    if deadline.is_zero() {
        return Err(timeout());
    }
    let inside = current::is_worker();
    if !inside {
        for _ in 0..spin_turns() {
            spin_turn();
            if let Some(index) = take() {
                return Ok(index);
            }
        }
    }
    let pending: Vec<Node> = if inside { nodes() } else { Vec::new() };
    let wait = Wait::Any(pending.clone());
    let _edges = (inside && deadline.is_never()).then(|| Edges::enter(wait.clone()));
    let waiter = if inside { Waiter::new(wait) } else { None };
    let interruptible = InterruptibleWait::begin(waiter.clone().map(|waiter| waiter as _));
    let _watches: Vec<Watch<'_>> = pending.iter().map(|target| Watch::of(target, waiter.as_ref())).collect();
    let mut blocked = None;
    loop {
        if let Some(index) = take() {
            return Ok(index);
        }
        if interruptible.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if deadline.is_past() {
            return Err(timeout());
        }
        if inside {
            // An end can be seen a moment before the inbox is told of it, and then nothing is
            // stuck.
            if pending.iter().all(|node| !node.is_done()) && would_deadlock(&pending) {
                return Err(refusal(&interruptible));
            }
            match (&blocked, &waiter) {
                (None, Some(_)) => blocked = Blocked::enter(waiter.as_ref()),
                (Some(blocked), _) => blocked.look_again(&pending)?,
                (None, None) => {}
            }
        }
        if let Some(index) = inbox.park(deadline.at()).filter(|index| is_pending(*index)) {
            return Ok(index);
        }
    }
}
