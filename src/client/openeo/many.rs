//! Many jobs, on several back-ends at once, from the process graph to the files.
//!
//! Each job is a [`RemoteJob`] of a batch, so none holds a thread while it runs elsewhere:
//!
//! ```text
//! submit: create ▸ start, if a back-end has room         some jobs are created ahead of their time
//! poll:   start, once there is room                      too many jobs there: later, and no failure
//!         ▸ the job list, once for all ▸ or the job itself, where the list doesn't tell
//! fetch:  details ▸ results ▸ each asset                 or, if it failed: its error logs
//! ```
//!
//! A step makes its calls one after the other, each once, and waits for nothing but the network. What it has done it keeps: the
//! next attempt goes on there.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::asset::ResultAsset;
use super::back_end::{BackEnd, LOOKS, Look, Place, Site};
use super::connection::Pace;
use super::create::{Creation, NewJob, Progress};
use super::description::{JobDescription, JobStatus};
use super::error::OpenEoError;
use super::job::BatchJob;
use super::logs::LogLevel;
use super::names::sound;
use super::results::{DownloadOptions, JobResults, write_json};
use super::wait::is_soft;
use crate::backoff::Backoff;
use crate::batch::{
    Batch, BatchReport, BatchRunner, BatchRunnerBuilder, Context, JobError, Poll, RemoteJob, Submitted,
};
use crate::client::http::{HttpError, HttpErrorKind};
use crate::panics;
use crate::sync::Mutex;

/// How long to leave a back-end alone that takes no more requests just now, if it doesn't say.
const LATER: Duration = Duration::from_secs(5);

/// How long after a lost reply the job list is looked into: the server may still be at it.
const SETTLED: Duration = Duration::from_millis(500);

/// How long something waits that gives way.
const GIVE_WAY: Duration = Duration::from_millis(10);

/// How often a download gives way to starts at most: those of other jobs may never end.
const YIELDS: u32 = 40;

/// To how many other back-ends a job goes that can't be made where it is.
const MOVES: u32 = 20;

/// Up to so many jobs in hand, each looks at what is known four times as often.
const FEW: usize = 256;

/// How many times in a row a back-end must say that there is no such job before it is believed.
const MISSING: u32 = 5;

type OnDone = Arc<dyn Fn(&JobRun) + Send + Sync>;
type OnError = Arc<dyn Fn(&BatchJob, &OpenEoError) + Send + Sync>;
type OnCancel = Arc<dyn Fn(&BatchJob) + Send + Sync>;

/// How jobs are run. Every setting has a default.
#[derive(Clone)]
#[must_use = "options are for `run_jobs`"]
pub struct RunOptions {
    first_poll: Duration,
    last_poll: Duration,
    soft_errors: u32,
    soft_error_pause: Duration,
    folder: Option<PathBuf>,
    downloads: DownloadOptions,
    cancel_running_after: Option<Duration>,
    ahead: Option<usize>,
    runner: BatchRunnerBuilder,
    on_done: Option<OnDone>,
    on_error: Option<OnError>,
    on_cancel: Option<OnCancel>,
}

impl RunOptions {
    /// The defaults: no downloads, no hooks.
    pub fn new() -> RunOptions {
        let backoff = Backoff::new(Duration::from_millis(500)).cap(Duration::from_secs(30)).jitter(0.5);
        RunOptions {
            first_poll: Duration::from_secs(5),
            last_poll: Duration::from_secs(60),
            soft_errors: 15,
            soft_error_pause: Duration::from_secs(30),
            folder: None,
            downloads: DownloadOptions::new(),
            cancel_running_after: None,
            ahead: None,
            runner: BatchRunner::builder().at_once(16).attempts(10).backoff(backoff),
            on_done: None,
            on_error: None,
            on_cancel: None,
        }
    }

