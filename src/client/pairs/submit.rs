//! A query as something that is made exactly once: how it is submitted, and how it is known again in the list.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::creation::{Doubt, Likeness, Listed, Listing, Maker, Match};
use crate::client::http::HttpErrorKind;
use crate::client::pairs::client::Client;
use crate::client::pairs::{PairsError, Query, QueryJob, Submission};

/// How many jobs a page of the list has, and how many pages are read for a lost one.
const PAGE: u32 = 100;
const PAGES: u32 = 100;

/// A query that is submitted to a server.
pub(super) struct QueryMaker<'a> {
    pub(super) client: &'a Client,
    pub(super) query: &'a Query,
    pub(super) compact_csv: bool,
}

/// What tells like queries.
pub(super) fn likeness(query: &Query) -> Likeness {
    Sha256::digest(query.to_submit().to_string()).into()
}

impl QueryMaker<'_> {
    /// A server may leave the name out.
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
            // Nothing but a cost was asked for.
            _ if self.query.is_dry_run() => Doubt::None,
            PairsError::Http(error) if !error.may_have_arrived() || self.client.has_outlived_token(error) => {
                Doubt::None
            }
            PairsError::Http(error) => {
                let gave_up = error.kind() == HttpErrorKind::Timeout || error.status() == Some(504);
                if gave_up { Doubt::UnderWay } else { Doubt::Lost }
            }
            // The server said something, but not what.
            PairsError::Reply(_) => Doubt::Unnamed,
            _ => Doubt::None,
        }
    }

    fn may_pass(&self, error: &PairsError) -> bool {
        error.is_retryable()
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
            // What has no history can't be recognised.
            Err(PairsError::Http(error)) if error.status() == Some(404) => None,
            history => history?.query,
        };
        Ok(match asked {
            None => Match::Possible,
            Some(asked) if holds(&asked.to_submit(), &self.query.to_submit()) => Match::Same,
            Some(_) => Match::Different,
        })
    }
}

/// Whether all that was submitted is in what the server says was asked; it may have added to it.
fn holds(asked: &Value, submitted: &Value) -> bool {
    match (asked, submitted) {
        (Value::Object(asked), Value::Object(submitted)) => {
            submitted.iter().all(|(name, value)| asked.get(name).is_some_and(|asked| holds(asked, value)))
        }
        (Value::Array(asked), Value::Array(submitted)) => {
            asked.len() == submitted.len() && asked.iter().zip(submitted).all(|(asked, value)| holds(asked, value))
        }
        (Value::Number(asked), Value::Number(submitted)) => asked.as_f64() == submitted.as_f64(),
        (asked, submitted) => asked == submitted,
    }
}
