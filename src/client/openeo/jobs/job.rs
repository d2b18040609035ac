//! A batch job: a reference on this side to what exists on the other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::client::http::{Method, RequestBuilder};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::{JobDescription, JobStatus};
use crate::client::openeo::documents::text::{plain, segment};

/// From here on a request has its own limit, which may be shorter.
const LONG: Duration = Duration::from_secs(60);

/// What a look gets, however little time is left: a limit of nothing means one look.
const LEAST: Duration = Duration::from_secs(1);

/// A reference to a batch job that exists on the back-end, by its id. Cloning it is cheap.
#[derive(Clone)]
pub struct BatchJob {
    connection: Connection,
    id: Arc<str>,
    warnings: Arc<[String]>,
    /// Whether it was made by this reference.
    is_new: bool,
}

impl BatchJob {
    pub(crate) fn new(connection: Connection, id: &str) -> BatchJob {
        BatchJob { connection, id: id.into(), warnings: Arc::new([]), is_new: false }
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> BatchJob {
        self.warnings = warnings.into();
        self
    }

    /// Whether it was made by this reference, so that it can't have ended before.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What the back-end calls the job. It is all that it takes to find the job again:
    /// [`Connection::job`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The back-end that it is on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What the back-end's validation had to say when this reference created the job.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same job, each call to which is tried once and waits for nothing but the network.
    pub(crate) fn once(&self) -> BatchJob {
        BatchJob { connection: self.connection.once(), ..self.clone() }
    }

    /// All that the back-end tells about the job.
    ///
    /// # Errors
    /// The back-end's; [`OpenEoError::is_not_found`] says that there is no such job.
    pub fn describe(&self) -> Result<JobDescription, OpenEoError> {
        self.read_description(self.connection.request(Method::Get, &self.path("")))
    }

    /// How it stands.
    ///
    /// # Errors
    /// As for [`describe`](BatchJob::describe).
    pub fn status(&self) -> Result<JobStatus, OpenEoError> {
        Ok(self.describe()?.status())
    }

    /// Stops it, if it is queued or running. What has been computed may be kept by the back-end.
    ///
    /// # Errors
    /// The back-end's.
    pub fn stop(&self) -> Result<(), OpenEoError> {
        self.connection.send(self.connection.request(Method::Delete, &self.path("/results"))).map(drop)
    }

    /// Removes it, with its results and logs; stops it first if need be.
    ///
    /// # Errors
    /// The back-end's. That there is no such job is none, if an earlier attempt of this very call
    /// had an unclear answer.
    pub fn delete(&self) -> Result<(), OpenEoError> {
        match self.connection.send(self.connection.request(Method::Delete, &self.path(""))) {
            Err(error) if error.is_not_found() && error.http().is_some_and(|http| http.attempts() > 1) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// What the back-end thinks it will cost and take: `costs`, `duration`, `size`, whatever it can
    /// say.
    ///
    /// # Errors
    /// The back-end's; many say `FeatureUnsupported`.
    pub fn estimate(&self) -> Result<Value, OpenEoError> {
        self.connection.get_json(&self.path("/estimate"))
    }

    /// Within what is left of a time limit, where that is less than a request would take by itself.
    pub(crate) fn describe_within(&self, left: Option<Duration>) -> Result<JobDescription, OpenEoError> {
        let request = self.connection.request(Method::Get, &self.path(""));
        self.read_description(match left.filter(|left| *left < LONG) {
            Some(left) => request.timeout(left.max(LEAST)),
            None => request,
        })
    }

    fn read_description(&self, request: RequestBuilder) -> Result<JobDescription, OpenEoError> {
        let document = self.connection.json_of(request)?;
        if !document.get("status").is_some_and(Value::is_string) {
            return Err(OpenEoError::reply(format!("the details of job '{}' have no status", plain(&self.id, 100))));
        }
        Ok(JobDescription::new(document))
    }

    /// The path of the job, and what is below it.
    pub(crate) fn path(&self, below: &str) -> String {
        format!("/jobs/{}{below}", segment(&self.id))
    }
}

impl Connection {
    /// A job of this back-end by its id, without asking the back-end: made another day, by another
    /// program, in any language.
    pub fn job(&self, id: &str) -> BatchJob {
        BatchJob::new(self.clone(), id)
    }
}

impl fmt::Debug for BatchJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchJob").field("id", &self.id).field("root", &self.connection.root_url()).finish()
    }
}
