//! Steps of many threads in one statement, and one commit: the [`Combiner`]'s transaction.
//!
//! [`Combiner`]: crate::combine::Combiner

use super::super::engine::{Step, Stepped};
use super::super::error::TaskError;
use super::PostgresEngine;
use super::steps::MOST_BYTES;
use crate::combine::{Outcomes, Taken, Transaction};

/// Statements under way at once: while one waits for the disk, the next is made ready.
pub(super) const AT_ONCE: usize = 2;

/// The most steps of one statement, unless one thread alone brings more; and what is large waits
/// for its turn.
pub(super) const MOST_STEPS: usize = 256;

impl Transaction for PostgresEngine {
    type Work = Vec<Step>;
    type Outcome = Vec<Stepped>;
    type Error = TaskError;
    /// The right to one statement. Its connection is one of the pool's.
    type Place = ();

    fn fits(&self, taken: &Taken, steps: &Vec<Step>) -> bool {
        fits(taken, steps)
    }

    fn size(&self, steps: &Vec<Step>) -> (usize, usize) {
        size(steps)
    }

    fn commit(&self, _: &mut (), works: &mut [Vec<Step>]) -> Outcomes<PostgresEngine> {
        if let [steps] = works {
            return Ok(vec![Ok(self.step_together(steps)?)]);
        }
        let together: Vec<Step> = works.iter().flatten().cloned().collect();
        let mut stepped = self.step_together(&together)?.into_iter();
        Ok(works.iter().map(|steps| Ok(stepped.by_ref().take(steps.len()).collect())).collect())
    }

    fn of_all(&self, error: &TaskError) -> Option<TaskError> {
        of_all(error)
    }

    fn panicked(&self, message: &str) -> TaskError {
        TaskError::Database { doing: "changing tasks", source: format!("a panic: {message}").into() }
    }
}

/// An outage is every waiting thread's.
pub(super) fn of_all(error: &TaskError) -> Option<TaskError> {
    match error {
        TaskError::Unreachable { doing, source } => {
            Some(TaskError::Unreachable { doing, source: source.to_string().into() })
        }
        _ => None,
    }
}

fn fits(taken: &Taken, steps: &[Step]) -> bool {
    let (pieces, bytes) = size(steps);
    taken.pieces + pieces <= MOST_STEPS && taken.bytes + bytes <= MOST_BYTES
}

fn size(steps: &[Step]) -> (usize, usize) {
    (steps.len(), steps.iter().map(Step::size).sum())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::engine::Action;
    use super::super::super::status::Response;
    use super::super::super::worker_id::WorkerId;
    use super::*;

    #[test]
    fn what_is_too_large_for_one_message_goes_in_several() {
        let body = Arc::new(Response { media_type: "x/y".into(), body: vec![0; MOST_BYTES / 2] });
        let action = Action::Finish { message: String::new(), response: Some(body) };
        let large = vec![Step { task: 1, token: 1, worker: WorkerId::new(), action, finished_in: false }];
        let (pieces, bytes) = size(&large);
        assert!(fits(&Taken { pieces, bytes }, &large));
        assert!(!fits(&Taken { pieces: 2 * pieces, bytes: 2 * bytes }, &large));
        let small = vec![Step { action: Action::Start, ..large[0].clone() }];
        assert!(!fits(&Taken { pieces: MOST_STEPS, bytes: 0 }, &small));
    }
}
