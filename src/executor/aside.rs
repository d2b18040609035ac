//! Calls code of users that the timer's thread comes upon: the hooks, callbacks and destructors of
//! what it cancels at a time limit.
//!
//! Such code may take its time, and all other points in time would wait for it. The pool can't call
//! it either: its threads may all be blocked in what a hook is to interrupt. So it is called on a
//! few threads beside the pool, which start with the first such call, and end when they have been
//! idle for a while, or with a shutdown. They are an executor of their own, whose requests no user
//! sees.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, OrderBy};
use super::current;
use super::hooks::Hooks;
use super::lifecycle::Outside;
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::time::Deadline;

/// So many calls that take their time delay the others.
const THREADS: usize = 16;

/// Limits often pass in bursts.
const IDLE: Duration = Duration::from_secs(1);

impl Core {
    /// Calls code of the user's, on this thread unless that is a timer's. A shutdown waits for it,
    /// as `outside` says, and a wait for the executor's end, in that code, is told that it would
    /// wait for itself.
    pub(super) fn call_foreign(self: &Arc<Core>, outside: Outside, foreign: impl FnOnce() + Send + 'static) {
        let core = self.clone();
        let call = move || {
            {
                let _scope = current::enter_core(&core);
                foreign();
            }
            drop(outside);
        };
        if current::is_timer() {
            self.call_aside(Box::new(call));
        } else {
            current::call_nested(call);
        }
    }

    /// Drops references to requests, each of which may be the last one: its value, or its error, is
    /// the user's.
    pub(super) fn put_down(self: &Arc<Core>, jobs: impl Send + 'static) {
        if current::is_timer() {
            self.call_detached(move || drop(jobs));
        }
    }

    /// As `call_foreign`, for code that belongs to no request's end.
    pub(super) fn call_detached(self: &Arc<Core>, foreign: impl FnOnce() + Send + 'static) {
        self.call_foreign(Outside::enter(self), foreign);
    }

    /// Has `call` called on a thread beside the pool, behind the calls that came before, and
    /// returns at once. Only the timer's thread calls this. If the system refuses a thread, this
    /// one makes the oldest call itself.
    fn call_aside(self: &Arc<Core>, call: Box<dyn FnOnce() + Send>) {
        self.aside.lock().calls.push_back(call);
        let call_next = |core: &Core| {
            let next = core.aside.lock().calls.pop_front();
            if let Some(call) = next {
                call();
            }
        };
        let submit = |aside: &Arc<Core>| {
            let core = self.clone();
            let operation = move || {
                call_next(&core);
                Ok(())
            };
            aside.submit(OrderBy::KEPT, operation)
        };
        let mut submitted = submit(&self.aside(false));
        if let Err(Error::ShutDown) = submitted {
            // A shutdown that was over, or is just ending; the executor was opened again since.
            submitted = submit(&self.aside(true));
        }
        if submitted.is_err() {
            // The system refuses a thread. Other alarms now come late, but no call is lost.
            call_next(self);
        }
    }

    /// The executor of these threads; with `anew`, not one that is closed.
    fn aside(&self, anew: bool) -> Arc<Core> {
        let mut state = self.aside.lock();
        if anew && state.core.as_ref().is_some_and(|core| core.is_closed()) {
            state.core = None;
        }
        let make = || {
            let pool = Pool::new(THREADS, self.pool.name_of("limits"), self.pool.stack_size(), Some(IDLE));
            Core::new(pool, None, Hooks::default(), None)
        };
        state.core.get_or_insert_with(make).clone()
    }

    /// Ends these threads. Only if there is nothing left that may be called.
    pub(super) fn end_aside(&self, deadline: Deadline, is_interrupted: &dyn Fn() -> bool) -> Result<()> {
        let Some(aside) = self.aside.lock().core.clone() else { return Ok(()) };
        aside.close();
        aside.wait_for_end(deadline, is_interrupted)
    }

    /// Has a wait for the end of these threads look again.
    pub(super) fn nudge_aside(&self) {
        let aside = self.aside.lock().core.clone();
        if let Some(aside) = aside {
            aside.pool.nudge();
        }
    }
}
