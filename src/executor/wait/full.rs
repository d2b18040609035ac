//! Submissions to a bounded queue: what happens when it is full.

use std::sync::Arc;

use super::block::Blocked;
use super::park::run_here;
use crate::error::{Error, Result};
use crate::executor::accept::Entry;
use crate::executor::core::Core;
use crate::executor::current;
use crate::executor::pool::Task;
use crate::executor::room::{Bound, Full, OnFull, Room, Waiter};
use crate::executor::waits::Node;
use crate::lanes::LaneKey;
use crate::sync::interrupt::InterruptibleWait;
use crate::sync::thread;
use crate::time::Deadline;

impl Core {
    /// Accepts new requests, all of them or none, if there is room; otherwise does what the
    /// settings say.
    pub(in crate::executor) fn accept_bounded(
        self: &Arc<Core>,
        room: &Room,
        jobs: &[(Option<LaneKey>, Task)],
    ) -> Result<()> {
        let limit = Some(room.limit);
        if room.on_full != OnFull::CallerRuns {
            self.check_size(room, jobs.len())?;
        }
        let Some(full) = self.accept_within(room, jobs, limit)? else {
            return Ok(());
        };
        match room.on_full {
            OnFull::Reject => Err(Error::QueueFull),
            OnFull::CallerRuns => {
                let accepted = self.accept_within(room, jobs, None)?;
                debug_assert!(accepted.is_none(), "nothing is full without a limit");
                for (_, job) in jobs {
                    run_here(&Node { job: job.clone(), core: self.clone() });
                }
                Ok(())
            }
            OnFull::Wait(limit) => self.wait_for_room(room, jobs, full, Deadline::start(limit)),
        }
    }

    /// Waits in the line of submitters until there is room for all `jobs`, and accepts them; all or
    /// none. `full` is what there was no room in at the first try.
    ///
    /// Fails with `QueueFull` at the deadline, or at once if only the end of the caller's own
    /// operation could make room; with `Interrupted` if that operation is cancelled; with
    /// `ShutDown` if the executor closes.
    fn wait_for_room(
        self: &Arc<Core>,
        room: &Room,
        jobs: &[(Option<LaneKey>, Task)],
        full: Full,
        deadline: Deadline,
    ) -> Result<()> {
        if self.is_full_behind_caller(full) {
            return Err(Error::QueueFull);
        }
        // Another thread may work in this one's place, or there would never be room.
        let blocked = if current::is_worker() { Blocked::enter_any() } else { None };
        let wait = InterruptibleWait::begin(blocked.as_ref().map(Blocked::place));
        let mut me: Option<Arc<Waiter>> = None;
        loop {
            {
                let mut state = room.lock();
                // Where it stays in the line, and for what, is settled under the lock in which it
                // was looked.
                let bound = Bound::new(&mut state, me.as_ref(), Some(room.limit));
                match self.enter_many(jobs, Some(bound)) {
                    Ok(Entry::Full(full)) if !wait.is_interrupted() && !deadline.is_past() => state.join(&mut me, full),
                    tried => {
                        if let Some(me) = &me {
                            state.leave_line(me);
                        }
                        drop(state);
                        return match tried? {
                            Entry::Accepted(wakeup) => {
                                self.act(wakeup);
                                Ok(())
                            }
                            Entry::Full(_) if wait.is_interrupted() => Err(Error::Interrupted),
                            Entry::Full(_) => Err(Error::QueueFull),
                        };
                    }
                }
            }
            let waiter = me.as_ref().expect("joined above");
            while !waiter.is_called() && !wait.is_interrupted() && !deadline.is_past() {
                thread::park_until(deadline.at());
            }
        }
    }

    /// Whether there is no room on a lane before the operation that waits here has ended.
    fn is_full_behind_caller(&self, full: Full) -> bool {
        let Full::Lane(key) = full else { return false };
        current::runs_for(self).iter().any(|job| self.order.is_on(job.head(), key))
    }

    fn check_size(&self, room: &Room, many: usize) -> Result<()> {
        if many as u64 <= room.limit {
            return Ok(());
        }
        if self.order.is_closed() {
            return Err(self.why_closed());
        }
        let limit = room.limit;
        Err(Error::Invalid(format!(
            "{many} requests at once never fit into a queue of {limit}: submit fewer, or build a larger one"
        )))
    }
}
