//! The tree of what ends together: each group and each time limit is a scope, and lies in another
//! one or in none.
//!
//! # What is counted
//!
//! A scope is *active* while a request in it has not ended, or a scope in it is active. So a scope
//! that isn't active has nothing unfinished below it. A submission counts before the executor
//! accepts it and until its end has been told, and a first one in a scope counts in the scopes
//! above as well, from the inside out. What an operation submits counts while that operation still
//! counts itself, so that no moment lies between in which the scope looks idle.
//!
//! # Cancel against submit
//!
//! A cancel first notes its reason in the scope, under the lock, and then tells the requests that
//! it finds there. A submission enters its request under the same lock before the executor accepts
//! it, and looks for the reason once it is accepted. If the cancel comes first, the request is
//! never accepted. If it comes between the two, the cancel leaves the request alone, and the
//! submission cancels it. If it comes last, it finds the request. A request that a thread starts in
//! between looks for the reason before it calls its operation (`InScope::call` in `member`).
//!
//! No lock of a scope is held while another one is taken, or while code of users runs: a cancel
//! copies what it finds, and goes down the tree by a list of its own instead of by recursion.
//!
//! Source: the cancel scopes and nurseries of Trio (Nathaniel J. Smith, "Notes on structured
//! concurrency", 2018).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::policy::{GroupStats, Policy};
use crate::error::{Error, Result};
use crate::executor::alarm::Alarmed;
use crate::executor::core::{Core, Due};
use crate::executor::pool::Task;
use crate::sync::thread::Thread;
use crate::sync::{AtomicU8, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::timer::Alarm;

pub(in crate::executor) struct CancelScope {
    /// `None` for the outermost.
    parent: Option<Arc<CancelScope>>,
    /// Its number among its parent's children.
    number: u64,
    /// Its timer has the limit.
    pub(super) core: Arc<Core>,
    /// Its own time limit or an inherited one, whichever comes first.
    deadline: Option<Instant>,
    /// Whether the deadline is its own, and no scope above has an alarm for it.
    has_own_deadline: bool,
    /// `None` if it is a time limit and no group.
    policy: Option<Policy>,
    /// How many threads wait for one of the scopes of this tree.
    pub(super) watchers: Arc<AtomicUsize>,
    /// A copy of `State::ended` for requests that are about to start.
    ended: AtomicU8,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Why nothing starts in it any more.
    ended: Option<Why>,
    next_number: u64,
    pub(super) members: BTreeMap<u64, Entry>,
    children: BTreeMap<u64, Weak<CancelScope>>,
    /// By their addresses.
    guests: BTreeMap<usize, Weak<dyn Guest>>,
    /// The requests that have not ended, and the active children.
    pub(super) active: usize,
    alarm: Option<Alarm>,
    /// Of the group's own requests and of those that its time limits hold.
    pub(super) stats: GroupStats,
    /// The first failure of a request that was submitted to the group itself.
    failure: Option<Task>,
    /// Threads that wait for the end.
    pub(super) waiting: Vec<Thread>,
}

/// Periodic work that ends with the scope, but isn't waited for: it has no end of its own.
pub(in crate::executor) trait Guest: Send + Sync {
    fn end(&self);
}

/// A request that has not ended.
pub(super) struct Entry {
    pub(super) core: Arc<Core>,
    /// `None` until it is made.
    pub(super) job: Option<Task>,
    /// The executor has it, so that it can be cancelled.
    pub(super) accepted: bool,
    /// Its time to start has passed.
    pub(super) expired: bool,
    /// The alarm of its time to start.
    pub(super) alarm: Option<Alarm>,
}

/// Why a scope starts nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Why {
    Cancelled = 1,
    /// Its time limit has passed.
    Expired = 2,
    /// All were to succeed, and one failed.
    Failed = 3,
    /// One was to succeed, and did.
    Succeeded = 4,
}

impl Why {
    pub(super) fn error(self) -> Error {
        match self {
            Why::Expired => Error::Expired,
            _ => Error::Cancelled,
        }
    }

    /// What the scopes inside are told.
    fn inherited(self) -> Why {
        match self {
            Why::Expired => Why::Expired,
            _ => Why::Cancelled,
        }
    }
}

impl CancelScope {
    /// A scope in `parent`, or in none. It has a time limit of its own only if `deadline` comes
    /// before the one that it inherits. `policy` is a group's; a time limit has none. If `parent`
    /// has ended, the new scope has ended as well.
    pub(super) fn new(
        parent: Option<Arc<CancelScope>>,
        core: Arc<Core>,
        deadline: Option<Instant>,
        policy: Option<Policy>,
    ) -> Arc<CancelScope> {
        let inherited = parent.as_ref().and_then(|parent| parent.deadline);
        let has_own_deadline = deadline.is_some_and(|own| inherited.is_none_or(|inherited| own < inherited));
        let number = parent.as_ref().map_or(0, |parent| parent.state.lock().number());
        let watchers = parent.as_ref().map_or_else(|| Arc::new(AtomicUsize::new(0)), |parent| parent.watchers.clone());
        let scope = Arc::new(CancelScope {
            parent,
            number,
            core,
            deadline: if has_own_deadline { deadline } else { inherited },
            has_own_deadline,
            policy,
            watchers,
            ended: AtomicU8::new(0),
            state: Mutex::new(State::default()),
        });
        if let Some(parent) = &scope.parent {
            let mut state = parent.state.lock();
            state.children.insert(number, Arc::downgrade(&scope));
            let ended = state.ended;
            drop(state);
            // An end of `parent` that comes later finds the new scope among the children.
            if let Some(why) = ended {
                scope.note(why.inherited());
            }
        }
        scope
    }

