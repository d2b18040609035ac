//! What a test does with requests before they are answered: it holds them, cuts them off, lets them pass.

use std::sync::{Arc, Mutex};

use crate::{Answer, lock};

/// Whether a request is done, and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is both.
    Free,
    /// It is done, and the connection is cut before the answer.
    Done,
    /// It is neither.
    Lost,
}

type Decide = Arc<dyn Fn(u64) -> Passage + Send + Sync>;

/// Decides what becomes of each request; lets all pass until it is told otherwise.
#[derive(Default)]
pub struct Guard(Mutex<Option<Decide>>);

impl Guard {
    /// Has `decide` decide from now on, by the number of a request. It may take its time: the request waits.
    pub fn set(&self, decide: impl Fn(u64) -> Passage + Send + Sync + 'static) {
        *lock(&self.0) = Some(Arc::new(decide));
    }

    /// What becomes of the request of that number, which `answer` does and answers.
    pub fn pass(&self, number: u64, answer: impl FnOnce() -> Answer) -> Answer {
        // A copy, for it may take its time.
        let decide = lock(&self.0).clone();
        match decide.map_or(Passage::Free, |decide| decide(number)) {
            Passage::Free => answer(),
            Passage::Done => {
                answer();
                Answer::Cut
            }
            Passage::Lost => Answer::Cut,
        }
    }
}
