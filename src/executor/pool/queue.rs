//! The pool's unbounded FIFO: a queue of short segments.
//!
//! One growing ring would copy everything it holds, under the pool's lock, each time it doubles,
//! and hold up to twice what it needs. Segments cost 16 bytes a job and never move one.
//!
//! Threads take turns here under the owner's lock, and each waits for the cache lines that the one
//! before it has written. So a pop writes to one, that of `first`, and a push to that of `last` and
//! to the job's own, but where one segment ends and the next begins: there is no count of all jobs,
//! and no segment's head lies elsewhere.

use std::collections::VecDeque;

/// Jobs a segment: with fat pointers 1 KiB, which every allocator serves from its thread cache.
const SEGMENT: usize = 64;

/// Empty segments kept for the next push.
const SPARE: usize = 4;

#[repr(C)]
pub(super) struct Queue<J> {
    /// The segment that is popped from, until it is empty.
    first: VecDeque<J>,
    /// The segment that is pushed to, until it is full.
    last: VecDeque<J>,
    /// Those between the two: all are full.
    full: VecDeque<VecDeque<J>>,
    spare: Vec<VecDeque<J>>,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Queue<J> {
        Queue { first: VecDeque::new(), last: VecDeque::new(), full: VecDeque::new(), spare: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.full.len() * SEGMENT + self.last.len()
    }

    pub(super) fn push_back(&mut self, job: J) {
        // The first one of all has no memory yet.
        if self.last.len() == self.last.capacity().min(SEGMENT) {
            let empty = self.spare.pop().unwrap_or_else(|| VecDeque::with_capacity(SEGMENT));
            let full = std::mem::replace(&mut self.last, empty);
            if !full.is_empty() {
                self.full.push_back(full);
            }
        }
        self.last.push_back(job);
    }

    pub(super) fn pop_front(&mut self) -> Option<J> {
        if self.first.is_empty() {
            self.next_segment();
        }
        self.first.pop_front()
    }

    fn next_segment(&mut self) {
        let Some(next) = self.full.pop_front() else {
            return std::mem::swap(&mut self.first, &mut self.last);
        };
        let empty = std::mem::replace(&mut self.first, next);
        if self.spare.len() < SPARE && empty.capacity() > 0 {
            self.spare.push(empty);
        }
    }

    pub(super) fn first(&self) -> Option<&J> {
        self.iter().next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &J> {
        self.first.iter().chain(self.full.iter().flatten()).chain(&self.last)
    }

    /// Takes out what `keep` refuses, for the caller to drop once no lock is held.
    pub(super) fn sweep(&mut self, keep: impl Fn(&J) -> bool) -> Vec<J> {
        let mut swept = Vec::new();
        let before = std::mem::replace(self, Queue::new());
        for job in before.first.into_iter().chain(before.full.into_iter().flatten()).chain(before.last) {
            if keep(&job) {
                self.push_back(job);
            } else {
                swept.push(job);
            }
        }
        swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_over_many_segments() {
        let mut queue = Queue::new();
        (0..1_000).for_each(|n| queue.push_back(n));
        assert!((0..300).all(|n| queue.pop_front() == Some(n)));
        queue.push_back(1_000);
        assert_eq!(queue.len(), 701);
        let all: Vec<i32> = std::iter::from_fn(|| queue.pop_front()).collect();
        assert_eq!(all, (300..=1_000).collect::<Vec<_>>());
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn pushes_and_pops_in_turns_agree_with_a_plain_queue() {
        let (mut queue, mut plain) = (Queue::new(), VecDeque::new());
        for n in 0..20_000 {
            // It grows to some hundreds and shrinks to nothing, several times.
            if n % 7 < if n / 1_000 % 2 == 0 { 5 } else { 2 } {
                queue.push_back(n);
                plain.push_back(n);
            } else {
                assert_eq!(queue.pop_front(), plain.pop_front());
            }
            assert_eq!((queue.len(), queue.first()), (plain.len(), plain.front()));
        }
        assert!(queue.iter().eq(&plain));
    }

    #[test]
    fn a_sweep_keeps_the_order_of_what_stays() {
        let mut queue = Queue::new();
        (0..200).for_each(|n| queue.push_back(n));
        let swept = queue.sweep(|n| n % 3 == 0);
        assert_eq!((swept.len(), queue.len()), (133, 67));
        let all: Vec<i32> = std::iter::from_fn(|| queue.pop_front()).collect();
        assert_eq!(all, (0..200).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    }
}
