//! One row on its way, as a remote job of a batch: what the ledger says about it, and the steps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::error::CampaignError;
use super::folder;
use super::ledger::{Claim, Entry, Ledger, Reserve, State};
use super::options::CampaignOptions;
use super::progress::Gauge;
use super::row::Row;
use crate::batch::{Context, JobError, Poll, RemoteJob, Submitted};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::step::job_error;
use crate::client::openeo::documents::job::{JobDescription, JobStatus};
use crate::client::openeo::jobs::graph::ProcessGraph;
use crate::client::openeo::jobs::new_job::NewJob;
use crate::client::openeo::many::run::{Memory, Run, Shared as Many};
use crate::client::openeo::many::site::Site;
use crate::error::BoxError;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// How long a row waits for others whose cost isn't known yet, or for another look.
const LATER: Duration = Duration::from_millis(200);

/// How many entries of a list that say no title are asked for their details.
const UNTITLED: usize = 50;

/// How often in one run a job is looked for that may have been made.
const LOSSES: u32 = 5;

pub(super) struct Shared {
    pub(super) ledger: Arc<Ledger>,
    pub(super) many: Arc<Many>,
    pub(super) make: Arc<Make>,
    pub(super) options: CampaignOptions,
    /// Whether a cancelled batch stops its jobs on the back-ends; otherwise it leaves them.
    pub(super) stops_jobs: AtomicBool,
    pub(super) gauge: Arc<Gauge>,
    /// Rows whose jobs are beyond the limit, and when the ledger was asked for them.
    pub(super) beyond: Mutex<Option<(Instant, Vec<i64>)>>,
}

impl Shared {
    /// Whether a row's job is to be stopped, because it could pass the limit.
    fn is_beyond_limit(&self, id: i64) -> Result<bool, CampaignError> {
        let Some(limit) = self.options.limit.filter(|_| self.options.stops_over_limit) else { return Ok(false) };
        let mut beyond = self.beyond.lock();
        // Once for all jobs: each of them asks at each of its polls.
        if beyond.as_ref().is_none_or(|(at, _)| at.elapsed() >= LATER) {
            *beyond = Some((Instant::now(), self.ledger.beyond(limit, self.options.estimate)?));
        }
        Ok(beyond.as_ref().is_some_and(|(_, ids)| ids.contains(&id)))
    }
}

pub(super) type Make = dyn Fn(&Row) -> Result<NewJob, BoxError> + Send + Sync;

/// What came of a row in one run, apart from failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Another process is at work on it, or has ended it.
    Elsewhere,
    /// It could pass the limit.
    OverBudget,
    /// Jobs come first that no process looks after.
    Deferred,
}

pub(super) struct RowJob {
    shared: Arc<Shared>,
    id: i64,
    entry: Option<Entry>,
    run: Option<Run>,
    outcome: Option<Outcome>,
    losses: u32,
}

impl RowJob {
    pub(super) fn new(shared: &Arc<Shared>, id: i64) -> RowJob {
        RowJob { shared: Arc::clone(shared), id, entry: None, run: None, outcome: None, losses: 0 }
    }

