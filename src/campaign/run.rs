//! One row of a campaign, run as a remote job of a batch. Each step works on the row's job at the
//! service, and writes into the ledger how far the row has come.
//!
//! A process *claims* a row in the ledger before it works on it, so that other processes leave it
//! alone. *Money* is what the service charges for jobs: if the campaign has a limit, the ledger
//! reserves some of it for a row before the row's job is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::CampaignError;
use super::ledger::{Claim, Entry, Hold, Ledger, Reserve, State};
use super::options::Settings;
use super::progress::Gauge;
use super::row::Row;
use super::service::{
    Adopted, BeyondLimit, Diary, Ending, Refusal, Refused, Service, ServiceJob, Stopped, Ticket, age,
};
use crate::batch::{Context, JobError, Poll, RemoteJob, Submitted};
use crate::error::{BoxError, chain};
use crate::executor::{is_cancelled, shield};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// How long a row waits for others whose cost isn't known yet, or for another look.
const LATER: Duration = Duration::from_millis(200);

/// How often in a row a service must say that there is no such job before the job counts as gone:
/// not all of its machines may know a new one yet.
const MISSING: u32 = 5;

/// How often in one run a job is looked for that may have been made.
const LOSSES: u32 = 5;

pub(super) struct Shared<S> {
    pub(super) ledger: Arc<Ledger>,
    pub(super) service: S,
    pub(super) settings: Settings,
    /// Whether a cancelled batch stops its jobs on the service; otherwise it leaves them.
    pub(super) stops_jobs: Arc<AtomicBool>,
    pub(super) gauge: Arc<Gauge>,
    /// Rows whose jobs are beyond the limit, and when the ledger was asked for them.
    pub(super) beyond: Mutex<Option<(Instant, Vec<i64>)>>,
}

impl<S> Shared<S> {
    /// Whether a row's job is to be stopped, because it could pass the limit.
    fn is_beyond_limit(&self, id: i64) -> Result<bool, CampaignError> {
        let Some(limit) = self.settings.limit.filter(|_| self.settings.stops_over_limit) else { return Ok(false) };
        let mut beyond = self.beyond.lock();
        // Once for all jobs: each of them asks at each of its polls.
        if beyond.as_ref().is_none_or(|(at, _)| at.elapsed() >= LATER) {
            *beyond = Some((Instant::now(), self.ledger.beyond(limit, self.settings.estimate)?));
        }
        Ok(beyond.as_ref().is_some_and(|(_, ids)| ids.contains(&id)))
    }
}

/// What came of a row in one run, apart from failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Another process or run is at work on it, or has ended it.
    Elsewhere,
    /// It could pass the limit.
    OverBudget,
    /// As `OverBudget`, but money was reserved for it at first, which is free for others now.
    Unmade,
    /// Jobs come first that no process looks after.
    Deferred,
}

pub(super) struct RowJob<S: Service> {
    shared: Arc<Shared<S>>,
    id: i64,
    /// Dropped after this has given the row back.
    hold: Option<Hold>,
    entry: Option<Entry>,
    job: Option<S::Job>,
    outcome: Option<Outcome>,
    /// Why the service doesn't start the row's job, until that is dealt with.
    refused: Option<(Refusal, JobError)>,
    /// What the service has estimated that the row's job costs.
    estimate: Option<f64>,
    losses: u32,
    missing: u32,
}

impl<S: Service> RowJob<S> {
    pub(super) fn new(shared: &Arc<Shared<S>>, id: i64) -> RowJob<S> {
        RowJob {
            shared: Arc::clone(shared),
            id,
            hold: None,
            entry: None,
            job: None,
            outcome: None,
            refused: None,
            estimate: None,
            losses: 0,
            missing: 0,
        }
    }

