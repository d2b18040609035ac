//! One openEO job as a remote job of a batch: its state between steps, and the steps.

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
use super::site::{JobPermit, Site};

/// How many times in a row a back-end must say that there is no such job before the job counts as
/// gone.
const MISSING: u32 = 5;

pub(in crate::client::openeo) struct Shared {
    pub(in crate::client::openeo) sites: Vec<Arc<Site>>,
    pub(in crate::client::openeo::many) options: RunOptions,
    /// The delays between requests for a single job, as opposed to those for the list.
    pub(in crate::client::openeo::many) asks: Backoff,
    /// The names of folders that are taken, in lower case.
    pub(in crate::client::openeo::many) folders: Mutex<HashSet<String>>,
}

/// Stores the progress of a job outside of the process, before each call that depends on it, so
/// that a later process can find the job if this one dies.
pub(in crate::client::openeo) trait Memory: Send {
    /// The next call may make the job on the back-end of that name.
    fn will_create(&mut self, back_end: &str) -> Result<(), JobError>;
    /// The job was created there, with this id.
    fn made(&mut self, back_end: &str, id: &str) -> Result<(), JobError>;
    /// The job is made, and is to be started next.
    ///
    /// # Errors
    /// Why it is not to be started.
    fn may_start(&mut self, job: &BatchJob) -> Result<(), JobError>;
    /// The folder for its results, below the folder of all results.
    fn folder(&mut self, back_end: &str, id: &str) -> Result<PathBuf, JobError>;
}

/// One job with its state.
pub(in crate::client::openeo) struct Run {
    shared: Arc<Shared>,
    creation: Creation,
    place: Option<JobPermit>,
    site: Option<Arc<Site>>,
    job: Option<BatchJob>,
    is_validated: bool,
    started: bool,
    start: Start,
    /// When to look at a start whose reply was lost.
    start_not_before: Option<Instant>,
    /// How many times in a row the job was `created` although it was started, and how often it was
    /// started again because of that.
    idle_looks: u32,
    restarts: u32,
    /// How often it moved to another back-end, and how often its download waited for starts of
    /// other jobs.
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
    /// The downloaded assets, and those that can't be downloaded, by key.
    files: HashMap<String, PathBuf>,
    given_up: HashMap<String, String>,
    /// How often a request that isn't essential was repeated.
    side_questions: u32,
    memory: Option<Box<dyn Memory>>,
    /// Whether `memory` has stored the job's id.
    is_remembered: bool,
    /// Whether `memory` has said that the job may be started.
    may_start: bool,
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
            may_start: false,
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

    /// Continues a job that another process has created, from the state in `found`.
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

    /// The back-end's last description of the job.
    pub(in crate::client::openeo) fn last(&self) -> Option<&JobDescription> {
        self.last.as_ref()
    }

    /// Asks for the details of a job that has ended. They are kept, so that the download, which
    /// stores them, needn't ask again.
    pub(in crate::client::openeo) fn read_details(&mut self) {
        let (Some(job), Some(last)) = (&self.job, &self.last) else { return };
        let found = job.once().describe().ok();
        // Another machine of the back-end may not know yet that the job has ended.
        if let Some(found) = found.filter(|found| found.status() == last.status()) {
            (self.last, self.described) = (Some(found), true);
        }
    }

    /// Whether a request to create the job may have arrived, and its reply was lost.
    pub(in crate::client::openeo) fn is_lost(&self) -> bool {
        self.job.is_none() && (self.creation.is_in_doubt() || self.creation.lost_by().is_some())
    }

    /// The job, if it was started, or may have been.
    pub(in crate::client::openeo) fn started_job(&self) -> Option<&BatchJob> {
        self.job.as_ref().filter(|_| self.started || self.start.may_have_started())
    }

    /// The job, once it is created.
    pub(in crate::client::openeo) fn made(&self) -> Option<&BatchJob> {
        self.job.as_ref()
    }
}

impl RemoteJob for Run {
    type Output = JobRun;

    /// Chooses a back-end, creates the job there, and starts it if there is room. Each part that
    /// has succeeded is kept, so that a later attempt continues after it.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        // Choose a back-end for a new job, and once more if it has to move. An adopted job has one.
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
        // Before the start: if this process dies, the next one must know the job that costs money.
        if !self.is_remembered {
            if let Some(memory) = &mut self.memory {
                memory.made(&site.back_end.name, job.id())?;
            }
            self.is_remembered = true;
        }
        if !self.may_start {
            if let Some(memory) = self.memory.as_mut().filter(|_| !self.started) {
                memory.may_start(&job)?;
            }
            self.may_start = true;
        }
        match self.start(&job, cx) {
            // After a soft error, if there is no room, or if not all machines of the back-end know
            // the job yet, `poll` starts it. It counts as submitted, because it exists.
            Err(error) if !is_soft(&error) && !error.is_not_found() => Err(job_error(error)),
            _ => Ok(Submitted::Accepted { id: job.id().to_owned() }),
        }
    }

    /// Starts the job if that isn't done, and then looks at its status. `Ready` if the job has
    /// ended, in whatever way; that answer is put off while other jobs wait to be started.
    ///
    /// A start that fails for a while is tried again, as another attempt. If the status can't be
    /// had, the job goes on: that is an error only after more than `soft_errors` times in a row, if
    /// the back-end has said `MISSING` times in a row that there is no such job, or if the error
    /// can't pass.
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
            // No job runs yet, so the batch's own backoff will do.
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
            // We have just created it, but a back-end of several machines may not know it on all of
            // them yet.
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

    /// If the job has finished, downloads its results, where the options name a folder, and calls
    /// `on_done`. Otherwise reads the job's logs, calls `on_error` or `on_cancel`, and fails with
    /// `OpenEoError::JobFailed`.
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

    /// Stops the job if it was started; deletes it if it surely never was. Does nothing if it has
    /// ended. It is no error if the back-end has no such job.
    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        let job = self.job()?;
        if self.last.as_ref().is_some_and(|last| last.status().is_ended()) {
            return Ok(());
        }
        if !self.started {
            // If the reply to a start was lost, the job may run.
            let may_run = self.start.may_have_started()
                && match job.once().describe() {
                    Ok(found) => found.status() != JobStatus::Created,
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(job_error(error)),
                };
            if !may_run {
                // Delete it: no other program knows of it, and nothing was computed.
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

/// Calls a hook of the user, and contains its panics.
fn contained(hook: impl FnOnce()) {
    panics::contain(hook);
}
