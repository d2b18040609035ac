//! One pair of hands: starts a task, runs its handler, ends it, and so on until there is none.

use std::sync::Arc;
use std::time::Duration;

use super::super::engine::{Action, Step, Stepped};
use super::crew::{Crew, LONGEST_PAUSE};
use crate::backoff::Backoff;

/// Runs on a thread of the executor.
///
/// The end of one task and the start of the next are one step, so that a task costs one wait for the disk.
pub(super) fn run(crew: &Arc<Crew>) {
    let mut owed: Option<(Arc<super::super::TaskContext>, Step)> = None;
    loop {
        let next = crew.next(owed.is_some());
        if next.is_none() && owed.is_none() {
            return;
        }
        let mut steps: Vec<Step> = owed.iter().map(|(_, step)| step.clone()).collect();
        steps.extend(next.iter().map(|task| task.step(Action::Start)));
        let stepped = settle(crew, &steps);
        let mut stepped = stepped.iter().flatten();
        if let Some((task, _)) = owed.take() {
            match stepped.next() {
                Some(&stepped) => crew.ended(&task, stepped),
                None => crew.give_up(&task, true),
            }
        }
        let Some(task) = next else {
            continue;
        };
        match stepped.next() {
            Some(&stepped) => {
                if crew.started(&task, stepped) {
                    let outcome = match crew.handler(&task) {
                        Some(handler) => task.attempt_with(handler),
                        None => task.outcome(Err("this worker has no handler for it".into())),
                    };
                    let step = task.step(outcome);
                    owed = Some((task, step));
                }
            }
            None => crew.give_up(&task, false),
        }
    }
}

/// Does the steps, however often it takes; `None` if that is hopeless, or the worker is told to stop.
fn settle(crew: &Crew, steps: &[Step]) -> Option<Vec<Stepped>> {
    let pauses = Backoff::new(Duration::from_millis(10)).cap(LONGEST_PAUSE).jitter(0.5);
    for tries in 0.. {
        match crew.queue.engine().step(steps.to_vec()) {
            Ok(stepped) => return Some(stepped),
            Err(error) if error.is_retryable() => {
                if !crew.may_retry(&error, pauses.delay_with(tries, steps[0].task as u64)) {
                    return None;
                }
            }
            Err(error) => {
                crew.note_error("writing what tasks came to", &error);
                return None;
            }
        }
    }
    None
}
