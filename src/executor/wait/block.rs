//! A pool's thread that blocks in a wait, and the thread that stands in for it.
//!
//! The waiting operation never runs another one on its own stack, so a time limit holds, a lock or
//! a thread-local that it has borrowed stays its own, and it sees the first end first. Instead, its
//! thread no longer counts as at work, and the pool lets another one work in its place. That one
//! runs what the operation waits for before it takes from the queue, so that operations that wait
//! for their parts don't fill the process with threads that all wait. The thread counts as at work
//! again from the moment in which its wait is over, not only when the system has woken it: or the
//! stand-in would take the next operation from the queue, which waits for its own part, and so on.
//!
//! If the system refuses such a thread and no other comes, the waiting thread runs what it waits
//! for itself, `NESTING` deep at most.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::executor::current::{self, Worker};
use crate::executor::pool::Awaited;
use crate::executor::request::{AtWork, Status};
use crate::executor::waits::{Node, Wait};
use crate::sync::blocking::Lent;
use crate::sync::{AtomicBool, Ordering};

/// A wait of this thread, which can be blocked in it.
pub(in crate::executor) struct Waiter {
    worker: Worker,
    wait: Wait,
    /// Whether the thread doesn't count as at work.
    blocked: AtomicBool,
    awaited: Option<Arc<Awaited>>,
}

impl Waiter {
    /// `None` on a thread that isn't a pool's: nothing counts it.
    pub(in crate::executor) fn new(wait: Wait) -> Option<Arc<Waiter>> {
        let worker = current::worker()?;
        let targets = wait.targets();
        // What waits for a thread of another executor is that one's affair.
        let own = targets.iter().filter(|target| Arc::ptr_eq(&target.core, &worker.core));
        let own: Vec<_> = own.filter(|target| !target.is_done()).map(|target| target.job.clone()).collect();
        let awaited = (!own.is_empty()).then(|| Awaited::new(own));
        Some(Arc::new(Waiter { worker, wait, blocked: AtomicBool::new(false), awaited }))
    }

    fn block(&self, awaited: Option<Arc<Awaited>>) {
        let core = &self.worker.core;
        core.act(core.pool.block(&self.worker.seat, &self.blocked, awaited));
    }

    fn unblock(&self) {
        self.worker.core.pool.unblock(&self.worker.seat, &self.blocked, &self.awaited);
    }
}

impl AtWork for Waiter {
    fn come_back(&self) {
        if self.wait.is_over() {
            self.unblock();
        }
    }
}

/// For waits of the lower floors, whose end only their own callers know.
impl Lent for Waiter {
    fn lend(&self) {
        // A poll in the same operation may have let another thread work in this one's place
        // already.
        if !current::is_lent() {
            self.block(None);
        }
    }

    fn come_back(&self) {
        self.unblock();
    }
}

/// The place of this thread, if it runs an operation.
pub(in crate::executor) fn place() -> Option<Arc<dyn Lent>> {
    if !current::is_worker() {
        return None;
    }
    Waiter::new(Wait::Any(Vec::new())).map(|waiter| waiter as Arc<dyn Lent>)
}

/// This thread doesn't count as at work for as long as this lives, or until its wait is over.
pub(crate) struct Blocked(Arc<Waiter>);

impl Blocked {
    /// For a wait for something else than requests.
    pub(crate) fn enter_any() -> Option<Blocked> {
        Blocked::enter(Waiter::new(Wait::Any(Vec::new())).as_ref())
    }

    pub(in crate::executor) fn enter(waiter: Option<&Arc<Waiter>>) -> Option<Blocked> {
        let waiter = waiter?;
        if !current::is_lent() {
            waiter.block(waiter.awaited.clone());
        } else if let Some(awaited) = &waiter.awaited {
            // A poll in the same operation has let another thread work in this one's place already.
            let core = &waiter.worker.core;
            core.act(core.pool.offer(awaited));
        }
        Some(Blocked(waiter.clone()))
    }

    /// For a cancel, from which on this thread counts as at work again.
    pub(in crate::executor) fn place(&self) -> Arc<dyn Lent> {
        self.0.clone()
    }

    /// Lets another thread work in this one's place until the current operation ends, first of all
    /// on `target`: the operation polls it, and is about to park this thread in a way unknown here.
    pub(in crate::executor) fn lend(target: &Node) {
        let Some(worker) = current::worker() else { return };
        let core = &worker.core;
        // One of another executor may need this one's thread as well, but can't be run on it.
        let is_own = Arc::ptr_eq(&target.core, core);
        let is_first = !current::is_lent();
        let Some(awaited) = current::lend(&target.job, is_own) else { return };
        if is_first {
            core.act(core.pool.block(&worker.seat, &worker.lent, is_own.then_some(awaited)));
        } else if is_own {
            core.act(core.pool.offer(&awaited));
        }
    }

    /// Looks again, after a wake-up, at what can be done for `targets`.
    pub(in crate::executor) fn look_again(&self, targets: &[Node]) -> Result<()> {
        let Some(awaited) = &self.0.awaited else { return Ok(()) };
        let core = &self.0.worker.core;
        if targets.iter().any(|target| target.job.head().status() == Status::Queued) {
            core.act(core.pool.offer(awaited));
        }
        while core.pool.is_unattended(awaited) {
            let Some(job) = awaited.next(|job| core.order.queued_ahead(job.head())) else { break };
            // What lies with a scope can't be run elsewhere than on its threads.
            if !current::may_nest() || core.keeper.is_some() {
                let refused = "no thread could be started that runs what this operation waits for";
                return Err(Error::Spawn(io::Error::other(refused)));
            }
            let was_blocked = self.0.blocked.load(Ordering::Relaxed);
            self.0.unblock();
            core.run_now(job);
            if was_blocked {
                self.0.block(None);
            }
        }
        Ok(())
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let waiter = &self.0;
        if let Some(awaited) = &waiter.awaited {
            awaited.close();
        }
        waiter.unblock();
    }
}
