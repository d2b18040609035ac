//! Making jobs, each exactly once, whatever becomes of the reply.
//!
//! `POST /jobs` is never repeated blindly. When its reply is lost, the job may exist: then the job list is searched for one like
//! it (same title and description, not started, not made before the request was sent, and in its details the same process
//! graph, plan and budget) that no other call of this connection has had. Only if there is none, the job is made again.
//!
//! Two calls that make alike jobs must not take each other's: so the search waits until no call for a like job is on its
//! way, and calls for like jobs wait while one searches.
//!
//! ```text
//! post (shared among like jobs) -> answered: id known
//!                               -> lost: search (alone among like jobs) -> found: id known | none: post again
//! ```

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::job::BatchJob;
use super::new_job::NewJob;
use crate::client::creation::Likeness;
use crate::client::date;
use crate::client::http::{Method, Response};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;
use crate::trace::event;

/// How often a job is posted at most.
const POSTS: u32 = 3;

/// How long a call waits for another that makes a like job, before it gives up on it.
const PATIENCE: Duration = Duration::from_secs(300);

/// How far the clock that dates a back-end's jobs may be off the one that dates its replies; both have whole seconds.
const SLACK: Duration = Duration::from_secs(10);

impl Connection {
    /// Makes a job. It isn't started yet.
    ///
    /// # Errors
    /// The back-end's refusal. [`OpenEoError::LostReply`], if the reply was lost and the job list couldn't be read either:
    /// then the job may exist.
    pub fn create_job(&self, job: impl Into<NewJob>) -> Result<BatchJob, OpenEoError> {
        let job = job.into();
        job.check()?;
        let warnings = self.warnings_of(&job);
        let mut creation = Creation::new(job);
        let began = Instant::now();
        loop {
            match creation.advance(self)? {
                Progress::Made(id) => return Ok(self.job(&id).with_warnings(warnings)),
                Progress::Again => {}
                Progress::NotYet if began.elapsed() > PATIENCE => return Err(creation.given_up()),
                Progress::NotYet => self.creations().wait_for_change(),
            }
        }
    }
}

/// One job on its way to existence, step by step: each is one call or one search, and none waits.
pub(crate) struct Creation {
    job: NewJob,
    likeness: Likeness,
    state: State,
    posts: u32,
}

enum State {
    ToPost,
    /// The reply to a request that was sent then was lost, by this error's account.
    Lost(OpenEoError, Instant),
}

/// What a step has come to.
pub(crate) enum Progress {
    /// There it is, by this id.
    Made(String),
    /// Call again.
    Again,
    /// Call again when calls for like jobs have ended.
    NotYet,
}

impl Creation {
    pub(crate) fn new(job: NewJob) -> Creation {
        Creation { likeness: job.likeness(), job, state: State::ToPost, posts: 0 }
    }

    pub(crate) fn job(&self) -> &NewJob {
        &self.job
    }

    /// How the reply was lost, if it was, so that the job may exist.
    pub(crate) fn lost_by(&self) -> Option<&OpenEoError> {
        match &self.state {
            State::Lost(error, _) => Some(error),
            State::ToPost => None,
        }
    }

    /// One call, or one search. After an error that passes it may be called again, and goes on where it was.
    pub(crate) fn advance(&mut self, connection: &Connection) -> Result<Progress, OpenEoError> {
        match self.state {
            State::ToPost => self.post(connection),
            State::Lost(_, since) => self.search(connection, since),
        }
    }

    /// What to say if nobody goes on.
    pub(crate) fn given_up(&mut self) -> OpenEoError {
        match std::mem::replace(&mut self.state, State::ToPost) {
            State::Lost(error, _) => self.lost(error, "calls for like jobs did not end"),
            State::ToPost => {
                OpenEoError::Invalid("calls for like jobs did not end: give jobs titles of their own".into())
            }
        }
    }

