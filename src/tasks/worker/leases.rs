//! Leases: renews them, finds out which tasks are lost or to be cancelled, and gives back those
//! that the worker holds without knowing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::super::engine::{Action, Held, Step};
use super::super::handler::TaskContext;
use super::super::new_task::clean;
use super::shared::{Fenced, Shared};
use crate::executor::Told;
use crate::sync::thread;

/// Calls the hooks of handlers that were told to stop, on a thread of its own: they are the user's,
/// and one that takes long would keep leases from being renewed.
pub(super) fn interrupt(told: impl IntoIterator<Item = Told>) {
    let told: Arc<[Told]> = told.into_iter().filter(|told| !told.is_empty()).collect();
    if told.is_empty() {
        return;
    }
    let theirs = told.clone();
    let calls = move || theirs.iter().for_each(Told::interrupt);
    if thread::spawn("fulmar-interrupt".into(), None, calls).is_err() {
        told.iter().for_each(Told::interrupt);
    }
}

impl Shared {
    /// Renews the leases, and finds out what is lost.
    pub(super) fn heartbeat(&self) {
        let before: Vec<Arc<TaskContext>> = {
            let mut state = self.state.lock();
            if state.held.is_empty() && !state.in_doubt {
                // There is no lease to lose.
                state.last_heartbeat = Instant::now();
                return;
            }
            // What becomes doubtful from here on may be missing in the answer.
            state.in_doubt = false;
            state.held.values().cloned().collect()
        };
        let sent = Instant::now();
        match self.queue.engine().heartbeat(&self.id, self.lease) {
            Ok(held) => self.answered(&before, &held, sent),
            Err(error) => {
                self.note_error("renewing leases", &error);
                if self.state.lock().last_heartbeat.elapsed() >= self.lease {
                    // Another worker may have taken them.
                    interrupt(before.iter().map(|task| task.set_lost()));
                }
            }
        }
    }

    /// Of the tasks held `before` the heartbeat was `sent`, those are lost that the database did
    /// not find `held`.
    fn answered(&self, before: &[Arc<TaskContext>], held: &[Held], sent: Instant) {
        let ours: HashMap<Fenced, bool> =
            held.iter().map(|held| ((held.id, held.token), held.cancel_requested)).collect();
        let mut state = self.state.lock();
        state.last_heartbeat = sent;
        let mut told = Vec::new();
        for task in before {
            match ours.get(&(task.id(), task.fence())) {
                Some(true) => told.push(task.set_cancelled()),
                Some(false) => {}
                None => {
                    told.push(task.set_lost());
                    // One that has not started is forgotten here; one at work is forgotten by its
                    // runner.
                    let waiting = state.buffer.len();
                    state.buffer.retain(|waiting| !Arc::ptr_eq(waiting, task));
                    if state.buffer.len() < waiting {
                        state.forget(task);
                    }
                }
            }
        }
        let is_known = |id: &i64, token: &i64| state.held.get(id).is_some_and(|task| task.fence() == *token);
        let orphans: HashSet<Fenced> = ours.into_keys().filter(|(id, token)| !is_known(id, token)).collect();
        // Found once, it may be a task whose claim is just being answered. Found twice, it is an
        // orphan.
        let certain: Vec<Fenced> = orphans.intersection(&state.orphans).copied().collect();
        state.in_doubt |= !orphans.is_empty();
        // The answer says nothing of a task that was given up after the heartbeat was sent: keep it
        // for the next one.
        state.given_up.retain(|fenced, (since, _)| orphans.contains(fenced) || *since >= sent);
        state.orphans = orphans;
        let reasons: Vec<Option<String>> =
            certain.iter().map(|fenced| state.given_up.get(fenced).map(|(_, why)| why.clone())).collect();
        drop(state);
        interrupt(told);
        for ((id, token), reason) in certain.into_iter().zip(reasons) {
            self.release_orphan(id, token, reason.as_deref().unwrap_or("its worker lost sight of it"));
        }
    }

    /// Puts a task back that this worker holds and that no thread of it works on: an answer of the
    /// database was lost, or the attempt's end could not be written.
    fn release_orphan(&self, id: i64, token: i64, why: &str) {
        let reason = clean(why);
        let step = |action| Step { task: id, token, worker: self.id.clone(), action, finished_in: false };
        let back = step(Action::GiveBack { reason: reason.clone() });
        let lose = step(Action::Lose { reason });
        // One of them fits, or neither: the task has started or not.
        if let Err(error) = self.queue.engine().step(vec![back, lose]) {
            self.note_error("giving an orphaned task back", &error);
        }
    }

    /// Finds out sooner than by the heartbeat that a task at work is to be cancelled.
    pub(super) fn poll_cancellations(&self) {
        if self.state.lock().stats.running == 0 {
            return;
        }
        match self.queue.engine().cancel_requests(&self.id) {
            Ok(requests) => {
                let state = self.state.lock();
                let task = |request: &Held| state.held.get(&request.id).filter(|task| task.fence() == request.token);
                let told: Vec<Told> = requests.iter().filter_map(task).map(|task| task.set_cancelled()).collect();
                drop(state);
                interrupt(told);
            }
            Err(error) => self.note_error("looking for cancellations", &error),
        }
    }
}
