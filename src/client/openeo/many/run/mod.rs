//! One job on its way, as a remote job of a batch: what it keeps between its steps, and the steps.

mod fetching;
mod making;
mod watching;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::backoff::Backoff;
use crate::batch::{Context, JobError, Poll, RemoteJob, Submitted};
use crate::client::http::HttpError;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::step::{is_rate_limited, is_soft, job_error};
use crate::client::openeo::documents::job::{JobDescription, JobStatus};
use crate::client::openeo::jobs::create::Creation;
use crate::client::openeo::jobs::job::BatchJob;
use crate::client::openeo::jobs::new_job::NewJob;
use crate::client::openeo::jobs::start::Start;
use crate::client::openeo::results::handle::JobResults;
use crate::panics;
use crate::sync::Mutex;

use super::options::{JobRun, RunOptions};
use super::site::{Place, Site};

/// How many times in a row a back-end must say that there is no such job before it is believed.
const MISSING: u32 = 5;

pub(in crate::client::openeo) struct Shared {
    pub(in crate::client::openeo) sites: Vec<Arc<Site>>,
    pub(in crate::client::openeo::many) options: RunOptions,
    /// When a job itself is asked about, as opposed to the list.
    pub(in crate::client::openeo::many) asks: Backoff,
    /// Names that are taken, in lower case.
    pub(in crate::client::openeo::many) folders: Mutex<HashSet<String>>,
}

/// What a job on its way tells before the next call, so that it isn't lost if the process dies.
pub(in crate::client::openeo) trait Memory: Send {
    /// The next call may make the job on the back-end of that name.
    fn will_create(&mut self, back_end: &str) -> Result<(), JobError>;
    /// It is made there.
    fn made(&mut self, back_end: &str, id: &str) -> Result<(), JobError>;
    /// The folder of its results, below the root of all.
    fn folder(&mut self, back_end: &str, id: &str) -> Result<PathBuf, JobError>;
}

/// One job on its way.
pub(in crate::client::openeo) struct Run {
    shared: Arc<Shared>,
    creation: Creation,
    place: Option<Place>,
    site: Option<Arc<Site>>,
    job: Option<BatchJob>,
    is_validated: bool,
    started: bool,
    start: Start,
    /// Until when a start whose reply was lost is left alone.
    start_not_before: Option<Instant>,
    /// How often in a row it was seen as it was made although it was started, and how often it was
    /// started again for that.
    idle_looks: u32,
    restarts: u32,
    /// How often it went to another back-end, and gave way to starts.
    moves: u32,
    yields: u32,
    last: Option<JobDescription>,
    /// Whether `last` has all details.
    described: bool,
    asked: u32,
    next_ask: Option<Instant>,
    soft: u32,
    missing: u32,
    running_since: Option<Instant>,
    stopped: bool,
    results: Option<JobResults>,
    folder: Option<PathBuf>,
    /// The assets that were had, and those that can't be, by their keys.
    files: HashMap<String, PathBuf>,
    given_up: HashMap<String, String>,
    /// How often a question beside the point was asked again.
    side_questions: u32,
    memory: Option<Box<dyn Memory>>,
    /// Whether the memory knows its id.
    is_remembered: bool,
}

impl Run {
    pub(in crate::client::openeo) fn new(shared: &Arc<Shared>, job: NewJob) -> Run {
        Run {
            shared: Arc::clone(shared),
            creation: Creation::new(job),
            place: None,
            site: None,
            job: None,
            is_validated: false,
            started: false,
            start: Start::default(),
            start_not_before: None,
            idle_looks: 0,
            restarts: 0,
            moves: 0,
            yields: 0,
            last: None,
            described: false,
            asked: 0,
            next_ask: None,
            soft: 0,
            missing: 0,
            running_since: None,
            stopped: false,
            results: None,
            folder: None,
            files: HashMap::new(),
            given_up: HashMap::new(),
            side_questions: 0,
            memory: None,
            is_remembered: false,
        }
    }

    fn job(&self) -> Result<BatchJob, JobError> {
        self.job.clone().ok_or_else(|| JobError::fatal("a job was asked about before it was made"))
    }
}

#[cfg(feature = "sqlite")]
impl Run {
    pub(in crate::client::openeo) fn remembered(mut self, memory: Box<dyn Memory>) -> Run {
        self.memory = Some(memory);
        self
    }

    /// Goes on with a job that another process has made, and stands as is told.
    pub(in crate::client::openeo) fn adopt(mut self, site: &Arc<Site>, found: JobDescription) -> Run {
        let job = site.connection().job(found.id());
        if found.status() == JobStatus::Created {
            let mut place = Site::place(std::slice::from_ref(site), Instant::now());
            if let Some(place) = &mut place {
                place.mark_made();
            }
            self.place = place;
        } else {
            self.started = true;
            if !found.status().is_ended() {
                let mut place = Site::adopt(site);
                place.watch(job.id(), Instant::now());
                self.place = Some(place);
            }
        }
        (self.site, self.job, self.last) = (Some(Arc::clone(site)), Some(job), Some(found));
        (self.described, self.is_remembered, self.is_validated) = (true, true, true);
        self
    }

    /// What the back-end said about it last.
    pub(in crate::client::openeo) fn last(&self) -> Option<&JobDescription> {
        self.last.as_ref()
    }

    /// Whether a request to make it may have arrived, and nothing more is known.
    pub(in crate::client::openeo) fn is_lost(&self) -> bool {
        self.job.is_none() && self.creation.lost_by().is_some()
    }