    /// Takes the row, finds out how far it has come, and goes on from there; `None` if this run has
    /// nothing to do with it.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<Option<&mut Run>, JobError> {
        if self.entry.is_none() {
            match self.shared.ledger.claim(self.id)? {
                Claim::Ours(entry) => self.entry = Some(*entry),
                Claim::Elsewhere | Claim::Ended => return Ok(self.end(Outcome::Elsewhere)),
            }
        }
        let Some(entry) = self.entry.clone() else { return Ok(None) };
        if self.run.is_none() {
            self.run = match entry.state {
                State::Done | State::Failed => return Ok(self.end(Outcome::Elsewhere)),
                State::New => self.new_run(&entry)?,
                State::Intended => match self.look(&entry, cx)? {
                    Some(run) => Some(run),
                    None => self.new_run(&entry)?,
                },
                State::Made | State::Finished => Some(self.adopt(&entry)?),
            };
        }
        Ok(self.run.as_mut())
    }

    fn end(&mut self, outcome: Outcome) -> Option<&mut Run> {
        self.outcome = Some(outcome);
        None
    }

    /// A job that is to be made, if there is money for it.
    fn new_run(&mut self, entry: &Entry) -> Result<Option<Run>, JobError> {
        if let Some(limit) = self.shared.options.limit {
            let outcome = match self.shared.ledger.reserve(self.id, limit, self.shared.options.estimate)? {
                Reserve::Granted => None,
                Reserve::Later => {
                    return Err(JobError::wait("others may still spend what is left of the limit", LATER));
                }
                Reserve::Orphans => Some(Outcome::Deferred),
                Reserve::Exceeded => Some(Outcome::OverBudget),
                Reserve::Untold => {
                    self.shared.ledger.release(self.id)?;
                    let text =
                        "the back-end doesn't tell what jobs cost, so that the limit can't be kept: set an `estimate`";
                    return Err(JobError::fatal(CampaignError::Invalid(text.to_owned())));
                }
            };
            if let Some(outcome) = outcome {
                self.shared.ledger.release(self.id)?;
                self.end(outcome);
                return Ok(None);
            }
        }
        let job = (self.shared.make)(&Row::of(entry)).map_err(|error| self.never(error))?;
        // In front, for some back-ends cut titles.
        let title = format!("[{}] {}", self.shared.ledger.token(self.id, entry.attempt), job.shown_title());
        let job = job.title(title.trim_end());
        job.check().map_err(|error| self.never(error.into()))?;
        Ok(Some(Run::new(&self.shared.many, job).remembered(self.memory(entry))))
    }

    /// The row can't be made into a job.
    fn never(&self, error: BoxError) -> JobError {
        match self.shared.ledger.failed(self.id, None, &words(&*error)) {
            Ok(()) => JobError::fatal(error),
            Err(ledger) => ledger.into(),
        }
    }

    fn memory(&self, entry: &Entry) -> Box<RowMemory> {
        Box::new(RowMemory { shared: Arc::clone(&self.shared), id: self.id, params: entry.params.clone() })
    }

    /// Looks for a job that a process may have made which then died, or whose reply was lost;
    /// `None` if there surely is none.
    fn look(&mut self, entry: &Entry, cx: &mut Context<'_>) -> Result<Option<Run>, JobError> {
        let (name, site) = self.site_of(entry)?;
        let connection = site.connection().once();
        let token = format!("[{}]", self.shared.ledger.token(self.id, entry.attempt));
        let (list, _) = connection.whole_list().map_err(job_error)?;
        if let Some(gap) = list.gap() {
            return Err(JobError::retry(OpenEoError::reply(format!("the job list may lack some: {gap}"))));
        }
        let is_it = |job: &JobDescription| job.title().is_some_and(|title| title.contains(&token));
        let mut found = list.iter().find(|job| is_it(job)).map(|job| job.id().to_owned());
        let untitled: Vec<&JobDescription> = list.iter().filter(|job| job.title().is_none()).collect();
        if found.is_none() && untitled.len() > UNTITLED {
            return Err(self.unclear(format!("the job list of {name:?} tells no titles")));
        }
        for job in untitled {
            if found.is_some() {
                break;
            }
            match connection.job(job.id()).describe() {
                Ok(details) if is_it(&details) => found = Some(job.id().to_owned()),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(job_error(error)),
            }
        }
        if let Some(id) = found {
            cx.note(format!("its job was made by a process that has ended since, and is adopted: {id}"));
            self.shared.ledger.made(self.id, &name, &id)?;
            let entry = Entry { state: State::Made, job: Some(id), ..entry.clone() };
            let run = self.adopt(&entry)?;
            self.entry = Some(entry);
            return Ok(Some(run));
        }
        // A clock that was set back lets it wait a little longer, and no more.
        let age = entry.intended.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        match self.shared.options.settle.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => {
                let text = "the back-end may still be making its job: it is looked for again";
                Err(JobError::wait(text, left.min(Duration::from_secs(1))))
            }
            None => Ok(None),
        }
    }

    fn unclear(&self, why: String) -> JobError {
        JobError::fatal(CampaignError::Invalid(format!(
            "whether its job was made can't be found out ({why}): look for a job whose title begins with [{}]",
            self.entry.as_ref().map_or_else(String::new, |entry| self.shared.ledger.token(self.id, entry.attempt))
        )))
    }

    /// Goes on with a job that is there.
    fn adopt(&mut self, entry: &Entry) -> Result<Run, JobError> {
        let (_, site) = self.site_of(entry)?;
        let id = entry.job.as_deref().unwrap_or_default();
        let found = match site.connection().job(id).once().describe() {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Err(self.gone(entry, error)),
            Err(error) => return Err(job_error(error)),
        };
        // A job that is there is made of nothing.
        let made = NewJob::new(ProcessGraph::start("none", json!({})));
        let found = if found.id() == id { found } else { with_id(&found, id) };
        Ok(Run::new(&self.shared.many, made).remembered(self.memory(entry)).adopt(&site, found))
    }

    fn site_of(&self, entry: &Entry) -> Result<(String, Arc<Site>), JobError> {
        let name = entry.back_end.clone().unwrap_or_default();
        let site = self.shared.many.sites.iter().find(|site| site.back_end.name == name);
        let site = site.ok_or_else(|| {
            JobError::fatal(CampaignError::Invalid(format!(
                "its job is on the back-end {name:?}, which this run doesn't have: name it, too"
            )))
        })?;
        Ok((name, Arc::clone(site)))
    }

    /// Its job is there no more.
    fn gone(&mut self, entry: &Entry, error: OpenEoError) -> JobError {
        let again = entry.attempt < self.shared.options.attempts;
        match self.note_failure(None, &words(&error), again) {
            Ok(()) if again => JobError::wait(error, Duration::ZERO),
            Ok(()) => JobError::fatal(error),
            Err(ledger) => ledger,
        }
    }

    /// The row's job has failed; if there is to be another, the row stands as it stood at first.
    fn note_failure(&mut self, cost: Option<f64>, error: &str, again: bool) -> Result<(), JobError> {
        self.shared.ledger.attempt_failed(self.id, cost, error, again)?;
        if !again {
            self.shared.gauge.tell();
        }
        self.run = None;
        // Read anew by the next step.
        self.entry = None;
        Ok(())
    }

    /// Makes the job, or goes on with it.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Option<String>, JobError> {
        if self.outcome.is_some() {
            return Ok(None);
        }
        let Some(run) = self.begin(cx)? else { return Ok(None) };
        let error = match run.submit(cx) {
            Ok(Submitted::Accepted { id } | Submitted::Ready { id }) => return Ok(Some(id)),
            Err(error) => error,
        };
        if run.is_made() {
            return Err(error);
        }
        if run.is_lost() {
            self.losses += 1;
            if !error.is_fatal() || self.losses > LOSSES {
                return Err(error);
            }
            // The client has looked in vain. The ledger knows that it was asked for.
            (self.run, self.entry) = (None, None);
            return Err(JobError::wait(error, LATER));
        }
        // Surely nothing was made.
        match error.is_fatal() {
            true => self.shared.ledger.failed(self.id, None, &words(&error))?,
            false => self.shared.ledger.not_made(self.id)?,
        }
        Err(error)
    }

    /// What a job that has ended has cost, as far as the back-end tells.
    fn cost(&self, last: &JobDescription, id: &str) -> Option<f64> {
        // The list may leave it out.
        let ask = || {
            let site = self.entry.as_ref().and_then(|entry| self.site_of(entry).ok())?.1;
            site.connection().job(id).once().describe().ok()?.costs()
        };
        last.costs().or_else(ask).filter(|cost| cost.is_finite() && *cost >= 0.0)
    }

    /// The job has ended: as finished, or not.
    fn ended(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        let Some(last) = self.run.as_ref().and_then(Run::last).cloned() else { return Ok(Poll::Ready) };
        self.refresh()?;
        let cost = self.cost(&last, last.id());
        if last.status() == JobStatus::Finished {
            self.shared.ledger.finished(self.id, cost)?;
            return Ok(Poll::Ready);
        }
        let Some(run) = &mut self.run else { return Ok(Poll::Ready) };
        let error = match run.fetch(cx) {
            Err(error) if error.is_fatal() => error,
            Err(error) => return Err(error),
            Ok(_) => return Ok(Poll::Ready),
        };
        let options = &self.shared.options;
        let attempt = self.entry.as_ref().map_or(1, |entry| entry.attempt);
        let is_worth_it = match (&options.retry_if, error.error::<OpenEoError>()) {
            (Some(is_worth_it), Some(error)) => is_worth_it(error),
            _ => true,
        };
        // A person or a program has stopped it: it isn't for us to start it again.
        let again = attempt < options.attempts && is_worth_it && last.status() == JobStatus::Error;
        self.note_failure(cost, &words(&error), again)?;
        if !again {
            return Err(error);
        }
        cx.note(format!("attempt {attempt} failed on the back-end, and another is made: {error}"));
        Ok(Poll::pending("again"))
    }

    /// Stops the row's job, so that the row waits for another; `false` if there is none, or if it
    /// has finished before it could be stopped.
    fn stop(&mut self, cx: &mut Context<'_>, why: &str) -> Result<bool, JobError> {
        let Some(run) = self.run.as_mut().filter(|run| run.is_made()) else { return Ok(false) };
        run.cancel(cx)?;
        let cost = match run.started_job() {
            // It was deleted, and has computed nothing.
            None => Some(0.0),
            Some(job) => match job.once().describe() {
                Ok(last) if last.status() == JobStatus::Finished => return Ok(false),
                Ok(last) => last.costs().filter(|cost| cost.is_finite() && *cost >= 0.0),
                // What isn't told counts as what was reserved.
                Err(_) => None,
            },
        };
        self.note_failure(cost, why, true)?;
        self.shared.ledger.release(self.id)?;
        Ok(true)
    }

    /// What the ledger says now: where its job is, above all.
    fn refresh(&mut self) -> Result<(), JobError> {
        if let Claim::Ours(entry) = self.shared.ledger.claim(self.id)? {
            self.entry = Some(*entry);
        }
        Ok(())
    }
}

