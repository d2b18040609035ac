//! How a query is submitted exactly once, by the rules of `creation`, and how its job is recognised
//! in the list.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::creation::{Doubt, Likeness, Listed, Listing, Maker, Match};
use crate::client::date;
use crate::client::pairs::client::Client;
use crate::client::pairs::{PairsError, Query, QueryJob, Submission};

/// How many jobs a page of the list has, and how many pages are read to find a lost job.
const PAGE: u32 = 100;
const PAGES: u32 = 100;

/// How a query is submitted to a server and compared with the jobs there.
pub(super) struct QueryMaker<'a> {
    pub(super) client: &'a Client,
    pub(super) query: &'a Query,
    pub(super) compact_csv: bool,
}

/// A digest that is the same for equal queries.
pub(super) fn likeness(query: &Query) -> Likeness {
    Sha256::digest(query.to_submit().to_string()).into()
}

impl QueryMaker<'_> {
    /// Compares a job of the list with the query, by its name, which a server may leave out.
    fn alike(&self, job: &QueryJob) -> Match {
        let is_same = job.nickname.as_deref().is_none_or(|name| name.is_empty() || Some(name) == self.query.name());
        if is_same { Match::Possible } else { Match::Different }
    }
}

impl Maker for QueryMaker<'_> {
    type Made = Submission;
    type Error = PairsError;

    fn post(&self) -> Result<Submission, PairsError> {
        self.client.once().submit(self.query, self.compact_csv)
    }

    fn id_of<'a>(&self, made: &'a Submission) -> Option<&'a str> {
        match made {
            Submission::Job(id) => Some(id),
            _ => None,
        }
    }

    fn doubt(&self, error: &PairsError) -> Doubt {
        match error {
            // A dry run creates nothing.
            _ if self.query.is_dry_run() => Doubt::None,
            PairsError::Http(error) if self.client.has_outlived_token(error) => Doubt::None,
            PairsError::Http(error) if error.is_given_up() && error.may_have_arrived() => Doubt::UnderWay,
            // PAIRS is behind an API gateway, whose 503 doesn't say what happened behind it.
            PairsError::Http(error) if error.is_of_proxy() => Doubt::Behind,
            PairsError::Http(error) if error.may_have_arrived() => Doubt::Lost,
            PairsError::Http(_) => Doubt::None,
            // The server has answered, but not with an id that can be read.
            PairsError::Reply(_) => Doubt::Unnamed,
            // The request was redirected, and the first server may have created the job.
            PairsError::SentOn { .. } => Doubt::Lost,
            _ => Doubt::None,
        }
    }

    fn may_pass(&self, error: &PairsError) -> bool {
        error.is_retryable() || matches!(error, PairsError::Http(error) if error.is_of_proxy())
    }

    fn list(&self, part: u32) -> Result<Listing, PairsError> {
        let (list, date) = self.client.once().list(false, part, PAGE)?;
        let listed = |job: &QueryJob| Listed { id: job.id.clone(), created: job.start, alike: self.alike(job) };
        let is_cut = part >= PAGES && u64::from(part) < list.pages;
        let gap = match list.unreadable.first() {
            Some(what) => Some(what.clone()),
            None => is_cut.then(|| format!("it has more than {PAGES} pages")),
        };
        let has_more = u64::from(part) < list.pages && !is_cut;
        Ok(Listing { entries: list.jobs.iter().map(listed).collect(), date, gap, has_more })
    }

    fn compare(&self, id: &str) -> Result<Match, PairsError> {
        let asked = match self.client.once().history(id) {
            // A job without a history can't be recognised.
            Err(PairsError::Http(error)) if error.status() == Some(404) => None,
            history => history?.query,
        };
        Ok(asked.map_or(Match::Possible, |asked| likeness_of(&asked.to_submit(), &self.query.to_submit())))
    }
}

/// Compares the query that the server says was submitted with ours. The server may add fields; a
/// field that it leaves out or writes in another form proves nothing.
fn likeness_of(asked: &Value, submitted: &Value) -> Match {
    let of = |is_same| if is_same { Match::Same } else { Match::Different };
    match (asked, submitted) {
        (Value::Object(asked), Value::Object(submitted)) => {
            let each = submitted.iter().map(|(name, value)| match asked.get(name) {
                Some(asked) => likeness_of(asked, value),
                None => Match::Possible,
            });
            least(each)
        }
        (Value::Array(asked), Value::Array(submitted)) if asked.len() == submitted.len() => {
            least(asked.iter().zip(submitted).map(|(asked, value)| likeness_of(asked, value)))
        }
        (Value::Array(_), Value::Array(_)) => Match::Different,
        (Value::Number(asked), Value::Number(submitted)) => of(asked.as_f64() == submitted.as_f64()),
        (asked, submitted) if asked == submitted => Match::Same,
        (Value::String(asked), Value::String(submitted)) => match (date::parse(asked), date::parse(submitted)) {
            (Some(asked), Some(submitted)) => of(asked == submitted),
            (None, None) => of(asked.eq_ignore_ascii_case(submitted)),
            _ => Match::Possible,
        },
        (Value::Bool(_), Value::Bool(_)) => Match::Different,
        _ => Match::Possible,
    }
}

fn least(mut each: impl Iterator<Item = Match>) -> Match {
    let mut least = Match::Same;
    // A single difference decides.
    let is_decided = each.any(|alike| {
        if alike == Match::Possible {
            least = Match::Possible;
        }
        alike == Match::Different
    });
    if is_decided { Match::Different } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_server_writes_in_another_way_may_be_the_same_and_only_a_difference_is_one() {
        let query = |text: Value| Query::from_value(text).expect("a query").to_submit();
        let own = query(json!({
            "name": "n", "layers": [{"id": "92", "temporal": {"intervals": [{"snapshot": "2018-11-01T00:00:00"}]}}],
            "spatial": {"type": "square", "coordinates": [30, -100, 30.5, -99.6]}, "dryRun": false,
        }));
        let mut added = own.clone();
        added["layers"][0]["type"] = json!("raster");
        added["outputLevel"] = json!(20);
        let changed = |pointer: &str, value: Value| {
            let mut changed = own.clone();
            *changed.pointer_mut(pointer).expect("a place") = value;
            changed
        };
        let snapshot = "/layers/0/temporal/intervals/0/snapshot";
        for (asked, expected) in [
            (own.clone(), Match::Same),
            (added, Match::Same),
            (changed("/spatial/type", json!("Square")), Match::Same),
            (changed(snapshot, json!("2018-11-01T00:00:00Z")), Match::Same),
            (changed(snapshot, json!(1_541_030_400_000u64)), Match::Possible),
            (changed("/name", Value::Null), Match::Possible),
            (changed("/layers", json!("92")), Match::Possible),
            (json!({}), Match::Possible),
            (changed(snapshot, json!("2018-11-02")), Match::Different),
            (changed("/spatial/coordinates/0", json!(31)), Match::Different),
            (changed("/layers", json!([])), Match::Different),
            (changed("/name", json!("m")), Match::Different),
        ] {
            assert_eq!(likeness_of(&asked, &own), expected, "{asked}");
        }
    }
}
