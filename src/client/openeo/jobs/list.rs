//! The jobs of a user.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;

use crate::client::http::Method;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pages::Pages;
use crate::client::openeo::documents::job::JobDescription;
use crate::client::openeo::documents::listing::{Listed, Listing};

/// The number of jobs per page that we ask for. A back-end may send more or fewer.
const PAGE: usize = 100;

/// The most jobs to ask for in a single page, if that page replaces a request for each job.
const LARGEST: usize = 1_000;

/// The jobs of a user, in the back-end's order. A list has fewer details than a
/// [description](crate::client::openeo::BatchJob::describe).
pub type JobList = Listing<JobDescription>;

impl Listed for JobDescription {
    const HEADING: &'static [&'static str] = &["id", "status", "progress", "created", "title"];

    fn new(document: Value) -> JobDescription {
        JobDescription::new(document)
    }

    fn name(&self) -> &str {
        self.id()
    }

    fn cells(&self) -> Vec<String> {
        let progress = self.progress().map_or_else(String::new, |_| self.shown_progress());
        let words = [self.created(), self.title()].map(|word| word.unwrap_or_default().to_owned());
        [self.id().to_owned(), self.status().to_string(), progress].into_iter().chain(words).collect()
    }
}

fn list_of(pages: Pages) -> JobList {
    let mut ids = HashSet::new();
    // If a job is in the list several times, keep it once.
    let id = |job: &Value| job.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let jobs = pages.items.into_iter().filter(|job| id(job).is_empty() || ids.insert(id(job)));
    Listing::new(jobs.collect(), pages.gap)
}

impl Connection {
    /// All jobs of the user, from all pages of the list. If a further page can't be read, the list
    /// ends before it, and [`Listing::gap`] says why.
    ///
    /// # Errors
    /// The back-end's error, if the first page can't be read.
    pub fn list_jobs(&self) -> Result<JobList, OpenEoError> {
        let request = self.request(Method::Get, "/jobs").query("limit", &PAGE.to_string());
        let list = list_of(Pages::read(self, request, "jobs")?);
        self.ledger().note_seen(list.iter().map(JobDescription::id));
        Ok(list)
    }

    /// All jobs of the user, and the server's `Date`; an error if a page can't be read. It asks
    /// without a `limit`: a back-end that has `limit` but no links to further pages would leave out
    /// the rest, without a sign of that.
    pub(crate) fn whole_list(&self) -> Result<(JobList, Option<String>), OpenEoError> {
        let mut pages = Pages::read(self, self.request(Method::Get, "/jobs"), "jobs")?;
        match pages.fault.take() {
            Some(fault) => Err(fault),
            None => Ok((pages.date.take(), list_of(pages))).map(|(date, list)| (list, date)),
        }
    }

    /// The first page of the job list, by one request for at least `jobs` jobs; the back-end may
    /// send fewer. It takes at most `limit`, if there is one.
    pub(crate) fn first_page(&self, jobs: usize, limit: Option<Duration>) -> Result<Vec<JobDescription>, OpenEoError> {
        let request = self.request(Method::Get, "/jobs").query("limit", &jobs.clamp(PAGE, LARGEST).to_string());
        let page = self.json_of(match limit {
            Some(limit) => request.timeout(limit),
            None => request,
        })?;
        let jobs = page.get("jobs").and_then(Value::as_array);
        let jobs = jobs.ok_or_else(|| OpenEoError::reply("a list without `jobs`"))?;
        let jobs: Vec<JobDescription> = jobs.iter().cloned().map(JobDescription::new).collect();
        self.ledger().note_seen(jobs.iter().map(JobDescription::id));
        Ok(jobs)
    }
}
