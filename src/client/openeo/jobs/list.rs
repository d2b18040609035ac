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
    complete: bool,
}

impl JobList {
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

    /// Whether all pages could be followed. A link to another host, or in a circle, is not; nor is one after 1,000 pages or
    /// 100,000 jobs.
    pub fn is_complete(&self) -> bool {
        self.complete
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
        table.fmt(f)
    }
}

impl Connection {
    /// All jobs of the user. Pages are followed to the end.
    ///
    /// # Errors
    /// The back-end's.
    pub fn list_jobs(&self) -> Result<JobList, OpenEoError> {
        self.dated_list().map(|(list, _)| list)
    }

    /// All jobs of the user, and the server's `Date`.
    pub(crate) fn dated_list(&self) -> Result<(JobList, Option<String>), OpenEoError> {
        let request = self.request(Method::Get, "/jobs").query("limit", &PAGE.to_string());
        let pages = Pages::read(self, request, "jobs")?;
        let mut ids = HashSet::new();
        // A job is one, however often it is listed.
        let is_new = |job: &JobDescription| job.id().is_empty() || ids.insert(job.id().to_owned());
        let jobs = pages.items.into_iter().map(JobDescription::new).filter(is_new).collect();
        Ok((JobList { jobs, complete: pages.complete }, pages.date))
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
        Ok(jobs.iter().cloned().map(JobDescription::new).collect())
    }
}
