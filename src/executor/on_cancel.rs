//! What an operation may want to be done, or not, when it is cancelled. The hooks lie in
//! `interrupts`.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use super::core::Core;
use super::current;
use super::interruptible::{self, Interruptible};
use super::interrupts::Hook;
use super::request::Head;
use crate::sync::blocking::Lent;
use crate::sync::interrupt::{self, Entered, Operations};

/// Lets the waits of lower floors know of the operation around them. An executor does so when it is
/// made.
pub(super) fn serve_lower_floors() {
    interrupt::set_operations(Operations {
        is_inside: current::is_inside,
        is_cancelled: current::is_cancelled,
        on_cancel: |hook| Box::new(enter(hook)),
        enter_wait,
        leave_wait,
    });
}

fn enter_wait(place: Option<Arc<dyn Lent>>) -> bool {
    let (request, work) = (current::current(), interruptible::current());
    if let Some(work) = &work {
        work.enter_wait(request.as_ref().map(|(_, job)| job.head()), place.clone());
    }
    if let Some((core, job)) = &request {
        core.interrupts.enter_wait(job.head(), place);
    }
    request.is_some() || work.is_some()
}

fn leave_wait() {
    if let Some(work) = interruptible::current() {
        work.leave_wait();
    }
    if let Some((core, job)) = current::current() {
        core.interrupts.leave_wait(job.head());
    }
}

/// Has `hook` called if the running operation is cancelled: by the thread that cancels it, or, at a
/// time limit, by one beside the pool; once, and never after the operation's end. Called at once,
/// on this thread, if it was cancelled before. Outside of an operation the hook is dropped.
///
/// It is for what blocks without asking [`is_cancelled`](crate::is_cancelled): shut a socket down,
/// interrupt a statement, kill a child, and the blocked call returns with an error. (The crate's
/// own HTTP client, its waits and queues, and [`sleep`](crate::sleep), need none.) The operation
/// then decides by itself what to return. A hook should do just that, and not wait: neither the
/// cancel nor the operation's end goes on before it has returned. If it panics, the panic hook
/// reports it, and nothing else happens. Of several the latest is called first.
///
/// The returned handle takes the hook back, so that one for a call that is over doesn't hit the
/// next; dropping that handle does nothing.
///
/// ```
/// use fulmar::Executor;
/// use std::io::Read;
/// use std::net::{Shutdown, TcpListener, TcpStream};
///
/// let silent = TcpListener::bind("127.0.0.1:0")?;
/// let address = silent.local_addr()?;
/// let executor = Executor::builder().threads(1).build()?;
/// let (connected, connects) = std::sync::mpsc::channel();
/// let request = executor.spawn(move || -> std::io::Result<usize> {
///     let mut socket = TcpStream::connect(address)?;
///     let other = socket.try_clone()?;
///     let hook = fulmar::on_cancel(move || { let _ = other.shutdown(Shutdown::Both); });
///     connected.send(()).ok();
///     let count = socket.read(&mut [0])?; // The server says nothing, and hangs not up.
///     hook.take_back();
///     Ok(count)
/// })?;
/// connects.recv()?;
/// request.cancel();
/// assert_eq!(request.wait(None)??, 0, "the end of the stream, for it was shut down");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn on_cancel(hook: impl FnOnce() + Send + 'static) -> CancelHook {
    enter(Box::new(hook))
}

/// Enters `hook` for the operation that this thread runs, and for the interruptible work in it: the
/// first cancel of either calls it. If one was cancelled before, calls it now, on this thread. If
/// there is neither, drops it.
fn enter(hook: Box<dyn FnOnce() + Send>) -> CancelHook {
    let (request, work) = (current::current(), interruptible::current());
    if request.is_none() && work.is_none() {
        return CancelHook { hook: None, request: None, work: None };
    }
    let hook = Hook::new(request.as_ref().map(|(_, job)| job.head()), hook);
    let mut is_told = false;
    let request = request.map(|(core, job)| {
        let head = job.head();
        core.interrupts.enter(head, &hook);
        is_told = head.is_cancel_requested() || core.is_told(head);
        (core, head.address())
    });
    if let Some(work) = &work {
        is_told |= work.enter(&hook);
    }
    if is_told {
        hook.call();
    }
    CancelHook { hook: Some(hook), request, work }
}

