//! Work that can be cancelled by itself, while the request around it goes on: a step of a batch,
//! the attempt at a task.
//!
//! Inside of it [`is_cancelled`](super::is_cancelled) and [`on_cancel`](super::on_cancel) are about
//! this work as well as about the request, if there is one. A request that begins on the same stack
//! hides it, and so does [`shield`](super::shield). Work inside other work, such as a step of the
//! attempt, is told to stop when that is.
//!
//! Promises: a hook is called once at most, and never after the work's end. No cancel is missed,
//! for the flag, the hooks and the waits change under one lock: what is entered before the cancel
//! is found by it, and what is entered after it finds the flag.

// Loom's thread-locals know no `const`.
#![allow(clippy::missing_const_for_thread_local)]

use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;

use super::current::depth;
use super::interrupts::{Hook, Task, Wait, wake};
use super::request::Head;
use super::waits::Stoppable;
use crate::panics;
use crate::sync::blocking::Lent;
use crate::sync::{AtomicBool, Mutex, Ordering, thread_local};

thread_local! {
    /// What this thread has begun, the innermost last.
    static ENTERED: RefCell<Vec<Entered>> = RefCell::new(Vec::new());
}

struct Entered {
    /// How many requests this thread ran when it began.
    depth: usize,
    /// `None` hides what is further out.
    work: Option<Arc<Interruptible>>,
}

pub(crate) struct Interruptible {
    /// A copy of what stands behind the lock, for the many looks.
    is_told: AtomicBool,
    blocked: Mutex<Blocked>,
}

/// In what the work is blocked, as in `interrupts`.
#[derive(Clone, Default)]
struct Blocked {
    hooks: Vec<Arc<Hook>>,
    wait: Option<Wait>,
    tasks: Vec<Task>,
    /// Work that has begun inside of this, where its thread is then.
    inner: Option<Arc<Interruptible>>,
}

impl Blocked {
    fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.wait.is_none() && self.tasks.is_empty()
    }
}

/// What ends the calls and waits of work that was cancelled. Hooks and wakers are the user's, so
/// call them under no lock.
#[must_use = "what is blocked goes on until it is interrupted"]
pub(crate) struct Told(Vec<Blocked>);

impl Told {
    /// Wakes the work's thread, and calls its hooks, the latest first, for that is where it is.
    pub(crate) fn interrupt(&self) {
        for Blocked { hooks, wait, tasks, .. } in &self.0 {
            wait.iter().for_each(Wait::interrupt);
            wake(tasks.clone());
            hooks.iter().rev().for_each(|hook| hook.call());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Blocked::is_empty)
    }
}

impl Stoppable for Interruptible {
    fn is_told(&self) -> bool {
        Interruptible::is_told(self)
    }
}

impl Interruptible {
    pub(crate) fn new() -> Arc<Interruptible> {
        Arc::new(Interruptible { is_told: AtomicBool::new(false), blocked: Mutex::new(Blocked::default()) })
    }

    /// Tells it to stop. The caller has to interrupt it; there is nothing to interrupt if it was
    /// told before.
    pub(crate) fn tell(&self) -> Told {
        let own = {
            let blocked = self.blocked.lock();
            // Release: pairs with `is_told`, whose thread then sees what the caller did before.
            if self.is_told.swap(true, Ordering::Release) {
                return Told(Vec::new());
            }
            blocked.clone()
        };
        let mut told = own.inner.as_ref().map_or_else(Vec::new, |inner| inner.tell().0);
        told.push(own);
        Told(told)
    }

    /// `inner` begins on this work's thread: from now on it is told what this is told.
    pub(super) fn begin_inner(&self, inner: &Arc<Interruptible>) {
        let mut blocked = self.blocked.lock();
        if self.is_told() {
            // Nothing of it is blocked yet.
            drop(inner.tell());
        }
        blocked.inner = Some(inner.clone());
    }

    pub(super) fn end_inner(&self) {
        let left = self.blocked.lock().inner.take();
        drop(left);
    }

    /// Whether it was told to stop.
    pub(crate) fn is_told(&self) -> bool {
        // Acquire: see `tell`.
        self.is_told.load(Ordering::Acquire)
    }