    /// How often each job is asked about: after `first`, then rarer by a quarter each time, up to `last`. Defaults to 5 s
    /// and 60 s. After `first` a back-end that had too many jobs is asked again, too, if it doesn't say when. Where the
    /// job list tells of several jobs at once, it is read more often than that, for fewer requests in all.
    pub fn poll(mut self, first: Duration, last: Duration) -> RunOptions {
        (self.first_poll, self.last_poll) = (first, last.max(first));
        self
    }

    /// How many times in a row asking about a job may fail softly, and how long to wait after each at most: it begins
    /// with the first delay of [`poll`](RunOptions::poll), and doubles. Defaults to 15, and 30 s.
    pub fn soft_errors(mut self, count: u32, pause: Duration) -> RunOptions {
        (self.soft_errors, self.soft_error_pause) = (count, pause);
        self
    }

    /// Downloads the results to `folder/job_ID/`: the assets, `job-results.json`, and the job's details as `job_ID.json`; of a
    /// job that failed its error logs, as `job_ID_errors.json`. Defaults to nothing.
    pub fn download_to(mut self, folder: impl Into<PathBuf>) -> RunOptions {
        self.folder = Some(folder.into());
        self
    }

    /// How assets are downloaded; within a job one after the other, by the threads of the batch.
    pub fn downloads(mut self, options: DownloadOptions) -> RunOptions {
        self.downloads = options;
        self
    }

    /// Stops a job that has been running for so long, as far as was seen here. Defaults to never.
    pub fn cancel_running_job_after(mut self, limit: impl Into<Option<Duration>>) -> RunOptions {
        self.cancel_running_after = limit.into();
        self
    }

    /// How many jobs are created before there is room for them, so that a back-end needn't wait for them, nor for downloads.
    /// Of a batch that is cancelled they are deleted again. Defaults to as many as the back-ends run, at most 16.
    pub fn ahead(mut self, jobs: usize) -> RunOptions {
        self.ahead = Some(jobs);
        self
    }

    /// What runs the steps: on which executor, how many at once, how often each is tried, time limits, events, progress. Its
    /// window and its poll schedule follow from the back-ends and from [`poll`](RunOptions::poll). Defaults to 16 steps
    /// at once and 10 attempts with up to 30 s between them.
    pub fn run_on(mut self, runner: BatchRunnerBuilder) -> RunOptions {
        self.runner = runner;
        self
    }

    /// Called when a job is done and downloaded, on the thread that did it. A panic in it is contained.
    pub fn on_done(mut self, hook: impl Fn(&JobRun) + Send + Sync + 'static) -> RunOptions {
        self.on_done = Some(Arc::new(hook));
        self
    }

    /// Called when a job has failed on the back-end, with its error logs.
    pub fn on_error(mut self, hook: impl Fn(&BatchJob, &OpenEoError) + Send + Sync + 'static) -> RunOptions {
        self.on_error = Some(Arc::new(hook));
        self
    }

    /// Called when a job was stopped, by [`cancel_running_job_after`](RunOptions::cancel_running_job_after) or by somebody else.
    pub fn on_cancel(mut self, hook: impl Fn(&BatchJob) + Send + Sync + 'static) -> RunOptions {
        self.on_cancel = Some(Arc::new(hook));
        self
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions::new()
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("first_poll", &self.first_poll)
            .field("last_poll", &self.last_poll)
            .field("folder", &self.folder)
            .field("cancel_running_after", &self.cancel_running_after)
            .field("runner", &self.runner)
            .finish_non_exhaustive()
    }
}

/// A job that is done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobRun {
    /// The job.
    pub job: BatchJob,
    /// The name of the back-end that ran it.
    pub back_end: String,
    /// What the back-end said about it last: all details if results were downloaded, else mostly what the job list has.
    pub description: JobDescription,
    /// The folder of its results, if they were downloaded.
    pub folder: Option<PathBuf>,
    /// The files of its assets, in the order of their keys.
    pub files: Vec<PathBuf>,
}