    fn post(&mut self, connection: &Connection) -> Result<Progress, OpenEoError> {
        self.job.check()?;
        let creations = connection.creations();
        if !creations.try_begin_post(&self.likeness) {
            return Ok(Progress::NotYet);
        }
        let body = self.job.as_json();
        let began = Instant::now();
        let outcome =
            connection.send(connection.request(Method::Post, "/jobs").json(&body)).and_then(|reply| id_of(&reply));
        let lost = |error: &OpenEoError| matches!(error, OpenEoError::Reply(_)) || error.may_have_arrived();
        creations.end_post(&self.likeness, outcome.as_deref().ok());
        self.posts += 1;
        match outcome {
            Ok(id) => Ok(Progress::Made(id)),
            Err(error) if lost(&error) => {
                event!(WARN, "the reply to creating a job was lost", error = error.to_string());
                self.state = State::Lost(error, began);
                Ok(Progress::Again)
            }
            Err(error) => Err(error),
        }
    }

    fn search(&mut self, connection: &Connection, since: Instant) -> Result<Progress, OpenEoError> {
        let creations = connection.creations();
        let Some(taken) = creations.try_begin_search(&self.likeness) else { return Ok(Progress::NotYet) };
        let found = self.find(connection, since, &taken);
        creations.end_search(&self.likeness, found.as_ref().ok().and_then(Option::as_deref));
        match found {
            Ok(Some(id)) => {
                event!(INFO, "a job whose reply was lost was found", id = id);
                Ok(Progress::Made(id))
            }
            Ok(None) => {
                let State::Lost(error, _) = std::mem::replace(&mut self.state, State::ToPost) else {
                    return Ok(Progress::Again);
                };
                // The server surely has no such job; a refusal that doesn't pass is one.
                let again = self.posts < POSTS && (error.is_retryable() || error.status().is_some_and(|s| s >= 500));
                if again { Ok(Progress::Again) } else { Err(error) }
            }
            Err(error) if connection.is_once() && error.is_retryable() => Err(error),
            Err(why) => {
                let State::Lost(error, _) = std::mem::replace(&mut self.state, State::ToPost) else { return Err(why) };
                Err(self.lost(error, &why.to_string()))
            }
        }
    }

    /// The newest job in the list that is like this one, and that nobody else has.
    fn find(
        &self,
        connection: &Connection,
        since: Instant,
        taken: &HashSet<String>,
    ) -> Result<Option<String>, OpenEoError> {
        let (list, date) = connection.dated_list()?;
        let earliest = date::earliest(date.as_deref(), since.elapsed(), SLACK);
        let mut candidates: Vec<_> = list
            .iter()
            .filter(|listed| {
                self.job.may_be(listed.as_json(), earliest) && !listed.id().is_empty() && !taken.contains(listed.id())
            })
            .collect();
        candidates.sort_by(|a, b| b.created().cmp(&a.created()));
        for candidate in candidates {
            match connection.job(candidate.id()).describe() {
                Ok(details) if self.job.is(details.as_json(), earliest) => return Ok(Some(candidate.id().to_owned())),
                Ok(_) => {}
                // Deleted meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        if !list.is_complete() {
            return Err(OpenEoError::reply("the job list goes on where it can't be followed"));
        }
        Ok(None)
    }

    fn lost(&self, error: OpenEoError, why: &str) -> OpenEoError {
        let title = plain(self.job.shown_title(), 100);
        OpenEoError::LostReply { title, why: why.to_owned(), source: Box::new(error) }
    }
}

/// What the back-end calls the new job. `Location` need not be a URL, and is only looked at if nothing else tells.
fn id_of(reply: &Response) -> Result<String, OpenEoError> {
    let from_location = || reply.header("location")?.trim_end_matches('/').rsplit('/').next();
    let id = reply.header("openeo-identifier").map(str::trim).filter(|id| !id.is_empty()).or_else(from_location);
    let id = id.filter(|id| !id.is_empty() && id.len() <= 500 && !id.chars().any(char::is_control));
    id.map(str::to_owned)
        .ok_or_else(|| OpenEoError::reply("a job was created, and its id not told (no OpenEO-Identifier)"))
}