    /// Takes the row for this run, reads in the ledger how far it has come, and returns its job. If
    /// the ledger has the job's id, this goes on with that job (`adopt`). If a request to make the
    /// job may have been sent, this asks the service for it (`look`). If there is none, this
    /// prepares a job, which its `submit` makes at the service.
    ///
    /// `None` if this run doesn't work on the row, and `outcome` says why: another run or process
    /// has it, it has ended, or there is no money for its job. Fails if the ledger or the service
    /// does, and with a wait if money or the job may be there later. After an error the batch may
    /// call this again: `self` keeps what was reached.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<Option<&mut S::Job>, JobError> {
        // The hold keeps other runs of this process off the row, the claim below other processes.
        if self.hold.is_none() {
            self.hold = self.shared.ledger.hold(self.id);
            if self.hold.is_none() {
                return Ok(self.end(Outcome::Elsewhere));
            }
        }
        if self.entry.is_none() {
            match self.shared.ledger.claim(self.id)? {
                Claim::Ours(entry) => self.entry = Some(*entry),
                Claim::Elsewhere | Claim::Ended => return Ok(self.end(Outcome::Elsewhere)),
            }
        }
        let Some(entry) = self.entry.clone() else { return Ok(None) };
        if self.job.is_none() {
            self.job = match entry.state {
                State::Done | State::Failed => return Ok(self.end(Outcome::Elsewhere)),
                State::New => self.new_job(&entry)?,
                // An earlier process wrote that it would make the job, and then died or lost the
                // reply. The service may have the job: make another only if it hasn't.
                State::Intended => match self.look(&entry, cx)? {
                    Some(job) => Some(job),
                    None => self.new_job(&entry)?,
                },
                // The service refused to start it, so it was set aside with a cost of 0, and the
                // money that was reserved for it is free. Reserve some again before it is started.
                // First it has to be there, and to be ours to start.
                State::Made if entry.cost.is_some() => {
                    let job = self.adopt(&entry)?;
                    if !self.take_up()? {
                        return Ok(None);
                    }
                    Some(job)
                }
                State::Made | State::Finished => Some(self.adopt(&entry)?),
            };
        }
        Ok(self.job.as_mut())
    }

    fn end(&mut self, outcome: Outcome) -> Option<&mut S::Job> {
        self.outcome = Some(outcome);
        None
    }

    fn ticket(&self, entry: &Entry) -> Ticket {
        Ticket {
            row: Row::of(entry),
            token: self.shared.ledger.token(self.id, entry.attempt),
            back_end: entry.back_end.clone().unwrap_or_default(),
            job: entry.job.clone().unwrap_or_default(),
            diary: Diary {
                ledger: Arc::clone(&self.shared.ledger),
                id: self.id,
                limit: self.shared.settings.limit,
                estimate: self.shared.settings.estimate,
            },
            root: self.shared.settings.root.clone(),
            pattern: self.shared.settings.pattern.clone(),
        }
    }

    /// Reserves money for the row's job and prepares it: its `submit` makes it at the service.
    /// `None` if there is no money, and `outcome` says so. If no job can be made of the row, the
    /// row has failed.
    fn new_job(&mut self, entry: &Entry) -> Result<Option<S::Job>, JobError> {
        if !self.has_money()? {
            return Ok(None);
        }
        self.shared.service.make(self.ticket(entry)).map(Some).map_err(|error| self.never(error))
    }

    /// Reserves money for the row's job, which was set aside before its start, and has the ledger
    /// count it among those at work again. `false` if there is no money, and `outcome` says so.
    fn take_up(&mut self) -> Result<bool, JobError> {
        if !self.has_money()? {
            return Ok(false);
        }
        self.shared.ledger.take_up(self.id)?;
        Ok(true)
    }

    /// Reserves money for the row's job; otherwise ends the row for this run.
    fn has_money(&mut self) -> Result<bool, JobError> {
        let Some(limit) = self.shared.settings.limit else { return Ok(true) };
        let reserve = self.shared.ledger.reserve(self.id, limit, self.shared.settings.estimate, self.estimate)?;
        let outcome = match reserve {
            Reserve::Granted => return Ok(true),
            Reserve::Later => {
                return Err(JobError::wait("others may still spend what is left of the limit", LATER));
            }
            Reserve::Orphans => Outcome::Deferred,
            Reserve::Exceeded if self.estimate.is_some() => Outcome::Unmade,
            Reserve::Exceeded => Outcome::OverBudget,
            Reserve::Untold => {
                self.shared.ledger.release(self.id)?;
                let text =
                    "the back-end doesn't tell what jobs cost, so that the limit can't be kept: set an `estimate`";
                return Err(JobError::fatal(CampaignError::Invalid(text.to_owned())));
            }
        };
        self.shared.ledger.release(self.id)?;
        self.end(outcome);
        Ok(false)
    }

    /// Writes into the ledger that the row has failed, because no job can be made of it, and
    /// returns the error for the batch. After a cancel, which may be the reason, it writes nothing.
    fn never(&self, error: BoxError) -> JobError {
        if is_cancelled() {
            // That may be why.
            return JobError::fatal(error);
        }
        match self.note_never(&chain(&*error)) {
            Ok(()) => JobError::fatal(error),
            Err(ledger) => ledger.into(),
        }
    }

    /// The row has failed without a job.
    fn note_never(&self, error: &str) -> Result<(), CampaignError> {
        self.shared.ledger.failed(self.id, None, error)?;
        self.shared.gauge.tell();
        Ok(())
    }

    /// The ledger says that a process was about to make the row's job, or to delete it: asks the
    /// service whether it has the job. If it has, the ledger notes the job's id, and this goes on
    /// with it. `None` if there surely is none. Fails with a wait while the service may still be
    /// making it (`settle`).
    fn look(&mut self, entry: &Entry, cx: &mut Context<'_>) -> Result<Option<S::Job>, JobError> {
        let ticket = self.ticket(entry);
        if let Some(id) = self.shared.service.find(&ticket)? {
            cx.note(format!("its job was made by a process that has ended since, and is adopted: {id}"));
            self.shared.ledger.made(self.id, &ticket.back_end, &id)?;
            let entry = Entry { state: State::Made, job: Some(id), ..entry.clone() };
            let job = self.adopt(&entry)?;
            self.entry = Some(entry);
            return Ok(Some(job));
        }
        match self.shared.settings.settle.checked_sub(age(entry.intended)).filter(|left| !left.is_zero()) {
            Some(left) => {
                let text = "the back-end may still be making its job: it is looked for again";
                Err(JobError::wait(text, left.min(Duration::from_secs(1))))
            }
            None => Ok(None),
        }
    }

    /// Goes on with the row's job that exists. If the service no longer has it, that attempt has
    /// failed, and another one follows if the rules leave one.
    fn adopt(&mut self, entry: &Entry) -> Result<S::Job, JobError> {
        let error = match self.shared.service.adopt(self.ticket(entry))? {
            Adopted::Job(job) => return Ok(job),
            Adopted::Gone(error) => error,
        };
        self.missing += 1;
        if self.missing < MISSING {
            return Err(JobError::wait(error, LATER));
        }
        self.missing = 0;
        let again = entry.attempt < self.shared.settings.attempts;
        // A job that was set aside has cost nothing.
        let cost = entry.cost.filter(|_| entry.state == State::Made);
        self.note_failure(cost, &chain(&*error), again)?;
        Err(if again { JobError::wait(error, Duration::ZERO) } else { JobError::fatal(error) })
    }

    /// Writes into the ledger that the row's job has failed, why, and what it cost. With `again`
    /// the row is new once more, for its next attempt; otherwise it has failed for good. The next
    /// step reads the row anew.
    fn note_failure(&mut self, cost: Option<f64>, error: &str, again: bool) -> Result<(), JobError> {
        let attempt = self.entry.as_ref().map_or(1, |entry| entry.attempt);
        self.shared.ledger.attempt_failed(self.id, attempt, cost, error, again)?;
        if !again {
            self.shared.gauge.tell();
        }
        self.job = None;
        // Read anew by the next step.
        self.entry = None;
        Ok(())
    }

    /// Makes the job, or goes on with it.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Option<Submitted>, JobError> {
        if self.outcome.is_some() {
            return Ok(None);
        }
        if self.refused.is_some() {
            return self.not_started(cx).and_then(again);
        }
        let Some(job) = self.begin(cx)? else { return Ok(None) };
        let error = match job.submit(cx) {
            Ok(submitted) => return Ok(Some(submitted)),
            Err(error) => error,
        };
        if job.is_made() {
            return match error.error::<BeyondLimit>() {
                Some(&BeyondLimit(cost)) => self.unmake(cost, error, cx),
                None => match self.refusal(&error) {
                    Some(refusal) => {
                        self.refused = Some((refusal, error));
                        self.not_started(cx).and_then(again)
                    }
                    None => Err(error),
                },
            };
        }
        if is_cancelled() {
            // It says nothing of the row. If the job may be made, the next run looks for it.
            if !job.is_lost() {
                self.shared.ledger.not_made(self.id)?;
            }
            return Err(error);
        }
        if job.is_lost() {
            self.losses += 1;
            if !error.is_fatal() || self.losses > LOSSES {
                return Err(error);
            }
            // The client has looked in vain. The ledger knows that it was asked for.
            (self.job, self.entry) = (None, None);
            return Err(JobError::wait(error, LATER));
        }
        // Surely nothing was made.
        if !error.is_fatal() {
            self.shared.ledger.not_made(self.id)?;
        } else if let Some(Refusal::Service(remedy)) = self.refusal(&error) {
            self.shared.ledger.not_made(self.id)?;
            return Err(JobError::fatal(Refused { is_made: false, remedy, error }));
        } else {
            self.note_never(&chain(&error))?;
        }
        Err(error)
    }

    /// Whether the error of a step says that the service refuses the row's job.
    fn refusal(&self, error: &JobError) -> Option<Refusal> {
        // After a cancel an error may come of that.
        let job = self.job.as_ref().filter(|_| error.is_fatal() && !is_cancelled())?;
        job.refusal(error)
    }

    /// After the service has refused to start the row's job, which is made: sets the job aside for
    /// the next run, or deletes it, whereupon the attempt has failed.
    fn not_started(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        let (Some(job), Some((refusal, error))) = (&mut self.job, &self.refused) else {
            return Ok(Poll::pending("again"));
        };
        match job.is_at_work() {
            Ok(true) => {
                cx.note(format!("its start was refused, and had its effect all the same: {error}"));
                // Adopted by the next step.
                (self.job, self.entry, self.refused) = (None, None, None);
                return Ok(Poll::pending("again"));
            }
            Ok(false) => {}
            // A service that refuses our login refuses this question, too.
            Err(error) if error.is_fatal() && *refusal != Refusal::Job && !is_cancelled() => {}
            Err(error) => return Err(error),
        }
        // Before it is deleted: if this process dies on the way, the next one finds that a job is
        // gone which has cost nothing.
        self.shared.ledger.set_aside(self.id)?;
        if *refusal == Refusal::Job {
            match job.stop(cx) {
                Err(error) if error.is_fatal() => {
                    cx.note(format!("it was never started, and can't be deleted: {error}"))
                }
                outcome => drop(outcome?),
            }
        }
        match self.refused.take() {
            Some((Refusal::Service(remedy), error)) => Err(JobError::fatal(Refused { is_made: true, remedy, error })),
            Some((Refusal::Job, error)) => self.failed(error, Some(0.0), true, cx),
            None => Ok(Poll::pending("again")),
        }
    }

    /// Deletes the row's job, which is made and not started, because it could pass the limit. It is
    /// made again once that much can be reserved for it.
    fn unmake(&mut self, cost: f64, error: JobError, cx: &mut Context<'_>) -> Result<Option<Submitted>, JobError> {
        let Some(job) = &mut self.job else { return Err(error) };
        self.shared.ledger.will_delete(self.id)?;
        job.stop(cx)?;
        self.shared.ledger.unmade(self.id)?;
        self.estimate = Some(cost);
        // Read anew by the next step.
        (self.job, self.entry) = (None, None);
        Err(JobError::wait(error, LATER))
    }

    /// The job has ended: as finished, or not.
    fn ended(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        let Some(job) = &mut self.job else { return Ok(Poll::Ready) };
        let (ending, cost) = (job.ending(), job.cost());
        if ending == Ending::Finished {
            self.shared.ledger.finished(self.id, cost)?;
            return Ok(Poll::Ready);
        }
        match job.fetch(cx) {
            Err(error) if error.is_fatal() && !is_cancelled() => self.failed(error, cost, ending == Ending::Failed, cx),
            Err(error) => Err(error),
            Ok(_) => Ok(Poll::Ready),
        }
    }

    /// The job has failed on the service: another attempt is made, if the rules allow it.
    fn failed(
        &mut self,
        error: JobError,
        cost: Option<f64>,
        may_again: bool,
        cx: &mut Context<'_>,
    ) -> Result<Poll, JobError> {
        let settings = &self.shared.settings;
        let attempt = self.entry.as_ref().map_or(1, |entry| entry.attempt);
        let is_worth_it = settings.retry_if.as_ref().is_none_or(|is_worth_it| is_worth_it(error.cause()));
        let again = may_again && attempt < settings.attempts && is_worth_it;
        self.note_failure(cost, &chain(&error), again)?;
        if !again {
            return Err(error);
        }
        cx.note(format!("attempt {attempt} failed on the back-end, and another is made: {error}"));
        Ok(Poll::pending("again"))
    }

    /// Stops the row's job, so that the row waits for another; `false` if there is none, or if it
    /// has finished before it could be stopped.
    fn stop(&mut self, cx: &mut Context<'_>, why: &str) -> Result<bool, JobError> {
        let Some(job) = self.job.as_mut().filter(|job| job.is_made()) else { return Ok(false) };
        match job.stop(cx)? {
            Stopped::Finished => Ok(false),
            Stopped::Stopped(cost) => {
                self.note_failure(cost, why, true)?;
                self.shared.ledger.release(self.id)?;
                Ok(true)
            }
        }
    }
}

