//! How often a failed attempt is repeated, and after which delays: one policy for HTTP requests and
//! for tasks.
//!
//! Left to the code that applies it: which failures are worth another attempt.

use std::time::Duration;

use super::Backoff;

/// How often a failed attempt is repeated, and after which delays.
///
/// An HTTP client applies it to requests that can be repeated without harm. A queue of durable
/// tasks applies it to attempts whose handler failed. The documentation of each says which failures
/// count.
///
/// By default the first delay is 1 s and each further one is twice as long, up to an hour; each is
/// then shortened at random by up to a quarter.
///
/// ```
/// use fulmar::backoff::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::times(3).first(Duration::from_secs(2)).jitter(0.0);
/// assert_eq!(policy.delay(0, 7), Some(Duration::from_secs(2)));
/// assert_eq!(policy.delay(2, 7), Some(Duration::from_secs(8)));
/// assert_eq!(policy.delay(3, 7), None); // Three retries were made: it has failed.
/// assert_eq!(policy, RetryPolicy::attempts(4).first(Duration::from_secs(2)).jitter(0.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    pub(crate) retries: u32,
    pub(crate) backoff: Backoff,
}

impl RetryPolicy {
    /// One attempt: a failure is final.
    pub fn never() -> RetryPolicy {
        RetryPolicy::times(0)
    }

    /// At most `retries` attempts after the first.
    pub fn times(retries: u32) -> RetryPolicy {
        let backoff = Backoff::new(Duration::from_secs(1)).cap(Duration::from_secs(3_600)).jitter(0.25);
        RetryPolicy { retries, backoff }
    }

    /// At most `attempts` attempts, the first included; 0 counts as 1.
    pub fn attempts(attempts: u32) -> RetryPolicy {
        RetryPolicy::times(attempts.saturating_sub(1))
    }

    /// Sets the whole schedule of delays.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> RetryPolicy {
        self.backoff = backoff;
        self
    }

    /// The delay before the first retry.
    #[must_use]
    pub fn first(mut self, delay: Duration) -> RetryPolicy {
        self.backoff = self.backoff.first(delay);
        self
    }

    /// The factor from each delay to the next. A factor below 1, or one that is not a number,
    /// counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> RetryPolicy {
        self.backoff = self.backoff.factor(factor);
        self
    }

    /// The longest delay. If `first` is longer, this wins.
    #[must_use]
    pub fn cap(mut self, delay: Duration) -> RetryPolicy {
        self.backoff = self.backoff.cap(delay);
        self
    }

    /// By which share, from 0 to 1, a delay is shortened at random at most.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> RetryPolicy {
        self.backoff = self.backoff.jitter(share);
        self
    }

    /// The delay before the next attempt, after `failures` earlier failures and one more; `None` if
    /// that was the last.
    pub fn delay(&self, failures: u32, seed: u64) -> Option<Duration> {
        (failures < self.retries).then(|| self.backoff.delay_with(failures, seed))
    }
}
