//! What is called when a running request is cancelled: the way into a system call that no flag
//! reaches.
//!
//! A hook is called exactly once, or not at all: the thread that takes it out of its place calls
//! it, and the place is emptied by the first of three: a cancel, the operation itself, the
//! operation's end. None of them goes on before a call that has begun is over, so no hook outlives
//! its operation.
//!
//! No cancel is missed: it raises its flag before it looks for hooks, and an operation looks at the
//! flag after its hook is entered. Both look under one lock, so the later of the two sees the
//! other.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::core::Core;
use super::current;
use super::request::Head;
use crate::panics;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};

/// The hooks of an executor's running requests, by the address of each request's head.
pub(super) struct Interrupts {
    /// For the many operations that have none.
    count: AtomicUsize,
    hooks: Mutex<HashMap<usize, Vec<Arc<Hook>>>>,
}

pub(super) struct Hook {
    place: Mutex<Place>,
    over: Condvar,
}

enum Place {
    Armed(Box<dyn FnOnce() + Send>),
    /// That thread calls it.
    Called(ThreadId),
    Over,
}

impl Hook {
    fn new(hook: Box<dyn FnOnce() + Send>) -> Arc<Hook> {
        Arc::new(Hook { place: Mutex::new(Place::Armed(hook)), over: Condvar::new() })
    }

    /// Calls it, unless it was called or taken back.
    fn call(&self) {
        let hook = {
            let mut place = self.place.lock();
            if !matches!(*place, Place::Armed(_)) {
                return;
            }
            match std::mem::replace(&mut *place, Place::Called(thread::current().id())) {
                Place::Armed(hook) => hook,
                _ => return,
            }
        };
        panics::contain(hook);
        *self.place.lock() = Place::Over;
        self.over.notify_all();
    }

    /// Has it never called from now on. Says whether it wasn't; if another thread is calling it,
    /// after that.
    fn take_back(&self) -> bool {
        let mut place = self.place.lock();
        let hook = match &*place {
            Place::Armed(_) => std::mem::replace(&mut *place, Place::Over),
            // A hook that takes itself back.
            Place::Called(thread) if *thread == thread::current().id() => return false,
            _ => {
                while matches!(*place, Place::Called(_)) {
                    self.over.wait(&mut place);
                }
                return false;
            }
        };
        drop(place);
        panics::contain(|| drop(hook));
        true
    }
}

impl Interrupts {
    pub(super) fn new() -> Interrupts {
        Interrupts { count: AtomicUsize::new(0), hooks: Mutex::new(HashMap::new()) }
    }

    /// Enters a hook of a request that this thread runs.
    fn enter(&self, head: &Head, hook: &Arc<Hook>) {
        let mut hooks = self.hooks.lock();
        hooks.entry(head.address()).or_default().push(hook.clone());
        // Relaxed: the operation's end, for which it counts, is on this thread.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// A running request was told to stop: calls its hooks, the latest first, for that is where it
    /// is.
    pub(super) fn call(&self, head: &Head) {
        // They stay entered: the operation's end has to find them, and to wait for the calls.
        let hooks = self.hooks.lock().get(&head.address()).cloned().unwrap_or_default();
        hooks.iter().rev().for_each(|hook| hook.call());
    }

    /// The operation has ended: what was not called never will be.
    pub(super) fn end(&self, head: &Head) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let hooks = self.hooks.lock().remove(&head.address()).unwrap_or_default();
        self.count.fetch_sub(hooks.len(), Ordering::Relaxed);
        for hook in hooks {
            hook.take_back();
        }
    }

    /// Takes one hook out again.
    fn leave(&self, address: usize, hook: &Arc<Hook>) {
        let mut hooks = self.hooks.lock();
        let Some(entered) = hooks.get_mut(&address) else { return };
        let before = entered.len();
        entered.retain(|other| !Arc::ptr_eq(other, hook));
        self.count.fetch_sub(before - entered.len(), Ordering::Relaxed);
        if entered.is_empty() {
            hooks.remove(&address);
        }
    }
}

/// Has `hook` called if the running operation is cancelled: by the thread that cancels it, once,
/// and never after the operation's end. Called at once, on this thread, if it was cancelled before.
/// Outside of an operation the hook is dropped.
///
/// It is for what blocks without asking [`is_cancelled`](crate::is_cancelled): shut a socket down,
/// interrupt a statement, kill a child, and the blocked call returns with an error. The operation
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
    let Some((core, job)) = current::current() else { return CancelHook { entered: None } };
    let hook = Hook::new(Box::new(hook));
    let head = job.head();
    core.interrupts.enter(head, &hook);
    if head.is_cancel_requested() {
        hook.call();
    }
    let address = head.address();
    CancelHook { entered: Some((core, address, hook)) }
}

/// Takes a hook back: see [`on_cancel`].
pub struct CancelHook {
    entered: Option<(Arc<Core>, usize, Arc<Hook>)>,
}

impl CancelHook {
    /// Has the hook never called from now on, and drops it. Says whether it was not; if another
    /// thread is calling it, after that.
    pub fn take_back(&self) -> bool {
        let Some((core, address, hook)) = &self.entered else { return true };
        let was_armed = hook.take_back();
        core.interrupts.leave(*address, hook);
        was_armed
    }
}

impl fmt::Debug for CancelHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_armed = self.entered.as_ref().is_some_and(|(_, _, hook)| matches!(*hook.place.lock(), Place::Armed(_)));
        f.debug_struct("CancelHook").field("is_armed", &is_armed).finish()
    }
}
