//! Lists that come in pages, and the list of all jobs.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::connection::{Connection, Pace};
use super::description::JobDescription;
use super::error::OpenEoError;
use super::table::Table;
use crate::client::http::{Method, Origin, RequestBuilder};
use crate::trace::event;

/// How many jobs a page is asked to have. A back-end may send more or fewer.
const PAGE: usize = 100;

/// How many jobs the one page is asked to have that stands for many questions.
const LARGEST: usize = 1_000;

/// How many pages are followed, how many items are kept, and for how long a step of a batch reads on.
const MOST_PAGES: usize = 1_000;
const MOST_ITEMS: usize = 100_000;
const MOST_TIME: Duration = Duration::from_secs(60);

/// All pages of a list put together.
pub(super) struct Pages {
    pub(super) items: Vec<Value>,
    /// Whether the last page said that it is the last.
    pub(super) complete: bool,
    /// The server's `Date` with the last page, as it came.
    pub(super) date: Option<String>,
}

impl Pages {
    /// Follows `next` links, as long as they lead to the same origin, to a page that wasn't read yet, with an item that
    /// wasn't seen on an earlier one.
    pub(super) fn read(
        connection: &Connection,
        first: RequestBuilder,
        field: &str,
        pace: Pace,
    ) -> Result<Pages, OpenEoError> {
        let mut pages = Pages { items: Vec::new(), complete: false, date: None };
        let (mut ids, mut urls) = (HashSet::new(), HashSet::new());
        let mut request = first;
        let began = Instant::now();
        for _ in 0..MOST_PAGES {
            let reply = connection.send(request)?;
            pages.date = reply.header("date").map(str::to_owned);
            let page: Value = reply.json()?;
            let Some(items) = page.get(field).and_then(Value::as_array) else {
                return Err(OpenEoError::reply(format!("a list without `{field}`")));
            };
            let mut is_news = false;
            let mut here = Vec::new();
            for item in items {
                // What has no id can't be told from others, and isn't thrown away; nor is what only shares one.
                let id = item.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
                if id.is_none_or(|id| !ids.contains(id)) {
                    is_news |= id.is_some();
                    here.extend(id.map(str::to_owned));
                    pages.items.push(item.clone());
                }
            }
            ids.extend(here);
            let Some(next) = next_link(&page) else {
                pages.complete = true;
                return Ok(pages);
            };
            let url = connection.resolve(&next).filter(|url| Origin::of(url) == Origin::of(connection.root_url()));
            let is_endless = pages.items.len() >= MOST_ITEMS || (pace == Pace::Step && began.elapsed() > MOST_TIME);
            match url {
                Some(url) if is_news && !is_endless && urls.insert(url.clone()) => {
                    request = connection.request_link(Method::Get, &url, pace).accept("application/json");
                }
                _ => {
                    event!(WARN, "a list ends with a link that isn't followed", field = field);
                    return Ok(pages);
                }
            }
        }
        event!(WARN, "a list has more pages than are followed", field = field);
        Ok(pages)
    }
}

fn next_link(page: &Value) -> Option<String> {
    let links = page.get("links")?.as_array()?;
    let next = links.iter().find(|link| link.get("rel").and_then(Value::as_str) == Some("next"))?;
    next.get("href")?.as_str().map(str::to_owned)
}

/// The jobs of a user, in the back-end's order. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct JobList {
    jobs: Vec<JobDescription>,
    complete: bool,
}

impl JobList {
    /// The jobs. A list has fewer details than a [description](super::BatchJob::describe).
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
        self.dated_list(Pace::Patient).map(|(list, _)| list)
    }

    /// All jobs of the user, and the server's `Date`.
    pub(super) fn dated_list(&self, pace: Pace) -> Result<(JobList, Option<String>), OpenEoError> {
        let request = self.request(Method::Get, "/jobs", pace).query("limit", &PAGE.to_string());
        let pages = Pages::read(self, request, "jobs", pace)?;
        let mut ids = HashSet::new();
        // A job is one, however often it is listed.
        let is_new = |job: &JobDescription| job.id().is_empty() || ids.insert(job.id().to_owned());
        let jobs = pages.items.into_iter().map(JobDescription::new).filter(is_new).collect();
        Ok((JobList { jobs, complete: pages.complete }, pages.date))
    }

    /// One page of at least `jobs` jobs, as far as the back-end goes along, by one request. Within `limit`, if there is one.
    pub(super) fn first_page(
        &self,
        jobs: usize,
        pace: Pace,
        limit: Option<Duration>,
    ) -> Result<Vec<JobDescription>, OpenEoError> {
        let request = self.request(Method::Get, "/jobs", pace).query("limit", &jobs.clamp(PAGE, LARGEST).to_string());
        let page = self.json_of(match limit {
            Some(limit) => request.timeout(limit),
            None => request,
        })?;
        let jobs = page.get("jobs").and_then(Value::as_array);
        let jobs = jobs.ok_or_else(|| OpenEoError::reply("a list without `jobs`"))?;
        Ok(jobs.iter().cloned().map(JobDescription::new).collect())
    }
}
