//! How often something that failed is tried again, and when: one policy for requests and for tasks.
//!
//! Which failures are worth another attempt is for those to say who apply it.

use std::time::Duration;

use super::Backoff;

/// How often something that failed is tried again, and after what delays.
///
/// An HTTP client applies it to the requests that can be repeated without harm, a queue of durable tasks to
/// the attempts whose handler failed; each says in its documentation which failures count.
///
/// The delays are 1 s, doubling up to an hour, each shorter by a chance of up to a quarter, unless they are set.
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

    /// At most so many attempts after the first.
    pub fn times(retries: u32) -> RetryPolicy {
        let backoff = Backoff::new(Duration::from_secs(1)).cap(Duration::from_secs(3_600)).jitter(0.25);
        RetryPolicy { retries, backoff }
    }

    /// At most so many attempts, the first included; 0 counts as 1.
    pub fn attempts(attempts: u32) -> RetryPolicy {
        RetryPolicy::times(attempts.saturating_sub(1))
    }

    /// All that there is to say of the delays, at once.
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

    /// What each delay is multiplied by to give the next; below 1, or not a number, counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> RetryPolicy {
        self.backoff = self.backoff.factor(factor);
        self
    }

    /// The longest delay; wins over `first`.
    #[must_use]
    pub fn cap(mut self, delay: Duration) -> RetryPolicy {
        self.backoff = self.backoff.cap(delay);
        self
    }

    /// The share of a delay, from 0 to 1, that chance may take away.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> RetryPolicy {
        self.backoff = self.backoff.jitter(share);
        self
    }

    /// The delay before the next attempt, after `failures` earlier failures and one more; `None` if that was the last.
    pub fn delay(&self, failures: u32, seed: u64) -> Option<Duration> {
        (failures < self.retries).then(|| self.backoff.delay_with(failures, seed))
    }
}
