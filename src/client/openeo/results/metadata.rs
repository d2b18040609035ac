//! The metadata of a job's results, asked for when they are needed, and kept.

use std::sync::Arc;

use serde_json::Value;

use crate::client::http::Method;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;
use crate::client::openeo::jobs::job::BatchJob;
use crate::sync::Mutex;

/// The metadata as of one request. Links in them may expire.
#[derive(Clone)]
pub(super) struct Metadata {
    /// Which request, counted from 1.
    pub(super) generation: u64,
    pub(super) document: Arc<Value>,
    /// Where they came from, which their links may be relative to.
    pub(super) url: Arc<str>,
}

/// The metadata of one job's results. Clones share what is known.
#[derive(Clone)]
pub(super) struct MetadataCache {
    job: BatchJob,
    current: Arc<Mutex<Option<Metadata>>>,
}

impl MetadataCache {
    pub(super) fn new(job: BatchJob) -> MetadataCache {
        MetadataCache { job, current: Arc::default() }
    }

    /// The same, each request of which is tried once.
    pub(super) fn once(&self) -> MetadataCache {
        MetadataCache { job: self.job.once(), ..self.clone() }
    }

    pub(super) fn job(&self) -> &BatchJob {
        &self.job
    }

    /// What is known, without asking.
    pub(super) fn known(&self) -> Option<Metadata> {
        self.current.lock().clone()
    }

    /// What is known, or else asked for.
    pub(super) fn get(&self) -> Result<Metadata, OpenEoError> {
        self.known().map_or_else(|| self.ask(0), Ok)
    }

    /// Newer metadata than those of `generation`: what another call has asked for since, or asked for now.
    pub(super) fn newer(&self, generation: u64) -> Result<Metadata, OpenEoError> {
        self.known().filter(|known| known.generation > generation).map_or_else(|| self.ask(generation), Ok)
    }

    fn ask(&self, generation: u64) -> Result<Metadata, OpenEoError> {
        let connection = self.job.connection();
        let reply = connection.send(connection.request(Method::Get, &self.job.path("/results")))?;
        let document: Value = reply.json()?;
        if !document.get("assets").is_none_or(Value::is_object) {
            return Err(OpenEoError::reply("the `assets` of the results are no object"));
        }
        let metadata = Metadata { generation: generation + 1, document: Arc::new(document), url: reply.url().into() };
        *self.current.lock() = Some(metadata.clone());
        Ok(metadata)
    }

    pub(super) fn wrong(&self, reason: String) -> OpenEoError {
        OpenEoError::Asset { id: plain(self.job.id(), 200), reason }
    }
}
