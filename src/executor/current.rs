//! What this thread is doing for an executor: the requests that it runs, and the pool that it
//! belongs to.

// Loom's thread-locals know no `const`.
#![allow(clippy::missing_const_for_thread_local)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::group::cancel_scope::CancelScope;
use super::interruptible;
use super::pool::{Awaited, Seat};
use super::request::Job;
use super::wait::block;
use crate::sync::blocking;
use crate::sync::{AtomicBool, thread, thread_local};

thread_local! {
    static RUNNING: RefCell<Vec<Running>> = RefCell::new(Vec::new());
    /// Set for the life of a pool's thread, until its thread-locals are destroyed.
    static WORKER: RefCell<Option<Worker>> = RefCell::new(None);
    /// The address of the executor whose pool the thread belongs to. Without a destructor, so that
    /// the destructors of other thread-locals still find it.
    static POOL: Cell<usize> = Cell::new(0);
    /// How many of the running requests are in a group or have a time limit. Without a destructor,
    /// and at hand, for each submission looks at it.
    static SCOPED: Cell<usize> = Cell::new(0);
    /// Whether the thread is an executor's timer.
    static TIMER: Cell<bool> = Cell::new(false);
    static NESTED: RefCell<Nested> = RefCell::new(Nested { depth: 0, pending: VecDeque::new() });
}

/// An entry for each request that the thread runs, the innermost last: a full queue may have its
/// submitter run one.
struct Running {
    /// `None` where the thread is at work, but on no request: in a hook, or behind the request's
    /// end.
    job: Option<Arc<dyn Job>>,
    /// Whether the operation has returned, and callbacks of its end are being called.
    is_over: bool,
    /// The executor; `None` if it is the one whose pool the thread belongs to, which saves a
    /// contended count.
    core: Option<Arc<Core>>,
    /// Set once a poll of a request has let another thread work in this one's place, until the
    /// operation ends: for each request that was polled, by its address, what the other thread is
    /// to run.
    lent: Option<Vec<(usize, Arc<Awaited>)>>,
    /// What its submissions belong to.
    scope: Option<Arc<CancelScope>>,
}

/// A pool's thread.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) core: Arc<Core>,
    pub(super) seat: Arc<Seat>,
    /// Whether a poll has let another thread work in this one's place.
    pub(super) lent: Arc<AtomicBool>,
}

/// How many operations, or callbacks, may run inside one another on one stack.
pub(super) const NESTING: usize = 16;

/// Calls `see` with the thread-local; `None` if it is destroyed already, or not loom's.
macro_rules! look {
    ($local:ident, $see:expr) => {{
        #[cfg(not(any(loom, shuttle)))]
        let seen = $local.try_with($see).ok();
        #[cfg(any(loom, shuttle))]
        let seen = Some($local.with($see));
        seen
    }};
}

impl Running {
    /// The request whose operation this thread runs.
    fn operation(&self) -> Option<&Arc<dyn Job>> {
        self.job.as_ref().filter(|_| !self.is_over)
    }

    fn is_of(&self, core: &Core) -> bool {
        match &self.core {
            Some(own) => std::ptr::eq(&**own, core),
            None => is_in_pool_of(core),
        }
    }
}

/// Marks `job` as this thread's current request until the scope is dropped.
pub(super) fn enter(job: Arc<dyn Job>, core: &Arc<Core>) -> Scope {
    push(Some(job), core)
}

/// Marks this thread as at work for `core` until the scope is dropped.
pub(super) fn enter_core(core: &Arc<Core>) -> Scope {
    push(None, core)
}

fn push(job: Option<Arc<dyn Job>>, core: &Arc<Core>) -> Scope {
    let core = (!is_in_pool_of(core)).then(|| core.clone());
    // A thread that is destroying its thread-locals has no list any more. What it runs then is not
    // known as its own.
    let entry = Running { job, is_over: false, core, lent: None, scope: None };
    Scope(look!(RUNNING, |running| running.borrow_mut().push(entry)).is_some())
}

fn address(core: &Core) -> usize {
    std::ptr::from_ref(core).addr()
}

fn is_in_pool_of(core: &Core) -> bool {
    look!(POOL, |pool| pool.get() == address(core)).unwrap_or(false)
}

#[must_use = "the thread is marked for as long as this lives"]
pub(super) struct Scope(bool);

impl Scope {
    /// The operation has returned: nothing can be cancelled any more, and what is called from here
    /// on, such as a callback, isn't a part of it.
    pub(super) fn end_operation(&self) {
        if self.0 {
            look!(RUNNING, |running| running.borrow_mut().last_mut().map(|last| last.is_over = true));
        }
    }

