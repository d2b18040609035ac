//! The pool's unbounded FIFO: a queue of short segments.
//!
//! One growing ring would copy everything it holds, under the pool's lock, each time it doubles,
//! and hold up to twice what it needs. Segments cost 16 bytes a job and never move one.

use std::collections::VecDeque;

/// Jobs a segment: with fat pointers 1 KiB, which every allocator serves from its thread cache.
const SEGMENT: usize = 64;

/// Empty segments kept for the next push.
const SPARE: usize = 4;

pub(super) struct Queue<J> {
    segments: VecDeque<VecDeque<J>>,
    spare: Vec<VecDeque<J>>,
    len: usize,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Queue<J> {
        Queue { segments: VecDeque::new(), spare: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_back(&mut self, job: J) {
        self.len += 1;
        match self.segments.back_mut() {
            Some(segment) if segment.len() < SEGMENT => segment.push_back(job),
            _ => {
                let mut segment = self.spare.pop().unwrap_or_else(|| VecDeque::with_capacity(SEGMENT));
                segment.push_back(job);
                self.segments.push_back(segment);
            }
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<J> {
        let segment = self.segments.front_mut()?;
        let job = segment.pop_front()?;
        self.len -= 1;
        if segment.is_empty() {
            let segment = self.segments.pop_front();
            if self.spare.len() < SPARE {
                self.spare.extend(segment);
            }
        }
        Some(job)
    }

    pub(super) fn first(&self) -> Option<&J> {
        self.segments.front()?.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &J> {
        self.segments.iter().flatten()
    }

    /// Takes out what `keep` refuses, for the caller to drop once no lock is held.
    pub(super) fn sweep(&mut self, keep: impl Fn(&J) -> bool) -> Vec<J> {
        let mut swept = Vec::new();
        self.len = 0;
        for job in std::mem::take(&mut self.segments).into_iter().flatten() {
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
    fn a_sweep_keeps_the_order_of_what_stays() {
        let mut queue = Queue::new();
        (0..200).for_each(|n| queue.push_back(n));
        let swept = queue.sweep(|n| n % 3 == 0);
        assert_eq!((swept.len(), queue.len()), (133, 67));
        let all: Vec<i32> = std::iter::from_fn(|| queue.pop_front()).collect();
        assert_eq!(all, (0..200).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    }
}
