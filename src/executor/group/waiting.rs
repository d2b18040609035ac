//! Waits for a scope to have nothing unfinished.

use std::sync::Arc;

use super::cancel_scope::CancelScope;
use crate::error::{Error, Result};
use crate::executor::current;
use crate::executor::on_cancel::shield;
use crate::executor::request::Status;
use crate::executor::wait::block::Blocked;
use crate::executor::wait::graph::{Edges, any_would_deadlock, refusal};
use crate::executor::wait::park;
use crate::executor::waits::{Node, Wait};
use crate::sync::interrupt::InterruptibleWait;
use crate::sync::{Ordering, thread};
use crate::time::Deadline;

impl CancelScope {
    /// Waits until it isn't active.
    pub(super) fn wait(self: &Arc<CancelScope>, deadline: Deadline) -> Result<()> {
        loop {
            // Before the looks that follow, so that none of what changes after them is missed.
            let waiting = Waiting::enter(self);
            if self.lock().active == 0 {
                return Ok(());
            }
            if deadline.is_past() {
                return Err(Error::Timeout { limit: deadline.limit(), left: self.unfinished() });
            }
            if !current::is_worker() {
                // The attempt at a task may run on any thread.
                let interruptible = InterruptibleWait::begin(None);
                if interruptible.is_interrupted() {
                    return Err(Error::Interrupted);
                }
                waiting.park(deadline, Some(&interruptible));
                continue;
            }
            let (accepted, on_their_way) = self.unfinished_nodes();
            if accepted.is_empty() {
                self.wait_for_news(&waiting, on_their_way, deadline)?;
            } else {
                match park::for_all_nodes(accepted, deadline) {
                    Ok(()) | Err(Error::Timeout { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Waits until it isn't active, whatever happens, unless that is when this thread's operation
    /// ends.
    pub(super) fn wait_for_end(self: &Arc<CancelScope>) {
        let forever = Deadline::start(None);
        // Not interrupted: nothing of a group may outlive it, and all in it was cancelled. Without
        // threads to lend its place to, this one waits in its place.
        if let Err(Error::Spawn(_)) = shield(|| self.wait(forever)) {
            loop {
                let waiting = Waiting::enter(self);
                if self.lock().active == 0 {
                    break;
                }
                waiting.park(forever, None);
            }
        }
    }

    /// Waits, inside an operation, for requests that are just being submitted, or whose end is just
    /// being told.
    fn wait_for_news(&self, waiting: &Waiting<'_>, on_their_way: Vec<Node>, deadline: Deadline) -> Result<()> {
        let wait = Wait::All(on_their_way);
        let _edges = deadline.is_never().then(|| Edges::enter(wait.clone()));
        let blocked = Blocked::enter_any();
        let interruptible = InterruptibleWait::begin(blocked.as_ref().map(Blocked::place));
        // The submitter may run one of them itself before the submission returns.
        if any_would_deadlock(wait.targets()) {
            return Err(refusal(&interruptible));
        }
        waiting.park(deadline, Some(&interruptible));
        if interruptible.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The requests in it, and in the scopes in it, that have not ended: what the executors have,
    /// and what is being submitted.
    fn unfinished_nodes(self: &Arc<CancelScope>) -> (Vec<Node>, Vec<Node>) {
        let (mut accepted, mut on_their_way) = (Vec::new(), Vec::new());
        self.visit(|state| {
            for entry in state.members.values() {
                let Some(job) = entry.job.clone().filter(|job| !job.head().is_done()) else { continue };
                let nodes = if entry.accepted || job.head().status() == Status::Running {
                    &mut accepted
                } else {
                    &mut on_their_way
                };
                nodes.push(Node { job, core: entry.core.clone() });
            }
        });
        (accepted, on_their_way)
    }
}

/// This thread is unparked when a scope has become idle, or has something new to wait for.
struct Waiting<'a>(&'a CancelScope);

impl Waiting<'_> {
    fn enter(scope: &CancelScope) -> Waiting<'_> {
        scope.lock().waiting.push(thread::current());
        scope.watchers.fetch_add(1, Ordering::Relaxed);
        Waiting(scope)
    }

    fn park(&self, deadline: Deadline, interruptible: Option<&InterruptibleWait>) {
        let me = thread::current().id();
        let is_told = || self.0.lock().waiting.iter().all(|thread| thread.id() != me);
        let is_interrupted = || interruptible.is_some_and(InterruptibleWait::is_interrupted);
        while !is_told() && !is_interrupted() && !deadline.is_past() {
            self.0.core.park(deadline);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
        let me = thread::current().id();
        self.0.lock().waiting.retain(|thread| thread.id() != me);
    }
}