    /// The request has ended, and holds nothing more of this scope; the thread is still at work.
    pub(super) fn leave_request(&self) {
        if self.0 {
            let ended = look!(RUNNING, |running| running.borrow_mut().last_mut().and_then(|last| last.job.take()));
            drop(ended);
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.0 {
            let left = look!(RUNNING, |running| running.borrow_mut().pop()).flatten();
            let Some(lent) = left.and_then(|left| left.lent) else { return };
            if let Some(worker) = worker() {
                // The loan is that of the outermost operation that has one.
                let none = AtomicBool::new(false);
                let loan = if is_lent() { &none } else { &*worker.lent };
                worker.core.pool.unblock(&worker.seat, loan, lent.iter().map(|(_, awaited)| awaited));
            }
        }
    }
}

/// Has the operation that this thread runs submit to `scope`, or to none, until what is returned is
/// dropped.
pub(super) fn enter_scope(scope: Option<Arc<CancelScope>>) -> InScope {
    if scope.is_none() && scoped() == 0 {
        return InScope(None);
    }
    let is_some = scope.is_some();
    let before = look!(RUNNING, |running| Some(std::mem::replace(&mut running.borrow_mut().last_mut()?.scope, scope)));
    let Some(before) = before.flatten() else { return InScope(None) };
    count_scope(before.is_some(), is_some);
    InScope(Some(before))
}

/// What the operation that this thread runs submits to.
pub(super) fn scope() -> Option<Arc<CancelScope>> {
    if scoped() == 0 {
        return None;
    }
    look!(RUNNING, |running| running.borrow().last()?.scope.clone()).flatten()
}

fn scoped() -> usize {
    look!(SCOPED, |scoped| scoped.get()).unwrap_or(0)
}

fn count_scope(before: bool, now: bool) {
    look!(SCOPED, |scoped| scoped.set(scoped.get() + usize::from(now) - usize::from(before)));
}

#[must_use = "the operation submits to it for as long as this lives"]
pub(super) struct InScope(Option<Option<Arc<CancelScope>>>);

impl Drop for InScope {
    fn drop(&mut self) {
        let Some(before) = self.0.take() else { return };
        let is_some = before.is_some();
        let left =
            look!(RUNNING, |running| Some(std::mem::replace(&mut running.borrow_mut().last_mut()?.scope, before)));
        if let Some(left) = left.flatten() {
            count_scope(left.is_some(), is_some);
        }
    }
}

/// This thread is an executor's timer.
pub(super) fn set_timer() {
    look!(TIMER, |timer| timer.set(true));
}

pub(super) fn is_timer() -> bool {
    look!(TIMER, |timer| timer.get()).unwrap_or(false)
}

/// Whether a poll has let another thread work in this one's place.
pub(super) fn is_lent() -> bool {
    look!(RUNNING, |running| running.borrow().iter().any(|running| running.lent.is_some())).unwrap_or(false)
}

/// Notes that another thread works in this one's place, for `job` among others, until the current
/// operation ends. Returns what that thread is to run: `job`, if it is its executor's.
pub(super) fn lend(job: &Arc<dyn Job>, is_own: bool) -> Option<Arc<Awaited>> {
    let address = job.head().address();
    look!(RUNNING, |running| {
        let mut running = running.borrow_mut();
        let lent = running.last_mut()?.lent.get_or_insert_default();
        if let Some((_, known)) = lent.iter().find(|(known, _)| *known == address) {
            return Some(known.clone());
        }
        let awaited = Awaited::new(is_own.then(|| job.clone()));
        lent.push((address, awaited.clone()));
        Some(awaited)
    })
    .flatten()
}

/// The requests of `core` that this thread runs.
pub(super) fn runs_for(core: &Core) -> Vec<Arc<dyn Job>> {
    look!(RUNNING, |running| {
        let running = running.borrow();
        running.iter().filter(|running| running.is_of(core)).filter_map(|running| running.job.clone()).collect()
    })
    .unwrap_or_default()
}

/// An executor that this thread is at work for, and the request, where it is one.
pub(super) type AtWork = (Arc<Core>, Option<Arc<dyn Job>>);

/// What this thread is at work on: the executors, and the requests, where it is one. Empty on a
/// thread that is at work for none, or is just ending.
pub(super) fn all() -> Vec<AtWork> {
    let own = worker().map(|worker| worker.core);
    look!(RUNNING, |running| {
        let running = running.borrow();
        let known = |running: &Running| Some((running.core.clone().or_else(|| own.clone())?, running.job.clone()));
        running.iter().filter_map(known).collect()
    })
    .unwrap_or_default()
}

/// The request whose operation this thread runs, the innermost, and the executor that accepted it.
pub(super) fn current() -> Option<(Arc<Core>, Arc<dyn Job>)> {
    let own = worker().map(|worker| worker.core);
    look!(RUNNING, |running| {
        let running = running.borrow();
        let last = running.last()?;
        Some((last.core.clone().or(own)?, last.operation()?.clone()))
    })
    .flatten()
}

/// Whether this thread is running a request that `core` accepted, or is one of its pool's.
pub(super) fn is_worker_of(core: &Core) -> bool {
    is_in_pool_of(core)
        || look!(RUNNING, |running| running.borrow().iter().any(|running| running.is_of(core))).unwrap_or(false)
}

/// Whether this thread is at work for any executor.
pub(super) fn is_worker() -> bool {
    look!(RUNNING, |running| !running.borrow().is_empty()).unwrap_or(false)
}

/// Whether another operation may run on this stack, inside those that run on it.
pub(super) fn may_nest() -> bool {
    // Not while a panic unwinds: the inner operation would find `std::thread::panicking` true.
    !thread::is_unwinding() && look!(RUNNING, |running| running.borrow().len() < NESTING).unwrap_or(true)
}

/// Makes this thread one of a pool's; `None` when its work is done.
pub(super) fn set_worker(worker: Option<Worker>) {
    if let Some(worker) = &worker {
        look!(POOL, |pool| pool.set(address(&worker.core)));
    }
    blocking::set_lender(worker.is_some().then_some(block::place));
    let before = look!(WORKER, |current| current.replace(worker));
    drop(before);
}

/// The pool that this thread belongs to.
pub(super) fn worker() -> Option<Worker> {
    look!(WORKER, |current| current.borrow().clone()).flatten()
}

/// How many requests, hooks and ends this thread is at, one inside the other.
pub(super) fn depth() -> usize {
    look!(RUNNING, |running| running.borrow().len()).unwrap_or(0)
}

/// Whether this thread runs a request, or other work that can be cancelled, and is not at work on
/// something else inside of it.
pub(super) fn is_inside() -> bool {
    let runs = |running: &RefCell<Vec<Running>>| running.borrow().last().is_some_and(|last| last.operation().is_some());
    interruptible::is_inside() || look!(RUNNING, runs).unwrap_or(false)
}

/// Whether the current request, or the step of a batch or attempt at a task that it runs, was asked
/// to cancel.
///
/// An operation that takes long asks now and then, and decides by itself what to return. `false`
/// outside of one. For calls that block there is [`on_cancel`](crate::on_cancel).
///
/// ```
/// use fulmar::Executor;
/// use std::sync::mpsc;
///
/// let executor = Executor::builder().threads(1).build()?;
/// let (started, starts) = mpsc::channel();
/// let request = executor.spawn(move || {
///     started.send(()).ok();
///     while !fulmar::is_cancelled() { std::thread::yield_now() }
///     "stopped early"
/// })?;
/// starts.recv()?;
/// assert!(!request.cancel(), "it runs: it is told, and decides");
/// assert_eq!(request.wait(None)?, "stopped early");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn is_cancelled() -> bool {
    interruptible::is_told() || is_request_cancelled()
}

