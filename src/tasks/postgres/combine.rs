//! Steps of many threads in one statement, and one commit.
//!
//! A commit waits for the disk, whatever it holds. So a thread with steps puts them into a list. If there is a place for
//! one more statement under way, it takes the whole list, does it, and tells everybody; meanwhile the next list grows.
//! Alone, a thread never waits for another; under load the statements grow instead of their number.
//!
//! Source: Hendler, Incze, Shavit, Tzafrir, "Flat Combining and the Synchronization-Parallelism Tradeoff", SPAA 2010.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::engine::{Step, Stepped};
use super::super::error::{Result, TaskError};
use super::steps::MOST_BYTES;
use crate::panics;
use crate::sync::{Condvar, Mutex};

/// Statements under way at once: while one waits for the disk, the next is made ready.
const AT_ONCE: usize = 2;

/// The most steps of one statement, unless one thread alone brings more; and what is large waits for its turn.
const MOST_STEPS: usize = 256;

pub(super) struct Combiner {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Piece>>,
    /// Statements under way, and those for which a thread was woken.
    under_way: usize,
}

/// The steps of one thread, until it has the answer. Its lock is taken inside of the combiner's, or alone.
struct Piece {
    steps: Vec<Step>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Waiting <-> Lead     Waiting -> Done
/// Only a piece that is in the list may lead; who takes it out of there takes the lead from it, too.
enum Progress {
    Waiting,
    /// A statement may be made: do what is in the list.
    Lead,
    Done(Result<Vec<Stepped>>),
}

impl Combiner {
    pub(super) fn new() -> Combiner {
        Combiner { state: Mutex::new(State::default()) }
    }

    /// Has `steps` done by `work`, alone or with those of others.
    pub(super) fn step(
        &self,
        steps: Vec<Step>,
        work: impl Fn(&[Step]) -> Result<Vec<Stepped>>,
    ) -> Result<Vec<Stepped>> {
        let piece = Arc::new(Piece { steps, progress: Mutex::new(Progress::Waiting), changed: Condvar::new() });
        let mut state = self.state.lock();
        state.waiting.push_back(Arc::clone(&piece));
        state.invite();
        drop(state);
        loop {
            let mut progress = piece.progress.lock();
            while matches!(*progress, Progress::Waiting) {
                piece.changed.wait(&mut progress);
            }
            match std::mem::replace(&mut *progress, Progress::Waiting) {
                Progress::Done(result) => return result,
                Progress::Lead => {
                    drop(progress);
                    self.lead(&work);
                }
                Progress::Waiting => {}
            }
        }
    }

    /// Does one list.
    fn lead(&self, work: &impl Fn(&[Step]) -> Result<Vec<Stepped>>) {
        let _place = Place(self);
        // Who waits for it would wait for ever.
        let work = |steps: &[Step]| {
            panics::catch(|| work(steps)).unwrap_or_else(|panic| {
                Err(TaskError::Database { doing: "changing tasks", source: format!("a panic: {panic}").into() })
            })
        };
        let pieces = self.state.lock().take();
        if let [alone] = &*pieces {
            return alone.tell(work(&alone.steps));
        }
        if pieces.is_empty() {
            return;
        }
        let together: Vec<Step> = pieces.iter().flat_map(|piece| piece.steps.iter().cloned()).collect();
        match work(&together) {
            Ok(stepped) => {
                let mut stepped = stepped.into_iter();
                for piece in &pieces {
                    piece.tell(Ok(stepped.by_ref().take(piece.steps.len()).collect()));
                }
            }
            // Each alone would fare no better.
            Err(TaskError::Unreachable { doing, source }) => {
                for piece in &pieces {
                    piece.tell(Err(TaskError::Unreachable { doing, source: source.to_string().into() }));
                }
            }
            // One is to blame, and the others shall not pay for it.
            Err(_) => pieces.iter().for_each(|piece| piece.tell(work(&piece.steps))),
        }
    }
}

impl State {
    /// Wakes one who waits, if one more statement may be made.
    fn invite(&mut self) {
        if self.under_way >= AT_ONCE {
            return;
        }
        for piece in &self.waiting {
            let mut progress = piece.progress.lock();
            if matches!(*progress, Progress::Waiting) {
                *progress = Progress::Lead;
                self.under_way += 1;
                piece.changed.notify_one();
                return;
            }
        }
    }

    fn take(&mut self) -> Vec<Arc<Piece>> {
        let (mut pieces, mut steps, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = self.waiting.front() {
            steps += next.steps.len();
            bytes += next.steps.iter().map(Step::size).sum::<usize>();
            if !pieces.is_empty() && (steps > MOST_STEPS || bytes > MOST_BYTES) {
                break;
            }
            let mut progress = next.progress.lock();
            if matches!(*progress, Progress::Lead) {
                // It was woken for nothing.
                *progress = Progress::Waiting;
                self.under_way -= 1;
            }
            drop(progress);
            pieces.extend(self.waiting.pop_front());
        }
        self.invite();
        pieces
    }
}

impl Piece {
    fn tell(&self, result: Result<Vec<Stepped>>) {
        *self.progress.lock() = Progress::Done(result);
        self.changed.notify_one();
    }
}

/// The right to one statement, given back even by a panic.
struct Place<'a>(&'a Combiner);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.under_way -= 1;
        state.invite();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::engine::Action;
    use super::super::super::status::Response;
    use super::super::super::worker_id::WorkerId;
    use super::*;

    #[test]
    fn a_panic_is_told_to_all_whose_steps_were_done_together() {
        let combiner = Combiner::new();
        let piece = || {
            let steps =
                vec![Step { task: 1, token: 1, worker: WorkerId::new(), action: Action::Start, finished_in: false }];
            Arc::new(Piece { steps, progress: Mutex::new(Progress::Waiting), changed: Condvar::new() })
        };
        let pieces = [piece(), piece()];
        let mut state = combiner.state.lock();
        state.waiting.extend(pieces.iter().cloned());
        state.under_way = 1;
        drop(state);
        combiner.lead(&|_| panic!("in a test, on purpose"));
        for piece in &pieces {
            let progress = piece.progress.lock();
            assert!(matches!(&*progress, Progress::Done(Err(TaskError::Database { .. }))), "nobody told");
        }
        assert_eq!(combiner.state.lock().under_way, 0);
    }

    #[test]
    fn what_is_too_large_for_one_message_goes_in_several() {
        let body = Arc::new(Response { media_type: "x/y".into(), body: vec![0; MOST_BYTES / 2] });
        let piece = |task| {
            let action = Action::Finish { message: String::new(), response: Some(Arc::clone(&body)) };
            let steps = vec![Step { task, token: 1, worker: WorkerId::new(), action, finished_in: false }];
            Arc::new(Piece { steps, progress: Mutex::new(Progress::Waiting), changed: Condvar::new() })
        };
        let mut state = State { waiting: (0..5).map(piece).collect(), under_way: AT_ONCE };
        let taken: Vec<usize> = std::iter::from_fn(|| Some(state.take().len()).filter(|count| *count > 0)).collect();
        assert_eq!(taken, [2, 2, 1]);
    }
}