/// Runs jobs on back-ends, as many at once as these take, and waits until all have ended. The report has every job in input
/// order; one that failed is no error here.
///
/// ```
/// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
/// # let url = server.url();
/// # let folder = std::env::temp_dir().join(format!("fulmar-doc-{}", std::process::id()));
/// use fulmar::client::openeo::{BackEnd, Connection, NewJob, ProcessGraph, RunOptions, run_jobs};
/// use serde_json::json;
/// use std::time::Duration;
///
/// let connection = Connection::connect(&url)?;
/// connection.authenticate_basic("u", "u123")?;
/// let jobs = (0..6).map(|n| NewJob::new(ProcessGraph::start("add", json!({"x": n, "y": 5}))).title(&format!("sum {n}")));
/// let options = RunOptions::new().poll(Duration::from_millis(50), Duration::from_secs(1)).download_to(&folder);
/// let report = run_jobs([BackEnd::new(&connection).parallel_jobs(3)], jobs, &options)?;
/// assert!(report.is_success(), "{report}");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`OpenEoError::Invalid`], if there is no back-end, or one that takes no job.
pub fn run_jobs(
    back_ends: impl IntoIterator<Item = BackEnd>,
    jobs: impl IntoIterator<Item = impl Into<NewJob>>,
    options: &RunOptions,
) -> Result<BatchReport<JobRun>, OpenEoError> {
    Ok(start_jobs(back_ends, jobs, options)?.wait(None)?)
}

/// As [`run_jobs`], and returns at once: the [`Batch`] can be waited for, looked at and cancelled, which stops the jobs that
/// are on their way, and deletes those that were created and never started.
///
/// # Errors
/// As for `run_jobs`.
pub fn start_jobs(
    back_ends: impl IntoIterator<Item = BackEnd>,
    jobs: impl IntoIterator<Item = impl Into<NewJob>>,
    options: &RunOptions,
) -> Result<Batch<JobRun>, OpenEoError> {
    let sites: Vec<Arc<Site>> = back_ends.into_iter().map(Site::new).collect();
    if let Some(site) = sites.iter().find(|site| site.back_end.parallel_jobs == 0 || site.back_end.queue_limit == 0) {
        return Err(OpenEoError::Invalid(format!(
            "back-end {:?} takes no job: allow at least one",
            site.back_end.name
        )));
    }
    let room = sites.iter().fold(0, |sum: usize, site| sum.saturating_add(site.back_end.parallel_jobs));
    if room == 0 {
        return Err(OpenEoError::Invalid("there is no back-end to run jobs on: name at least one".into()));
    }
    let first = options.first_poll.max(Duration::from_millis(10));
    // Looks at what is known are free; requests are counted where they are made.
    let window = room.saturating_add(options.ahead.unwrap_or_else(|| room.min(16)));
    let often = if window <= FEW { LOOKS * 4 } else { LOOKS };
    let looks = Backoff::new(first / often).factor(1.25f64.powf(1.0 / f64::from(often))).cap(options.last_poll / often);
    let runner = options.runner.clone().window(window).poll(looks).build()?;
    let shared = Arc::new(Shared {
        sites,
        options: options.clone(),
        asks: Backoff::new(first).factor(1.25).cap(options.last_poll),
        folders: Mutex::new(HashSet::new()),
    });
    Ok(runner.start(jobs.into_iter().map(|job| Run::new(&shared, job.into()))))
}

/// What a client's error means for the step that met it.
pub(super) fn job_error(error: OpenEoError) -> JobError {
    let after = error.http().and_then(HttpError::retry_after);
    if error.is_not_our_turn() {
        return JobError::wait(error, after.unwrap_or(LATER));
    }
    // Nothing was sent: that is no attempt.
    if is_rate_limited(&error) {
        return JobError::wait(error, after.unwrap_or(GIVE_WAY));
    }
    // The list said that it is finished, and the results don't know yet.
    if !error.is_retryable() && error.code() != Some("JobNotFinished") {
        return JobError::fatal(error);
    }
    match after {
        Some(after) => JobError::retry(error).after(after),
        None => JobError::retry(error),
    }
}