    pub(in crate::executor) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The group that it lies in, or is. Outermost time limits are their own: no thread reads their
    /// statistics.
    pub(super) fn group(self: &Arc<CancelScope>) -> &Arc<CancelScope> {
        let mut scope = self;
        while scope.policy.is_none() {
            let Some(parent) = &scope.parent else { break };
            scope = parent;
        }
        scope
    }

    /// Why nothing starts in it any more.
    pub(super) fn ended(&self) -> Option<Why> {
        // Acquire: pairs with the store in `note`, so that what a cancel did before is seen.
        match self.ended.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Why::Cancelled),
            2 => Some(Why::Expired),
            3 => Some(Why::Failed),
            _ => Some(Why::Succeeded),
        }
    }

    pub(super) fn is_past(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Enters the first of what is submitted, `count` requests, each with an alarm at `start_by`.
    /// Returns their numbers; with a reason, none is to be submitted.
    pub(super) fn enter(self: &Arc<CancelScope>, core: &Arc<Core>, count: usize) -> Result<Result<Vec<u64>, Why>> {
        if self.is_past() {
            // The alarm may be late; it would find nothing else to do here.
            self.cancel(Why::Expired);
        }
        let mut state = self.state.lock();
        if let Some(why) = state.ended {
            return Ok(Err(why));
        }
        if count == 0 {
            return Ok(Ok(Vec::new()));
        }
        if let Some(at) = self.deadline.filter(|_| self.has_own_deadline && state.alarm.is_none()) {
            // Under the lock, so that the end finds the alarm; the timer takes no lock of ours.
            let due = Due::Limit(Arc::new(Limit(Arc::downgrade(self))));
            state.alarm = Some(self.core.set_alarm(at, due, None)?);
        }
        let numbers: Vec<u64> = (0..count).map(|_| state.number()).collect();
        for number in &numbers {
            let entry = Entry { core: core.clone(), job: None, accepted: false, expired: false, alarm: None };
            state.members.insert(*number, entry);
        }
        let was_idle = state.active == 0;
        state.active += count;
        drop(state);
        if was_idle {
            self.activate_parents();
        }
        Ok(Ok(numbers))
    }

    /// Has `guest` end with the scope. Says whether it hasn't ended yet.
    pub(in crate::executor) fn admit_guest(self: &Arc<CancelScope>, guest: &Weak<dyn Guest>) -> bool {
        if self.is_over() {
            return false;
        }
        let mut state = self.state.lock();
        let is_open = state.ended.is_none();
        if is_open {
            state.guests.insert(guest.as_ptr().cast::<()>().addr(), guest.clone());
        }
        is_open
    }

    /// The guest at this address has ended.
    pub(in crate::executor) fn dismiss_guest(&self, address: usize) {
        let gone = self.state.lock().guests.remove(&address);
        drop(gone);
    }

    /// Whether nothing starts in it any more.
    pub(in crate::executor) fn is_over(&self) -> bool {
        self.ended().is_some() || self.is_past()
    }

    /// The scopes above are active because this one has become so.
    fn activate_parents(&self) {
        let mut parent = self.parent.as_ref();
        while let Some(scope) = parent {
            let mut state = scope.state.lock();
            state.active += 1;
            if state.active > 1 {
                break;
            }
            drop(state);
            parent = scope.parent.as_ref();
        }
    }

    /// One of its requests has ended, or was not accepted.
    pub(super) fn leave(&self) {
        let mut next = Some(self);
        while let Some(scope) = next {
            let mut state = scope.state.lock();
            state.active -= 1;
            if state.active > 0 {
                return;
            }
            let (waiting, alarm) = (std::mem::take(&mut state.waiting), state.alarm.take());
            drop(state);
            if let Some(alarm) = alarm {
                drop(scope.core.timer.remove(alarm));
            }
            waiting.iter().for_each(Thread::unpark);
            next = scope.parent.as_deref();
        }
    }

    /// Has the threads look again that wait here, or further out: there is something new to wait
    /// for.
    pub(super) fn wake(&self) {
        // Relaxed: a thread that waits counts itself before it takes the lock under which it looks,
        // and the caller has held that lock since it entered what is new.
        if self.watchers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut next = Some(self);
        while let Some(scope) = next {
            let waiting = std::mem::take(&mut scope.state.lock().waiting);
            waiting.iter().for_each(Thread::unpark);
            next = scope.parent.as_deref();
        }
    }

    /// Has nothing start in it from now on. Returns whether that is new.
    fn note(&self, why: Why) -> bool {
        let mut state = self.state.lock();
        let is_new = state.ended.is_none();
        if is_new {
            self.end(&mut state, why);
        }
        is_new
    }

    fn end(&self, state: &mut State, why: Why) {
        state.ended = Some(why);
        // Release: see `ended`.
        self.ended.store(why as u8, Ordering::Release);
    }

    /// A request that was submitted to the group itself has ended: does what the policy says.
    /// Returns whether the others are to be cancelled.
    pub(super) fn decide(&self, job: &Task, succeeded: bool) -> bool {
        let mut state = self.state.lock();
        if state.ended.is_some() {
            return false;
        }
        let why = match (self.policy, succeeded) {
            (Some(Policy::Any), true) => Why::Succeeded,
            (Some(Policy::All), false) => Why::Failed,
            (Some(Policy::Any), false) => {
                state.failure.get_or_insert_with(|| job.clone());
                return false;
            }
            _ => return false,
        };
        if !succeeded {
            state.failure = Some(job.clone());
        }
        self.end(&mut state, why);
        true
    }

    /// Cancels all that is in it. Returns whether that is new.
    pub(super) fn cancel(self: &Arc<CancelScope>, why: Why) -> bool {
        let is_new = self.note(why);
        if is_new {
            self.cancel_members(why);
        }
        is_new
    }

    /// Cancels what is in it, which starts nothing any more.
    pub(super) fn cancel_members(self: &Arc<CancelScope>, why: Why) {
        let mut open = vec![self.clone()];
        let mut told = Vec::new();
        while let Some(scope) = open.pop() {
            let (members, children, guests): (Vec<_>, Vec<_>, Vec<_>) = {
                let state = scope.state.lock();
                // The last first, so that none of them is let onto its key by the one before it.
                let accepted = state.members.values().rev().filter(|entry| entry.accepted);
                let members = accepted.filter_map(|entry| Some((entry.core.clone(), entry.job.clone()?))).collect();
                let guests = state.guests.values().filter_map(Weak::upgrade).collect();
                (members, state.children.values().filter_map(Weak::upgrade).collect(), guests)
            };
            // Before the runs that are on: the end of one would have it wait for the next.
            guests.iter().for_each(|guest| guest.end());
            // One that ended before tells its own.
            open.extend(children.into_iter().filter(|child| child.note(why.inherited())));
            for (core, job) in members {
                if !core.cancel_for(&job, why == Why::Expired) {
                    told.push(job);
                }
            }
        }
        if !told.is_empty() {
            self.core.put_down(told);
        }
    }

    pub(super) fn unfinished(self: &Arc<CancelScope>) -> u64 {
        let mut count = 0;
        self.visit(|state| count += state.members.len() as u64);
        count
    }

    /// Looks at it, and at all scopes in it.
    pub(super) fn visit(self: &Arc<CancelScope>, mut see: impl FnMut(&State)) {
        let mut open = vec![self.clone()];
        while let Some(scope) = open.pop() {
            let state = scope.state.lock();
            see(&state);
            let children: Vec<_> = state.children.values().filter_map(Weak::upgrade).collect();
            drop(state);
            open.extend(children);
        }
    }

    /// How the group has ended, as its policy sees it. The first failure is told once.
    pub(super) fn outcome(&self) -> Result<GroupStats> {
        let mut state = self.state.lock();
        let (stats, ended) = (state.stats, state.ended);
        let done = match self.policy {
            Some(Policy::Any) => ended == Some(Why::Succeeded),
            Some(Policy::Each) => ended.is_none_or(|why| why == Why::Expired),
            _ => ended.is_none() && state.failure.is_none(),
        };
        if done {
            return Ok(stats);
        }
        let failure = state.failure.take();
        drop(state);
        if let Some(error) = failure.and_then(|job| job.take_error()) {
            return Err(error);
        }
        Err(match ended {
            Some(why) => why.error(),
            None if stats.submitted == 0 => Error::Invalid(
                "a group of 0 requests has none that could succeed: submit at least one under `Policy::Any`".into(),
            ),
            // Each failed, or was cancelled by its handle, and the first failure was taken there.
            None => Error::Cancelled,
        })
    }

    /// Takes it out of its parent, which is returned.
    fn unlink(&mut self) -> Option<Arc<CancelScope>> {
        let parent = self.parent.take()?;
        parent.state.lock().children.remove(&self.number);
        Some(parent)
    }
}

impl Drop for CancelScope {
    fn drop(&mut self) {
        // In a loop: a scope may hold the last reference to its parent, and that to its own.
        let mut parent = self.unlink();
        while let Some(scope) = parent {
            parent = Arc::into_inner(scope).and_then(|mut scope| scope.unlink());
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// What the timer fires when a scope's time limit passes.
struct Limit(Weak<CancelScope>);

impl Alarmed for Limit {
    fn ring(self: Arc<Limit>) {
        if let Some(scope) = self.0.upgrade() {
            scope.cancel(Why::Expired);
        }
    }

    /// Never: a shutdown leaves time limits to those whom they are for.
    fn give_up(self: Arc<Limit>) {}
}
