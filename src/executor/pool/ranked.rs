//! What was queued with a head start, or the opposite: a heap beside the FIFO.
//!
//! Each job has a rank: the time at which it was queued, less its head start. Workers take the
//! smallest rank first, and compare it with that of the FIFO's first job. So a job is overtaken
//! only by those that were queued less than a head start after it, of which there is an end.
//!
//! Source: aging, as schedulers have it against starvation (Silberschatz, Galvin, Gagne, "Operating
//! System Concepts", section 5.3). Time is subtracted once here, where those add it while a job
//! waits: the order is the same, and the heap needs no repair.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Task;

/// Behind each job's.
pub(super) const NO_RANK: i64 = i64::MAX;
/// Before each job's.
pub(super) const AWAITED: i64 = i64::MIN;

pub(super) struct Ranked {
    heap: BinaryHeap<Reverse<Entry>>,
}

struct Entry {
    rank: i64,
    /// Counts the pushes: of two with one rank the first goes first.
    number: u64,
    job: Task,
}

impl Ranked {
    pub(super) fn new() -> Ranked {
        Ranked { heap: BinaryHeap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn push(&mut self, number: u64, job: Task) {
        let rank = job.head().rank().min(NO_RANK - 1);
        self.heap.push(Reverse(Entry { rank, number, job }));
    }

    /// `NO_RANK` if there is none.
    pub(super) fn first_rank(&self) -> i64 {
        self.heap.peek().map_or(NO_RANK, |Reverse(first)| first.rank)
    }

    pub(super) fn pop(&mut self) -> Option<Task> {
        self.heap.pop().map(|Reverse(first)| first.job)
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.heap.iter().map(|Reverse(entry)| &entry.job)
    }

    /// Takes out what `keep` refuses, for the caller to drop once no lock is held.
    pub(super) fn sweep(&mut self, keep: impl Fn(&Task) -> bool) -> Vec<Task> {
        let (kept, swept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.heap).into_iter().partition(|Reverse(entry)| keep(&entry.job));
        self.heap = kept.into();
        swept.into_iter().map(|Reverse(entry)| entry.job).collect()
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.rank, self.number).cmp(&(other.rank, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::executor::request::{Kind, Request, Status, Terms};

    fn job(submitted: u64, head_start: f32) -> Task {
        let terms = Terms { head_start, ..Terms::plain(Kind::Accessor) };
        Arc::new(Request::new(submitted, terms, Status::Queued, submitted, || Ok(())))
    }

    #[test]
    fn times_without_end_saturate_and_keep_the_order_of_the_pushes() {
        let mut ranked = Ranked::new();
        let starts = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, 1.0, f32::MAX, -1.0];
        let pushes = (0..).zip(starts);
        pushes.for_each(|(number, head_start)| ranked.push(number, job(number, head_start)));
        let order: Vec<u64> = std::iter::from_fn(|| ranked.pop()).map(|job| job.head().id()).collect();
        assert_eq!(order, [2, 4, 3, 5, 0, 1]);
        assert_eq!(ranked.first_rank(), NO_RANK);
    }

    #[test]
    fn a_sweep_takes_out_what_is_not_kept_and_keeps_the_order() {
        let mut ranked = Ranked::new();
        (0..100).for_each(|number| ranked.push(number, job(number, (number % 3) as f32 - 1.0)));
        let swept = ranked.sweep(|job| job.head().id() % 2 == 0);
        assert_eq!((swept.len(), ranked.len(), ranked.iter().count()), (50, 50, 50));
        let order: Vec<u64> = std::iter::from_fn(|| ranked.pop()).map(|job| job.head().id()).collect();
        let expected = [2, 1, 0].into_iter().flat_map(|third| (0..100).filter(move |n| n % 6 == third * 4 % 6));
        assert_eq!(order, expected.collect::<Vec<_>>());
    }
}
