//! Handlers: a runner starts a task, runs its handler, ends it, and so on until there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::engine::{Action, Step, Stepped};
use super::super::error::TaskError;
use super::super::handler::TaskContext;
use super::super::metrics::Outcome;
use super::super::status::TaskStatus;
use super::TaskEvent;
use super::shared::{LONGEST_PAUSE, Shared};
use crate::backoff::Backoff;
use crate::error::chain;
use crate::panics;
use crate::trace::event;

/// A runner: a loop on a thread of the executor. It starts tasks that the worker has claimed, runs
/// their handlers, and writes what they came to. It returns when no claimed task is left, or when
/// the worker has a runner too many.
///
/// One call of the engine writes the ends of the last tasks and the starts of the next, so that a
/// task costs one wait for the disk. With `start_together` a call starts several tasks, whose
/// handlers this thread runs one after the other. If a call fails for good, its tasks are given up.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut owed: Vec<Owed> = Vec::new();
    loop {
        let next = shared.next(!owed.is_empty());
        if next.is_empty() && owed.is_empty() {
            return;
        }
        let mut steps: Vec<Step> = owed.iter().map(|owed| owed.step.clone()).collect();
        steps.extend(next.iter().map(|task| task.step(Action::Start)));
        let settled = settle(shared, &steps);
        let mut stepped = settled.as_deref().unwrap_or_default().iter().copied();
        // `Engine::step` answers each step. If an engine left one out, its task would be given up
        // with this error.
        let silent = TaskError::Invalid("the database did not say what became of the task".into());
        let why = settled.as_ref().err().unwrap_or(&silent);
        for Owed { task, took, .. } in owed.drain(..) {
            match stepped.next() {
                Some(stepped) => shared.ended(&task, took, stepped),
                None => {
                    shared.give_up(&task, true, why);
                    shared.tell_end(&task, None, took);
                }
            }
        }
        let mut started = Vec::new();
        for task in next {
            match stepped.next() {
                Some(stepped) => started.extend(shared.started(&task, stepped).then_some(task)),
                None => shared.give_up(&task, false, why),
            }
        }
        owed = started.into_iter().map(|task| run_one(shared, task)).collect();
    }
}

/// An attempt whose end is to be written.
struct Owed {
    task: Arc<TaskContext>,
    took: Duration,
    step: Step,
}

/// Runs a task's handler; says how it is to be ended.
fn run_one(shared: &Shared, task: Arc<TaskContext>) -> Owed {
    let start = Instant::now();
    let outcome = match shared.handlers.get(task.task_type()) {
        // One that was started together with others has waited for them here.
        _ if task.is_lost() => task.outcome(Err("the worker lost the task before its handler started".into())),
        Some(handler) => task.attempt_with(&**handler),
        None => task.outcome(Err("this worker has no handler for the task's type: give it one with `handle`".into())),
    };
    let step = task.step(outcome);
    Owed { task, took: start.elapsed(), step }
}

/// Does the steps, however often it takes.
///
/// # Errors
/// The last one, if that is hopeless, or the worker is gone.
fn settle(shared: &Shared, steps: &[Step]) -> Result<Vec<Stepped>, TaskError> {
    let pauses = Backoff::new(Duration::from_millis(10)).cap(LONGEST_PAUSE).jitter(0.5);
    let seed = steps.first().map_or(0, |step| step.task as u64);
    let mut tries = 0;
    loop {
        match shared.queue.metrics().commit.time(|| shared.queue.engine().step(steps.to_vec())) {
            Err(error) if error.is_retryable() => {
                if !shared.may_retry(&error, pauses.delay_with(tries, seed)) {
                    return Err(error);
                }
                tries = tries.saturating_add(1);
            }
            Err(error) => {
                shared.note_error("writing what tasks came to", &error);
                return Err(error);
            }
            done => return done,
        }
    }
}

