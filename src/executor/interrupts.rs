//! What is called, and which thread is woken, when a running request is cancelled: the way into a
//! system call, or into a wait, that no flag reaches.
//!
//! A hook is called exactly once, or not at all: the thread that takes it out of its state calls
//! it, and the state is emptied by the first of three: a cancel, the operation itself, the
//! operation's end. None of them goes on before a call that has begun is over, so no hook outlives
//! its operation.
//!
//! No cancel is missed: it raises its flag before it looks for hooks and waits, and an operation
//! looks at the flag after its hook or its wait is entered. Both look under one lock, so the later
//! of the two sees the other.
//!
//! A wait needs less care than a hook: a thread, or a task, that is woken for nothing looks at its
//! predicate and goes on. So a wake-up may come late, after the wait or after its operation.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::task::Waker;

use super::request::Head;
use crate::panics;
use crate::sync::blocking::Lent;
use crate::sync::thread::{self, Thread, ThreadId};
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};

/// The hooks of an executor's running requests, by the address of each request's head.
pub(super) struct Interrupts {
    /// How many hooks and tasks are entered: most operations have none, and end without a lock.
    count: AtomicUsize,
    entered: Mutex<Entered>,
}

/// By the address of the head of the request that was, or may be, cancelled.
#[derive(Default)]
struct Entered {
    hooks: HashMap<usize, Vec<Arc<Hook>>>,
    waits: HashMap<usize, Wait>,
    /// Polls of futures in the operation.
    tasks: HashMap<usize, Vec<Task>>,
}

/// The request that is polled, by its address, and what to wake: shared, because a waker's own clone
/// is the user's code, and is not called under a lock.
pub(super) type Task = (usize, Arc<Waker>);

/// A request's thread in a wait.
#[derive(Clone)]
pub(super) struct Wait {
    request: u64,
    thread: Thread,
    /// The thread's place in a pool, which another thread may have taken meanwhile.
    place: Option<Arc<dyn Lent>>,
    /// A destructor or a waker that runs in a wait may wait as well, on the same thread.
    depth: usize,
}

impl Wait {
    /// This thread is about to park, for the request or for none.
    pub(super) fn new(head: Option<&Head>, place: Option<Arc<dyn Lent>>) -> Wait {
        Wait { request: head.map_or(u64::MAX, number_of), thread: thread::current(), place, depth: 1 }
    }

    /// A wait inside this one begins.
    pub(super) fn begin(&mut self) {
        self.depth += 1;
    }

    /// The innermost wait ends. Says whether it was the last.
    pub(super) fn end(&mut self) -> bool {
        self.depth -= 1;
        self.depth == 0
    }

    pub(super) fn interrupt(&self) {
        if let Some(place) = &self.place {
            // Before the thread runs again: otherwise the thread in its place would begin one more
            // operation.
            place.come_back();
        }
        self.thread.unpark();
    }
}

pub(super) struct Hook {
    request: u64,
    state: Mutex<HookState>,
    over: Condvar,
}

enum HookState {
    Armed(Box<dyn FnOnce() + Send>),
    /// That thread calls it.
    Called(ThreadId),
    Over,
}

/// The number of the request; above all others if a shutdown leaves it alone.
fn number_of(head: &Head) -> u64 {
    if head.is_kept() { u64::MAX } else { head.id() }
}

impl Hook {
    /// Of a request's operation, or of none.
    pub(super) fn new(head: Option<&Head>, hook: Box<dyn FnOnce() + Send>) -> Arc<Hook> {
        let request = head.map_or(u64::MAX, number_of);
        Arc::new(Hook { request, state: Mutex::new(HookState::Armed(hook)), over: Condvar::new() })
    }

    pub(super) fn is_armed(&self) -> bool {
        matches!(*self.state.lock(), HookState::Armed(_))
    }

    /// Calls it, unless it was called or taken back.
    pub(super) fn call(&self) {
        let hook = {
            let mut state = self.state.lock();
            if !matches!(*state, HookState::Armed(_)) {
                return;
            }
            match std::mem::replace(&mut *state, HookState::Called(thread::current().id())) {
                HookState::Armed(hook) => hook,
                _ => return,
            }
        };
        panics::contain(hook);
        *self.state.lock() = HookState::Over;
        self.over.notify_all();
    }

    /// Has it never called from now on. Says whether it wasn't; if another thread is calling it,
    /// after that.
    pub(super) fn take_back(&self) -> bool {
        let mut state = self.state.lock();
        let hook = match &*state {
            HookState::Armed(_) => std::mem::replace(&mut *state, HookState::Over),
            // A hook that takes itself back.
            HookState::Called(thread) if *thread == thread::current().id() => return false,
            _ => {
                while matches!(*state, HookState::Called(_)) {
                    self.over.wait(&mut state);
                }
                return false;
            }
        };
        drop(state);
        panics::contain(|| drop(hook));
        true
    }
}

impl Interrupts {
    pub(super) fn new() -> Interrupts {
        Interrupts { count: AtomicUsize::new(0), entered: Mutex::new(Entered::default()) }
    }

