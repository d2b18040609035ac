//! When a periodic submitter puts its next value, as plain data: no thread and no clock.

use std::time::{Duration, Instant};

use crate::time::Schedule;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cadence {
    schedule: Schedule,
    /// The number of the next point in time, counted from 0.
    next: u128,
}

/// When to put the next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// `None` if the time is beyond the clock's range: never.
    pub(super) at: Option<Instant>,
    /// Whether the time has passed already. Then this one point also stands for all later ones that
    /// have passed.
    pub(super) late: bool,
}

impl Cadence {
    /// A schedule whose first point is `start`. With a period of zero every moment is a point, and
    /// none is late.
    pub(super) fn new(start: Instant, period: Duration) -> Cadence {
        Cadence { schedule: Schedule { start, period }, next: 0 }
    }

    /// The next point of the schedule, as seen at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Point {
        if self.schedule.period.is_zero() {
            return Point { at: Some(now), late: false };
        }
        let last = self.schedule.last(now);
        // The first point is never late, however long the thread took to start.
        let late = self.next > 0 && last >= self.next;
        let number = if late { last } else { self.next };
        self.next = number + 1;
        Point { at: self.schedule.at(number), late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn points_are_counted_from_the_start_and_never_drift() {
        let start = Instant::now();
        let mut cadence = Cadence::new(start, SECOND);
        for number in 0..10 {
            // Each time asked a little later than the last point.
            let now = start + SECOND * number - if number > 0 { SECOND / 10 } else { Duration::ZERO };
            assert_eq!(cadence.next(now), Point { at: Some(start + SECOND * number), late: false });
        }
    }

    #[test]
    fn what_was_missed_is_late_once_and_the_schedule_stays() {
        let start = Instant::now();
        let mut cadence = Cadence::new(start, SECOND);
        cadence.next(start);
        let now = start + SECOND * 7 / 2;
        assert_eq!(cadence.next(now), Point { at: Some(start + SECOND * 3), late: true }, "at once, for 1 to 3");
        assert_eq!(cadence.next(now), Point { at: Some(start + SECOND * 4), late: false }, "on the old points");
    }

    #[test]
    fn the_ends_of_the_range_are_always_and_never() {
        let start = Instant::now();
        let mut always = Cadence::new(start, Duration::ZERO);
        assert_eq!(always.next(start + SECOND), Point { at: Some(start + SECOND), late: false });
        let mut never = Cadence::new(start, Duration::MAX);
        assert_eq!(never.next(start).at, Some(start));
        assert_eq!(never.next(start), Point { at: None, late: false });
        assert_eq!(never.next(start), Point { at: None, late: false });
    }
}
