//! Work that is interrupted when its time is over, while the request around it goes on: a step of a
//! durable function.
//!
//! Promises: no hook is called before the time is over, or after the work's end. Left to others:
//! what is called (`interruptible`), and on which thread (`aside`).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::alarm::Alarmed;
use super::core::{Core, Due};
use super::current;
use super::hooks::Hooks;
use super::interruptible::Interruptible;
use super::pool::Pool;
use crate::error::Result;
use crate::sync::OnceLock;
use crate::timer::Alarm;

/// Runs `body`, and interrupts it if it takes longer than `limit`. A sum past the clock's range is
/// no limit.
///
/// # Errors
/// [`Error::Spawn`](crate::Error::Spawn) if the timer's thread can't be started: `body` was not
/// called.
pub(crate) fn run_within<T>(limit: Duration, body: impl FnOnce() -> T) -> Result<T> {
    let work = Interruptible::new();
    let _alarm = Instant::now().checked_add(limit).map(|at| Set::new(&work, at)).transpose()?;
    Ok(work.run(body))
}

/// An alarm, which is called off when this is dropped.
struct Set {
    core: Arc<Core>,
    alarm: Alarm,
}

impl Set {
    fn new(work: &Arc<Interruptible>, at: Instant) -> Result<Set> {
        // The attempt at a task may run on any thread.
        let own = current::current().map(|(core, _)| core).or_else(|| current::worker().map(|worker| worker.core));
        let core = own.unwrap_or_else(beside_all);
        let limit = Limit { work: work.clone(), core: Arc::downgrade(&core) };
        let alarm = core.set_alarm(at, Due::Limit(Arc::new(limit)), None)?;
        Ok(Set { core, alarm })
    }
}

/// The executor of threads that have none. No user can shut it down. Only its timer is used, and
/// what the timer needs to call hooks.
fn beside_all() -> Arc<Core> {
    static BESIDE_ALL: OnceLock<Arc<Core>> = OnceLock::new();
    let make = || {
        let pool = Pool::new(1, "fulmar-step".into(), None, None);
        Core::new(pool, None, Hooks::default(), None)
    };
    BESIDE_ALL.get_or_init(make).clone()
}

impl Drop for Set {
    fn drop(&mut self) {
        drop(self.core.timer.remove(self.alarm));
    }
}

/// What the timer fires when the time is over.
struct Limit {
    work: Arc<Interruptible>,
    core: Weak<Core>,
}

impl Alarmed for Limit {
    fn ring(self: Arc<Limit>) {
        let told = self.work.tell();
        if let Some(core) = self.core.upgrade().filter(|_| !told.is_empty()) {
            // Not here: hooks are the user's, and may take their time.
            core.call_detached(move || told.interrupt());
        }
    }

    /// Never: a shutdown lets what was accepted end as it would without one.
    fn give_up(self: Arc<Limit>) {}
}
