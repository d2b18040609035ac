//! Makes jobs, each exactly once, even if a reply is lost.
//!
//! `POST /jobs` is repeated only by the rules of [`creation`](crate::client::creation). A job in
//! the list may be the one whose reply was lost if it has the same title and description, wasn't
//! started, and its details have the same process graph, plan and budget.

use std::time::{Duration, Instant};

use url::Url;

use super::job::BatchJob;
use super::new_job::{NewJob, created};
use crate::client::creation::{self, Doubt, Failure, Listed, Listing, Maker, Match, Step};
use crate::client::http::{Method, Response};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::client::openeo::documents::text::plain;
use crate::executor::is_cancelled;
use crate::trace::event;

/// How long a call waits for other calls that make the same job, before it returns an error.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often it looks whether such a call has ended without notifying, and whether its operation
/// was cancelled.
const LOOK: Duration = Duration::from_millis(20);

impl Connection {
    /// Makes a job. It isn't started yet.
    ///
    /// If the reply is lost, the client looks for the job in the job list. It makes the job again
    /// only if that list is complete and has no job like it.
    ///
    /// # Errors
    /// The back-end's refusal. [`OpenEoError::LostReply`] if the reply was lost and the job may
    /// exist: the list could not be read, or may be incomplete, or has a job that may be the one,
    /// or the back-end may still be making it.
    pub fn create_job(&self, job: impl Into<NewJob>) -> Result<BatchJob, OpenEoError> {
        let job = job.into();
        job.check()?;
        let warnings = self.warnings_of(&job);
        let mut creation = Creation::new(job);
        let began = Instant::now();
        loop {
            match creation.advance(self)? {
                Progress::Made(id) => return Ok(self.job(&id).with_warnings(warnings)),
                Progress::Look(after) if !pause(after, &|| false) => return Err(creation.lost("it was cancelled")),
                Progress::NotYet if began.elapsed() > PATIENCE => {
                    return Err(creation.lost("calls for like jobs did not end"));
                }
                Progress::NotYet if is_cancelled() => return Err(creation.lost("it was cancelled")),
                Progress::NotYet => self.ledger().wait_for_change(LOOK),
                Progress::Look(_) | Progress::Again => {}
            }
        }
    }
}

/// The creation of one job, in steps. A step is one call or one search, and doesn't wait.
pub(crate) struct Creation {
    job: NewJob,
    inner: creation::Creation<OpenEoError>,
    /// Whether it has ended without an answer: the job may exist, and nothing tells.
    is_in_doubt: bool,
}

/// The outcome of a step.
pub(crate) enum Progress {
    /// The job exists, with this id.
    Made(String),
    /// The reply was lost: call again after this time, to look for the job.
    Look(Duration),
    /// The job doesn't exist: call again, to make it again.
    Again,
    /// Call again when the other calls that make the same job have ended.
    NotYet,
}

impl Creation {
    pub(crate) fn new(job: NewJob) -> Creation {
        Creation { inner: creation::Creation::new(job.likeness()), job, is_in_doubt: false }
    }

    pub(crate) fn job(&self) -> &NewJob {
        &self.job
    }

    /// The error with which the reply was lost, as long as the job is looked for.
    pub(crate) fn lost_by(&self) -> Option<&OpenEoError> {
        self.inner.lost_by()
    }

    /// Whether nothing more can be found out about a job that may exist. Then no step follows.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt
    }

    /// Does one step: a call or a search. After a [`LostReply`](OpenEoError::LostReply) that is
    /// retryable it can be called again, and continues.
    pub(crate) fn advance(&mut self, connection: &Connection) -> Result<Progress, OpenEoError> {
        self.job.check()?;
        let maker = JobMaker { job: &self.job, connection };
        match self.inner.advance(connection.ledger(), &maker) {
            Ok(Step::Made(id)) => Ok(Progress::Made(id)),
            Ok(Step::Found(id)) => {
                event!(INFO, "a job whose reply was lost was found", id = id);
                Ok(Progress::Made(id))
            }
            Ok(Step::Look(after)) => Ok(Progress::Look(after)),
            Ok(Step::Again) => Ok(Progress::Again),
            Ok(Step::NotYet) => Ok(Progress::NotYet),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::NoLook(error)) if connection.is_once() => {
                let why = self.lost_by().map(OpenEoError::to_string).unwrap_or_default();
                Err(self.lost_reply(error, &why))
            }
            Err(Failure::NoLook(error)) => Err(self.lost(&error.to_string())),
            Err(Failure::Unclear(why)) => Err(self.lost(&why)),
        }
    }

    /// The error if nothing more can be found out.
    fn lost(&mut self, why: &str) -> OpenEoError {
        match std::mem::replace(&mut self.inner, creation::Creation::new(self.job.likeness())).into_lost() {
            Some(error) => {
                self.is_in_doubt = true;
                self.lost_reply(error, why)
            }
            None => OpenEoError::Invalid(format!("{why}: give jobs titles of their own")),
        }
    }

    fn lost_reply(&self, source: OpenEoError, why: &str) -> OpenEoError {
        let title = plain(self.job.shown_title(), 100);
        OpenEoError::LostReply { title, why: why.to_owned(), source: Box::new(source) }
    }
}