fn is_request_cancelled() -> bool {
    look!(RUNNING, |running| {
        let running = running.borrow();
        let Some(last) = running.last() else { return false };
        let Some(head) = last.operation().map(|job| job.head()) else { return false };
        let is_told = || match &last.core {
            Some(core) => core.is_told(head),
            None => look!(WORKER, |worker| worker.borrow().as_ref().is_some_and(|own| own.core.is_told(head)))
                .unwrap_or(false),
        };
        head.is_cancel_requested() || is_told()
    })
    .unwrap_or(false)
}

/// The callbacks and destructors of the user's that run inside one another on this thread: one
/// drops or cancels a request, which calls the next.
struct Nested {
    depth: usize,
    /// What would have gone deeper than [`NESTING`], in the order of its calls.
    pending: VecDeque<Box<dyn FnOnce()>>,
}

/// Calls `foreign`, the user's code, or puts it off if [`NESTING`] such calls are on this stack
/// already: a chain of callbacks of any length must not overflow the stack. The innermost of those
/// calls then runs what was put off, one after the other, when its own `foreign` has returned.
pub(super) fn call_nested(foreign: impl FnOnce() + 'static) {
    let mut foreign = Some(foreign);
    let depth = look!(NESTED, |nested| {
        let mut nested = nested.borrow_mut();
        if nested.depth >= NESTING {
            nested.pending.extend(foreign.take().map(|foreign| Box::new(foreign) as Box<dyn FnOnce()>));
            return nested.depth;
        }
        nested.depth += 1;
        nested.depth
    });
    let Some(foreign) = foreign else { return };
    // `depth` is `None` if this thread is ending and its thread-locals are gone. Then nothing can
    // be counted or put off, and `foreign` is called all the same.
    foreign();
    if depth == Some(NESTING) {
        while let Some(next) = look!(NESTED, |nested| nested.borrow_mut().pending.pop_front()).flatten() {
            next();
        }
    }
    if depth.is_some() {
        look!(NESTED, |nested| nested.borrow_mut().depth -= 1);
    }
}
