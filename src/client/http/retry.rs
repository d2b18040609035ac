//! Which failures are worth another attempt, and when. Pure: handed the error, and `now` where a date is read.

use std::time::{Duration, SystemTime};

use super::error::{HttpError, HttpErrorKind};
use crate::backoff::Backoff;

/// How often a request is sent again, and after what delay.
///
/// Sent again are idempotent requests, after connections that failed or broke, time limits of a phase, and the statuses
/// 408, 429, 502, 503, 504 and those of [`retry_on`](super::RequestBuilder::retry_on). Other requests are sent again only
/// if they surely were not processed: no connection came about, or the server said 429.
///
/// `Retry-After` (seconds or a date) wins over the backoff, up to a cap; a server that asks for more is taken at its word,
/// and the error comes back at once with what it asked for.
///
/// Defaults to 4 attempts, 500 ms doubling up to 30 s with half of it as jitter, and a cap of 2 minutes on `Retry-After`.
///
/// ```
/// use fulmar::backoff::Backoff;
/// use fulmar::client::http::{HttpClient, RetryPolicy};
/// use std::time::Duration;
///
/// let backoff = Backoff::new(Duration::from_millis(100)).jitter(0.5);
/// let client = HttpClient::builder().retry(RetryPolicy::attempts(6).backoff(backoff)).build()?;
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    attempts: u32,
    backoff: Backoff,
    max_retry_after: Duration,
}

impl RetryPolicy {
    /// At most so many attempts, the first included; 0 counts as 1.
    pub fn attempts(attempts: u32) -> RetryPolicy {
        RetryPolicy { attempts: attempts.max(1), ..RetryPolicy::default() }
    }

    /// One attempt.
    pub fn never() -> RetryPolicy {
        RetryPolicy::attempts(1)
    }

    /// The delays between attempts. Defaults to 500 ms, doubling up to 30 s, less up to a half of each.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> RetryPolicy {
        self.backoff = backoff;
        self
    }

    /// The longest `Retry-After` that is waited for. Defaults to 2 minutes.
    #[must_use]
    pub fn max_retry_after(mut self, limit: Duration) -> RetryPolicy {
        self.max_retry_after = limit;
        self
    }

    /// How long to wait before the next attempt, after `failures` in a row of which `error` is the last; `None`: give up.
    pub(super) fn delay(
        &self,
        failures: u32,
        error: &HttpError,
        idempotent: bool,
        retry_on: &[u16],
        seed: u64,
    ) -> Option<Duration> {
        let by_protocol = error.status().is_some_and(|status| retry_on.contains(&status));
        let worth_it = error.is_retryable() || by_protocol;
        let harmless = idempotent || is_unprocessed(error);
        if failures >= self.attempts || !worth_it || !harmless || is_callers(error.kind()) {
            return None;
        }
        match error.retry_after() {
            Some(asked) if asked > self.max_retry_after => None,
            Some(asked) => Some(asked),
            None => Some(self.backoff.delay_with(failures.saturating_sub(1), seed)),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            backoff: Backoff::new(Duration::from_millis(500)).cap(Duration::from_secs(30)).jitter(0.5),
            max_retry_after: Duration::from_secs(120),
        }
    }
}

/// Repeating it is the caller's decision: the token's own requests have been repeated already.
fn is_callers(kind: HttpErrorKind) -> bool {
    matches!(kind, HttpErrorKind::Busy | HttpErrorKind::Unauthorized)
}

/// Surely not processed. Of the statuses only 429 counts: a gateway may say 503 for a server that did get the request.
fn is_unprocessed(error: &HttpError) -> bool {
    !error.may_have_arrived() && error.status().is_none_or(|status| status == 429)
}

/// `Retry-After` as seconds or as a date, from `now`; what is neither is `None`, a date in the past zero.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds is still a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}
