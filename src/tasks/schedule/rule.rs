//! When a schedule fires: a period, or a cron expression in a time zone.

use std::time::Duration;

use super::super::error::{Result, TaskError};

/// When to fire. All times are milliseconds since 1970.
#[derive(Debug)]
pub(super) enum Rule {
    /// Every so many milliseconds.
    Every(i64),
    #[cfg(feature = "cron")]
    Cron(cron::Expression),
}

/// A period's text begins with it, and no cron expression does.
const EVERY: &str = "every ";

/// The text of a period, as it is stored.
pub(super) fn every(period: Duration) -> String {
    format!("{EVERY}{}ms", period.as_millis())
}

impl Rule {
    pub(super) fn parse(rule: &str, zone: &str) -> Result<Rule> {
        if let Some(period) = rule.strip_prefix(EVERY) {
            let period = period.strip_suffix("ms").and_then(|period| period.parse().ok());
            return match period.filter(|&period| period >= SHORTEST) {
                Some(period) => Ok(Rule::Every(period)),
                None => {
                    Err(TaskError::Invalid("a schedule's period must be at least a second, and not endless".into()))
                }
            };
        }
        #[cfg(feature = "cron")]
        return Ok(Rule::Cron(cron::Expression::parse(rule, zone)?));
        #[cfg(not(feature = "cron"))]
        return Err(TaskError::Invalid(format!(
            "the schedule `{rule}` in `{zone}` is a cron expression, for which this program has to be built with the feature `cron`"
        )));
    }

    /// The first time after `now`, where `fired` is one.
    pub(super) fn next(&self, fired: i64, now: i64) -> Option<i64> {
        match self {
            Rule::Every(period) => {
                let passed = now.saturating_sub(fired).max(0) / period;
                passed.checked_add(1)?.checked_mul(*period)?.checked_add(fired)
            }
            #[cfg(feature = "cron")]
            Rule::Cron(expression) => expression.next(now),
        }
    }

    /// The last time up to `now`, where `due` is one that is not after it.
    pub(super) fn latest(&self, due: i64, now: i64) -> i64 {
        match self {
            Rule::Every(period) => due + now.saturating_sub(due).max(0) / period * period,
            #[cfg(feature = "cron")]
            Rule::Cron(expression) => expression.latest(now).map_or(due, |latest| latest.max(due)),
        }
    }
}

/// The shortest period: schedules are looked at once a second.
const SHORTEST: i64 = 1_000;

#[cfg(feature = "cron")]
mod cron {
    use std::str::FromStr;

    use croner::Cron;
    use jiff::tz::TimeZone;
    use jiff::{Timestamp, Zoned};

    use super::super::super::error::{Result, TaskError};

    /// A cron expression and the zone that its times are meant in.
    ///
    /// What is due at fixed times of the day fires once for each of them on every day, as Vixie's
    /// cron has it: one that the clocks skip fires right after the gap, and one that they show
    /// twice fires the first time. What is due again and again (a `*` or a `/` in its hours or
    /// minutes) goes by the clock on the wall: nothing fires in a gap, and an hour that comes twice
    /// has its runs twice.
    #[derive(Debug)]
    pub(in crate::tasks) struct Expression {
        /// One for each fixed time of the day, or one for all.
        crons: Vec<Cron>,
        zone: TimeZone,
    }

    /// The longest expression, in bytes.
    const LONGEST: usize = 512;

    /// An expression with more fixed times a day than this is one that is due again and again.
    const MOST_TIMES: usize = 100;