/// What a download's error means. What came whole and was something else is asked for once more, and no more: it may be large.
pub(super) fn download_error(error: OpenEoError, attempt: u32) -> JobError {
    let is_content = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Content && !http.is_retryable());
    if is_content && attempt > 1 { JobError::fatal(error) } else { job_error(error) }
}

/// Whether the client's own rate limit had no room.
fn is_rate_limited(error: &OpenEoError) -> bool {
    error.http().is_some_and(|http| http.kind() == HttpErrorKind::RateLimited)
}

/// Whether another back-end may well do what this one didn't: it can't be reached, is broken, or doesn't take our credentials.
fn is_the_back_ends(error: &OpenEoError) -> bool {
    let refuses_us = matches!(error.status(), Some(401 | 403))
        || error.http().is_some_and(|http| http.kind() == HttpErrorKind::Unauthorized);
    let is_broken = error.is_retryable() || error.status().is_some_and(|status| status >= 500);
    (refuses_us || is_broken) && !error.is_not_our_turn() && !is_rate_limited(error)
}

struct Shared {
    sites: Vec<Arc<Site>>,
    options: RunOptions,
    /// When a job itself is asked about, as opposed to the list.
    asks: Backoff,
    /// Names that are taken, in lower case.
    folders: Mutex<HashSet<String>>,
}

/// One job on its way.
struct Run {
    shared: Arc<Shared>,
    creation: Creation,
    place: Option<Place>,
    site: Option<Arc<Site>>,
    job: Option<BatchJob>,
    is_validated: bool,
    started: bool,
    /// Whether a start was sent, whatever came of it.
    start_sent: bool,
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
    files: Vec<PathBuf>,
}

impl Run {
    fn new(shared: &Arc<Shared>, job: NewJob) -> Run {
        Run {
            shared: Arc::clone(shared),
            creation: Creation::new(job),
            place: None,
            site: None,
            job: None,
            is_validated: false,
            started: false,
            start_sent: false,
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
            files: Vec::new(),
        }
    }

    fn job(&self) -> Result<BatchJob, JobError> {
        self.job.clone().ok_or_else(|| JobError::fatal("a job was asked about before it was made"))
    }

    /// Makes the job, or goes on with what an earlier attempt has begun.
    fn create(&mut self, cx: &mut Context<'_>, site: &Site) -> Result<BatchJob, JobError> {
        let connection = &site.back_end.connection;
        let was_lost = self.creation.lost_by().is_some();
        if !std::mem::replace(&mut self.is_validated, true) {
            for warning in connection.warnings_of(self.creation.job(), Pace::Step) {
                cx.note(format!("the back-end warns: {warning}"));
            }
        }
        let _on_its_way = match &mut self.place {
            // What was lost has been on its way before.
            Some(place) if !was_lost => {
                let leave = place.may_create(Instant::now());
                Some(leave.ok_or_else(|| JobError::wait("others are made and started first", GIVE_WAY))?)
            }
            _ => None,
        };
        match self.creation.advance(connection, Pace::Step) {
            Ok(Progress::Made(id)) => {
                site.is_up();
                if was_lost {
                    cx.note("the reply to its creation was lost; it was found in the job list");
                }
                Ok(connection.job(&id))
            }
            Ok(Progress::Again) if self.creation.lost_by().is_some() => {
                site.is_down(Instant::now());
                if let Some(error) = self.creation.lost_by() {
                    cx.note(format!(
                        "the reply to its creation was lost, and it is looked for in the job list: {error}"
                    ));
                }
                Err(JobError::wait("the reply to its creation was lost", SETTLED))
            }
            Ok(Progress::Again) => {
                Err(JobError::wait("it isn't in the job list, so it is created again", Duration::ZERO))
            }
            Ok(Progress::NotYet) => Err(JobError::wait("a like job is being looked for", SETTLED)),
            Err(error) => {
                if error.is_not_our_turn() {
                    self.make_room(&error);
                }
                if is_the_back_ends(&error) {
                    site.is_down(Instant::now());
                    let is_free = self.creation.lost_by().is_none() && self.moves < MOVES;
                    if is_free && Site::any_is_up(&self.shared.sites, Instant::now()) {
                        if self.moves == 0 {
                            cx.note(format!(
                                "back-end {:?} didn't make it, so it goes elsewhere: {error}",
                                site.back_end.name
                            ));
                        }
                        self.moves += 1;
                        (self.place, self.site) = (None, None);
                        return Err(JobError::wait(error, GIVE_WAY));
                    }
                }
                Err(job_error(error))
            }
        }
    }