    /// Enters a hook of a request that this thread runs.
    pub(super) fn enter(&self, head: &Head, hook: &Arc<Hook>) {
        let mut entered = self.entered.lock();
        entered.hooks.entry(head.address()).or_default().push(hook.clone());
        // Relaxed: the operation's end, for which it counts, is on this thread.
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// This thread runs the request, and is about to park.
    pub(super) fn enter_wait(&self, head: &Head, place: Option<Arc<dyn Lent>>) {
        let mut entered = self.entered.lock();
        match entered.waits.entry(head.address()) {
            Slot::Occupied(mut outer) => outer.get_mut().begin(),
            Slot::Vacant(none) => {
                none.insert(Wait::new(Some(head), place));
            }
        }
    }

    pub(super) fn leave_wait(&self, head: &Head) {
        let mut entered = self.entered.lock();
        let Slot::Occupied(mut wait) = entered.waits.entry(head.address()) else { return };
        if !wait.get_mut().end() {
            return;
        }
        let left = wait.remove();
        if entered.waits.is_empty() && entered.waits.capacity() > 64 {
            // A burst of waits leaves no memory behind.
            entered.waits.shrink_to(0);
        }
        drop(entered);
        // Outside of the lock: it may hold the last reference to the pool.
        drop(left);
    }

    /// The operation of `head` polls the request `target` as a future. A cancel of the operation
    /// wakes `waker`. Only the latest poll of each target counts, as for any future.
    pub(super) fn enter_poll(&self, head: &Head, target: usize, waker: Arc<Waker>) {
        let mut entered = self.entered.lock();
        let tasks = entered.tasks.entry(head.address()).or_default();
        let before = match tasks.iter_mut().find(|(known, _)| *known == target) {
            Some((_, known)) => Some(std::mem::replace(known, waker)),
            None => {
                tasks.push((target, waker));
                // Relaxed: as in `enter`.
                self.count.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        drop(entered);
        // Outside of the lock: a waker's destructor is the user's code.
        panics::contain(|| drop(before));
    }

    pub(super) fn leave_poll(&self, head: &Head, target: usize) {
        let mut entered = self.entered.lock();
        let Slot::Occupied(mut tasks) = entered.tasks.entry(head.address()) else { return };
        let Some(position) = tasks.get().iter().position(|(known, _)| *known == target) else { return };
        let left = tasks.get_mut().swap_remove(position);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if tasks.get().is_empty() {
            tasks.remove();
        }
        drop(entered);
        panics::contain(|| drop(left));
    }

    /// A running request was told to stop: wakes its thread if it waits. Its tasks and hooks are
    /// the user's code, which the caller is to call.
    pub(super) fn wake_wait(&self, head: &Head) -> Foreign {
        let address = head.address();
        // They stay entered: the operation's end has to find the hooks, and to wait for the calls.
        let (wait, tasks, hooks) = {
            let entered = self.entered.lock();
            let tasks = entered.tasks.get(&address).cloned().unwrap_or_default();
            (entered.waits.get(&address).cloned(), tasks, entered.hooks.get(&address).cloned().unwrap_or_default())
        };
        wait.iter().for_each(Wait::interrupt);
        Foreign { tasks, hooks }
    }

    /// As `wake_wait` and a call, for all running requests that are numbered below `number`.
    pub(super) fn call_below(&self, number: u64) {
        let (waits, tasks, hooks): (Vec<Wait>, Vec<Task>, Vec<Arc<Hook>>) = {
            let entered = self.entered.lock();
            let waits = entered.waits.values().filter(|wait| wait.request < number);
            // Of all requests: a task that is woken for nothing polls once more.
            let tasks = entered.tasks.values().flatten();
            let hooks = entered.hooks.values().flat_map(|hooks| hooks.iter().rev());
            let below = hooks.filter(|hook| hook.request < number);
            (waits.cloned().collect(), tasks.cloned().collect(), below.cloned().collect())
        };
        waits.iter().for_each(Wait::interrupt);
        wake(tasks);
        hooks.iter().for_each(|hook| hook.call());
    }

    /// The operation has ended: what was not called never will be.
    pub(super) fn end(&self, head: &Head) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let (hooks, tasks) = {
            let mut entered = self.entered.lock();
            let tasks = entered.tasks.remove(&head.address()).unwrap_or_default();
            (entered.hooks.remove(&head.address()).unwrap_or_default(), tasks)
        };
        self.count.fetch_sub(hooks.len() + tasks.len(), Ordering::Relaxed);
        for hook in hooks {
            hook.take_back();
        }
        tasks.into_iter().for_each(|task| panics::contain(|| drop(task)));
    }

    /// Takes one hook out again.
    pub(super) fn leave(&self, address: usize, hook: &Arc<Hook>) {
        let mut entered = self.entered.lock();
        let Some(hooks) = entered.hooks.get_mut(&address) else { return };
        let before = hooks.len();
        hooks.retain(|other| !Arc::ptr_eq(other, hook));
        self.count.fetch_sub(before - hooks.len(), Ordering::Relaxed);
        if hooks.is_empty() {
            entered.hooks.remove(&address);
        }
    }
}

/// What a cancel calls of the user's code.
pub(super) struct Foreign {
    tasks: Vec<Task>,
    hooks: Vec<Arc<Hook>>,
}

impl Foreign {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.hooks.is_empty()
    }

    /// The latest hook first, for that is where the operation is.
    pub(super) fn call(self) {
        wake(self.tasks);
        self.hooks.iter().rev().for_each(|hook| hook.call());
    }
}

pub(super) fn wake(tasks: Vec<Task>) {
    let wake = |waker: Arc<Waker>| {
        waker.wake_by_ref();
        drop(waker);
    };
    tasks.into_iter().for_each(|(_, waker)| panics::contain(|| wake(waker)));
}