    impl Expression {
        pub(in crate::tasks) fn parse(expression: &str, zone: &str) -> Result<Expression> {
            let refused =
                |why: &dyn std::fmt::Display| TaskError::Invalid(format!("the cron expression `{expression}`: {why}"));
            if expression.len() > LONGEST {
                return Err(TaskError::Invalid(format!("a cron expression has at most {LONGEST} bytes")));
            }
            let parse = |text: &str| Cron::from_str(text).map_err(|error| refused(&error));
            let whole = parse(expression)?;
            let fixed = fixed_times(expression);
            let crons = fixed.iter().map(|text| parse(text)).collect::<Result<Vec<Cron>>>()?;
            let zone = TimeZone::get(zone).map_err(|_| {
                let text = format!("there is no time zone `{zone}`: use a name such as `UTC` or `Europe/Vienna`");
                TaskError::Invalid(text)
            })?;
            Ok(Expression { crons: if crons.is_empty() { vec![whole] } else { crons }, zone })
        }

        fn at(&self, millis: i64) -> Option<Zoned> {
            Some(Timestamp::from_millisecond(millis).ok()?.to_zoned(self.zone.clone()))
        }

        /// The first time after `now`.
        pub(in crate::tasks) fn next(&self, now: i64) -> Option<i64> {
            let now = self.at(now)?;
            let next = |cron: &Cron| {
                let found = cron.find_next_occurrence(&now, false);
                // A country that crosses the date line skips a whole day, which is more than is
                // looked through.
                let behind = || {
                    let transition = self.zone.following(now.timestamp()).next()?.timestamp();
                    cron.find_next_occurrence(&transition.to_zoned(self.zone.clone()), true).ok()
                };
                found.ok().or_else(behind)
            };
            self.crons.iter().filter_map(next).map(|time| time.timestamp().as_millisecond()).min()
        }

        /// The last time up to `now`.
        pub(in crate::tasks) fn latest(&self, now: i64) -> Option<i64> {
            let now = self.at(now)?;
            let latest = |cron: &Cron| cron.find_previous_occurrence(&now, true).ok();
            let times = self.crons.iter().filter_map(latest).map(|time| time.timestamp().as_millisecond());
            times.filter(|&time| time <= now.timestamp().as_millisecond()).max()
        }
    }

    /// One expression for each time of the day, if seconds, minutes and hours are numbers, ranges
    /// and lists of them; none if there is one, or if it is due again and again.
    fn fixed_times(expression: &str) -> Vec<String> {
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let (times, days) = fields.split_at(fields.len() - fields.len().min(3));
        if times.len() > 3 || times.is_empty() {
            return Vec::new();
        }
        let Some(times) = times.iter().map(|field| numbers(field)).collect::<Option<Vec<Vec<u32>>>>() else {
            return Vec::new();
        };
        let count = times.iter().map(Vec::len).product::<usize>();
        if !(2..=MOST_TIMES).contains(&count) {
            return Vec::new();
        }
        let mut all = vec![String::new()];
        for field in times {
            let with = |before: &String| field.iter().map(|number| format!("{before}{number} ")).collect::<Vec<_>>();
            all = all.iter().flat_map(with).collect();
        }
        all.iter().map(|times| format!("{times}{}", days.join(" "))).collect()
    }

