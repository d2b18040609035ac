//! Parks a thread until what it waits for has ended.

use std::sync::Arc;

use super::block::{Blocked, Waiter};
use super::graph::{Edges, any_would_deadlock, refusal, would_deadlock};
use crate::error::{Error, Result};
use crate::executor::core::Core;
use crate::executor::current;
use crate::executor::handle::AsyncRequest;
use crate::executor::request::{AtWork, Head, Observer, Status};
use crate::executor::waits::{Node, Wait};
use crate::sync::interrupt::InterruptibleWait;
use crate::sync::{spin_turn, spin_turns, thread};
use crate::time::Deadline;

/// Waits until `request` has ended.
pub(in crate::executor) fn for_one<T>(request: &AsyncRequest<T>, deadline: Deadline) -> Result<()> {
    if request.is_done() {
        return Ok(());
    }
    for_any(std::slice::from_ref(request), deadline).map(drop)
}

/// Waits until one of `requests` has ended, and says which.
pub(in crate::executor) fn for_any<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<usize> {
    let done = || requests.iter().position(AsyncRequest::is_done);
    if let Some(done) = done() {
        return Ok(done);
    }
    if !deadline.is_zero() {
        if current::is_worker() {
            let wait = Wait::Any(requests.iter().map(AsyncRequest::node).collect());
            let _edges = deadline.is_never().then(|| Edges::enter(wait.clone()));
            any_inside(wait, deadline)?;
        } else {
            park(requests, deadline)?;
        }
    }
    // Once more after time ran out: an end at the last moment is an end.
    done().ok_or(Error::Timeout { limit: deadline.limit(), left: requests.len() as u64 })
}

/// Waits until all of `requests` have ended, and returns the index of the first one that has no
/// value to take.
pub(in crate::executor) fn for_all<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<Option<usize>> {
    let waited = if current::is_worker() { all_inside(requests, deadline) } else { Ok(()) };
    waited.and_then(|()| all_outside(requests, deadline)).map_err(|error| match error {
        Error::Timeout { limit, .. } => {
            let left = requests.iter().filter(|request| !request.is_done()).count();
            Error::Timeout { limit, left: left as u64 }
        }
        error => error,
    })
}

/// As `for_all`, on a thread that runs no request, or once all have ended.
fn all_outside<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<Option<usize>> {
    let mut without_value = None;
    // The last one first: when it has ended, most have, and this thread was woken once.
    for (index, request) in requests.iter().enumerate().rev() {
        for_one(request, deadline)?;
        // Here, while its memory is in the cache.
        if !request.head().has_value() {
            without_value = Some(index);
        }
    }
    Ok(without_value)
}

fn all_inside<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<()> {
    for_all_nodes(requests.iter().filter(|request| !request.is_done()).map(AsyncRequest::node).collect(), deadline)
}

/// Waits, on a thread that is itself running requests, until all of `pending` have ended.
pub(in crate::executor) fn for_all_nodes(pending: Vec<Node>, deadline: Deadline) -> Result<()> {
    if pending.is_empty() {
        return Ok(());
    }
    if deadline.is_zero() {
        return Err(Error::Timeout { limit: deadline.limit(), left: 0 });
    }
    let wait = Wait::All(pending.clone());
    let _edges = deadline.is_never().then(|| Edges::enter(wait.clone()));
    // One thread stands in for the whole wait, and works on all of them.
    let mut inside = Inside::new(wait, deadline);
    if any_would_deadlock(&pending) {
        return Err(refusal(&inside.interruptible));
    }
    for node in pending.iter().rev() {
        inside.park(std::slice::from_ref(node))?;
        if !node.is_done() {
            return Err(Error::Timeout { limit: deadline.limit(), left: 0 });
        }
    }
    Ok(())
}

/// Parks this thread, which runs no request, until one of `requests` has ended or time has run out.
fn park<T>(requests: &[AsyncRequest<T>], deadline: Deadline) -> Result<()> {
    let is_done = || requests.iter().any(AsyncRequest::is_done);
    // A look at many costs more than a look at one; the whole stays short.
    for _ in 0..spin_turns() as usize / requests.len() {
        if is_done() {
            return Ok(());
        }
        spin_turn();
    }
    let _watches: Vec<Watch<'_>> =
        requests.iter().map(|request| Watch::start(request.core(), request.head(), None)).collect();
    // The attempt at a task may run on any thread.
    let interruptible = InterruptibleWait::begin(None);
    while !is_done() {
        if interruptible.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if deadline.is_past() {
            break;
        }
        requests[0].core().park(deadline);
    }
    Ok(())
}

