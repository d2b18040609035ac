//! Stuck handlers: those that have lost their task, because its time limit or its lease is over,
//! and do not return.
//!
//! A thread can't be ended from outside. So a thread that hangs is replaced by another one, and no
//! type starves because of tasks of another type. A worker replaces as many threads as it has
//! handlers at once, if they are its own; those of an executor that the user gave are the user's to
//! add. When all threads hang, the worker claims nothing, and puts back what it has claimed, for
//! other workers; it goes on when a handler returns.
//!
//! A handler counts as stuck if a heartbeat finds it without its task, and the next one still does:
//! one that obeys has the time between them to return.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::handler::TaskContext;
use super::event::TaskEvent;
use super::shared::{Fenced, Shared, State};
use crate::sync::Ordering;
use crate::trace::event;

/// Why a task is put back then.
pub(super) const HANGS: &str = "given back: a thread of its worker hangs";

impl Shared {
    /// How many runners there may be: as many as run at once, and one more for each that hangs.
    pub(super) fn most_runners(&self, state: &State) -> usize {
        self.max_concurrent + state.stuck.len().min(self.replaceable)
    }

    /// Whether every thread that this worker may have hangs.
    pub(super) fn is_stuck(&self, state: &State) -> bool {
        state.stuck.len() >= self.most_runners(state)
    }

    /// Counts the handlers that hang, and has others run beside them.
    pub(super) fn look_for_stuck(&self) {
        let mut state = self.state.lock();
        let lost: HashSet<Fenced> =
            state.at_work.iter().filter(|(_, task)| task.is_lost()).map(|(fenced, _)| *fenced).collect();
        let stuck: HashSet<Fenced> = lost.intersection(&state.lost).copied().collect();
        let new: Vec<Arc<TaskContext>> =
            stuck.difference(&state.stuck).filter_map(|fenced| state.at_work.get(fenced)).cloned().collect();
        state.lost = lost;
        state.stuck = stuck;
        let replaced = state.stuck.len().min(self.replaceable);
        let has_changed = state.stats.replaced != replaced as u64;
        state.stats.replaced = replaced as u64;
        let (is_stuck, most) = (self.is_stuck(&state), self.most_runners(&state));
        if new.is_empty() {
            drop(state);
        } else {
            // What waits here would wait for a thread that hangs. The next claim is for the threads
            // that are free.
            self.give_back(state, HANGS);
        }
        if has_changed {
            if let Err(error) = self.executor.resize(most) {
                self.note_error("replacing a thread that hangs", &error.into());
            }
        }
        for task in &new {
            let (id, name, worker) = (task.id(), task.task_type().to_owned(), self.id.to_string());
            event!(
                WARN,
                "a handler has lost its task and does not return",
                task = id,
                task_type = name,
                worker = worker
            );
            self.queue.metrics().of_type(task.task_type()).stuck.fetch_add(1, Ordering::Relaxed);
            self.tell(&TaskEvent::Stuck(task));
        }
        if is_stuck && !new.is_empty() {
            let worker = self.id.to_string();
            event!(ERROR, "all threads of a worker hang: it takes no more tasks", worker = worker, threads = most);
        }
        if has_changed || !new.is_empty() {
            self.changed.notify_all();
        }
    }
}
