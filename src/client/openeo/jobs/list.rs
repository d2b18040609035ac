//! The jobs of a user.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::client::http::Method;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pages::Pages;
use crate::client::openeo::documents::job::JobDescription;
use crate::client::openeo::documents::table::Table;

/// How many jobs a page is asked to have. A back-end may send more or fewer.
const PAGE: usize = 100;

/// How many jobs the one page is asked to have that stands for many questions.
const LARGEST: usize = 1_000;

/// The jobs of a user, in the back-end's order. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct JobList {
    jobs: Vec<JobDescription>,
    gap: Option<String>,
}

impl JobList {
    fn new(pages: Pages) -> JobList {
        let mut ids = HashSet::new();
        // A job is one, however often it is listed.
        let is_new = |job: &JobDescription| job.id().is_empty() || ids.insert(job.id().to_owned());
        let jobs = pages.items.into_iter().map(JobDescription::new).filter(is_new).collect();
        JobList { jobs, gap: pages.gap }
    }

    /// The jobs. A list has fewer details than a [description](crate::client::openeo::BatchJob::describe).
    pub fn iter(&self) -> impl Iterator<Item = &JobDescription> {
        self.jobs.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether these are all. A page that can't be had leaves those before it; a link to another host, or in a circle, isn't
    /// followed, nor is one after 1,000 pages or 100,000 jobs; and an aggregator may not have reached all its back-ends.
    pub fn is_complete(&self) -> bool {
        self.gap.is_none()
    }

    /// Why there may be more, in words.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }
}

impl fmt::Display for JobList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["id", "status", "progress", "created", "title"]);
        for job in &self.jobs {
            let progress = job.progress().map_or_else(String::new, |_| job.shown_progress());
            let (created, title) = (job.created().unwrap_or_default(), job.title().unwrap_or_default());
            table.row(&[job.id(), job.status().as_str(), &progress, created, title]);
        }
        table.fmt(f)?;
        self.gap.as_ref().map_or(Ok(()), |gap| write!(f, "\n(there may be more: {gap})"))
    }
}

impl Connection {
    /// All jobs of the user. Pages are followed to the end, or as far as they can be had: [`JobList::gap`] tells.
    ///
    /// # Errors
    /// The back-end's, for the first page.
    pub fn list_jobs(&self) -> Result<JobList, OpenEoError> {
        let request = self.request(Method::Get, "/jobs").query("limit", &PAGE.to_string());
        let list = JobList::new(Pages::read(self, request, "jobs")?);
        self.ledger().note_seen(list.iter().map(JobDescription::id));
        Ok(list)
    }

    /// All jobs of the user, and the server's `Date`; an error if a page can't be had. Without a `limit`: a back-end that knows
    /// it and has no pages would leave out the rest, and nothing would tell.
    pub(crate) fn whole_list(&self) -> Result<(JobList, Option<String>), OpenEoError> {
        let mut pages = Pages::read(self, self.request(Method::Get, "/jobs"), "jobs")?;
        match pages.fault.take() {
            Some(fault) => Err(fault),
            None => Ok((pages.date.take(), JobList::new(pages))).map(|(date, list)| (list, date)),
        }
    }

    /// One page of at least `jobs` jobs, as far as the back-end goes along, by one request. Within `limit`, if there is one.
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
