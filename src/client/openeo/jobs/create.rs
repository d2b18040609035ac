//! Making jobs, each exactly once, whatever becomes of the reply.
//!
//! `POST /jobs` is never repeated blindly: [`creation`](crate::client::creation) has the rules. A
//! job in the list is like one whose reply was lost if it has the same title and description,
//! wasn't started, and has in its details the same process graph, plan and budget.

use std::time::{Duration, Instant};

use url::Url;

use super::job::BatchJob;
use super::new_job::{NewJob, created};
use crate::client::creation::{self, Doubt, Failure, Listed, Listing, Maker, Match, Step};
use crate::client::http::{HttpErrorKind, Method, Response};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::client::openeo::documents::text::plain;
use crate::trace::event;

/// How long a call waits for others that make like jobs, before it gives up on it.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often it looks whether they have ended.
const LOOK: Duration = Duration::from_millis(100);

impl Connection {
    /// Makes a job. It isn't started yet.
    ///
    /// If the reply is lost, the job is looked for in the job list. It is made again only if the
    /// list is whole and has nothing like it.
    ///
    /// # Errors
    /// The back-end's refusal. [`OpenEoError::LostReply`], if the reply was lost and the job may
    /// exist: the list could not be read, or may lack jobs, or has one that may be it, or the
    /// back-end may still be making it.
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
                Progress::NotYet => self.ledger().wait_for_change(LOOK),
                Progress::Look(_) | Progress::Again => {}
            }
        }
    }
}

/// One job on its way to existence, step by step: each is one call or one search, and none waits.
pub(crate) struct Creation {
    job: NewJob,
    inner: creation::Creation<OpenEoError>,
}

/// What a step has come to.
pub(crate) enum Progress {
    /// There it is, by this id.
    Made(String),
    /// The reply was lost: call again after a while, to look for it.
    Look(Duration),
    /// It isn't there: call again, to make it again.
    Again,
    /// Call again when calls for like jobs have ended.
    NotYet,
}

impl Creation {
    pub(crate) fn new(job: NewJob) -> Creation {
        Creation { inner: creation::Creation::new(job.likeness()), job }
    }

    pub(crate) fn job(&self) -> &NewJob {
        &self.job
    }

    /// How the reply was lost, if it was, so that the job may exist.
    pub(crate) fn lost_by(&self) -> Option<&OpenEoError> {
        self.inner.lost_by()
    }

    /// One call, or one search. After an error whose [`LostReply`](OpenEoError::LostReply) may pass
    /// it may be called again, and goes on where it was.
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

    /// What to say if nothing goes on.
    fn lost(&mut self, why: &str) -> OpenEoError {
        match std::mem::replace(&mut self.inner, creation::Creation::new(self.job.likeness())).into_lost() {
            Some(error) => self.lost_reply(error, why),
            None => OpenEoError::Invalid(format!("{why}: give jobs titles of their own")),
        }
    }

    fn lost_reply(&self, source: OpenEoError, why: &str) -> OpenEoError {
        let title = plain(self.job.shown_title(), 100);
        OpenEoError::LostReply { title, why: why.to_owned(), source: Box::new(source) }
    }
}

/// A job that is made on a back-end.
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

    fn doubt(&self, error: &OpenEoError) -> Doubt {
        match error {
            OpenEoError::Reply(_) => {}
            // It was sent on; the first server may have done it.
            OpenEoError::Invalid(_) => return Doubt::Lost,
            error if !error.may_have_arrived() => return Doubt::None,
            _ => {}
        }
        event!(WARN, "the reply to creating a job was lost", error = error.to_string());
        if matches!(error, OpenEoError::Reply(_)) {
            return Doubt::Unnamed;
        }
        let gave_up = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Timeout);
        if gave_up || error.status() == Some(504) { Doubt::UnderWay } else { Doubt::Lost }
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
            // Deleted meanwhile.
            Err(error) if error.is_not_found() => Ok(Match::Different),
            Err(error) => Err(error),
        }
    }
}

/// What the back-end calls the new job. `Location` need not be a URL, and is only looked at if
/// nothing else tells.
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