/// A submit that has ended an attempt: it is called again for the next one.
fn again(_: Poll) -> Result<Option<Submitted>, JobError> {
    Err(JobError::wait("the back-end didn't start its job, and it is tried again", Duration::ZERO))
}

impl<S: Service> Drop for RowJob<S> {
    /// A row that this run gave up on is there for the next one, and for other processes.
    fn drop(&mut self) {
        if self.entry.is_some() {
            // What can't be written now, the end of the process does.
            let _ = self.shared.ledger.release(self.id);
        }
    }
}

impl<S: Service> RemoteJob for RowJob<S> {
    type Output = Outcome;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        let none = Submitted::Ready { id: format!("row {}", self.id) };
        Ok(RowJob::submit(self, cx)?.unwrap_or(none))
    }

    /// Asks for the state of the row's job, and writes an end into the ledger. If the job has
    /// failed, and the settings allow another attempt, the next poll makes a new job. A job that
    /// could pass the limit is stopped.
    ///
    /// `Ready` says that this run waits for nothing more of the row: the job has finished, or
    /// `outcome` says why there is none.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        if self.outcome.is_some() {
            return Ok(Poll::Ready);
        }
        if self.refused.is_some() || self.job.as_ref().is_none_or(|job| !job.is_made()) {
            // The last attempt failed, its job was deleted, or its start was refused: make the next
            // one, or go on with what comes before that.
            return Ok(match RowJob::submit(self, cx)? {
                Some(Submitted::Accepted { .. }) => Poll::pending("created"),
                Some(Submitted::Ready { .. }) | None => Poll::Ready,
            });
        }
        if self.shared.is_beyond_limit(self.id)? && self.stop(cx, "stopped, because it could pass the limit")? {
            self.end(Outcome::OverBudget);
            return Ok(Poll::Ready);
        }
        let Some(job) = &mut self.job else { return Ok(Poll::Ready) };
        match job.poll(cx) {
            Ok(Poll::Ready) => self.ended(cx),
            // An error after a cancel may come of that, and the job may run on: the next run asks.
            Err(error) if error.is_fatal() && !is_cancelled() => match (job.refusal(&error), job.failure(&error)) {
                (Some(refusal), _) => {
                    self.refused = Some((refusal, error));
                    self.not_started(cx)
                }
                (None, Some(ending)) => {
                    let cost = shield(|| job.cost());
                    self.failed(error, cost, ending == Ending::Failed, cx)
                }
                (None, None) => Err(error),
            },
            other => other,
        }
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Outcome, JobError> {
        if let Some(outcome) = self.outcome {
            return Ok(outcome);
        }
        let Some(job) = &mut self.job else { return Err(JobError::fatal("a row without a job was fetched")) };
        let output = job.fetch(cx)?;
        // What isn't asked now never will be.
        let cost = shield(|| job.cost());
        self.shared.ledger.done(self.id, cost, &job.files(&output))?;
        self.shared.gauge.tell();
        Ok(Outcome::Done)
    }

    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        // Relaxed: it is set before the batch is cancelled, whose lock orders the two.
        if !self.shared.stops_jobs.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.stop(cx, "the campaign was cancelled").map(drop)
    }
}
