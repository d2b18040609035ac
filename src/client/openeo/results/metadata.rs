//! The metadata of a job's results, read when they are first needed, and kept.
//!
//! They are a STAC item or collection. If a collection has no data among its own assets, the data
//! are in its items, each of which is another document (STAC 1.1). If an item can't be read, the
//! others still are, and its error is kept beside them.

use std::sync::Arc;

use serde_json::Value;

use crate::client::http::{Method, Response};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::JobStatus;
use crate::client::openeo::documents::text::plain;
use crate::client::openeo::jobs::job::BatchJob;
use crate::sync::Mutex;

/// How many items of a collection are read.
const MOST_ITEMS: usize = 10_000;

/// The metadata as one request returned them. Their links may expire.
#[derive(Clone)]
pub(super) struct Metadata {
    /// The number of that request, from 1.
    pub(super) generation: u64,
    /// The item or collection that the back-end returned.
    pub(super) results: Arc<Section>,
    /// The items in which a collection has its data.
    pub(super) items: Arc<[Section]>,
    /// The items that could not be read.
    pub(super) unread: Arc<[Unread]>,
}

/// A document with assets.
pub(super) struct Section {
    pub(super) document: Arc<Value>,
    /// The URL from which it came: its links may be relative to that.
    pub(super) url: String,
    /// How many `NaN` and `Infinity` it had; they are null now.
    not_numbers: usize,
}

/// A document that could not be read.
pub(crate) struct Unread {
    pub(crate) name: String,
    pub(crate) why: String,
    /// Whether another request may succeed.
    pub(crate) may_pass: bool,
}

impl Metadata {
    /// How many `NaN` and `Infinity` the documents had.
    pub(super) fn not_numbers(&self) -> usize {
        self.items.iter().map(|item| item.not_numbers).sum::<usize>() + self.results.not_numbers
    }

    /// The status of the job, if the results have it and it isn't `finished`.
    pub(super) fn unfinished(&self) -> Option<JobStatus> {
        let document = &self.results.document;
        let of = |object: &Value| object.get("openeo:status").and_then(Value::as_str).map(str::to_ascii_lowercase);
        let status = of(document).or_else(|| of(document.get("properties")?))?;
        Some(JobStatus::of(&status)).filter(|status| *status != JobStatus::Finished)
    }
}

impl Section {
    /// Its assets, with their keys.
    pub(super) fn assets(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.document.get("assets").and_then(Value::as_object).into_iter().flatten()
    }

    /// Whether its assets include computed files, and not only previews and metadata.
    fn has_data(&self) -> bool {
        self.assets().any(|(_, asset)| match asset.get("roles").and_then(Value::as_array) {
            Some(roles) if !roles.is_empty() => roles.iter().any(|role| role.as_str() == Some("data")),
            _ => true,
        })
    }

    /// The links to its items.
    fn item_links(&self) -> impl Iterator<Item = &Value> {
        let links = self.document.get("links").and_then(Value::as_array).into_iter().flatten();
        links.filter(|link| link.get("rel").and_then(Value::as_str).is_some_and(|rel| rel.eq_ignore_ascii_case("item")))
    }
}

/// Reads and keeps the metadata of one job's results. Clones share them.
#[derive(Clone)]
pub(super) struct MetadataCache {
    job: BatchJob,
    /// Whether to ask for partial results, too.
    partial: bool,
    current: Arc<Mutex<Option<Metadata>>>,
}

impl MetadataCache {
    pub(super) fn new(job: BatchJob, partial: bool) -> MetadataCache {
        MetadataCache { job, partial, current: Arc::default() }
    }

    /// The same cache, but it tries each request once.
    pub(super) fn once(&self) -> MetadataCache {
        MetadataCache { job: self.job.once(), ..self.clone() }
    }

    pub(super) fn job(&self) -> &BatchJob {
        &self.job
    }

    pub(super) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The metadata, if they were read before.
    pub(super) fn known(&self) -> Option<Metadata> {
        self.current.lock().clone()
    }

    /// The metadata, which it reads if they weren't read before.
    pub(super) fn get(&self) -> Result<Metadata, OpenEoError> {
        self.known().map_or_else(|| self.ask(0), Ok)
    }

    /// Newer metadata than those of `generation`: those that another call has read since, or
    /// otherwise read now.
    pub(super) fn newer(&self, generation: u64) -> Result<Metadata, OpenEoError> {
        self.known().filter(|known| known.generation > generation).map_or_else(|| self.ask(generation), Ok)
    }

    fn ask(&self, generation: u64) -> Result<Metadata, OpenEoError> {
        let connection = self.job.connection();
        let request = connection.request(Method::Get, &self.job.path("/results"));
        let results = read(connection.send(if self.partial { request.query("partial", "true") } else { request })?)?;
        let (mut items, mut unread) = (Vec::new(), Vec::new());
        if !results.document.get("assets").is_none_or(|assets| assets.is_object() || assets.is_null()) {
            let (name, why) = ("assets".to_owned(), "the `assets` of the results aren't an object".to_owned());
            unread.push(Unread { name, why, may_pass: false });
        }
        if !results.has_data() {
            self.read_items(&results, &mut items, &mut unread);
        }
        let (items, unread) = (items.into(), unread.into());
        let metadata = Metadata { generation: generation + 1, results: Arc::new(results), items, unread };
        *self.current.lock() = Some(metadata.clone());
        Ok(metadata)
    }

    /// Reads the items of a collection. Those that can't be read go to `unread`.
    fn read_items(&self, results: &Section, items: &mut Vec<Section>, unread: &mut Vec<Unread>) {
        let connection = self.job.connection();
        for (number, link) in results.item_links().enumerate() {
            let href = link.get("href").and_then(Value::as_str).unwrap_or_default();
            let shown =
                link.get("title").and_then(Value::as_str).unwrap_or_else(|| href.split('?').next().unwrap_or_default());
            let name = format!("item {}", plain(shown, 200));
            if number >= MOST_ITEMS {
                let why = format!("it and what follows are more than the {MOST_ITEMS} items that are read");
                unread.push(Unread { name, why, may_pass: false });
                return;
            }
            let Some(url) = connection.resolve_from(&results.url, href) else {
                let why = "its link is none of http or https".to_owned();
                unread.push(Unread { name, why, may_pass: false });
                continue;
            };
            let request = connection.request_link(Method::Get, &url).accept("application/geo+json, application/json");
            match connection.send(request).and_then(read) {
                Ok(item) => items.push(item),
                Err(error) => unread.push(Unread { name, why: error.to_string(), may_pass: error.is_retryable() }),
            }
        }
    }

    pub(super) fn wrong(&self, reason: String) -> OpenEoError {
        OpenEoError::Asset { id: plain(self.job.id(), 200), reason }
    }
}

fn read(reply: Response) -> Result<Section, OpenEoError> {
    let document: Value = reply.json()?;
    if !document.is_object() {
        return Err(OpenEoError::reply("the metadata of results aren't an object"));
    }
    Ok(Section { document: Arc::new(document), url: reply.url().to_owned(), not_numbers: reply.not_numbers() })
}
