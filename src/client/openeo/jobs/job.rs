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

use crate::trace::event;

/// From here on a request has its own limit, which may be shorter.
const LONG: Duration = Duration::from_secs(60);

/// What a look gets, however little time is left: a limit of nothing means one look.
const LEAST: Duration = Duration::from_secs(1);

/// How often a start is sent at most.
const STARTS: u32 = 4;

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

    /// What the back-end calls the job. It is all that it takes to find the job again: [`Connection::job`].
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

    /// Starts it; one that has ended is computed anew. After a reply that was lost or says 5xx it looks whether the job was
    /// started, before it tries again.
    ///
    /// # Errors
    /// The back-end's. [`OpenEoError::is_not_our_turn`] says that too many jobs run already. After an unclear answer to a start
    /// of a job that had ended before, and has ended now, nobody knows whether it ran in between: that answer is the error.
    pub fn start(&self) -> Result<(), OpenEoError> {
        // One that was made by this reference, or in a batch, can't have ended before.
        let is_old = !self.is_new && !self.connection.is_once();
        let had_ended = is_old && self.describe().is_ok_and(|found| found.status().is_ended());
        let mut sent = 0;
        loop {
            let error = match self.start_once(had_ended) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            sent += 1;
            if had_ended || self.connection.is_once() || sent >= STARTS || !is_unclear(&error) {
                return Err(error);
            }
        }
    }

    /// One attempt, and after an unclear answer one look.
    fn start_once(&self, had_ended: bool) -> Result<(), OpenEoError> {
        let error = match self.connection.send(self.connection.request(Method::Post, &self.path("/results"))) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !is_unclear(&error) {
            return Err(error);
        }
        event!(DEBUG, "a start had an unclear answer", id = self.id, error = error.to_string());
        match self.describe()?.status() {
            JobStatus::Created | JobStatus::Canceled => Err(error),
            status if had_ended && status.is_ended() => Err(error),
            // Whatever it is now, it was started.
            _ => Ok(()),
        }
    }

    /// Starts it once more if it still is as it was made: a back-end may take a start and forget it. A start of a job that is
    /// queued or running has no effect (openEO API 1.2). Whether it was sent.
    pub(crate) fn start_if_created(&self) -> Result<bool, OpenEoError> {
        // Asked itself: a list may be late.
        if self.describe()?.status() != JobStatus::Created {
            return Ok(false);
        }
        match self.start() {
            Err(error) if error.is_not_our_turn() => Ok(false),
            outcome => outcome.map(|()| true),
        }
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
    /// The back-end's. That there is no such job is none, if an earlier attempt of this very call had an unclear answer.
    pub fn delete(&self) -> Result<(), OpenEoError> {
        match self.connection.send(self.connection.request(Method::Delete, &self.path(""))) {
            Err(error) if error.is_not_found() && error.http().is_some_and(|http| http.attempts() > 1) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// What the back-end thinks it will cost and take: `costs`, `duration`, `size`, whatever it can say.
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

/// Whether the server may have done it all the same, or may do it the next time.
fn is_unclear(error: &OpenEoError) -> bool {
    !error.is_not_our_turn()
        && !error.is_unreachable()
        && (error.is_retryable() || error.may_have_arrived() || error.status().is_some_and(|status| status >= 500))
        && error.code() != Some("FeatureUnsupported")
}

impl Connection {
    /// A job of this back-end by its id, without asking the back-end: made another day, by another program, in any language.
    pub fn job(&self, id: &str) -> BatchJob {
        BatchJob::new(self.clone(), id)
    }
}

impl fmt::Debug for BatchJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchJob").field("id", &self.id).field("root", &self.connection.root_url()).finish()
    }
}
