//! What few requests have: threads, callbacks and tasks that want to know of the end, and what the request itself waits for.

use std::ops::Deref;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::completed::Inbox;
use super::graph::Node;
use super::state::{Job, Status};
use crate::panics;
use crate::sync::thread::{self, Thread};

/// Kept in a box of its own, so that the many requests without it stay small.
#[derive(Default)]
pub(crate) struct Extras {
    observers: Vec<Observer>,
    /// What releases the requests that follow. Before all observers, who may wait for one of them.
    followers: Vec<Callback>,
    /// A running request: the waits that its thread is in, the outer ones first, each for any of some others.
    /// A deferred request: the one that it follows.
    pub(super) waits: Vec<Vec<Node>>,
    /// A request that waits for its time: the name of its entry in the timer.
    alarm: Option<(Instant, u64)>,
}

pub(crate) type Callback = Box<dyn FnOnce(Status) + Send>;

pub(crate) enum Observer {
    /// A thread in a wait.
    Thread(Thread),
    Callback(Callback),
    /// An iteration over results as they come, and the request's index in it.
    Inbox(Arc<Inbox>, usize),
    /// A task of somebody's async runtime.
    Task(Waker),
}

impl Extras {
    pub(super) fn alarm(&self) -> Option<(Instant, u64)> {
        self.alarm
    }

    /// A worker that waits for a deferred request has to look again when it is queued: it may have to run it itself.
    pub(super) fn wake_helpers(&self) {
        for observer in &self.observers {
            if let Observer::Thread(thread) = observer {
                thread.unpark();
            }
        }
    }
}

/// Tells a request how to find it in the timer.
pub(crate) fn set_alarm(job: &dyn Job, alarm: (Instant, u64)) {
    job.with_extras(&mut |extras| extras.get_or_insert_default().alarm = Some(alarm));
}

/// Has those workers look again that wait for a deferred request: what it waits for has changed.
pub(crate) fn stir(job: &dyn Job) {
    job.with_extras(&mut |extras| {
        if let Some(extras) = extras {
            extras.wake_helpers();
        }
    });
}

/// Registers `observer`, unless the request has ended: then it comes back.
pub(crate) fn register(job: &dyn Job, observer: Observer) -> Result<(), Observer> {
    let mut observer = Some(observer);
    let mut replaced = None;
    job.with_extras(&mut |extras| {
        // Under the lock in which the end is written: either the end is seen here, or it sees the observer.
        if job.head().is_done() {
            return;
        }
        let observers = &mut extras.get_or_insert_default().observers;
        // There is one handle to poll, and only its latest waker counts.
        let old = match &observer {
            Some(Observer::Task(_)) => observers.iter().position(|old| matches!(old, Observer::Task(_))),
            _ => None,
        };
        replaced = old.map(|old| observers.remove(old));
        observers.extend(observer.take());
    });
    // Dropped only here: a waker belongs to somebody else's runtime, whose code is not to run under our lock.
    drop(replaced);
    observer.map_or(Ok(()), Err)
}

/// Has `release` called when the request ends, before all observers; it comes back if it has ended.
pub(crate) fn follow(job: &dyn Job, release: Callback) -> Result<(), Callback> {
    let mut release = Some(release);
    job.with_extras(&mut |extras| {
        if !job.head().is_done() {
            extras.get_or_insert_default().followers.extend(release.take());
        }
    });
    release.map_or(Ok(()), Err)
}

/// Forgets an iteration that has ended early.
pub(super) fn forget(job: &dyn Job, inbox: &Arc<Inbox>) {
    let mut forgotten = None;
    job.with_extras(&mut |extras| {
        let Some(extras) = extras else { return };
        let mine = |observer: &Observer| matches!(observer, Observer::Inbox(other, _) if Arc::ptr_eq(other, inbox));
        forgotten = extras.observers.iter().position(mine).map(|position| extras.observers.remove(position));
    });
}

/// Tells those who wait, and returns the callbacks, in the order in which they registered: each may take its time, or
/// wait for one of the others.
pub(super) fn wake(extras: Option<Box<Extras>>, status: Status) -> Vec<Observer> {
    let Some(extras) = extras else { return Vec::new() };
    extras.followers.into_iter().for_each(|release| panics::contain(|| release(status)));
    let mut callbacks = Vec::new();
    for observer in extras.observers {
        match observer {
            Observer::Callback(_) => callbacks.push(observer),
            waiter => waiter.tell(status),
        }
    }
    callbacks
}

impl Observer {
    /// Runs code of users; their panics stay here.
    pub(crate) fn tell(self, status: Status) {
        panics::contain(move || match self {
            Observer::Thread(thread) => thread.unpark(),
            Observer::Callback(callback) => callback(status),
            Observer::Inbox(inbox, index) => inbox.put(index),
            Observer::Task(waker) => waker.wake(),
        });
    }
}

/// Has this thread unparked when the request ends, or is queued, for as long as it lives.
pub(super) struct Watch<J: Deref<Target = dyn Job>> {
    job: J,
}

impl<J: Deref<Target = dyn Job>> Watch<J> {
    pub(super) fn start(job: J) -> Watch<J> {
        // If it has ended there is nothing to be told: the caller looks once more before it parks.
        let _ = register(&*job, Observer::Thread(thread::current()));
        Watch { job }
    }

    pub(super) fn is_on(&self, job: &dyn Job) -> bool {
        std::ptr::addr_eq(&*self.job, job)
    }
}

impl<J: Deref<Target = dyn Job>> Drop for Watch<J> {
    fn drop(&mut self) {
        if self.job.head().is_done() {
            return;
        }
        let me = thread::current().id();
        self.job.with_extras(&mut |extras| {
            let Some(extras) = extras else { return };
            let mine = |observer: &Observer| matches!(observer, Observer::Thread(thread) if thread.id() == me);
            // One of them: an outer wait of this thread on the same request keeps its own.
            if let Some(position) = extras.observers.iter().position(mine) {
                extras.observers.remove(position);
            }
        });
    }
}
