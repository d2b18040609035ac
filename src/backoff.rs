//! How long to wait before the next attempt, and how many attempts there are, as pure data: no
//! clock, no sleep, and chance only from the caller's seed.
//!
//! Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), the
//! variant "equal jitter".

mod retry_policy;

use std::time::Duration;

pub use retry_policy::RetryPolicy;

/// A schedule of delays that grow by a factor up to a limit.
///
/// The same attempt and seed give the same delay, so that a test knows what to expect.
///
/// ```
/// use fulmar::backoff::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::new(Duration::from_millis(100)).factor(2.0).cap(Duration::from_secs(1));
/// let delays: Vec<u128> = (0..6).map(|attempt| backoff.delay(attempt).as_millis()).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub(crate) first: Duration,
    pub(crate) factor: f64,
    pub(crate) cap: Duration,
    pub(crate) jitter: f64,
}

impl Backoff {
    /// A schedule that starts with `first` and doubles each time, up to 60 s, without jitter.
    pub const fn new(first: Duration) -> Backoff {
        Backoff { first, factor: 2.0, cap: Duration::from_secs(60), jitter: 0.0 }
    }

    /// Sets the first delay.
    #[must_use]
    pub const fn first(mut self, delay: Duration) -> Backoff {
        self.first = delay;
        self
    }

    /// The factor from each delay to the next. Defaults to 2. A factor below 1, or one that is not
    /// a number, counts as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Backoff {
        self.factor = factor.max(1.0);
        self
    }

    /// The longest delay. Defaults to 60 s. If `first` is longer, this wins.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Backoff {
        self.cap = cap;
        self
    }

    /// The share of a delay, from 0 to 1, that the seed of [`delay_with`](Backoff::delay_with) may
    /// take away. Defaults to 0.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Backoff {
        // `max` first: it turns NaN into 0, and `clamp` would keep NaN.
        self.jitter = share.max(0.0).clamp(0.0, 1.0);
        self
    }

    /// The delay after `attempt`, counted from 0, without jitter.
    pub fn delay(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
        let seconds = self.first.as_secs_f64() * self.factor.powi(exponent);
        // If the product is too large for a duration, or not a number (0 times infinity), use the
        // cap.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap)
    }

    /// The delay after `attempt`, shortened by a part of the jitter that `seed` chooses.
    ///
    /// Give every client a different seed (a request's id will do), so that clients that failed at
    /// the same time don't try again at the same time.
    pub fn delay_with(&self, attempt: u32, seed: u64) -> Duration {
        let unit = (mix(seed ^ u64::from(attempt)) >> 11) as f64 / (1u64 << 53) as f64;
        let seconds = self.delay(attempt).as_secs_f64() * (1.0 - self.jitter * unit);
        // As a float, the longest duration is rounded up to more than a duration can hold: use the
        // cap.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014): neighbouring seeds land far apart.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_attempt_goes_beyond_the_cap() {
        let cap = Duration::from_secs(5);
        for first in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let backoff = Backoff::new(first).factor(1.25).cap(cap);
            for attempt in [0, 1, 63, 1_000, u32::MAX] {
                assert!(backoff.delay(attempt) <= cap, "{first:?}, attempt {attempt}");
            }
        }
    }

    #[test]
    fn the_longest_delay_is_no_panic() {
        let longest = Backoff::new(Duration::MAX).cap(Duration::MAX);
        assert_eq!(longest.delay_with(0, 7), Duration::MAX);
        assert!(longest.jitter(0.5).delay_with(9, 7) < Duration::MAX);
    }

    #[test]
    fn jitter_stays_within_its_share_and_spreads() {
        let backoff = Backoff::new(Duration::from_secs(8)).jitter(0.5);
        let delays: Vec<Duration> = (0..1_000).map(|seed| backoff.delay_with(0, seed)).collect();
        assert!(delays.iter().all(|delay| (4.0..=8.0).contains(&delay.as_secs_f64())));
        let mean = delays.iter().sum::<Duration>().as_secs_f64() / 1_000.0;
        assert!((5.8..6.2).contains(&mean), "a fair spread has its mean near 6 s, not at {mean}");
        assert_eq!(backoff.delay_with(3, 7), backoff.delay_with(3, 7), "pure");
    }

    #[test]
    fn a_factor_that_is_no_number_counts_as_one() {
        let backoff = Backoff::new(Duration::from_secs(1)).factor(f64::NAN).jitter(f64::NAN);
        assert_eq!(backoff.delay_with(9, 1), Duration::from_secs(1));
    }
}
