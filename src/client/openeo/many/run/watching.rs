//! The step that asks for a job's status: by the list for all jobs, or for this one alone.

use std::time::{Duration, Instant};

use crate::batch::{Context, Poll};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::{JobDescription, JobStatus};
use crate::client::openeo::jobs::job::BatchJob;
use crate::client::openeo::many::looks::Look;
use crate::client::openeo::many::site::Site;

use super::Run;

/// How often a download waits for starts of other jobs at most, because these may never end.
const YIELDS: u32 = 40;

impl Run {
    /// Stores the back-end's description of the job, and turns it into the answer of a poll.
    fn told(&mut self, found: JobDescription) -> Poll {
        let status = found.status();
        (self.soft, self.missing) = (0, 0);
        self.idle_looks = if status == JobStatus::Created { self.idle_looks + 1 } else { 0 };
        if let Some(place) = self.place.as_ref().filter(|_| !matches!(status, JobStatus::Queued | JobStatus::Created)) {
            place.leave_queue();
        }
        if status == JobStatus::Running {
            self.running_since.get_or_insert_with(Instant::now);
        }
        let is_ended = status.is_ended();
        if is_ended {
            // The job has ended, so another one can have its place, however long the download
            // takes.
            if let Some(place) = self.place.take().filter(|_| status == JobStatus::Finished) {
                place.note_end(Instant::now());
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

    /// The answer of a poll for a job that has ended: ready to fetch, unless other jobs are waiting
    /// to be started. Starts come first, because a later download delays no job.
    pub(super) fn ended(&mut self) -> Poll {
        let gives_way = self.site.as_ref().is_some_and(|site| site.has_starts(Instant::now())) && self.yields < YIELDS;
        self.yields += 1;
        if gives_way { self.as_before(None) } else { Poll::Ready }
    }

    /// The answer of a poll that has no news: the last status, with the time until the next poll if
    /// there is one.
    pub(super) fn as_before(&self, retry_after: Option<Duration>) -> Poll {
        let state = self.last.as_ref().map_or("queued".to_owned(), |last| last.status().to_string());
        Poll::Pending { state: state.into(), progress: None, retry_after }
    }

    /// Asks for the description of this job alone.
    fn ask(&mut self, job: &BatchJob, now: Instant) -> Result<Poll, OpenEoError> {
        self.next_ask = now.checked_add(self.shared.asks.delay(self.asked));
        self.asked += 1;
        let found = job.once().describe()?;
        self.described = true;
        Ok(self.told(found))
    }

    /// Finds out the job's status, as `site` decides: from the last job list, by reading the list,
    /// by a request for this job alone, or not now. Returns the answer of a poll; without news that
    /// is the last status. Only a failed request for this job is an error.
    pub(super) fn look(&mut self, job: &BatchJob, site: &Site, now: Instant) -> Result<Poll, OpenEoError> {
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

    /// Postpones the next request for this job alone, because the list has its status.
    fn listed(&mut self, now: Instant) {
        if self.next_ask.is_none_or(|at| now >= at) {
            self.asked += 1;
        }
        self.next_ask = now.checked_add(self.shared.asks.delay(self.asked));
    }

    /// Stops the job if it has been running for longer than the options allow.
    pub(super) fn stop_if_too_long(&mut self, job: &BatchJob, cx: &mut Context<'_>) -> Result<(), OpenEoError> {
        let (Some(limit), Some(since)) = (self.shared.options.cancel_running_after, self.running_since) else {
            return Ok(());
        };
        if self.stopped || since.elapsed() < limit {
            return Ok(());
        }
        job.once().stop()?;
        self.stopped = true;
        // Ask for this job itself next, because the list may be out of date.
        self.next_ask = None;
        cx.note(format!("stopped, because it ran for more than {limit:?}"));
        Ok(())
    }
}