    /// The back-end has too many jobs: this one waits, and others don't even ask there meanwhile.
    fn make_room(&mut self, error: &OpenEoError) {
        let after = error.http().and_then(HttpError::retry_after).unwrap_or(self.shared.options.first_poll);
        if let Some(place) = &mut self.place {
            place.is_full(Instant::now().checked_add(after));
        }
        if self.job.is_none() && self.creation.lost_by().is_none() {
            // It may as well be made elsewhere.
            (self.place, self.site) = (None, None);
        }
    }

    /// Starts the job if there is room; `false` if there is none.
    fn start(&mut self, job: &BatchJob, cx: &mut Context<'_>) -> Result<bool, OpenEoError> {
        if self.started {
            return Ok(true);
        }
        if !self.place.as_mut().is_some_and(|place| place.take(Instant::now())) {
            return Ok(false);
        }
        let on_its_way = self.place.as_ref().map(|place| place.starting(Instant::now()));
        let outcome = job.start_once(Pace::Step);
        drop(on_its_way);
        self.start_sent |= !matches!(&outcome, Err(error) if error.is_not_our_turn() || is_rate_limited(error));
        match outcome {
            Ok(()) => {}
            Err(error) if error.is_not_our_turn() => {
                self.make_room(&error);
                return Ok(false);
            }
            Err(error) => {
                if !passes(&error) {
                    cx.note(format!("job '{}' was created and could not be started", job.id()));
                }
                return Err(error);
            }
        }
        self.started = true;
        if let Some(place) = &mut self.place {
            place.watch(job.id(), Instant::now());
        }
        self.next_ask = Instant::now().checked_add(self.shared.asks.delay(0));
        Ok(true)
    }

    /// Takes down what the back-end says.
    fn told(&mut self, found: JobDescription) -> Poll {
        let status = found.status();
        (self.soft, self.missing) = (0, 0);
        if let Some(place) = self.place.as_ref().filter(|_| !matches!(status, JobStatus::Queued | JobStatus::Created)) {
            place.left_the_queue();
        }
        if status == JobStatus::Running {
            self.running_since.get_or_insert_with(Instant::now);
        }
        let is_ended = status.is_ended();
        if is_ended {
            // It runs no more: its place is free, whatever the download takes.
            if let Some(place) = self.place.take().filter(|_| status == JobStatus::Finished) {
                place.finished(Instant::now());
            }
        }
        let progress = found.progress().map(|percent| (percent / 100.0) as f32);
        self.last = Some(found);
        if is_ended {
            return self.ended();
        }
        let state = match status {
            JobStatus::Queued => "queued".into(),
            JobStatus::Running => "running".into(),
            JobStatus::Created => "created".into(),
            other => other.to_string().into(),
        };
        Poll::Pending { state, progress, retry_after: None }
    }

    /// What is left is fetched, once no job waits to be started: a download that comes later costs nobody anything.
    fn ended(&mut self) -> Poll {
        let gives_way = self.site.as_ref().is_some_and(|site| site.has_starts(Instant::now())) && self.yields < YIELDS;
        self.yields += 1;
        if gives_way { self.as_before(None) } else { Poll::Ready }
    }

    fn as_before(&self, retry_after: Option<Duration>) -> Poll {
        let state = self.last.as_ref().map_or("queued".to_owned(), |last| last.status().to_string());
        Poll::Pending { state: state.into(), progress: None, retry_after }
    }