/// How a job is made and recognised on a back-end, for the rules of `creation`.
struct JobMaker<'a> {
    job: &'a NewJob,
    connection: &'a Connection,
}

impl Maker for JobMaker<'_> {
    type Made = String;
    type Error = OpenEoError;

    fn post(&self) -> Result<String, OpenEoError> {
        let request = self.connection.request(Method::Post, "/jobs").json(&self.job.as_json());
        id_of(&self.connection.send(request)?)
    }

    fn id_of<'a>(&self, made: &'a String) -> Option<&'a str> {
        Some(made)
    }

    /// A reply without an id says that there is a job. The back-end may still be making the job if
    /// this side or a proxy ended the wait for the reply.
    fn doubt(&self, error: &OpenEoError) -> Doubt {
        match error {
            OpenEoError::Reply(_) => {}
            // The request was redirected, and the first server may have made the job.
            OpenEoError::Invalid(_) => return Doubt::Lost,
            error if !error.may_have_arrived() => return Doubt::None,
            _ => {}
        }
        event!(WARN, "the reply to creating a job was lost", error = error.to_string());
        if matches!(error, OpenEoError::Reply(_)) {
            return Doubt::Unnamed;
        }
        match error.http() {
            Some(http) if http.is_given_up() => Doubt::UnderWay,
            // The back-end's own errors have a body as openEO defines it.
            Some(http) if http.is_of_proxy() && error.code().is_none() => Doubt::Behind,
            _ => Doubt::Lost,
        }
    }

    fn may_pass(&self, error: &OpenEoError) -> bool {
        error.is_retryable() || error.status().is_some_and(|status| status >= 500)
    }

    fn list(&self, _: u32) -> Result<Listing, OpenEoError> {
        let (list, date) = self.connection.whole_list()?;
        let mut gap = list.gap().map(str::to_owned);
        let mut entries = Vec::new();
        for job in list.iter() {
            let alike = self.job.alike_in_list(job.as_json());
            if job.id().is_empty() && alike != Match::Different {
                gap.get_or_insert_with(|| "one of its jobs has no id".to_owned());
            }
            entries.push(Listed { id: job.id().to_owned(), created: created(job.as_json()), alike });
        }
        entries.retain(|entry| !entry.id.is_empty());
        Ok(Listing { entries, date, gap, has_more: false })
    }

    fn compare(&self, id: &str) -> Result<Match, OpenEoError> {
        match self.connection.job(id).describe() {
            Ok(details) => Ok(self.job.alike(details.as_json())),
            Err(error) if error.is_not_found() => Ok(Match::Unknown),
            Err(error) => Err(error),
        }
    }
}

/// The id of the new job, from the header `OpenEO-Identifier`. If that is missing, it is the last
/// part of `Location`, which need not be a URL.
fn id_of(reply: &Response) -> Result<String, OpenEoError> {
    if reply.method() != Method::Post {
        let to = Url::parse(reply.url()).map(|url| plain(&url[..url::Position::AfterPath], 200)).unwrap_or_default();
        return Err(OpenEoError::Invalid(format!(
            "the back-end sent the request to create a job on to {to}, and no job came of that: connect by the URL of its API"
        )));
    }
    let from_location = || reply.header("location")?.trim_end_matches('/').rsplit('/').next();
    let id = reply.header("openeo-identifier").map(str::trim).filter(|id| !id.is_empty()).or_else(from_location);
    let id = id.filter(|id| !id.is_empty() && id.len() <= 500 && !id.chars().any(char::is_control));
    id.map(str::to_owned)
        .ok_or_else(|| OpenEoError::reply("a job was created, and its id not told (no OpenEO-Identifier)"))
}
