//! Claiming: takes tasks for idle threads, and a few in advance for busy ones, and hands them to
//! runners.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::engine::Claimed;
use super::super::error::TaskError;
use super::super::handler::TaskContext;
use super::super::signal::News;
use super::handlers;
use super::leases;
use super::shared::{LONGEST_PAUSE, Shared, State};
use super::stop::STOPS;
use super::stuck::HANGS;
use crate::error::Error;

/// Tasks that the threads get to within this time are claimed in advance.
const PREFETCH: Duration = Duration::from_millis(100);

impl Shared {
    /// Fills the buffer until the worker drains.
    pub(super) fn claim_loop(self: Arc<Shared>) {
        let signal = self.queue.engine().signal();
        loop {
            let seen = signal.count(News::Work);
            let Some(wanted) = self.wait_for_room() else {
                break;
            };
            let idle = match self.claim(wanted) {
                Ok(claimed) => {
                    let is_all = claimed.len() < wanted;
                    let claimed = claimed
                        .into_iter()
                        .map(|claimed| Arc::new(TaskContext::kept(self.queue.clone(), self.id.clone(), claimed)));
                    if !self.dispatch(claimed) {
                        self.pause_claiming();
                    }
                    is_all
                }
                Err(error) => {
                    self.note_error("claiming", &error);
                    true
                }
            };
            if idle {
                self.wait_for_work(seen);
            }
        }
        let mut state = self.state.lock();
        state.claiming = false;
        drop(state);
        self.changed.notify_all();
    }

    fn claim(&self, wanted: usize) -> Result<Vec<Claimed>, TaskError> {
        let engine = self.queue.engine();
        self.queue.metrics().claim.time(|| engine.claim(&self.id, &self.types, wanted, self.lease, ""))
    }

    /// How many to claim; `None` when the worker drains.
    fn wait_for_room(&self) -> Option<usize> {
        let mut state = self.state.lock();
        loop {
            if state.draining {
                return None;
            }
            let room = self.room(&state);
            if room > 0 {
                return Some(room);
            }
            self.changed.wait(&mut state);
        }
    }

    /// How many to claim now; none while there are enough.
    pub(super) fn room(&self, state: &State) -> usize {
        // One for each idle thread; and while all are at work, a few to have ready for them.
        let idle = self.most_runners(state).saturating_sub(state.runners);
        if self.is_stuck(state) {
            return 0;
        }
        let ahead = self.batch.unwrap_or_else(|| self.prefetch(state));
        // A claim costs a commit: wait until half of the buffer is empty, unless a thread is idle.
        let is_worth_it = state.buffer.len() * 2 <= ahead || idle > state.buffer.len();
        if is_worth_it { ahead.max(idle).saturating_sub(state.buffer.len()) } else { 0 }
    }

    /// How many tasks the threads will get to within [`PREFETCH`]. Other machines may be idle: a
    /// task that would wait longer in this buffer is left to them.
    fn prefetch(&self, state: &State) -> usize {
        let rounds = PREFETCH.as_secs_f64() / state.mean_attempt.unwrap_or(f64::INFINITY).max(1e-9);
        if rounds >= 1.0 { self.max_concurrent } else { (rounds * self.max_concurrent as f64) as usize }
    }

    /// Sleeps until there may be work again, of which the signal has not told since it was at
    /// `seen`.
    fn wait_for_work(&self, mut seen: u64) {
        let engine = self.queue.engine();
        let next_due = || {
            engine.next_due(&self.types).unwrap_or_else(|error| {
                self.note_error("looking for work", &error);
                None
            })
        };
        // A task that is due and was not claimed is kept by a limit at once. The signal may not
        // ring when the limit has room again: the poll finds out.
        let mut wait = next_due().filter(|due| !due.is_zero());
        loop {
            let pause = wait.map_or(self.queue.poll(), |wait| wait.min(self.queue.poll()));
            engine.signal().wait(News::Work, seen, Instant::now() + pause);
            // Before the looks below: a ring that tells of a drain must not fall between.
            seen = engine.signal().count(News::Work);
            if self.state.lock().draining {
                return;
            }
            // A read, before the claim takes the writer's lock: an idle queue costs no more.
            wait = next_due();
            if wait.is_some_and(|due| due.is_zero()) {
                return;
            }
        }
    }

    /// Hands the claimed tasks to runners. Says whether there are any: the executor may refuse
    /// them.
    fn dispatch(self: &Arc<Shared>, claimed: impl Iterator<Item = Arc<TaskContext>>) -> bool {
        let mut told = Vec::new();
        let mut state = self.state.lock();
        for task in claimed {
            state.stats.claimed += 1;
            if let Some(before) = state.held.insert(task.id(), task.clone()) {
                // Its lease was lost and this worker has claimed it anew, before a heartbeat could
                // say so.
                told.push(before.set_lost());
            }
            state.buffer.push_back(task);
        }
        if !told.is_empty() {
            drop(state);
            leases::interrupt(told);
            state = self.state.lock();
        }
        if state.draining {
            self.give_back(state, STOPS);
            return true;
        }
        if self.is_stuck(&state) {
            // Since the claim was sent.
            self.give_back(state, HANGS);
            return true;
        }
        let wanted = self.most_runners(&state).saturating_sub(state.runners).min(state.buffer.len());
        state.runners += wanted;
        drop(state);
        for spawned in 0..wanted {
            let shared = self.clone();
            if let Err(error) = self.executor.spawn_kept(move || handlers::run(&shared)) {
                self.runners_refused(wanted - spawned, error);
                return false;
            }
        }
        true
    }

    /// The executor takes no more runners. If there is none at all, the tasks are left to other
    /// workers.
    fn runners_refused(&self, runners: usize, error: Error) {
        let mut state = self.state.lock();
        state.runners -= runners;
        // It would refuse the next ones, too.
        state.draining |= matches!(error, Error::ShutDown);
        if state.runners == 0 || state.draining {
            self.give_back(state, STOPS);
        } else {
            drop(state);
        }
        self.changed.notify_all();
        self.note_error("handing tasks to the executor", &error.into());
    }

    /// Waits before the next claim, because no thread of this worker can run a handler now.
    fn pause_claiming(&self) {
        let (mut state, until) = (self.state.lock(), Instant::now() + LONGEST_PAUSE);
        while !state.draining && !self.changed.wait_until(&mut state, until).timed_out() {}
    }
}
