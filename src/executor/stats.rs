//! The executor's counters, and a snapshot of them that adds up.
//!
//! Each request is counted once at each stage that it reaches, in the order of the stages, and the
//! snapshot reads them in the opposite order: whatever it counts at a stage it also counts at all
//! earlier ones. What stands between two stages is their difference, so the sum holds by
//! construction, in the middle of any traffic.

use std::fmt;

use crossbeam_utils::CachePadded;

use super::request::Status;
use crate::sync::{AtomicU64, Ordering};

/// A snapshot of an executor's counters.
///
/// `submitted = deferred + queued + running + completed + failed + panicked + cancelled`, in every
/// snapshot. Requests that were refused are not counted anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Accepted since the executor was built.
    pub submitted: u64,
    /// Held back now: by their key, by the request that they follow, or by their time.
    pub deferred: u64,
    /// Waiting for a thread now.
    pub queued: u64,
    /// Running now.
    pub running: u64,
    /// Ended well.
    pub completed: u64,
    /// Ended with an error of the operation.
    pub failed: u64,
    /// Ended with a panic of the operation.
    pub panicked: u64,
    /// Taken out before they started.
    pub cancelled: u64,
    /// Threads at work, asleep or waiting now, those not counted that stop after their request
    /// because they are too many.
    pub threads: usize,
}

impl Stats {
    /// Accepted and not ended yet.
    pub fn unfinished(&self) -> u64 {
        self.deferred + self.queued + self.running
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} submitted = {} deferred + {} queued + {} running + {} completed + {} failed + {} panicked + {} cancelled; {} threads",
            self.submitted,
            self.deferred,
            self.queued,
            self.running,
            self.completed,
            self.failed,
            self.panicked,
            self.cancelled,
            self.threads
        )
    }
}

/// What threads count while they run requests, each in a stripe of its own, so that they don't
/// fight for a cache line. The last stripe is shared by the threads that have none of their own.
pub(super) struct Stripes(Box<[CachePadded<Stripe>]>);

/// The stripe that a thread counts in.
#[derive(Clone, Copy)]
pub(super) struct StripeOf {
    index: usize,
    shared: bool,
}

impl StripeOf {
    /// That of a pool's thread, whose `seat` no other thread has at the same time.
    pub(super) fn seat(seat: usize) -> StripeOf {
        if seat < OWN { StripeOf { index: seat, shared: false } } else { StripeOf::shared() }
    }

    pub(super) fn shared() -> StripeOf {
        StripeOf { index: OWN, shared: true }
    }

    fn count(self, counter: &AtomicU64) {
        // Release: pairs with `read`.
        if self.shared {
            counter.fetch_add(1, Ordering::Release);
        } else {
            // No read-modify-write, for this thread alone writes it.
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
    }
}

struct Stripe {
    started: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    /// Started too late for what they belong to, and never called.
    refused: AtomicU64,
}

/// The stripes' sums.
#[derive(Clone, Copy)]
pub(super) struct Ran {
    pub(super) started: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) panicked: u64,
    pub(super) refused: u64,
}

/// Stripes that one thread writes. Fewer in a model, whose states they multiply.
const OWN: usize = if cfg!(loom) { 1 } else { 16 };

impl Stripes {
    pub(super) fn new() -> Stripes {
        let stripe = |_| {
            CachePadded::new(Stripe {
                started: AtomicU64::new(0),
                completed: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                panicked: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            })
        };
        Stripes((0..=OWN).map(stripe).collect())
    }

    pub(super) fn count_start(&self, of: StripeOf) {
        of.count(&self.0[of.index].started);
    }

    pub(super) fn count_end(&self, of: StripeOf, status: Status) {
        let stripe = &self.0[of.index];
        of.count(match status {
            Status::Completed => &stripe.completed,
            Status::Panicked => &stripe.panicked,
            Status::Cancelled => &stripe.refused,
            _ => &stripe.failed,
        });
    }

    /// The ends first, the starts then.
    pub(super) fn read(&self) -> Ran {
        let sum = |of: fn(&Stripe) -> &AtomicU64| {
            // Acquire: pairs with `count`. Who sees an end also sees, later, that request's start
            // and submission.
            self.0.iter().map(|stripe| of(stripe).load(Ordering::Acquire)).sum()
        };
        let completed = sum(|stripe| &stripe.completed);
        let failed = sum(|stripe| &stripe.failed);
        let panicked = sum(|stripe| &stripe.panicked);
        let refused = sum(|stripe| &stripe.refused);
        let started = sum(|stripe| &stripe.started);
        Ran { started, completed, failed, panicked, refused }
    }
}
