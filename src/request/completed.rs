//! Results in the order in which they come.

use std::collections::VecDeque;
use std::sync::Arc;

use super::graph::Node;
use super::observe::{self, Observer, register};
use super::state::Status;
use super::{AsyncRequest, current, wait};
use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, spin_turn, spin_turns};
use crate::time::Deadline;
use std::time::Duration;

/// Hands out the results of `requests` as they come, each with its index, each request once.
///
/// `timeout` counts from this call and bounds the whole iteration; `None` is no limit. When it has passed, whatever is
/// unfinished comes as [`Error::Timeout`], and its handle is still good. Inside an operation the iterator runs queued
/// requests itself, as every wait does.
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
    let inbox = Arc::new(Inbox { ended: Mutex::new(VecDeque::new()), reader: Mutex::new(None) });
    for (index, request) in requests.iter().enumerate() {
        if register(request.job(), Observer::Inbox(inbox.clone(), index)).is_err() {
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
        first_unstarted: 0,
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
    /// All before it were seen started, by an iteration inside an operation.
    first_unstarted: usize,
}

/// The indices of ended requests, in the order in which they ended.
pub(super) struct Inbox {
    ended: Mutex<VecDeque<usize>>,
    reader: Mutex<Option<Thread>>,
}

impl Inbox {
    pub(super) fn put(&self, index: usize) {
        self.ended.lock().push_back(index);
        let reader = self.reader.lock().take();
        if let Some(reader) = reader {
            reader.unpark();
        }
    }

    fn take(&self) -> Option<usize> {
        self.ended.lock().pop_front()
    }

    /// The next index, or `None` when time has run out.
    fn wait(&self, deadline: Deadline) -> Option<usize> {
        for _ in 0..spin_turns() {
            let ended = self.take();
            if ended.is_some() {
                return ended;
            }
            spin_turn();
        }
        loop {
            // Registered before the last look: an end after it finds this thread.
            *self.reader.lock() = Some(thread::current());
            let ended = self.take();
            if ended.is_some() || deadline.is_past() {
                return ended;
            }
            thread::park_until(deadline.at());
        }
    }
}

impl<T> Iterator for AsCompleted<'_, T> {
    type Item = (usize, Result<T>);

    fn next(&mut self) -> Option<(usize, Result<T>)> {
        if self.left == 0 {
            return None;
        }
        let next = loop {
            let next = match self.inbox.take() {
                Some(index) => Ok(index),
                None if current::is_worker() => self.help(),
                None => self.inbox.wait(self.deadline).ok_or_else(|| self.timeout()),
            };
            // An index that `help` found by itself comes in the inbox once more.
            if !matches!(next, Ok(index) if !self.pending[index]) {
                break next;
            }
        };
        let (index, result) = match next {
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
        // Whatever is unfinished, or came as a timeout, still has this iteration among its observers.
        let unfinished = self.requests.iter().filter(|request| !request.is_done());
        unfinished.for_each(|request| observe::forget(request.job(), &self.inbox));
    }
}

impl<T> AsCompleted<'_, T> {
    /// Inside an operation: runs what is queued, and waits only for what runs elsewhere.
    fn help(&mut self) -> Result<usize> {
        if self.deadline.is_zero() {
            return Err(self.timeout());
        }
        while self.first_unstarted < self.requests.len() && !self.deadline.is_past() {
            let request = &self.requests[self.first_unstarted];
            match request.status() {
                Status::Deferred => break,
                Status::Queued => request.host.run_now(&request.core.clone().as_job()),
                _ => {}
            }
            self.first_unstarted += 1;
            if let Some(index) = self.inbox.take() {
                return Ok(index);
            }
        }
        let pending: Vec<usize> =
            (self.first_pending()..self.requests.len()).filter(|index| self.pending[*index]).collect();
        let nodes: Vec<Node> = pending.iter().map(|index| self.requests[*index].node()).collect();
        wait::help(&nodes, self.deadline)?;
        // Its end can be seen a moment before the inbox is told.
        let ended = pending.into_iter().find(|index| self.requests[*index].is_done());
        ended.ok_or_else(|| self.timeout())
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
