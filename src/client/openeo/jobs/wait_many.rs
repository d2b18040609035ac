//! Waiting for many jobs at once, of one back-end or several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::BatchJob;
use super::wait::{Wait, kind_of, too_many};
use super::wait_options::WaitOptions;
use crate::client::http::{HttpError, HttpErrorKind};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::step::is_soft;
use crate::client::openeo::documents::job::{JobDescription, JobStatus};

/// How long one job, or the list, may keep others waiting that are waited for as well: as long as
/// they wait anyway until the next look, within these limits.
const BRIEF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// From so many jobs of one back-end on, the job list is asked once instead of each job.
const LIST_FROM: usize = 4;

impl Connection {
    /// Waits for many jobs at once, of this back-end or others, in input order: how each has ended,
    /// or why that can't be told. From four jobs on, a back-end is asked for its job list once
    /// instead of for each. A line is printed for each change of a status.
    ///
    /// The error of one job is its own: the others are still waited for. A look that takes longer
    /// than the pause between two (at least 1 s, at most 10 s) counts as failed softly, and is made
    /// after the others the next time, so that one job whose status doesn't come keeps no other job
    /// waiting. A back-end that doesn't answer is left alone until the next round, and if it
    /// answered nothing in this one, that is a soft error of all its jobs.
    pub fn wait_jobs(jobs: &[BatchJob], options: WaitOptions<'_>) -> Vec<Result<JobDescription, OpenEoError>> {
        let mut wait = Wait::new(options);
        let mut open: Vec<Watched> = jobs.iter().map(Watched::new).collect();
        for round in 0.. {
            let brief = wait.options.poll.delay(round).clamp(BRIEF.0, BRIEF.1);
            wait.look_at_all(&mut open, brief);
            let left = open.iter().filter(|watched| watched.end.is_none()).count();
            if left == 0 {
                break;
            }
            if !wait.let_pass(wait.options.poll.delay(round)) {
                for watched in open.iter_mut().filter(|watched| watched.end.is_none()) {
                    watched.end = Some(Err(wait.out_of_time(watched.job, watched.last.clone())));
                }
            }
        }
        open.into_iter().map(|watched| watched.end.unwrap_or_else(|| Err(gone(watched.job)))).collect()
    }
}

/// One of many jobs that are waited for.
struct Watched<'a> {
    job: &'a BatchJob,
    last: Option<JobStatus>,
    soft: u32,
    /// When its own look failed softly the last time, unless it has succeeded since.
    failed: Option<Instant>,
    /// Until when it is left alone.
    not_before: Option<Instant>,
    end: Option<Result<JobDescription, OpenEoError>>,
}

impl<'a> Watched<'a> {
    fn new(job: &'a BatchJob) -> Watched<'a> {
        Watched { job, last: None, soft: 0, failed: None, not_before: None, end: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.end.is_none() && self.not_before.is_none_or(|at| now >= at)
    }
}

impl Wait<'_> {
    /// One look at each job that is due, as far as its back-end answers.
    fn look_at_all(&mut self, open: &mut [Watched<'_>], brief: Duration) {
        let now = Instant::now();
        let mut due: Vec<&mut Watched<'_>> = open.iter_mut().filter(|watched| watched.is_due(now)).collect();
        // Last those whose status didn't come the last time: they delay no other.
        due.sort_by_key(|watched| watched.failed);
        while let Some(root) = due.first().map(|watched| watched.job.connection().clone()) {
            let (of_root, others) =
                due.into_iter().partition(|watched| watched.job.connection().root_url() == root.root_url());
            self.look_at_back_end(&root, of_root, brief);
            due = others;
        }
    }

    fn look_at_back_end(&mut self, root: &Connection, due: Vec<&mut Watched<'_>>, brief: Duration) {
        // What the list doesn't tell, each job does.
        let listed = if due.len() >= LIST_FROM && !self.is_over() {
            root.first_page(due.len() * 2, Some(brief)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut answers = !listed.is_empty();
        let mut due = due.into_iter();
        while let Some(watched) = due.next() {
            if self.is_over() {
                return;
            }
            let listed = listed.iter().find(|entry| entry.id() == watched.job.id());
            let Err(error) = self.look(watched, listed.map(JobDescription::status), brief) else {
                answers = true;
                continue;
            };
            watched.failed = Some(Instant::now());
            let (is_silent, error) = (is_silence(&error), Arc::new(error));
            self.put_off(watched, &error);
            if watched.end.is_none() {
                self.say(watched.job, &format!("{} while polling job status: {error}", kind_of(&error)));
            }
            if is_silent {
                due.filter(|_| !answers).for_each(|other| self.put_off(other, &error));
                return;
            }
        }
    }

    /// One look at one job; the error is a soft one.
    fn look(
        &mut self,
        watched: &mut Watched<'_>,
        listed: Option<JobStatus>,
        brief: Duration,
    ) -> Result<(), OpenEoError> {
        let job = watched.job;
        if let Some(status) = listed.filter(|status| !status.is_ended() && !matches!(status, JobStatus::Other(_))) {
            self.tell_change(watched, status);
            return Ok(());
        }
        match job.describe_within(Some(self.left().map_or(brief, |left| left.min(brief)))) {
            Ok(found) => {
                self.tell_change(watched, found.status());
                if found.status().is_ended() {
                    watched.end = Some(self.end(job, found));
                }
            }
            Err(error) if is_soft(&error) => return Err(error),
            Err(error) => watched.end = Some(Err(error)),
        }
        Ok(())
    }

    /// After a soft error a job is left alone for a while, or, if that was one too many, for good.
    fn put_off(&self, watched: &mut Watched<'_>, error: &Arc<OpenEoError>) {
        watched.soft += 1;
        watched.not_before = Instant::now().checked_add(self.soft_pause(error));
        if watched.soft > self.options.soft_errors {
            watched.end = Some(Err(too_many(watched.job, watched.soft, Arc::clone(error))));
        }
    }

    fn tell_change(&mut self, watched: &mut Watched<'_>, status: JobStatus) {
        (watched.soft, watched.failed) = (0, None);
        if watched.last.as_ref() != Some(&status) {
            self.say(watched.job, status.as_str());
            watched.last = Some(status);
        }
    }
}

fn gone(job: &BatchJob) -> OpenEoError {
    OpenEoError::Cancelled { id: job.id().to_owned() }
}

/// Whether the next question would mostly come to the same, after as long a wait.
fn is_silence(error: &OpenEoError) -> bool {
    use HttpErrorKind::{Broken, Connect, Proxy, RateLimited, Timeout, Tls};
    matches!(error.http().map(HttpError::kind), Some(Broken | Connect | Proxy | RateLimited | Timeout | Tls))
}
