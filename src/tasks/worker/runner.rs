//! One pair of hands: starts a task, runs its handler, ends it, and so on until there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::engine::{Action, Step, Stepped};
use super::super::error::TaskError;
use super::super::handler::TaskContext;
use super::crew::{Crew, LONGEST_PAUSE};
use crate::backoff::Backoff;

/// Runs on a thread of the executor.
///
/// The end of one task and the start of the next are one step, so that a task costs one wait for the disk; where several
/// are started together, it is one wait for all of them.
pub(super) fn run(crew: &Arc<Crew>) {
    let mut owed: Vec<Owed> = Vec::new();
    loop {
        let next = crew.next(!owed.is_empty());
        if next.is_empty() && owed.is_empty() {
            return;
        }
        let mut steps: Vec<Step> = owed.iter().map(|owed| owed.step.clone()).collect();
        steps.extend(next.iter().map(|task| task.step(Action::Start)));
        let settled = settle(crew, &steps);
        let mut stepped = settled.as_deref().unwrap_or_default().iter().copied();
        // An engine says something of each step.
        let silent = TaskError::Invalid("the database said nothing of it".into());
        let why = settled.as_ref().err().unwrap_or(&silent);
        for Owed { task, took, .. } in owed.drain(..) {
            match stepped.next() {
                Some(stepped) => crew.ended(&task, took, stepped),
                None => crew.give_up(&task, true, why),
            }
        }
        let mut started = Vec::new();
        for task in next {
            match stepped.next() {
                Some(stepped) => started.extend(crew.started(&task, stepped).then_some(task)),
                None => crew.give_up(&task, false, why),
            }
        }
        owed = started.into_iter().map(|task| run_one(crew, task)).collect();
    }
}

/// An attempt whose end is to be written.
struct Owed {
    task: Arc<TaskContext>,
    took: Duration,
    step: Step,
}

/// Runs a task's handler; says how it is to be ended.
fn run_one(crew: &Crew, task: Arc<TaskContext>) -> Owed {
    let start = Instant::now();
    let outcome = match crew.handler(&task) {
        Some(handler) => task.attempt_with(handler),
        None => task.outcome(Err("this worker has no handler for it".into())),
    };
    let step = task.step(outcome);
    Owed { task, took: start.elapsed(), step }
}

/// Does the steps, however often it takes.
///
/// # Errors
/// The last one, if that is hopeless, or the worker is gone.
fn settle(crew: &Crew, steps: &[Step]) -> Result<Vec<Stepped>, TaskError> {
    let pauses = Backoff::new(Duration::from_millis(10)).cap(LONGEST_PAUSE).jitter(0.5);
    let seed = steps.first().map_or(0, |step| step.task as u64);
    let mut tries = 0;
    loop {
        match crew.queue.engine().step(steps.to_vec()) {
            Err(error) if error.is_retryable() => {
                if !crew.may_retry(&error, pauses.delay_with(tries, seed)) {
                    return Err(error);
                }
                tries = tries.saturating_add(1);
            }
            Err(error) => {
                crew.note_error("writing what tasks came to", &error);
                return Err(error);
            }
            done => return done,
        }
    }
}
