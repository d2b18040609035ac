//! A batch job: a reference to a job that exists on a back-end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::client::http::{Method, RequestBuilder};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::{JobDescription, JobStatus};
use crate::client::openeo::documents::text::{plain, segment};

/// If at least this much of a wait's time limit is left, a request only has its own limits.
const LONG: Duration = Duration::from_secs(60);

/// The least time that a request gets, so that a wait with a limit of zero asks once.
const LEAST: Duration = Duration::from_secs(1);

/// A reference to a batch job that exists on the back-end, by its id. Cloning it is cheap.
#[derive(Clone)]
pub struct BatchJob {
    connection: Connection,
    id: Arc<str>,
    warnings: Arc<[String]>,
}

impl BatchJob {
    pub(crate) fn new(connection: Connection, id: &str) -> BatchJob {
        BatchJob { connection, id: id.into(), warnings: Arc::new([]) }
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> BatchJob {
        self.warnings = warnings.into();
        self
    }

    /// The job's id at the back-end. [`Connection::job`] finds the job again by it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The back-end that it is on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The warnings of the back-end's validation, if this reference created the job.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A handle to the same job that tries each call once and waits only for the network.
    pub(crate) fn once(&self) -> BatchJob {
        BatchJob { connection: self.connection.once(), ..self.clone() }
    }

    /// Asks the back-end for all details of the job.
    ///
    /// # Errors
    /// The back-end's error. If there is no such job, [`OpenEoError::is_not_found`] is true of it.
    pub fn describe(&self) -> Result<JobDescription, OpenEoError> {
        self.read_description(self.connection.request(Method::Get, &self.path("")))
    }

    /// Asks the back-end for the job's status.
    ///
    /// # Errors
    /// The back-end's error. If there is no such job, [`OpenEoError::is_not_found`] is true of it.
    pub fn status(&self) -> Result<JobStatus, OpenEoError> {
        Ok(self.describe()?.status())
    }

    /// Stops the job, if it is queued or running. The back-end may keep the results so far.
    ///
    /// # Errors
    /// The back-end's error, for example if it knows no such job.
    pub fn stop(&self) -> Result<(), OpenEoError> {
        self.connection.send(self.connection.request(Method::Delete, &self.path("/results"))).map(drop)
    }

    /// Deletes the job with its results and logs. If it is running, the back-end stops it first.
    ///
    /// # Errors
    /// The back-end's error. If it knows no such job, that isn't an error if the reply to an
    /// earlier attempt of this call was lost, because that attempt may have deleted the job.
    pub fn delete(&self) -> Result<(), OpenEoError> {
        match self.connection.send(self.connection.request(Method::Delete, &self.path(""))) {
            Err(error) if error.is_not_found() && error.http().is_some_and(|http| http.attempts() > 1) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// The back-end's estimate of what the job will need: `costs`, `duration` and `size`, as far as
    /// it gives them.
    ///
    /// # Errors
    /// The back-end's error; many answer `FeatureUnsupported`.
    pub fn estimate(&self) -> Result<Value, OpenEoError> {
        self.connection.get_json(&self.path("/estimate"))
    }

    /// As [`describe`](BatchJob::describe), within `left`, the rest of a wait's time limit.
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
    /// A reference to a job of this back-end by its id, without a request. The job may have been
    /// made by any program, at any time.
    pub fn job(&self, id: &str) -> BatchJob {
        BatchJob::new(self.clone(), id)
    }
}

impl fmt::Debug for BatchJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchJob").field("id", &self.id).field("root", &self.connection.root_url()).finish()
    }
}
