//! Points in time that waits compare with, and those of a fixed schedule.

use std::time::{Duration, Instant};

/// A point on the monotonic clock, or never.
///
/// Every timeout of the crate becomes one of these at the door, so that a wait of many steps keeps
/// one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    limit: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    /// `timeout` from `now`. `None` is never, and so is a sum beyond the clock's range.
    pub(crate) fn after(now: Instant, timeout: impl Into<Option<Duration>>) -> Deadline {
        let limit = timeout.into();
        let at = limit.and_then(|limit| now.checked_add(limit));
        Deadline { limit, at }
    }

    /// Counted from this call.
    pub(crate) fn start(timeout: impl Into<Option<Duration>>) -> Deadline {
        match timeout.into() {
            // No look at the clock for the common "as long as it takes".
            None => Deadline { limit: None, at: None },
            limit => Deadline::after(Instant::now(), limit),
        }
    }

    pub(crate) fn is_never(self) -> bool {
        self.at.is_none()
    }

    /// A limit of zero: the caller wants one look and no wait.
    pub(crate) fn is_zero(self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    pub(crate) fn is_past(self) -> bool {
        self.at.is_some_and(|at| Instant::now() >= at)
    }

    /// When it passes; `None` is never.
    pub(crate) fn at(self) -> Option<Instant> {
        self.at
    }

    /// The limit as it was given, for the message of a timeout.
    pub(crate) fn limit(self) -> Duration {
        self.limit.unwrap_or(Duration::MAX)
    }
}

/// A fixed schedule: `start`, `start + period`, `start + 2 * period` and so on. Each point is
/// counted from the start and not from the one before, so nothing adds up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    /// Not zero, which would have no points.
    pub(crate) period: Duration,
}

impl Schedule {
    /// The number of the last point that has come at `now`, the start being 0, and before it.
    pub(crate) fn last(self, now: Instant) -> u128 {
        now.saturating_duration_since(self.start).as_nanos() / self.period.as_nanos().max(1)
    }

    /// `None` lies beyond the clock's range, which is never.
    pub(crate) fn at(self, number: u128) -> Option<Instant> {
        let nanos = self.period.as_nanos().checked_mul(number)?;
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        self.start.checked_add(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`. Its
/// years begin in March.
#[cfg(any(feature = "openeo", feature = "pairs", feature = "tasks"))]
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_beyond_the_clock_is_never() {
        let deadline = Deadline::after(Instant::now(), Duration::MAX);
        assert!(deadline.is_never(), "{deadline:?} should be never");
        assert!(!deadline.is_past(), "never does not pass");
    }

    #[test]
    fn zero_is_past_at_once_and_none_never_passes() {
        let now = Instant::now();
        assert!(Deadline::after(now, Duration::ZERO).is_past());
        assert!(Deadline::after(now, Duration::ZERO).is_zero());
        assert!(!Deadline::after(now, None).is_past());
    }
}