    /// Asks about this job alone.
    fn ask(&mut self, job: &BatchJob, now: Instant) -> Result<Poll, OpenEoError> {
        self.next_ask = now.checked_add(self.shared.asks.delay(self.asked));
        self.asked += 1;
        let found = job.describe_at(Pace::Step)?;
        self.described = true;
        Ok(self.told(found))
    }

    fn look(&mut self, job: &BatchJob, site: &Site, now: Instant) -> Result<Poll, OpenEoError> {
        let interval = self.shared.asks.delay(self.asked);
        let due = self.next_ask.is_none_or(|at| now >= at);
        match site.look(job.id(), interval, due, now) {
            Look::Listed(found) => {
                self.listed(now);
                self.described = false;
                Ok(self.told(found))
            }
            Look::ReadList => {
                site.read_list(now);
                match site.look(job.id(), interval, due, now) {
                    Look::Listed(found) => {
                        self.listed(now);
                        self.described = false;
                        Ok(self.told(found))
                    }
                    Look::Describe => self.ask(job, now),
                    _ => Ok(self.as_before(None)),
                }
            }
            Look::Describe => self.ask(job, now),
            Look::Nothing => Ok(self.as_before(None)),
        }
    }

    /// Who was told of by the list isn't asked for a while.
    fn listed(&mut self, now: Instant) {
        if self.next_ask.is_none_or(|at| now >= at) {
            self.asked += 1;
        }
        self.next_ask = now.checked_add(self.shared.asks.delay(self.asked));
    }

    /// Stops a job that runs too long.
    fn stop_if_too_long(&mut self, job: &BatchJob, cx: &mut Context<'_>) -> Result<(), OpenEoError> {
        let (Some(limit), Some(since)) = (self.shared.options.cancel_running_after, self.running_since) else {
            return Ok(());
        };
        if self.stopped || since.elapsed() < limit {
            return Ok(());
        }
        job.stop_at(Pace::Step)?;
        self.stopped = true;
        // Asked about itself next.
        self.next_ask = None;
        cx.note(format!("stopped, because it ran for more than {limit:?}"));
        Ok(())
    }

    /// A folder of its own, whatever its id is.
    fn folder(&mut self, root: &Path, id: &str) -> PathBuf {
        let own = || {
            let stem = format!("job_{}", sound(id));
            let mut taken = self.shared.folders.lock();
            let names = (1..).map(|number| if number == 1 { stem.clone() } else { format!("{stem}-{number}") });
            let name = names.into_iter().find(|name| taken.insert(name.to_lowercase())).unwrap_or(stem.clone());
            root.join(name)
        };
        self.folder.get_or_insert_with(own).clone()
    }

    /// Details, results and assets of a job that is done.
    fn download(&mut self, job: &BatchJob, root: &Path, cx: &mut Context<'_>) -> Result<(), OpenEoError> {
        let folder = self.folder(root, job.id());
        let name = sound(job.id());
        std::fs::create_dir_all(&folder).map_err(|error| OpenEoError::written(&folder, error))?;
        let results = match &self.results {
            Some(results) => results.clone(),
            None => {
                if !self.described {
                    self.last = Some(job.describe_at(Pace::Step)?);
                    self.described = true;
                }
                if let Some(last) = &self.last {
                    write_json(&folder.join(format!("job_{name}.json")), last.as_json())?;
                }
                self.shared.options.downloads.check_metadata(&folder)?;
                self.results.insert(job.results()).clone()
            }
        };
        let assets: Vec<ResultAsset> = results.assets_at(Pace::Step)?;
        for asset in assets.iter().skip(self.files.len()) {
            let target = self.shared.options.downloads.target(&folder, asset.file_name());
            self.files.push(asset.fetch(&target, cx)?.path);
        }
        self.shared.options.downloads.write_metadata(&folder, &*results.metadata_at(Pace::Step)?)
    }

