//! A period, and its split into months or days.

use std::fmt;

use serde_json::{Value, json};

use crate::client::date;
use crate::client::openeo::api::error::OpenEoError;

const DAY: i64 = 86_400;

/// The most pieces of a split.
const MOST_PIECES: usize = 100_000;

/// The days from a first one, which is included, to a last one, which is excluded, in UTC: openEO's
/// left-closed interval.
///
/// ```
/// use fulmar::client::openeo::Period;
/// use serde_json::json;
///
/// let months = Period::new("2022-01-15", "2022-04-01")?.split_by_months(1)?;
/// let months: Vec<_> = months.iter().map(Period::to_json).collect();
/// assert_eq!(json!(months), json!([["2022-01-15", "2022-02-01"], ["2022-02-01", "2022-03-01"], ["2022-03-01", "2022-04-01"]]));
/// # Ok::<(), fulmar::client::openeo::OpenEoError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first seconds of both days, since 1970.
    from: i64,
    to: i64,
}

impl Period {
    /// The days from `from` to before `to`, as `2022-01-31`.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if a text isn't a date, or if the period doesn't end after it
    /// begins.
    pub fn new(from: &str, to: &str) -> Result<Period, OpenEoError> {
        let read = |text: &str| {
            let found = date::parse(text).filter(|_| !text.contains(['T', ' ']));
            found.ok_or_else(|| OpenEoError::Invalid(format!("`{text}` isn't a date: write it as `2022-01-31`")))
        };
        let (from, to) = (read(from)?, read(to)?);
        if from >= to {
            return Err(OpenEoError::Invalid(format!("{} is not before {}", date::day(from), date::day(to))));
        }
        Ok(Period { from, to })
    }

    /// Its first day.
    pub fn start(&self) -> String {
        date::day(self.from)
    }

    /// The day after its last.
    pub fn end(&self) -> String {
        date::day(self.to)
    }

    /// The JSON that processes take as a `temporal_extent`: `["2022-01-01", "2022-02-01"]`.
    pub fn to_json(&self) -> Value {
        json!([self.start(), self.end()])
    }

    /// Splits the period into pieces of `months` calendar months, at the first of a month. The
    /// first and the last piece may be shorter.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if `months` is 0.
    pub fn split_by_months(&self, months: u32) -> Result<Vec<Period>, OpenEoError> {
        positive(months, "months")?;
        Ok(self.cut(|from| Some(date::months_later(from, i64::from(months)))))
    }

    /// Splits the period into pieces of `days` days, from the first day on. The last piece may be
    /// shorter.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if `days` is 0, or if there would be more than 100,000 pieces.
    pub fn split_by_days(&self, days: u32) -> Result<Vec<Period>, OpenEoError> {
        positive(days, "days")?;
        if (self.to - self.from) / (i64::from(days) * DAY) > MOST_PIECES as i64 {
            return Err(OpenEoError::Invalid(format!("{self} has more than {MOST_PIECES} pieces of {days} days")));
        }
        Ok(self.cut(|from| from.checked_add(i64::from(days) * DAY)))
    }

    fn cut(&self, next: impl Fn(i64) -> Option<i64>) -> Vec<Period> {
        let mut pieces = Vec::new();
        let mut from = self.from;
        while from < self.to {
            let to = next(from).filter(|next| *next > from).map_or(self.to, |next| next.min(self.to));
            pieces.push(Period { from, to });
            from = to;
        }
        pieces
    }
}

fn positive(count: u32, of: &str) -> Result<(), OpenEoError> {
    if count == 0 { Err(OpenEoError::Invalid(format!("a piece of 0 {of} is empty: use 1 or more"))) } else { Ok(()) }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to before {}", self.start(), self.end())
    }
}

impl From<Period> for Value {
    fn from(period: Period) -> Value {
        period.to_json()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: Result<Vec<Period>, OpenEoError>) -> Vec<String> {
        pieces.expect("pieces").iter().map(|piece| format!("{}/{}", piece.start(), piece.end())).collect()
    }

    #[test]
    fn pieces_follow_each_other_without_a_gap() {
        let year = Period::new("2023-12-31", "2025-01-02").expect("a period");
        for pieces in [year.split_by_months(1), year.split_by_months(5), year.split_by_days(1), year.split_by_days(16)]
        {
            let pieces = pieces.expect("pieces");
            assert!(pieces.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].from < pair[0].to));
            assert_eq!((pieces[0].from, pieces.last().map(|piece| piece.to)), (year.from, Some(year.to)));
        }
        assert_eq!(year.split_by_days(1).expect("days").len(), 368);
        assert_eq!(year.split_by_months(1).expect("months").len(), 14);
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let winter = Period::new("2023-12-05", "2024-03-01").expect("a period");
        assert_eq!(
            shown(winter.split_by_months(1)),
            ["2023-12-05/2024-01-01", "2024-01-01/2024-02-01", "2024-02-01/2024-03-01"]
        );
        assert_eq!(shown(winter.split_by_months(u32::MAX)), ["2023-12-05/2024-03-01"]);
        assert_eq!(shown(winter.split_by_days(60)), ["2023-12-05/2024-02-03", "2024-02-03/2024-03-01"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (from, to) in [
            ("2022-01-01", "2022-01-01"),
            ("2022-02-30", "2023-01-01"),
            ("2022-01-01T00:00:00Z", "2023-01-01"),
            ("", ""),
        ] {
            assert!(matches!(Period::new(from, to), Err(OpenEoError::Invalid(_))), "{from} {to}");
        }
        let ages = Period::new("0001-01-01", "9999-12-31").expect("a period");
        assert!(matches!(ages.split_by_days(1), Err(OpenEoError::Invalid(_))));
        assert!(matches!(ages.split_by_months(0), Err(OpenEoError::Invalid(_))));
        assert_eq!(ages.split_by_months(1).expect("months").len(), 9999 * 12);
    }
}