impl Shared {
    /// The next tasks to start together; if there is none, the runner is counted out, unless it
    /// still `owes` a step.
    pub(super) fn next(&self, owes: bool) -> Vec<Arc<TaskContext>> {
        let mut state = self.state.lock();
        // Where a handler has returned that was taken for stuck, there is one runner too many.
        let is_surplus = state.runners > self.most_runners(&state);
        let first = if is_surplus { None } else { state.buffer.pop_front() };
        let mut next: Vec<Arc<TaskContext>> = first.into_iter().collect();
        // One that was started before may be what killed its worker: it starts alone.
        let is_fresh = |task: &Arc<TaskContext>| task.attempt() == 1;
        if !is_surplus && next.iter().all(is_fresh) {
            // A task that another thread could start now is left to that thread.
            let share = state.buffer.len() / self.max_concurrent.max(1);
            while next.len() < self.start_together.min(share + 1) && state.buffer.front().is_some_and(is_fresh) {
                next.extend(state.buffer.pop_front());
            }
        }
        let ends = next.is_empty() && !owes;
        state.runners -= usize::from(ends);
        let has_changed = ends || self.room(&state) > 0;
        drop(state);
        if has_changed {
            self.changed.notify_all();
        }
        next
    }

    /// What became of the start of a task. Says whether to run it.
    pub(super) fn started(&self, task: &Arc<TaskContext>, stepped: Stepped) -> bool {
        let mut state = self.state.lock();
        if stepped == Stepped::Stale {
            // Its handler isn't run, so that there is nothing to interrupt.
            let _ = task.set_lost();
            state.forget(task);
            return false;
        }
        state.stats.started += 1;
        state.stats.running += 1;
        state.at_work.insert((task.id(), task.fence()), task.clone());
        if state.draining {
            task.set_stopping();
        }
        if state.cancelling {
            // Its handler has no hooks yet, and calls them by itself.
            let _ = task.set_called_off();
        }
        drop(state);
        self.queue.metrics().of_type(task.task_type()).waiting.record(task.waited());
        self.tell(&TaskEvent::Started(task));
        true
    }

    /// What became of the end of an attempt.
    pub(super) fn ended(&self, task: &TaskContext, took: Duration, stepped: Stepped) {
        let mut state = self.state.lock();
        state.forget(task);
        state.at_work.remove(&(task.id(), task.fence()));
        state.stuck.remove(&(task.id(), task.fence()));
        let mean = state.mean_attempt.unwrap_or(took.as_secs_f64());
        state.mean_attempt = Some(mean + (took.as_secs_f64() - mean) / 8.0);
        let stats = &mut state.stats;
        stats.running -= 1;
        match stepped {
            Stepped::Done(TaskStatus::Finished) => stats.finished += 1,
            Stepped::Done(TaskStatus::Failed) => stats.failed += 1,
            Stepped::Done(TaskStatus::Paused) => stats.paused += 1,
            Stepped::Done(TaskStatus::Cancelled) => stats.cancelled += 1,
            Stepped::Done(_) => stats.retried += 1,
            Stepped::Stale => stats.stale += 1,
        }
        drop(state);
        if stepped == Stepped::Stale {
            // Its handler has returned.
            let _ = task.set_lost();
            event!(WARN, "a lost task's outcome was discarded", task = task.id(), worker = self.id.to_string());
        }
        let status = match stepped {
            Stepped::Done(status) => Some(status),
            Stepped::Stale => None,
        };
        self.tell_end(task, status, took);
    }

    /// Counts the end of an attempt, and tells of it. `None`: its outcome was discarded.
    fn tell_end(&self, task: &TaskContext, status: Option<TaskStatus>, took: Duration) {
        let outcome = status.map_or(Outcome::Lost, outcome);
        self.queue.metrics().of_type(task.task_type()).ended(outcome, took);
        self.tell(&TaskEvent::Ended { task, status, took });
    }

