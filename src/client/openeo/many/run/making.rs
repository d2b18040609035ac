//! The steps that create and start a job, when its back-end has room.

use std::time::{Duration, Instant};

use crate::batch::{Context, JobError};
use crate::client::http::HttpError;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::step::{
    GIVE_WAY, LATER, is_later, is_of_the_account, is_rate_limited, is_soft, job_error,
};
use crate::client::openeo::jobs::create::Progress as Creating;
use crate::client::openeo::jobs::job::BatchJob;
use crate::client::openeo::jobs::start::Progress;
use crate::client::openeo::jobs::wait::{IDLE_LOOKS, RESTARTS};
use crate::client::openeo::many::site::Site;
use crate::executor::is_cancelled;

use super::Run;

/// How often a job moves to another back-end because it can't be created where it is.
const MOVES: u32 = 20;

impl Run {
    /// Creates the job, or continues what an earlier attempt has begun.
    pub(super) fn create(&mut self, cx: &mut Context<'_>, site: &Site) -> Result<BatchJob, JobError> {
        let was_lost = self.creation.lost_by().is_some();
        // A look that fails is repeated by the batch, and the creation keeps what it knows.
        let connection = if was_lost { site.connection().once() } else { site.connection().clone() };
        if !std::mem::replace(&mut self.is_validated, true) {
            for warning in site.warnings_of(self.creation.job()) {
                cx.note(format!("the back-end warns: {warning}"));
            }
        }
        let _on_its_way = match &mut self.place {
            // If a reply was lost, don't wait for room: the job may exist already.
            Some(place) if !was_lost => {
                let leave = place.may_create(Instant::now());
                Some(leave.ok_or_else(|| JobError::wait("others are made and started first", GIVE_WAY))?)
            }
            _ => None,
        };
        if let (false, Some(memory)) = (was_lost, &mut self.memory) {
            memory.will_create(&site.back_end.name)?;
        }
        match self.creation.advance(&connection) {
            Ok(Creating::Made(id)) => {
                site.mark_up();
                if was_lost {
                    cx.note("the reply to its creation was lost; it was found in the job list");
                }
                Ok(site.connection().job(&id))
            }
            Ok(Creating::Look(after)) => {
                // After a cancel the back-end might have answered in time.
                if !is_cancelled() {
                    site.mark_down(Instant::now());
                }
                if let Some(error) = self.creation.lost_by().filter(|_| !was_lost) {
                    cx.note(format!(
                        "the reply to its creation was lost, and it is looked for in the job list: {error}"
                    ));
                }
                // A proxy may have said when the back-end can be reached again.
                let asked = self.creation.lost_by().filter(|_| !was_lost).and_then(OpenEoError::http);
                let asked = asked.and_then(HttpError::retry_after).unwrap_or_default();
                Err(JobError::wait("the reply to its creation was lost", after.max(asked)))
            }
            Ok(Creating::Again) => {
                cx.note("it isn't in the job list, so it is created again");
                Err(JobError::wait("it isn't in the job list, so it is created again", Duration::ZERO))
            }
            Ok(Creating::NotYet) => Err(JobError::wait("a like job is being made", GIVE_WAY)),
            Err(error) if self.creation.lost_by().is_some() => Err(look_again(error)),
            // Neither here nor elsewhere may it be made again.
            Err(error) if self.creation.is_in_doubt() => Err(JobError::fatal(error)),
            Err(error) => {
                if error.is_not_our_turn() {
                    self.make_room(&error);
                }
                // In both cases another back-end may make it.
                let is_refused = is_of_the_account(&error);
                if is_refused || is_the_back_ends(&error) {
                    if is_refused {
                        site.mark_refusing(Instant::now());
                    } else {
                        site.mark_down(Instant::now());
                    }
                    if self.moves < MOVES && Site::any_is_up(&self.shared.sites, Instant::now()) {
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
                    // Another back-end may take the job; otherwise this one, when it can be reached
                    // again.
                    if error.is_unreachable() && self.shared.sites.len() > 1 {
                        (self.place, self.site) = (None, None);
                        return Err(JobError::retry(error));
                    }
                }
                Err(job_error(error))
            }
        }
    }

    /// After the back-end said that it has too many jobs: this job waits, and no other one asks
    /// there meanwhile.
    fn make_room(&mut self, error: &OpenEoError) {
        let after = error.http().and_then(HttpError::retry_after).unwrap_or(self.shared.options.first_poll);
        if let Some(place) = &mut self.place {
            place.mark_full(Instant::now(), after);
        }
        if self.job.is_none() {
            // The job may be created on another back-end.
            (self.place, self.site) = (None, None);
        }
    }

    /// Starts the job if there is room, and returns true; false if there is none, or if its start
    /// is still unclear.
    pub(super) fn start(&mut self, job: &BatchJob, cx: &mut Context<'_>) -> Result<bool, OpenEoError> {
        if self.started {
            return Ok(true);
        }
        if self.start_not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(false);
        }
        if !self.place.as_mut().is_some_and(|place| place.take(Instant::now())) {
            return Ok(false);
        }
        let on_its_way = self.place.as_ref().map(|place| place.begin_start(Instant::now()));
        let outcome = self.start.advance(&job.once());
        drop(on_its_way);
        match outcome {
            Ok(Progress::Started) => {}
            // A later step looks at the job, or sends the start again.
            Ok(Progress::Look(after)) => {
                self.start_not_before = Instant::now().checked_add(after);
                return Ok(false);
            }
            Ok(Progress::Again) => return Ok(false),
            Err(error) if error.is_not_our_turn() => {
                self.make_room(&error);
                return Ok(false);
            }
            Err(error) => {
                if let Some(site) = self.site.as_ref().filter(|_| is_of_the_account(&error)) {
                    site.mark_refusing(Instant::now());
                }
                if !is_soft(&error) && !error.is_not_found() {
                    cx.note(format!("job '{}' was created and could not be started", job.id()));
                }
                return Err(error);
            }
        }
        self.started = true;
        if let Some(site) = &self.site {
            site.mark_starting();
        }
        if let Some(place) = &mut self.place {
            place.watch(job.id(), Instant::now());
        }
        self.next_ask = Instant::now().checked_add(self.shared.asks.delay(0));
        Ok(true)
    }
}

impl Run {
    /// Starts the job once more, if the back-end accepted the start but the job stays `created`.
    pub(super) fn start_again(&mut self, job: &BatchJob, cx: &mut Context<'_>) -> Result<(), OpenEoError> {
        if self.idle_looks < IDLE_LOOKS || self.restarts >= RESTARTS {
            return Ok(());
        }
        self.idle_looks = 0;
        if job.once().start_if_created()? {
            self.restarts += 1;
            cx.note("the start had no effect, and was sent again");
        }
        Ok(())
    }
}

/// Whether this back-end can't be reached, or is broken.
fn is_the_back_ends(error: &OpenEoError) -> bool {
    is_soft(error) && !error.is_not_our_turn() && !is_rate_limited(error)
}

/// The job list couldn't be read, so it isn't known whether the job exists: has the step called
/// again.
fn look_again(error: OpenEoError) -> JobError {
    let OpenEoError::LostReply { source, .. } = &error else { return JobError::fatal(error) };
    let (is_later, is_over) = (is_later(source), !is_soft(source));
    match source.http().and_then(HttpError::retry_after) {
        after if is_later => JobError::wait(error, after.unwrap_or(LATER)),
        _ if is_over => JobError::fatal(error),
        Some(after) => JobError::retry(error).after(after),
        None => JobError::retry(error),
    }
}