    /// Why a job that has ended is not done.
    fn failure(&mut self, job: &BatchJob, status: JobStatus) -> Result<OpenEoError, OpenEoError> {
        let logs = match job.logs_at(Pace::Step, None, Some(LogLevel::Error)) {
            Err(error) if error.is_retryable() => return Err(error),
            // That there are no logs to be had is not why it failed.
            logs => logs.unwrap_or_default(),
        };
        if let Some(root) = self.shared.options.folder.clone().filter(|_| !logs.is_empty()) {
            let folder = self.folder(&root, job.id());
            std::fs::create_dir_all(&folder).map_err(|error| OpenEoError::written(&folder, error))?;
            write_json(&folder.join(format!("job_{}_errors.json", sound(job.id()))), &logs.to_json())?;
        }
        Ok(OpenEoError::JobFailed { id: job.id().to_owned(), status, logs })
    }
}

impl RemoteJob for Run {
    type Output = JobRun;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        if self.place.is_none() {
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
                    place.is_made();
                }
                self.job.insert(job).clone()
            }
        };
        match self.start(&job, cx) {
            // A start that didn't come about is tried again by the next step. The job is made, and is to be known as such.
            Err(error) if !passes(&error) => Err(job_error(error)),
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
            Ok(true) => self.stop_if_too_long(&job, cx).and_then(|()| self.look(&job, &site, Instant::now())),
            Ok(false) => return Ok(Poll::pending("created")),
            // Nothing runs yet: the batch's own backoff is patient enough.
            Err(error) if is_rate_limited(&error) => return Err(job_error(error)),
            Err(error) if passes(&error) => return Err(JobError::retry(error)),
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
            // It was there a moment ago: a back-end of several machines may not know it everywhere yet.
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
            let failure = self.failure(&job, status.clone()).map_err(job_error)?;
            match (&options.on_cancel, &options.on_error) {
                (Some(hook), _) if status == JobStatus::Canceled => contained(|| hook(&job)),
                (_, Some(hook)) if status != JobStatus::Canceled => contained(|| hook(&job, &failure)),
                _ => {}
            }
            return Err(JobError::fatal(failure));
        }
        if let Some(root) = &options.folder {
            let attempt = cx.attempt();
            self.download(&job, root, cx).map_err(|error| download_error(error, attempt))?;
        }
        let description = self.last.clone().unwrap_or_else(|| JobDescription::new(serde_json::Value::Null));
        let back_end = self.site.as_ref().map_or_else(String::new, |site| site.back_end.name.clone());
        let run = JobRun { job, back_end, description, folder: self.folder.clone(), files: self.files.clone() };
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
            let may_run = self.start_sent
                && match job.describe_at(Pace::Step) {
                    Ok(found) => found.status() != JobStatus::Created,
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(job_error(error)),
                };
            if !may_run {
                // Nobody but this batch knows of it, and nothing was computed.
                return match job.delete_at(Pace::Step) {
                    Err(error) if !error.is_not_found() => Err(job_error(error)),
                    _ => {
                        cx.note("it was created and never started, and is deleted again");
                        Ok(())
                    }
                };
            }
        }
        match job.stop_at(Pace::Step) {
            Err(error) if !error.is_not_found() => Err(job_error(error)),
            _ => Ok(()),
        }
    }
}

/// Whether a start may be tried again. A 500 may pass, and the job was seen not to have started.
fn passes(error: &OpenEoError) -> bool {
    let is_broken = error.status().is_some_and(|status| status >= 500) && error.code() != Some("FeatureUnsupported");
    is_broken || error.is_retryable()
}

/// A hook's panic is the hook's.
fn contained(hook: impl FnOnce()) {
    panics::contain(hook);
}

/// Errors of the crate's own, for the steps of others.
impl From<OpenEoError> for JobError {
    fn from(error: OpenEoError) -> JobError {
        job_error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_passes_is_tried_again_and_nonsense_is_not() {
        assert!(!job_error(OpenEoError::Fulmar(Error::QueueFull)).is_fatal());
        assert!(job_error(OpenEoError::Reply("x".into())).is_fatal());
    }
}