    fn numbers(field: &str) -> Option<Vec<u32>> {
        let mut numbers = Vec::new();
        for part in field.split(',') {
            match part.split_once('-') {
                Some((first, last)) => numbers.extend(first.parse::<u8>().ok()?..=last.parse::<u8>().ok()?),
                None => numbers.push(part.parse::<u8>().ok()?),
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        Some(numbers.into_iter().map(u32::from).collect())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn millis(time: &str) -> i64 {
            time.parse::<Timestamp>().unwrap_or_else(|error| panic!("{time}: {error}")).as_millisecond()
        }

        /// The times from `from` on, as many as are expected.
        fn check(zone: &str, expression: &str, from: &str, expected: &[&str]) {
            let rule = Expression::parse(expression, zone).expect("a sound rule");
            let mut now = millis(from);
            for (at, expected) in expected.iter().enumerate() {
                let next = rule.next(now);
                let told = next.and_then(|next| rule.at(next)).map(|next| next.to_string());
                assert_eq!(next, Some(millis(expected)), "{zone} `{expression}`, time {at}: {told:?}, not {expected}");
                now = next.expect("it was one");
                assert_eq!(
                    rule.latest(now),
                    Some(now),
                    "{zone} `{expression}`: {expected} is one by looking back, too"
                );
                assert_eq!(
                    rule.latest(now + 999),
                    Some(now),
                    "{zone} `{expression}`: within the second after {expected}"
                );
            }
        }

        /// Zone, expression, from when on, and the times that follow: each fixed time once a day,
        /// each other by the clock.
        const TRANSITIONS: &[(&str, &str, &str, &[&str])] = &[
            // No transition at all.
            ("UTC", "30 2 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"]),
            ("Asia/Kolkata", "0 9 * * 1", "2026-03-28T12:00:00Z", &["2026-03-30T03:30:00Z", "2026-04-06T03:30:00Z"]),
            // Spring in Vienna: 2:00 to 3:00 is not there. A fixed time in it fires at 3:00, once.
            ("Europe/Vienna", "30 2 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
            ("Europe/Vienna", "0 3 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]),
            (
                "Europe/Vienna",
                "30 2,14 * * *",
                "2026-03-28T14:00:00Z",
                &["2026-03-29T01:00:00Z", "2026-03-29T12:30:00Z", "2026-03-30T00:30:00Z"],
            ),
            (
                "Europe/Vienna",
                "0 1-3 * * *",
                "2026-03-28T12:00:00Z",
                &["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T23:00:00Z"],
            ),
            (
                "Europe/Vienna",
                "*/30 * * * *",
                "2026-03-29T00:00:00Z",
                &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
            ),
            ("Europe/Vienna", "15 * * * *", "2026-03-29T00:00:00Z", &["2026-03-29T00:15:00Z", "2026-03-29T01:15:00Z"]),
            // Autumn in Vienna: 2:00 to 3:00 is there twice. A fixed time in it fires the first
            // time only.
            ("Europe/Vienna", "30 2 * * *", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
            ("Europe/Vienna", "30 2 * * *", "2026-10-25T00:45:00Z", &["2026-10-26T01:30:00Z"]),
            (
                "Europe/Vienna",
                "0 2,3 * * *",
                "2026-10-24T12:00:00Z",
                &["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-26T01:00:00Z"],
            ),
            (
                "Europe/Vienna",
                "*/30 * * * *",
                "2026-10-25T00:15:00Z",
                &["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"],
            ),
            // Without a transition between them the two are an hour apart.
            ("Europe/London", "30 1 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
            (
                "America/New_York",
                "30 2 * * *",
                "2026-03-07T12:00:00Z",
                &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"],
            ),
            (
                "America/New_York",
                "30 1 * * *",
                "2026-10-31T12:00:00Z",
                &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
            ),
            ("America/New_York", "0 0 * * *", "2026-03-08T05:00:00Z", &["2026-03-09T04:00:00Z"]),
            // An hour that is there twice on the other half of the globe: what is due each half
            // hour misses none.
            (
                "Australia/Melbourne",
                "*/30 * * * *",
                "2024-04-06T14:45:00Z",
                &["2024-04-06T15:00:00Z", "2024-04-06T15:30:00Z", "2024-04-06T16:00:00Z", "2024-04-06T16:30:00Z"],
            ),
            // Half an hour on an island.
            (
                "Australia/Lord_Howe",
                "15 2 * * *",
                "2026-10-03T00:00:00Z",
                &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
            ),
            (
                "Australia/Lord_Howe",
                "45 1 * * *",
                "2026-04-04T00:00:00Z",
                &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
            ),
            // Two hours at a station in the Antarctic.
            (
                "Antarctica/Troll",
                "30 1 * * *",
                "2026-03-28T12:00:00Z",
                &["2026-03-29T01:00:00Z", "2026-03-29T23:30:00Z"],
            ),
            // Where midnight was not there, the day began at one.
            (
                "America/Sao_Paulo",
                "0 0 * * *",
                "2018-11-03T12:00:00Z",
                &["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"],
            ),
            ("America/Sao_Paulo", "0 0 4 11 *", "2018-11-03T12:00:00Z", &["2018-11-04T03:00:00Z"]),
            // Clocks that went back over midnight: the day before had its last hour twice.
            (
                "America/Sao_Paulo",
                "30 23 * * *",
                "2018-02-17T12:00:00Z",
                &["2018-02-18T01:30:00Z", "2018-02-19T02:30:00Z"],
            ),
            // A day that was not there at all.
            ("Pacific/Apia", "0 12 * * *", "2011-12-29T23:00:00Z", &["2011-12-30T22:00:00Z"]),
            // Days that not every month has, and seconds.
            ("UTC", "0 0 31 * *", "2026-03-31T00:00:00Z", &["2026-05-31T00:00:00Z", "2026-07-31T00:00:00Z"]),
            ("UTC", "0 0 29 2 *", "2026-03-31T00:00:00Z", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
            ("UTC", "*/20 * * * * *", "2026-03-31T00:00:05Z", &["2026-03-31T00:00:20Z", "2026-03-31T00:00:40Z"]),
            ("UTC", "@daily", "2026-03-31T00:00:00Z", &["2026-04-01T00:00:00Z"]),
        ];

        #[test]
        fn each_fixed_time_fires_once_a_day_whatever_the_clocks_do() {
            for (zone, expression, from, expected) in TRANSITIONS {
                check(zone, expression, from, expected);
            }
        }

        #[test]
        fn what_makes_no_sense_is_refused_and_what_never_comes_is_found_out() {
            let refused = |expression: &str, zone: &str| match Expression::parse(expression, zone) {
                Err(TaskError::Invalid(text)) => text,
                other => panic!("{expression}: {other:?}"),
            };
            assert!(refused("61 * * * *", "UTC").contains("61 * * * *"));
            assert!(refused("", "UTC").contains("empty"));
            assert!(refused("* * *", "UTC").contains("* * *"));
            assert!(refused(&"1,".repeat(400), "UTC").contains("512 bytes"));
            assert!(refused("0 3 * * *", "Europe/Wien").contains("Europe/Wien"));
            let never = Expression::parse("0 0 30 2 *", "UTC").expect("a sound expression");
            assert_eq!(never.next(millis("2026-03-31T00:00:00Z")), None);
        }

        #[test]
        fn only_fixed_times_are_taken_apart() {
            assert_eq!(fixed_times("0,30 9-10 * * 1-5").len(), 4);
            assert_eq!(fixed_times("0 0,30 9 * * *")[1], "0 30 9 * * *");
            for whole in ["0 9 * * *", "*/5 9 * * *", "0 * * * *", "@daily", "0-59 0-23 * * *", "0 9-8 * * *", "9 * *"]
            {
                assert_eq!(fixed_times(whole), [""; 0], "{whole}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_keeps_its_beat() {
        let rule = Rule::parse(&every(Duration::from_secs(10)), "UTC").expect("sound");
        assert_eq!((rule.next(5_000, 5_000), rule.next(5_000, 14_999)), (Some(15_000), Some(15_000)));
        assert_eq!((rule.next(5_000, 15_000), rule.next(5_000, 34_000)), (Some(25_000), Some(35_000)));
        assert_eq!((rule.latest(5_000, 5_000), rule.latest(5_000, 34_000)), (5_000, 25_000));
        assert_eq!(rule.next(5_000, i64::MAX), None);
        for text in ["every 999ms", "every x", "every 99999999999999999999ms"] {
            assert!(matches!(Rule::parse(text, "UTC"), Err(TaskError::Invalid(_))), "{text}");
        }
    }
}
