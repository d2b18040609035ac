//! What happens after an attempt that failed.

use std::time::Duration;

use crate::backoff::Backoff;

/// How often, and when, a task is tried again after its handler failed. Attempts that were lost with their worker are
/// not counted here: they have the type's restart limit.
///
/// ```
/// use fulmar::tasks::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::times(3).first(Duration::from_secs(2)).jitter(0.0);
/// assert_eq!(policy.delay(0, 7), Some(Duration::from_secs(2)));
/// assert_eq!(policy.delay(2, 7), Some(Duration::from_secs(8)));
/// assert_eq!(policy.delay(3, 7), None); // Three retries were made: it has failed.
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    pub(super) limit: u32,
    pub(super) first: Duration,
    pub(super) factor: f64,
    pub(super) cap: Duration,
    pub(super) jitter: f64,
}

impl RetryPolicy {
    /// No second attempt: a failure is final. The default.
    pub const fn never() -> RetryPolicy {
        RetryPolicy::times(0)
    }

    /// So many more attempts: the first after 1 s, each further one after twice the time, at most an hour, of which
    /// chance takes up to a quarter away.
    pub const fn times(limit: u32) -> RetryPolicy {
        let (first, cap) = (Duration::from_secs(1), Duration::from_secs(3_600));
        RetryPolicy { limit, first, factor: 2.0, cap, jitter: 0.25 }
    }

    /// The delay before the first retry.
    #[must_use]
    pub const fn first(mut self, delay: Duration) -> RetryPolicy {
        self.first = delay;
        self
    }

    /// What each delay is multiplied by to give the next.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> RetryPolicy {
        self.factor = factor;
        self
    }

    /// The longest delay.
    #[must_use]
    pub const fn cap(mut self, delay: Duration) -> RetryPolicy {
        self.cap = delay;
        self
    }

    /// The share of a delay, from 0 to 1, that chance may take away.
    #[must_use]
    pub const fn jitter(mut self, share: f64) -> RetryPolicy {
        self.jitter = share;
        self
    }

    /// The delay before the next attempt, after `failures` earlier failures and one more; `None` if that was the last.
    pub fn delay(&self, failures: u32, seed: u64) -> Option<Duration> {
        let backoff = Backoff::new(self.first).factor(self.factor).cap(self.cap).jitter(self.jitter);
        (failures < self.limit).then(|| backoff.delay_with(failures, seed))
    }
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy::never()
    }
}
