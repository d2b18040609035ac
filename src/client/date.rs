//! Dates of the proleptic Gregorian calendar, in UTC, as services and file names write them.
//!
//! Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.

#![cfg_attr(not(feature = "pairs"), allow(dead_code))] // openEO's client writes none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::civil_from_days;

const DAY: i64 = 86_400;

/// Reads `2023-01-02`, or that with a time: `2023-01-02T03:04:05Z`, seconds and `Z` optional.
/// Seconds since 1970, and `None` for what isn't such a thing.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', ' ']).map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if year > 9_999 || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let seconds = time.map_or(Some(0), seconds_of_day)?;
    Some(days_from_civil(year, month, day) * DAY + seconds)
}

/// `2023-01-02`.
pub(super) fn day(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// The first second of the month that begins so many months after the one of `seconds`.
#[cfg(feature = "openeo")]
pub(super) fn months_later(seconds: i64, months: i64) -> i64 {
    let (year, month, _) = civil_from_days(seconds.div_euclid(DAY));
    let count = year * 12 + (month - 1) + months;
    days_from_civil(count.div_euclid(12), count.rem_euclid(12) + 1, 1) * DAY
}

/// `20230102-030405`, the form that names the files of point queries.
pub(super) fn compact(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let seconds = i64::try_from(since).unwrap_or(0);
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    let of_day = seconds.rem_euclid(DAY);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

fn seconds_of_day(time: &str) -> Option<i64> {
    let time = time.strip_suffix('Z').unwrap_or(time);
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let mut parts = time.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3_600 + minute * 60 + second)
}

fn digits(text: &str) -> Option<i64> {
    let plain = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_comes_back_as_itself() {
        let mut seconds = parse("1600-01-01").expect("a date");
        for _ in 0..292_194 {
            assert_eq!(parse(&day(seconds)), Some(seconds));
            seconds += DAY;
        }
        assert_eq!(day(seconds), "2400-01-01");
    }

    #[test]
    fn known_instants_are_known() {
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("2023-01-02T00:00:00Z"), Some(1_672_617_600));
        assert_eq!(parse("2018-10-31 12:00"), Some(1_540_987_200));
        assert_eq!(compact(UNIX_EPOCH + Duration::from_secs(1_722_442_401)), "20240731-161321");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "2023", "2023-02-29", "2023-13-01", "23-1-1x", "2023-01-01T24:00:00", "2023-01-01T1", "-1-1-1"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
