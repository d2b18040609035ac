//! The options of running many jobs, and the result of one.

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

/// Options of [`run_jobs`](super::run_jobs). Every setting has a default.
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
            runner: BatchRunner::builder().max_concurrent(16).attempts(10).backoff(backoff),
            on_done: None,
            on_error: None,
            on_cancel: None,
        }
    }

    /// The delays between requests for a job's status: `first` at the beginning, growing by a
    /// quarter each time up to `last`. Defaults to 5 s and 60 s. If the job list answers for
    /// several jobs at once, it is read more often than that, with fewer requests in all. `first`
    /// is also how long to wait before a back-end that had too many jobs gets another one, if it
    /// doesn't say.
    pub fn poll(mut self, first: Duration, last: Duration) -> RunOptions {
        (self.first_poll, self.last_poll) = (first, last.max(first));
        self
    }

    /// How many soft errors in a row a job may have when it is asked about, and the longest pause
    /// after one. The first pause is the first delay of [`poll`](RunOptions::poll), and each
    /// further one is twice as long. Defaults to 15 and 30 s.
    pub fn soft_errors(mut self, count: u32, pause: Duration) -> RunOptions {
        (self.soft_errors, self.soft_error_pause) = (count, pause);
        self
    }

    /// Downloads the results to `folder/job_ID/`: the assets, `job-results.json`, and the job's
    /// details as `job_ID.json`. If a job fails, its error logs go to `job_ID_errors.json`. By
    /// default nothing is downloaded.
    pub fn download_to(mut self, folder: impl Into<PathBuf>) -> RunOptions {
        self.folder = Some(folder.into());
        self
    }

    /// How assets are downloaded. The threads of the batch download those of one job one after the
    /// other.
    pub fn downloads(mut self, options: DownloadOptions) -> RunOptions {
        self.downloads = options;
        self
    }

    /// Stops a job that has been running for longer than this, counted from when it was first seen
    /// as running. Defaults to never.
    pub fn cancel_running_job_after(mut self, limit: impl Into<Option<Duration>>) -> RunOptions {
        self.cancel_running_after = limit.into();
        self
    }

    /// How many jobs are created before there is room to start them, so that the next one can start
    /// as soon as another has ended. If the batch is cancelled, they are deleted again. Defaults to
    /// as many as the back-ends run at once, but at most 16.
    pub fn ahead(mut self, jobs: usize) -> RunOptions {
        self.ahead = Some(jobs);
        self
    }

    /// The runner of the steps: its executor, how many steps run at once, attempts, time limits,
    /// events and progress. Its window and poll schedule are replaced by what follows from the
    /// back-ends and [`poll`](RunOptions::poll). Defaults to 16 steps at once, and 10 attempts with
    /// up to 30 s between them.
    pub fn run_on(mut self, runner: BatchRunnerBuilder) -> RunOptions {
        self.runner = runner;
        self
    }

    /// A function that is called when a job is done and downloaded, on the thread that did that. If
    /// it panics, the panic is contained.
    pub fn on_done(mut self, hook: impl Fn(&JobRun) + Send + Sync + 'static) -> RunOptions {
        self.on_done = Some(Arc::new(hook));
        self
    }

    /// A function that is called with the error logs when a job has failed on the back-end.
    pub fn on_error(mut self, hook: impl Fn(&BatchJob, &OpenEoError) + Send + Sync + 'static) -> RunOptions {
        self.on_error = Some(Arc::new(hook));
        self
    }

    /// A function that is called when a job was stopped, by
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

/// A job that is done: the result of one job in the report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobRun {
    /// The job.
    pub job: BatchJob,
    /// The name of the back-end that ran it.
    pub back_end: String,
    /// The back-end's last description of it: all details if the results were downloaded, otherwise
    /// mostly its entry in the job list.
    pub description: JobDescription,
    /// The folder of its results, if they were downloaded.
    pub folder: Option<PathBuf>,
    /// The files of its assets, in the order of their keys.
    pub files: Vec<PathBuf>,
}
