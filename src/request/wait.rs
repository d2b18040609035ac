//! Waits over one request and over many, on any thread.
//!
//! A thread of its own spins for a moment, then parks. A thread that is running a request doesn't just park, because it
//! may be the one that the awaited request needs: it runs what is queued and stands in the way, and parks only for what
//! is running elsewhere, once it is sure that the wait can end (`graph`).

use std::sync::Arc;

use super::graph::{self, Edges, Node};
use super::observe::Watch;
use super::state::{Job, Status};
use super::{AsyncRequest, current};
use crate::error::{Error, Result};
use crate::sync::{spin_turn, spin_turns, thread};
use crate::time::Deadline;

/// Waits until `request` has ended.
pub(super) fn for_one<T>(request: &AsyncRequest<T>, deadline: Deadline) -> Result<()> {
    if request.is_done() {
        return Ok(());
    }
    for_any(std::slice::from_ref(request), deadline).map(drop)
}

/// Waits until one of `requests` has ended, and says which.
pub(super) fn for_any<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<usize> {
    let done = || requests.iter().position(AsyncRequest::is_done);
    if let Some(done) = done() {
        return Ok(done);
    }
    if !deadline.is_zero() {
        if current::is_worker() {
            let nodes: Vec<Node> = requests.iter().map(AsyncRequest::node).collect();
            help(&nodes, deadline)?;
        } else {
            park(requests, deadline);
        }
    }
    // Once more after time ran out: an end at the last moment is an end.
    done().ok_or(Error::Timeout { limit: deadline.limit(), left: requests.len() as u64 })
}

/// Waits until all of `requests` have ended, and returns the index of the first one that has no value to take.
pub(super) fn for_all<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<Option<usize>> {
    let mut failed = None;
    let waited = if current::is_worker() {
        if !deadline.is_zero() {
            let pending = requests.iter().filter(|request| !request.is_done());
            if graph::any_would_deadlock(&pending.map(AsyncRequest::node).collect::<Vec<_>>()) {
                return Err(Error::WouldDeadlock);
            }
        }
        // In their order, which is that of the queue, because they may all be run right here.
        requests.iter().enumerate().try_for_each(|(index, request)| {
            for_one(request, deadline)?;
            if failed.is_none() && !request.job().head().has_value() {
                failed = Some(index);
            }
            Ok(())
        })
    } else {
        // The last one first: when it has ended, most have, and this thread was woken once.
        requests.iter().enumerate().rev().try_for_each(|(index, request)| {
            // Looked at once where that does: with many, each look is a cache miss.
            let head = request.job().head();
            if !head.has_value() {
                for_one(request, deadline)?;
                if !head.has_value() {
                    failed = Some(index);
                }
            }
            Ok(())
        })
    };
    waited.map(|()| failed).map_err(|error| match error {
        Error::Timeout { limit, .. } => {
            let left = requests.iter().filter(|request| !request.is_done()).count();
            Error::Timeout { limit, left: left as u64 }
        }
        error => error,
    })
}

/// Parks this thread until one of `requests` has ended or time has run out.
fn park<T>(requests: &[AsyncRequest<T>], deadline: Deadline) {
    let is_done = || requests.iter().any(AsyncRequest::is_done);
    // A look at many costs more than a look at one; the whole stays short.
    for _ in 0..spin_turns() as usize / requests.len() {
        if is_done() {
            return;
        }
        spin_turn();
    }
    let _watches: Vec<_> = requests.iter().map(|request| Watch::start(request.job())).collect();
    while !is_done() && !deadline.is_past() {
        thread::park_until(deadline.at());
    }
}

/// Waits on a thread that is itself running requests, until one of `targets` has ended or time has run out.
pub(super) fn help(targets: &[Node], deadline: Deadline) -> Result<()> {
    let _edges = deadline.is_never().then(|| Edges::enter(targets));
    if graph::would_deadlock(targets) {
        return Err(Error::WouldDeadlock);
    }
    let mut paths: Vec<Path> = targets.iter().map(|target| Path(vec![target.clone()])).collect();
    let mut watched: Vec<Watch<Arc<dyn Job>>> = Vec::new();
    while !targets.iter().any(Node::is_done) && !deadline.is_past() {
        if let Some(runnable) = paths.iter_mut().find_map(Path::runnable) {
            runnable.host.run_now(&runnable.job);
            continue;
        }
        // Nothing to run: each path ends in what runs elsewhere, or waits for its time.
        let blockers = || paths.iter().filter_map(|path| path.0.last()).chain(targets).map(|node| &node.job);
        if blockers().count() == watched.len() && blockers().zip(&watched).all(|(job, watch)| watch.is_on(&**job)) {
            // What others do meanwhile may close a cycle, and then it is their wait that is refused.
            thread::park_until(deadline.at());
        } else {
            // Look again now that no change can be missed. What is in the way now may be this thread's own.
            watched = blockers().cloned().map(Watch::start).collect();
            if graph::would_deadlock(targets) {
                return Err(Error::WouldDeadlock);
            }
        }
    }
    Ok(())
}

/// The way from a target to what has to be done first: each waits for the next. Kept from look to look, so that a long
/// way is walked once.
struct Path(Vec<Node>);

impl Path {
    /// What can be run now so that the target gets on.
    fn runnable(&mut self) -> Option<Node> {
        loop {
            let last = self.0.last()?;
            match last.job.head().status() {
                Status::Queued => return Some(last.clone()),
                Status::Running => return None,
                Status::Deferred => {
                    let obstacle = last.obstacle()?;
                    if obstacle.is_done() {
                        // It has ended, and those that it held back are being told.
                        return None;
                    }
                    self.0.push(obstacle);
                }
                _ => drop(self.0.pop()),
            }
        }
    }
}