/// Waits on a thread that is itself running requests, until one of those of `wait` has ended or
/// time has run out.
fn any_inside(wait: Wait, deadline: Deadline) -> Result<()> {
    Inside::new(wait.clone(), deadline).park(wait.targets())
}

/// A wait of a thread that is itself running requests.
struct Inside {
    waiter: Option<Arc<Waiter>>,
    /// From the first park on.
    blocked: Option<Blocked>,
    interruptible: InterruptibleWait,
    deadline: Deadline,
}

impl Inside {
    fn new(wait: Wait, deadline: Deadline) -> Inside {
        let waiter = Waiter::new(wait);
        let interruptible = InterruptibleWait::begin(waiter.clone().map(|waiter| waiter as _));
        Inside { waiter, blocked: None, interruptible, deadline }
    }

    /// Parks until one of `targets`, which are a part of the wait, has ended or time has run out.
    fn park(&mut self, targets: &[Node]) -> Result<()> {
        let is_done = || targets.iter().any(Node::is_done);
        let watch = |target| Watch::of(target, self.waiter.as_ref());
        let _watches: Vec<Watch<'_>> = targets.iter().map(watch).collect();
        while !is_done() {
            // Before the deadline, so that a cancelled operation that waits again and again for a
            // moment is told.
            if self.interruptible.is_interrupted() {
                return Err(Error::Interrupted);
            }
            if self.deadline.is_past() {
                break;
            }
            // Each time anew, for what this wait needs may come to wait for this operation: a
            // request whose time comes enters its lane only then.
            if would_deadlock(targets) {
                return Err(refusal(&self.interruptible));
            }
            match (&self.blocked, &self.waiter) {
                (None, Some(waiter)) => {
                    self.blocked = Blocked::enter(Some(waiter));
                    continue;
                }
                (Some(blocked), _) => {
                    blocked.look_again(targets)?;
                    if is_done() {
                        break;
                    }
                }
                (None, None) => {}
            }
            targets[0].core.park(self.deadline);
        }
        Ok(())
    }
}

/// Runs the request on this thread, and first what is ahead of it on its key; what runs elsewhere
/// is waited for. Returns when it has ended, or when it can't from here: behind the caller's own
/// request it stays accepted.
pub(in crate::executor) fn run_here(target: &Node) {
    let (head, core) = (target.job.head(), &target.core);
    let _watch = Watch::start(core, head, None);
    while !target.is_done() {
        let runnable = match head.status() {
            Status::Queued => Some(target.job.clone()),
            Status::Deferred => core.order.queued_ahead(head),
            _ => None,
        };
        match runnable {
            Some(job) if current::may_nest() => {
                core.run_now(job);
                core.pool.note_stale();
            }
            // Not on this stack, which is deep enough, or because another thread has to act first.
            _ if current::is_worker() => {
                let wait = Wait::Any(vec![target.clone()]);
                let _edges = Edges::enter(wait.clone());
                let _ = any_inside(wait, Deadline::start(None));
                return;
            }
            // A thread that unwinds parks until the pool has run it.
            _ => thread::park(),
        }
    }
}

/// Has this thread unparked when the request ends, or is queued, for as long as it lives.
pub(super) struct Watch<'a> {
    core: &'a Arc<Core>,
    head: &'a Head,
}

impl<'a> Watch<'a> {
    fn start(core: &'a Arc<Core>, head: &'a Head, at_work: Option<Arc<dyn AtWork>>) -> Watch<'a> {
        // If it has ended there is nothing to be told: the caller looks once more before it parks.
        let _ = core.observers.register(head, Observer::Thread(thread::current(), at_work));
        Watch { core, head }
    }

    pub(super) fn of(target: &'a Node, waiter: Option<&Arc<Waiter>>) -> Watch<'a> {
        Watch::start(&target.core, target.job.head(), waiter.map(|waiter| waiter.clone() as _))
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.head.is_done() {
            let me = thread::current().id();
            // One of them: an outer wait of this thread on the same request keeps its own.
            let mine = |observer: &Observer| matches!(observer, Observer::Thread(thread, _) if thread.id() == me);
            self.core.observers.remove(self.head, mine);
        }
    }
}
