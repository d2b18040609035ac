//! Stopping: claims no more, gives back what has not started, and waits for, or tells, the handlers
//! at work.

use super::super::engine::Action;
use super::super::signal::News;
use super::shared::{Shared, State};
use crate::executor::Told;
use crate::sync::MutexGuard;
use crate::time::Deadline;

/// Why a task is put back, mostly.
pub(super) const STOPS: &str = "given back: its worker stops";

impl Shared {
    /// Claims no more, and puts back what has not started.
    pub(super) fn stop_claiming(&self) {
        let mut state = self.state.lock();
        state.draining = true;
        state.held.values().for_each(|task| task.set_stopping());
        self.give_back(state, STOPS);
        self.changed.notify_all();
        // The claim loop may be waiting for work.
        self.queue.engine().signal().ring(News::Work);
    }

    /// Tells the handlers at work to stop, and those that start from now on.
    pub(super) fn cancel_handlers(&self) {
        let mut state = self.state.lock();
        state.cancelling = true;
        let told: Vec<Told> = state.held.values().map(|task| task.set_called_off()).collect();
        drop(state);
        self.changed.notify_all();
        told.iter().for_each(Told::interrupt);
    }

    /// The worker was dropped: a state that can't be written at once is left to the leases.
    pub(super) fn abandon(&self) {
        self.state.lock().abandoned = true;
        self.cancel_handlers();
    }

    /// Waits until no handler is at work and no claim on its way; returns how many handlers are.
    pub(super) fn wait_for_end(&self, deadline: Deadline) -> usize {
        let mut state = self.state.lock();
        while (state.runners > 0 || state.claiming) && !deadline.is_past() {
            match deadline.at() {
                None => self.changed.wait(&mut state),
                Some(at) => drop(self.changed.wait_until(&mut state, at)),
            }
        }
        state.runners.max(usize::from(state.claiming))
    }

    /// Puts the buffer back, in one step.
    pub(super) fn give_back(&self, mut state: MutexGuard<'_, State>, reason: &str) {
        let tasks = std::mem::take(&mut state.buffer);
        for task in &tasks {
            state.forget(task);
        }
        state.stats.given_back += tasks.len() as u64;
        drop(state);
        if tasks.is_empty() {
            return;
        }
        let action = || Action::GiveBack { reason: reason.into() };
        let steps = tasks.iter().map(|task| task.step(action())).collect();
        if let Err(error) = self.queue.engine().step(steps) {
            // They go back when their leases are over, uncharged.
            self.note_error("giving tasks back", &error);
        }
    }
}
