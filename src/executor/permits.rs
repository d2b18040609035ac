//! The turns of one limit, and the line of requests that wait for one (`limit`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::pool::Task;
use crate::sync::Mutex;

/// The turns of one limit.
pub(super) struct Permits {
    pub(super) max_concurrent: usize,
    turns: Mutex<Turns>,
}

struct Turns {
    /// The requests that have a turn, each with the number of its permit.
    holders: Vec<(u64, Task)>,
    /// Those that wait for one, the first first; some of them may be cancelled.
    line: VecDeque<(u64, Task)>,
    /// About how many of the line were cancelled.
    stale: usize,
}

/// A request that has no turn yet, by the limit that it is to ask.
pub(super) struct Limited {
    pub(super) job: Task,
    pub(super) permits: Arc<Permits>,
    pub(super) number: u64,
    /// Whether it has asked, and waits for its turn.
    pub(super) is_in_line: bool,
}

impl Permits {
    pub(super) fn new(max_concurrent: usize) -> Permits {
        let turns = Mutex::new(Turns { holders: Vec::new(), line: VecDeque::new(), stale: 0 });
        Permits { max_concurrent, turns }
    }

    /// How many have a turn, and how many wait for one.
    pub(super) fn counts(&self) -> (usize, usize) {
        let turns = self.turns.lock();
        (turns.holders.len(), turns.line.iter().filter(|(_, job)| !job.head().is_done()).count())
    }

    /// The requests that have a turn.
    pub(super) fn holders(&self) -> Vec<Task> {
        self.turns.lock().holders.iter().map(|(_, job)| job.clone()).collect()
    }

    /// Takes a turn, or joins the line. Says whether it is the request's turn.
    pub(super) fn ask(&self, number: u64, job: &Task) -> bool {
        let mut turns = self.turns.lock();
        // Its permit may be gone: then nothing would give the turn on. If it is cancelled from now
        // on, its permit looks here after us.
        if job.head().is_done() {
            return false;
        }
        let is_free = turns.holders.len() < self.max_concurrent;
        if is_free {
            turns.holders.push((number, job.clone()));
        } else {
            turns.line.push_back((number, job.clone()));
        }
        is_free
    }

    /// Ends a turn, if it is one, and gives it to the first in the line.
    pub(super) fn give_on(&self, number: u64) -> Option<Task> {
        // Dropped at the end, under no lock: the last handle of a request may run a user's
        // destructor.
        let mut left: Vec<(u64, Task)> = Vec::new();
        let mut turns = self.turns.lock();
        let Some(index) = turns.holders.iter().position(|(holder, _)| *holder == number) else {
            // Cancelled before. A long line of such is not to stay.
            turns.stale += 1;
            if turns.stale > 64.max(turns.line.len() / 2) {
                let line = std::mem::take(&mut turns.line);
                let (cancelled, waiting): (Vec<_>, Vec<_>) =
                    line.into_iter().partition(|(_, job)| job.head().is_done());
                turns.line = waiting.into();
                turns.stale = 0;
                drop(turns);
                drop(cancelled);
            }
            return None;
        };
        left.push(turns.holders.swap_remove(index));
        let mut next = None;
        while let Some((number, job)) = turns.line.pop_front() {
            // One that is cancelled a moment later gives its turn on like all others.
            if !job.head().is_done() {
                turns.holders.push((number, job.clone()));
                next = Some(job);
                break;
            }
            left.push((number, job));
            turns.stale = turns.stale.saturating_sub(1);
        }
        drop(turns);
        next
    }
}
