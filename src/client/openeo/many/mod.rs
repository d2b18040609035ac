//! Runs many jobs on several back-ends at once, from the process graph to the files.
//!
//! Each job is a [`RemoteJob`](crate::batch::RemoteJob) of a batch, so none holds a thread while it
//! runs elsewhere:
//!
//! ```text
//! submit: create ▸ start, if a back-end has room         some jobs are created ahead of their time
//! poll:   start, once there is room                      too many jobs there: later, and no failure
//!         ▸ the job list, once for all ▸ or the job itself, where the list doesn't tell
//! fetch:  details ▸ results ▸ each asset                 or, if it failed: its error logs
//! ```
//!
//! A step makes its calls one after the other, each once, and waits only for the network. It
//! remembers what it has done, and the next attempt continues there.

mod back_end;
mod looks;
mod options;
pub(super) mod run;
pub(super) mod site;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::batch::{Batch, BatchReport, BatchRunner};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::jobs::new_job::NewJob;
use crate::sync::Mutex;

use looks::LOOKS;
use run::{Run, Shared};
use site::Site;

pub use back_end::BackEnd;
pub use options::{JobRun, RunOptions};

/// With at most so many jobs in the window, each looks at the last list four times as often.
const FEW: usize = 256;

/// Runs jobs on back-ends, as many at once as each allows, and waits until all have ended. The
/// report has every job in input order; a job that failed isn't an error of `run_jobs`. If the
/// operation that calls this is cancelled, so are the jobs.
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
/// [`OpenEoError::Invalid`] if there is no back-end, or one that may run no job.
pub fn run_jobs(
    back_ends: impl IntoIterator<Item = BackEnd>,
    jobs: impl IntoIterator<Item = impl Into<NewJob>>,
    options: &RunOptions,
) -> Result<BatchReport<JobRun>, OpenEoError> {
    Ok(start_jobs(back_ends, jobs, options)?.finish()?)
}

/// As [`run_jobs`], but returns at once. Use the [`Batch`] to wait, to read counters, or to cancel:
/// that stops the jobs that were started, and deletes those that were created and never started.
///
/// # Errors
/// [`OpenEoError::Invalid`] if there is no back-end, or one that may run no job.
pub fn start_jobs(
    back_ends: impl IntoIterator<Item = BackEnd>,
    jobs: impl IntoIterator<Item = impl Into<NewJob>>,
    options: &RunOptions,
) -> Result<Batch<JobRun>, OpenEoError> {
    let (shared, runner) = prepare(back_ends, options)?;
    Ok(runner.start(jobs.into_iter().map(|job| Run::new(&shared, job.into()))))
}

/// Makes what all jobs of a batch share, and the runner of their steps.
pub(super) fn prepare(
    back_ends: impl IntoIterator<Item = BackEnd>,
    options: &RunOptions,
) -> Result<(Arc<Shared>, BatchRunner), OpenEoError> {
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
    // Poll often: most polls only look at the last list. `Looks` limits the requests.
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
    Ok((shared, runner))
}
