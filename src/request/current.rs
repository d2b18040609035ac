//! Which requests this thread is running: the innermost last, because a worker that waits may run others meanwhile.

use std::cell::RefCell;
use std::sync::Arc;

use super::host::Host;
use super::state::Job;
use crate::sync::thread_local;

thread_local! {
    // loom's macro takes no `const { .. }`.
    #[allow(clippy::missing_const_for_thread_local)]
    static RUNNING: RefCell<Vec<Running>> = RefCell::new(Vec::new());
}

struct Running {
    /// `None` where the thread is at work, but on no request: in a hook, or in its timer.
    job: Option<Arc<dyn Job>>,
    /// The address of the executor.
    host: usize,
}

/// Marks `job` as this thread's current request until the scope is dropped.
pub(super) fn enter(job: Arc<dyn Job>, host: &dyn Host) -> Scope {
    push(Some(job), host)
}

/// Marks this thread as at work for `host` until the scope is dropped.
pub(crate) fn enter_host(host: &dyn Host) -> Scope {
    push(None, host)
}

fn push(job: Option<Arc<dyn Job>>, host: &dyn Host) -> Scope {
    let host = address(host);
    RUNNING.with(|running| running.borrow_mut().push(Running { job, host }));
    Scope
}

fn address(host: &dyn Host) -> usize {
    std::ptr::from_ref(host).cast::<()>().addr()
}

#[must_use = "the thread is marked for as long as this lives"]
pub(crate) struct Scope;

impl Scope {
    /// The request has ended, and holds nothing more of this scope; the thread is at work still.
    pub(super) fn leave_request(&self) {
        let ended = RUNNING.with(|running| running.borrow_mut().last_mut().and_then(|running| running.job.take()));
        drop(ended);
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        RUNNING.with(|running| running.borrow_mut().pop());
    }
}

/// All requests that this thread is running. Empty on a thread that is not at work for an executor, or is just ending.
pub(super) fn all() -> Vec<Arc<dyn Job>> {
    with(|running| running.iter().filter_map(|running| running.job.clone()).collect())
}

/// Whether this thread is running a request that `host` accepted.
pub(crate) fn is_worker_of(host: &dyn Host) -> bool {
    with(|running| running.iter().any(|running| running.host == address(host)))
}

/// Whether this thread is at work for any executor.
pub(crate) fn is_worker() -> bool {
    with(|running| !running.is_empty())
}

/// Whether somebody asked for the current request to be cancelled.
///
/// An operation that takes long asks now and then, and decides by itself what to return. `false` outside of one.
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
    with(|running| {
        running.last().and_then(|running| running.job.as_ref()).is_some_and(|job| job.head().is_cancel_requested())
    })
}

#[cfg(not(loom))]
fn with<R: Default>(see: impl FnOnce(&[Running]) -> R) -> R {
    // A thread that is ending may have lost its list already: then it runs nothing.
    RUNNING.try_with(|running| see(&running.borrow())).unwrap_or_default()
}

#[cfg(loom)]
fn with<R: Default>(see: impl FnOnce(&[Running]) -> R) -> R {
    RUNNING.with(|running| see(&running.borrow()))
}
