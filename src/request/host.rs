//! What a request asks of the executor that accepted it.

use std::sync::Arc;
use std::time::Instant;

use super::state::{Head, Job};

/// The ticket of a request that is in no lane.
pub(crate) const NO_TICKET: u32 = u32::MAX;

/// The executor as its requests see it.
pub(crate) trait Host: Send + Sync {
    /// Nanoseconds on the monotonic clock, from a point of the host's own.
    fn now(&self) -> u64;
    /// The request has left the queue and its operation is about to run.
    fn started(&self, lap: &Lap);
    /// The operation has returned. Calls `show`, once, for everybody to see that: after it is counted, and before anybody
    /// else can start whom it held back. It takes the request's lock, and runs no code of users.
    fn ended(&self, head: &Head, how: Ended, lap: &Lap, show: &mut dyn FnMut());
    /// The end can be seen, and everybody has been told.
    fn settled(&self, lap: &Lap);
    /// Takes a request out if it has not started. Says whether it did.
    fn cancel(&self, job: &Arc<dyn Job>) -> bool;
    /// Runs a queued request on this thread, ahead of its turn.
    fn run_now(&self, job: &Arc<dyn Job>);
    /// One that has to end before a request can start that is deferred by its key: a queued one if there is one.
    fn obstacle(&self, job: &dyn Job) -> Option<Arc<dyn Job>>;
    /// The lane on which a request is deferred: what is deferred on the same one waits for the same.
    fn lane(&self, job: &dyn Job) -> Option<u32>;
    /// Those of them that run.
    fn running_ahead(&self, job: &dyn Job) -> Vec<Arc<dyn Job>>;
    /// Accepts a request that becomes queued by `release`, and gives its number and the time.
    fn accept_follower(&self) -> crate::error::Result<(u64, u64)>;
    /// Queues what `accept_follower` accepted.
    fn release(&self, job: Arc<dyn Job>);
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Completed,
    Failed,
    Panicked,
}

/// What a thread keeps between the requests that it runs: its stripe of the counters, and the time when the last one
/// ended, which is when the next one starts. One look at the clock a request, not two.
pub(crate) struct Lap {
    pub(crate) stripe: usize,
    /// Whether the thread is counted by its seat in the pool; on others the executor has to count what they run.
    pub(crate) seated: bool,
    last: Option<u64>,
    /// Whether the last request was short.
    brisk: bool,
}

/// Below this, in nanoseconds, an operation is short: the way to the queue is worth sparing.
const SHORT: u64 = 10_000;

impl Lap {
    pub(crate) fn new(stripe: usize, seated: bool) -> Lap {
        // In a model no operation is short, and everything should happen.
        Lap { stripe, seated, last: None, brisk: cfg!(loom) }
    }

    pub(crate) fn is_brisk(&self) -> bool {
        self.brisk
    }

    pub(super) fn note(&mut self, duration: u64) {
        self.brisk = cfg!(loom) || duration < SHORT;
    }

    pub(super) fn start(&mut self, host: &dyn Host) -> u64 {
        self.last.take().unwrap_or_else(|| host.now())
    }

    pub(super) fn stamp(&mut self, host: &dyn Host) -> u64 {
        let now = host.now();
        self.last = Some(now);
        now
    }

    /// Time has passed that is not the next request's.
    pub(crate) fn rest(&mut self) {
        self.last = None;
    }
}

/// A clock that counts nanoseconds from when it was made: half the size of an `Instant`. Good for 584 years.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        let elapsed = self.0.elapsed();
        elapsed.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(elapsed.subsec_nanos()))
    }
}
