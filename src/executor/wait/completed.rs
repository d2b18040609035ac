//! Results in the order in which they come.

use std::sync::Arc;
use std::time::Duration;

use super::block::{Blocked, Waiter};
use super::graph::{Edges, would_deadlock};
use super::park::Watch;
use crate::error::{Error, Result};
use crate::executor::current;
use crate::executor::handle::AsyncRequest;
use crate::executor::request::{Inbox, Observer};
use crate::executor::waits::{Node, Wait};
use crate::sync::{spin_turn, spin_turns};
use crate::time::Deadline;

/// Hands out the results of `requests` as they come, each with its index, each request once.
///
/// `timeout` counts from this call and bounds the whole iteration; `None` is no limit. When it has
/// passed, each unfinished request comes as [`Error::Timeout`], and its handle is still good. Inside an
/// operation it waits as [`AsyncRequest::wait`] does.
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
    let inbox = Inbox::new();
    for (index, request) in requests.iter().enumerate() {
        let observer = Observer::Inbox(inbox.clone(), index);
        if request.core().observers.register(request.head(), observer).is_err() {
            inbox.put(index);
        }
    }
    AsCompleted {
        requests,
        inbox,
        deadline: Deadline::start(timeout),
        pending: vec![true; requests.len()],
        left: requests.len(),
        first_pending: 0,
    }
}

struct AsCompleted<'a, T> {
    requests: &'a [AsyncRequest<T>],
    inbox: Arc<Inbox>,
    deadline: Deadline,
    /// By index: not handed out yet.
    pending: Vec<bool>,
    left: usize,
    /// All before it were handed out.
    first_pending: usize,
}

impl<T> Iterator for AsCompleted<'_, T> {
    type Item = (usize, Result<T>);

    fn next(&mut self) -> Option<(usize, Result<T>)> {
        if self.left == 0 {
            return None;
        }
        let (index, result) = match self.wait() {
            Ok(index) => (index, self.requests[index].try_take().unwrap_or(Err(Error::ResultTaken))),
            Err(error) => (self.first_pending(), Err(error)),
        };
        self.pending[index] = false;
        self.left -= 1;
        Some((index, result))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> Drop for AsCompleted<'_, T> {
    fn drop(&mut self) {
        // What is unfinished, or came as a timeout, still has this iteration among its observers.
        for request in self.requests.iter().filter(|request| !request.is_done()) {
            let mine = |other: &Observer| matches!(other, Observer::Inbox(inbox, _) if Arc::ptr_eq(inbox, &self.inbox));
            request.core().observers.remove(request.head(), mine);
        }
    }
}

impl<T> AsCompleted<'_, T> {
    /// The index of the next one that has ended.
    fn wait(&self) -> Result<usize> {
        // One that came as a timeout or an error may end later: it is not handed out again.
        let take = || std::iter::from_fn(|| self.inbox.take()).find(|index| self.pending[*index]);
        if let Some(index) = take() {
            return Ok(index);
        }
        if self.deadline.is_zero() {
            return Err(self.timeout());
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
        let pending: Vec<Node> = if inside { self.pending_nodes() } else { Vec::new() };
        let wait = Wait::Any(pending.clone());
        let _edges = (inside && self.deadline.is_never()).then(|| Edges::enter(wait.clone()));
        let waiter = if inside { Waiter::new(wait) } else { None };
        let _watches: Vec<Watch<'_>> = pending.iter().map(|target| Watch::of(target, waiter.as_ref())).collect();
        let mut blocked = None;
        loop {
            if let Some(index) = take() {
                return Ok(index);
            }
            if self.deadline.is_past() {
                return Err(self.timeout());
            }
            if inside {
                // An end can be seen a moment before the inbox is told of it, and then nothing is stuck.
                if pending.iter().all(|node| !node.is_done()) && would_deadlock(&pending) {
                    return Err(Error::WouldDeadlock);
                }
                match (&blocked, &waiter) {
                    (None, Some(_)) => blocked = Blocked::enter(waiter.as_ref()),
                    (Some(blocked), _) => blocked.look_again(&pending)?,
                    (None, None) => {}
                }
            }
            if let Some(index) = self.inbox.park(self.deadline.at()).filter(|index| self.pending[*index]) {
                return Ok(index);
            }
        }
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

    fn timeout(&self) -> Error {
        Error::Timeout { limit: self.deadline.limit(), left: self.left as u64 }
    }
}
