//! Waits for many jobs at once, of one back-end or several.

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

/// How long the request for one job, or for the list, may delay those for the others: as long as
/// the pause until the next look, within these limits.
const BRIEF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// For at least so many jobs of one back-end, it reads the job list once instead of asking for each
/// job.
const LIST_FROM: usize = 4;

impl Connection {
    /// Waits for many jobs at once, of any back-ends. Returns, in input order, how each has ended,
    /// or why that isn't known. If a back-end has at least four of the jobs, it reads the job list
    /// once instead of asking for each. It prints a line for each change of a status.
    ///
    /// If one job fails, it still waits for the others. If the request for one job takes longer
    /// than the pause between two looks (at least 1 s, at most 10 s), that counts as a soft error
    /// of this job, and the next time it comes after the others, so that it doesn't delay them. If
    /// a back-end doesn't answer, it isn't asked again in this round; if it has answered nothing in
    /// the round, that is a soft error of all its jobs.
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

/// One of the jobs of the wait.
struct Watched<'a> {
    job: &'a BatchJob,
    last: Option<JobStatus>,
    soft: u32,
    /// When the request for this job last had a soft error, if none has succeeded since.
    failed: Option<Instant>,
    /// When it may be asked about again.
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
    /// Asks once for each open job whose time has come, as long as its back-end answers.
    fn look_at_all(&mut self, open: &mut [Watched<'_>], brief: Duration) {
        let now = Instant::now();
        let mut due: Vec<&mut Watched<'_>> = open.iter_mut().filter(|watched| watched.is_due(now)).collect();
        // Ask last for the jobs whose status didn't come the last time, so that they delay no
        // others.
        due.sort_by_key(|watched| watched.failed);
        while let Some(root) = due.first().map(|watched| watched.job.connection().clone()) {
            let (of_root, others) =
                due.into_iter().partition(|watched| watched.job.connection().root_url() == root.root_url());
            self.look_at_back_end(&root, of_root, brief);
            due = others;
        }
    }

    /// Looks once at each job in `due`, all of which are on the back-end of `root`, and stores what
    /// it finds in the `Watched`. For `LIST_FROM` jobs or more it reads the job list first. A
    /// request takes at most `brief`.
    ///
    /// If the back-end falls silent, it leaves the other jobs for the next round. If the back-end
    /// has answered nothing until then, that is a soft error of each of them.
    fn look_at_back_end(&mut self, root: &Connection, due: Vec<&mut Watched<'_>>, brief: Duration) {
        // Jobs that aren't in the list are asked for one by one.
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

    /// Looks at one job. An error of this function is a soft one; others are the job's outcome.
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

    /// After a soft error: pauses the requests for a job, or ends the wait for it if it had too
    /// many.
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

/// Whether the back-end doesn't answer, so that the next request would most likely take as long and
/// fail, too.
fn is_silence(error: &OpenEoError) -> bool {
    use HttpErrorKind::{Broken, Connect, Proxy, RateLimited, Timeout, Tls};
    matches!(error.http().map(HttpError::kind), Some(Broken | Connect | Proxy | RateLimited | Timeout | Tls))
}