    /// The job, if it was started, or may have been.
    pub(in crate::client::openeo) fn started_job(&self) -> Option<&BatchJob> {
        self.job.as_ref().filter(|_| self.started || self.start.may_have_started())
    }

    /// The job, once it is made.
    pub(in crate::client::openeo) fn made(&self) -> Option<&BatchJob> {
        self.job.as_ref()
    }
}

impl RemoteJob for Run {
    type Output = JobRun;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        if self.place.is_none() && self.job.is_none() {
            let place = Site::place(&self.shared.sites, Instant::now());
            let place = place.ok_or_else(|| JobError::fatal("there is no back-end"))?;
            self.site = Some(Arc::clone(&place.site));
            self.place = Some(place);
        }
        let Some(site) = self.site.clone() else { return Err(JobError::fatal("a place without a site")) };
        let job = match &self.job {
            Some(job) => job.clone(),
            None => {
                let job = self.create(cx, &site)?;
                if let Some(place) = &mut self.place {
                    place.mark_made();
                }
                self.job.insert(job).clone()
            }
        };
        if !self.is_remembered {
            if let Some(memory) = &mut self.memory {
                memory.made(&site.back_end.name, job.id())?;
            }
            self.is_remembered = true;
        }
        match self.start(&job, cx) {
            // A start that didn't come about is tried again by the next step. The job is made, and
            // is to be known as such.
            Err(error) if !is_soft(&error) => Err(job_error(error)),
            _ => Ok(Submitted::Accepted { id: job.id().to_owned() }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        let job = self.job()?;
        let Some(site) = self.site.clone() else { return Err(JobError::fatal("a job without a site")) };
        if self.last.as_ref().is_some_and(|last| last.status().is_ended()) {
            return Ok(self.ended());
        }
        let outcome = match self.start(&job, cx) {
            Ok(true) => self
                .stop_if_too_long(&job, cx)
                .and_then(|()| self.start_again(&job, cx))
                .and_then(|()| self.look(&job, &site, Instant::now())),
            Ok(false) => return Ok(Poll::pending("created")),
            // Nothing runs yet: the batch's own backoff is patient enough.
            Err(error) if is_rate_limited(&error) => return Err(job_error(error)),
            Err(error) if is_soft(&error) => return Err(JobError::retry(error)),
            Err(error) => Err(error),
        };
        let error = match outcome {
            Ok(poll) => return Ok(poll),
            Err(error) => error,
        };
        if is_rate_limited(&error) {
            return Ok(self.as_before(error.http().and_then(HttpError::retry_after)));
        }
        if error.is_not_found() {
            // It was there a moment ago: a back-end of several machines may not know it everywhere
            // yet.
            self.missing += 1;
            let is_gone = self.missing >= MISSING;
            return if is_gone { Err(JobError::fatal(error)) } else { Ok(self.as_before(None)) };
        }
        if !is_soft(&error) {
            return Err(JobError::fatal(error));
        }
        self.soft += 1;
        let RunOptions { soft_errors, soft_error_pause, .. } = self.shared.options;
        if self.soft > soft_errors {
            let (id, count) = (job.id().to_owned(), self.soft);
            return Err(JobError::fatal(OpenEoError::TooManySoftErrors { id, count, source: Arc::new(error) }));
        }
        if self.soft == 1 {
            cx.note(format!("asking for its status failed, and is tried again: {error}"));
        }
        let asked = error.http().and_then(HttpError::retry_after).unwrap_or_default();
        let pause = Backoff::new(self.shared.options.first_poll).cap(soft_error_pause).delay(self.soft - 1);
        Ok(self.as_before(Some(pause.max(asked))))
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<JobRun, JobError> {
        let job = self.job()?;
        let options = self.shared.options.clone();
        let status = self.last.as_ref().map_or_else(|| JobStatus::of("unknown"), JobDescription::status);
        if status != JobStatus::Finished {
            let failure = self.failure(&job, status.clone(), cx)?;
            match (&options.on_cancel, &options.on_error) {
                (Some(hook), _) if status == JobStatus::Canceled => contained(|| hook(&job)),
                (_, Some(hook)) if status != JobStatus::Canceled => contained(|| hook(&job, &failure)),
                _ => {}
            }
            return Err(JobError::fatal(failure));
        }
        let files = match &options.folder {
            Some(root) => self.download(&job, root, cx)?,
            None => Vec::new(),
        };
        let description = self.last.clone().unwrap_or_else(|| JobDescription::new(serde_json::Value::Null));
        let back_end = self.site.as_ref().map_or_else(String::new, |site| site.back_end.name.clone());
        let run = JobRun { job, back_end, description, folder: self.folder.clone(), files };
        if let Some(hook) = &options.on_done {
            contained(|| hook(&run));
        }
        Ok(run)
    }

    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        let job = self.job()?;
        if self.last.as_ref().is_some_and(|last| last.status().is_ended()) {
            return Ok(());
        }
        if !self.started {
            // After an unclear answer to a start it may run all the same.
            let may_run = self.start.may_have_started()
                && match job.once().describe() {
                    Ok(found) => found.status() != JobStatus::Created,
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(job_error(error)),
                };
            if !may_run {
                // Only this batch knows of it, and nothing was computed.
                return match job.once().delete() {
                    Err(error) if !error.is_not_found() => Err(job_error(error)),
                    _ => {
                        cx.note("it was created and never started, and is deleted again");
                        Ok(())
                    }
                };
            }
        }
        match job.once().stop() {
            Err(error) if !error.is_not_found() => Err(job_error(error)),
            _ => Ok(()),
        }
    }
}

/// A hook's panic is the hook's.
fn contained(hook: impl FnOnce()) {
    panics::contain(hook);
}