impl Interruptible {
    /// Runs `body`, in which this may be cancelled by itself, or with the work around it.
    pub(crate) fn run<T>(self: &Arc<Self>, body: impl FnOnce() -> T) -> T {
        // A thread that runs this may be no executor's, and there may be no executor at all.
        serve_lower_floors();
        let request = current::current().map(|(core, job)| (core, job.head().address()));
        let outer = interruptible::current();
        if let Some(outer) = &outer {
            outer.begin_inner(self);
        }
        let _ends = Ends { work: self, request, outer };
        let _inside = interruptible::enter(Some(self.clone()));
        body()
    }
}

/// Takes the work's hooks back when it ends, also out of the request around it.
struct Ends<'a> {
    work: &'a Interruptible,
    request: Option<(Arc<Core>, usize)>,
    outer: Option<Arc<Interruptible>>,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if let Some(outer) = &self.outer {
            outer.end_inner();
        }
        for hook in self.work.end() {
            if let Some((core, address)) = &self.request {
                core.interrupts.leave(*address, &hook);
            }
        }
    }
}

/// Has `waker` woken if the operation that this thread runs, or the attempt at a task, is
/// cancelled: it polls the request of `target`. Says whether it was cancelled before.
pub(super) fn wake_task(target: &Head, waker: &Waker) -> bool {
    if let Some((core, job)) = current::current() {
        core.interrupts.enter_poll(job.head(), target.address(), Arc::new(waker.clone()));
    }
    if let Some(work) = interruptible::current() {
        work.enter_poll(target.address(), Arc::new(waker.clone()));
    }
    if !current::is_cancelled() {
        return false;
    }
    leave_task(target);
    true
}

/// Takes back what `wake_task` entered, if this thread runs the same operation; otherwise the
/// operation's end does so.
pub(super) fn leave_task(target: &Head) {
    if let Some(work) = interruptible::current() {
        work.leave_poll(target.address());
    }
    if let Some((core, job)) = current::current() {
        core.interrupts.leave_poll(job.head(), target.address());
    }
}

/// Runs `body` as if the operation around it had not been cancelled:
/// [`is_cancelled`](crate::is_cancelled) is `false` in it, no hook is called, and waits go on.
///
/// A cancel lasts: after it each wait and each HTTP call of the operation ends at once. What has to
/// be said or tidied up all the same belongs in here, with a time limit of its own, because nothing
/// else ends it. What it submits belongs to no group, and to no time limit of the operation, as in
/// [`detached`](crate::detached).
///
/// ```
/// use fulmar::{Executor, is_cancelled, shield, sleep};
/// use std::time::Duration;
///
/// let executor = Executor::builder().threads(1).build()?;
/// let (started, starts) = std::sync::mpsc::channel();
/// let request = executor.spawn(move || {
///     started.send(()).ok();
///     let slept = sleep(Duration::from_secs(3600)); // Ends with the cancel.
///     let told = shield(|| sleep(Duration::from_millis(1))); // Here, a last word to a server.
///     (slept.is_ok(), told.is_ok(), is_cancelled())
/// })?;
/// starts.recv()?;
/// request.cancel();
/// assert_eq!(request.wait(None)?, (false, true, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn shield<T>(body: impl FnOnce() -> T) -> T {
    let shielded = current::current().map(|(core, _)| current::enter_core(&core));
    let hidden = interruptible::is_inside().then(|| interruptible::enter(None));
    let value = body();
    drop(hidden);
    drop(shielded);
    value
}

/// Takes a hook back: see [`on_cancel`].
pub struct CancelHook {
    hook: Option<Arc<Hook>>,
    /// The request around it, by its address.
    request: Option<(Arc<Core>, usize)>,
    work: Option<Arc<Interruptible>>,
}

impl CancelHook {
    /// Has the hook never called from now on, and drops it. Says whether it was not; if another
    /// thread is calling it, after that.
    pub fn take_back(&self) -> bool {
        let Some(hook) = &self.hook else { return true };
        let was_armed = hook.take_back();
        if let Some((core, address)) = &self.request {
            core.interrupts.leave(*address, hook);
        }
        if let Some(work) = &self.work {
            work.leave(hook);
        }
        was_armed
    }
}

/// For waits of the lower floors.
impl Entered for CancelHook {
    fn take_back(&self) {
        CancelHook::take_back(self);
    }
}

impl fmt::Debug for CancelHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_armed = self.hook.as_ref().is_some_and(|hook| hook.is_armed());
        f.debug_struct("CancelHook").field("is_armed", &is_armed).finish()
    }
}