    /// Enters a hook. Says whether the work was told to stop before.
    pub(super) fn enter(&self, hook: &Arc<Hook>) -> bool {
        let mut blocked = self.blocked.lock();
        blocked.hooks.push(hook.clone());
        self.is_told()
    }

    pub(super) fn leave(&self, hook: &Arc<Hook>) {
        self.blocked.lock().hooks.retain(|other| !Arc::ptr_eq(other, hook));
    }

    /// This thread is about to park.
    pub(super) fn enter_wait(&self, head: Option<&Head>, place: Option<Arc<dyn Lent>>) {
        let mut blocked = self.blocked.lock();
        match &mut blocked.wait {
            Some(outer) => outer.begin(),
            none => *none = Some(Wait::new(head, place)),
        }
    }

    pub(super) fn leave_wait(&self) {
        let mut blocked = self.blocked.lock();
        let left = if blocked.wait.as_mut().is_some_and(Wait::end) { blocked.wait.take() } else { None };
        drop(blocked);
        // Outside of the lock: it may hold the last reference to a pool.
        drop(left);
    }

    /// The work polls the request `target`, and `waker` is to be woken if it is cancelled.
    pub(super) fn enter_poll(&self, target: usize, waker: Arc<Waker>) {
        let mut blocked = self.blocked.lock();
        let before = match blocked.tasks.iter_mut().find(|(known, _)| *known == target) {
            Some((_, known)) => Some(std::mem::replace(known, waker)),
            None => {
                blocked.tasks.push((target, waker));
                None
            }
        };
        drop(blocked);
        // Outside of the lock: a waker's destructor is the user's code.
        panics::contain(|| drop(before));
    }

    pub(super) fn leave_poll(&self, target: usize) {
        let mut blocked = self.blocked.lock();
        let position = blocked.tasks.iter().position(|(known, _)| *known == target);
        let left = position.map(|position| blocked.tasks.swap_remove(position));
        drop(blocked);
        panics::contain(|| drop(left));
    }

    /// The work has ended: no hook is called from now on. Returns those that are left.
    pub(super) fn end(&self) -> Vec<Arc<Hook>> {
        let Blocked { hooks, tasks, .. } = std::mem::take(&mut *self.blocked.lock());
        for hook in &hooks {
            hook.take_back();
        }
        panics::contain(|| drop(tasks));
        hooks
    }
}

/// This thread is at the work, or hides it, until this is dropped.
#[must_use = "the thread is at it for as long as this lives"]
pub(super) struct Inside(bool);

/// This thread is at `work` from now on; `None` hides what it is at.
pub(super) fn enter(work: Option<Arc<Interruptible>>) -> Inside {
    let depth = depth();
    Inside(with(|entered| entered.borrow_mut().push(Entered { depth, work })).is_some())
}

/// What this thread is at, unless it is hidden.
pub(super) fn current() -> Option<Arc<Interruptible>> {
    look(|work| work.clone())
}

/// Whether this thread is at something that isn't hidden.
pub(super) fn is_inside() -> bool {
    look(|work| Some(work.is_some())).unwrap_or(false)
}

/// Whether what this thread is at was told to stop.
pub(super) fn is_told() -> bool {
    look(|work| work.as_ref().map(|work| work.is_told())).unwrap_or(false)
}

fn look<T>(see: impl FnOnce(&Option<Arc<Interruptible>>) -> Option<T>) -> Option<T> {
    with(|entered| {
        let last = entered.borrow();
        let last = last.last()?;
        // A request that began since then runs inside of it, and is another operation.
        if last.depth == depth() { see(&last.work) } else { None }
    })
    .flatten()
}

/// `None` on a thread that is destroying its thread-locals.
fn with<T>(see: impl FnOnce(&RefCell<Vec<Entered>>) -> T) -> Option<T> {
    #[cfg(not(any(loom, shuttle)))]
    return ENTERED.try_with(see).ok();
    #[cfg(any(loom, shuttle))]
    return Some(ENTERED.with(see));
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.0 {
            drop(with(|entered| entered.borrow_mut().pop()));
        }
    }
}
