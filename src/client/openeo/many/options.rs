//! How many jobs are run: delays, downloads, hooks; and what is told of one that is done.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::batch::{BatchRunner, BatchRunnerBuilder};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::JobDescription;
use crate::client::openeo::jobs::job::BatchJob;
use crate::client::openeo::results::options::DownloadOptions;

type OnDone = Arc<dyn Fn(&JobRun) + Send + Sync>;
type OnError = Arc<dyn Fn(&BatchJob, &OpenEoError) + Send + Sync>;
type OnCancel = Arc<dyn Fn(&BatchJob) + Send + Sync>;

/// How jobs are run. Every setting has a default.
#[derive(Clone)]
#[must_use = "options are for `run_jobs`"]
pub struct RunOptions {
    pub(super) first_poll: Duration,
    pub(super) last_poll: Duration,
    pub(super) soft_errors: u32,
    pub(super) soft_error_pause: Duration,
    pub(in crate::client::openeo) folder: Option<PathBuf>,
    pub(super) downloads: DownloadOptions,
    pub(super) cancel_running_after: Option<Duration>,
    pub(super) ahead: Option<usize>,
    pub(super) runner: BatchRunnerBuilder,
    pub(super) on_done: Option<OnDone>,
    pub(super) on_error: Option<OnError>,
    pub(super) on_cancel: Option<OnCancel>,
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

    /// How often each job is asked about: after `first`, then rarer by a quarter each time, up to
    /// `last`. Defaults to 5 s and 60 s. After `first` a back-end that had too many jobs is asked
    /// again, too, if it doesn't say when. Where the job list tells of several jobs at once, it is
    /// read more often than that, for fewer requests in all.
    pub fn poll(mut self, first: Duration, last: Duration) -> RunOptions {
        (self.first_poll, self.last_poll) = (first, last.max(first));
        self
    }

    /// How many times in a row asking about a job may fail softly, and how long to wait after each
    /// at most: it begins with the first delay of [`poll`](RunOptions::poll), and doubles. Defaults
    /// to 15, and 30 s.
    pub fn soft_errors(mut self, count: u32, pause: Duration) -> RunOptions {
        (self.soft_errors, self.soft_error_pause) = (count, pause);
        self
    }

    /// Downloads the results to `folder/job_ID/`: the assets, `job-results.json`, and the job's
    /// details as `job_ID.json`; of a job that failed its error logs, as `job_ID_errors.json`.
    /// Defaults to nothing.
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

    /// How many jobs are created before there is room for them, so that a back-end needn't wait for
    /// them, nor for downloads. Of a batch that is cancelled they are deleted again. Defaults to as
    /// many as the back-ends run, at most 16.
    pub fn ahead(mut self, jobs: usize) -> RunOptions {
        self.ahead = Some(jobs);
        self
    }

    /// What runs the steps: on which executor, how many at once, how often each is tried, time
    /// limits, events, progress. Its window and its poll schedule follow from the back-ends and
    /// from [`poll`](RunOptions::poll). Defaults to 16 steps at once and 10 attempts with up to 30
    /// s between them.
    pub fn run_on(mut self, runner: BatchRunnerBuilder) -> RunOptions {
        self.runner = runner;
        self
    }

    /// Called when a job is done and downloaded, on the thread that did it. A panic in it is
    /// contained.
    pub fn on_done(mut self, hook: impl Fn(&JobRun) + Send + Sync + 'static) -> RunOptions {
        self.on_done = Some(Arc::new(hook));
        self
    }

    /// Called when a job has failed on the back-end, with its error logs.
    pub fn on_error(mut self, hook: impl Fn(&BatchJob, &OpenEoError) + Send + Sync + 'static) -> RunOptions {
        self.on_error = Some(Arc::new(hook));
        self
    }

    /// Called when a job was stopped, by
    /// [`cancel_running_job_after`](RunOptions::cancel_running_job_after) or by another program.
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
    /// What the back-end said about it last: all details if results were downloaded, else mostly
    /// what the job list has.
    pub description: JobDescription,
    /// The folder of its results, if they were downloaded.
    pub folder: Option<PathBuf>,
    /// The files of its assets, in the order of their keys.
    pub files: Vec<PathBuf>,
}