impl Drop for RowJob {
    /// A row that this run gave up on is there for the next one, and for other processes.
    fn drop(&mut self) {
        if self.entry.is_some() {
            // What can't be written now, the end of the process does.
            let _ = self.shared.ledger.release(self.id);
        }
    }
}

impl RemoteJob for RowJob {
    type Output = Outcome;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        match RowJob::submit(self, cx)? {
            Some(id) => Ok(Submitted::Accepted { id }),
            None => Ok(Submitted::Ready { id: format!("row {}", self.id) }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        if self.outcome.is_some() {
            return Ok(Poll::Ready);
        }
        if self.run.as_ref().is_none_or(|run| !run.is_made()) {
            // Another attempt.
            return Ok(match RowJob::submit(self, cx)? {
                Some(_) => Poll::pending("created"),
                None => Poll::Ready,
            });
        }
        if self.shared.is_beyond_limit(self.id)? && self.stop(cx, "stopped, because it could pass the limit")? {
            self.end(Outcome::OverBudget);
            return Ok(Poll::Ready);
        }
        let Some(run) = &mut self.run else { return Ok(Poll::Ready) };
        match run.poll(cx) {
            Ok(Poll::Ready) => self.ended(cx),
            Err(error) if error.error::<OpenEoError>().is_some_and(OpenEoError::is_not_found) => {
                self.refresh()?;
                let Some(entry) = self.entry.clone() else { return Err(error) };
                let again = entry.attempt < self.shared.options.attempts;
                self.note_failure(None, &words(&error), again)?;
                if again { Ok(Poll::pending("again")) } else { Err(error) }
            }
            other => other,
        }
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Outcome, JobError> {
        if let Some(outcome) = self.outcome {
            return Ok(outcome);
        }
        let Some(run) = &mut self.run else { return Err(JobError::fatal("a row without a job was fetched")) };
        let done = run.fetch(cx)?;
        let cost = self.cost(&done.description, done.job.id());
        self.shared.ledger.done(self.id, cost, &done.files)?;
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

/// What the ledger is told while a job is made.
struct RowMemory {
    shared: Arc<Shared>,
    id: i64,
    params: Value,
}

impl Memory for RowMemory {
    fn will_create(&mut self, back_end: &str) -> Result<(), JobError> {
        Ok(self.shared.ledger.intend(self.id, back_end)?)
    }

    fn made(&mut self, back_end: &str, id: &str) -> Result<(), JobError> {
        Ok(self.shared.ledger.made(self.id, back_end, id)?)
    }

    fn folder(&mut self, back_end: &str, id: &str) -> Result<PathBuf, JobError> {
        let wanted = folder::name(&self.shared.options.pattern, &self.params, back_end, id);
        let wanted = wanted.map_err(|text| JobError::fatal(CampaignError::Invalid(text)))?;
        Ok(self.shared.ledger.folder(self.id, &wanted)?.into())
    }
}

impl From<CampaignError> for JobError {
    /// The disk may have room again, or another process be done with the ledger.
    fn from(error: CampaignError) -> JobError {
        match error {
            CampaignError::Ledger { .. } => JobError::retry(error),
            CampaignError::OpenEo(error) => job_error(error),
            CampaignError::Invalid(_) => JobError::fatal(error),
        }
    }
}

/// The details of a job of this id. A back-end that writes it otherwise is asked by ours.
fn with_id(found: &JobDescription, id: &str) -> JobDescription {
    let mut fields = found.as_json().as_object().cloned().unwrap_or_default();
    fields.insert("id".to_owned(), Value::from(id));
    JobDescription::new(Value::Object(fields))
}

/// An error and what it comes from, on one line.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = error.source();
    }
    text
}