    pub(super) fn tell(&self, event: &TaskEvent<'_>) {
        if let Some(listener) = &self.listener {
            panics::contain(|| listener(event));
        }
    }

    /// A call failed that is worth another try: waits a little, and says whether to try. A worker
    /// that drains tries for ever, because a handler's work is not to be done again; one that was
    /// dropped doesn't.
    pub(super) fn may_retry(&self, error: &TaskError, pause: Duration) -> bool {
        self.note_error("writing what tasks came to", error);
        let mut state = self.state.lock();
        let until = Instant::now() + pause;
        while !state.abandoned && Instant::now() < until {
            self.changed.wait_until(&mut state, until);
        }
        !state.abandoned
    }

    /// Gives up on a task whose state can't be written, and why. The heartbeat will find that this
    /// worker still holds it.
    pub(super) fn give_up(&self, task: &TaskContext, was_running: bool, why: &TaskError) {
        let mut state = self.state.lock();
        state.forget(task);
        state.in_doubt = true;
        let what = if was_running { "what it came to" } else { "its start" };
        let why = format!("{what} could not be written: {}", chain(why));
        state.given_up.insert((task.id(), task.fence()), (Instant::now(), why));
        if was_running {
            state.at_work.remove(&(task.id(), task.fence()));
            state.stuck.remove(&(task.id(), task.fence()));
            state.stats.running -= 1;
            state.stats.stale += 1;
        }
    }
}

fn outcome(status: TaskStatus) -> Outcome {
    match status {
        TaskStatus::Finished => Outcome::Finished,
        TaskStatus::Failed => Outcome::Failed,
        TaskStatus::Paused => Outcome::Paused,
        TaskStatus::Cancelled => Outcome::Cancelled,
        TaskStatus::Accepted | TaskStatus::Scheduled | TaskStatus::Running => Outcome::Retried,
    }
}

#[cfg(all(test, feature = "tracing", feature = "sqlite"))]
mod tests {
    use super::super::super::engine::Claimed;
    use super::super::super::queue::TaskQueue;
    use super::super::super::worker_id::WorkerId;
    use super::super::Worker;
    use super::*;
    use crate::backoff::RetryPolicy;
    use crate::error::BoxError;
    use crate::executor::Executor;
    use crate::sync::{AtomicUsize, Ordering};
    use crate::trace::tests::Listener;

    #[test]
    fn a_subscriber_told_of_a_discarded_outcome_may_ask_for_the_counters() {
        let folder = std::env::temp_dir().join(format!("fulmar-discarded-{}", WorkerId::new()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let queue = TaskQueue::open(folder.join("queue.db")).expect("the queue opens");
        let builder = Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<(), BoxError>(()));
        let executor = Executor::builder().threads(1).build().expect("a thread");
        let shared = Arc::new(Shared::new(builder, executor, 1));
        let claimed = Claimed {
            id: 1,
            token: 1,
            task_type: "t".into(),
            identifier: "a".into(),
            starts: 0,
            failures: 0,
            retry: RetryPolicy::never(),
            input: None,
            has_checkpoint: false,
            context: None,
            waited: Duration::ZERO,
        };
        let task = Arc::new(TaskContext::new(queue, shared.id.clone(), claimed));
        assert!(shared.started(&task, Stepped::Done(TaskStatus::Running)));
        let heard = Arc::new(AtomicUsize::new(0));
        // The counters could be asked for.
        let asks = {
            let (shared, heard) = (shared.clone(), heard.clone());
            Listener(move || {
                heard.fetch_add(usize::from(shared.state.try_lock().is_some()), Ordering::Relaxed);
            })
        };
        tracing::subscriber::with_default(asks, || {
            shared.ended(&task, Duration::ZERO, Stepped::Stale);
        });
        assert_eq!((shared.stats().stale, heard.load(Ordering::Relaxed)), (1, 1));
        let _ = std::fs::remove_dir_all(&folder);
    }
}
