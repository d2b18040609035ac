//! What a remote service is to a campaign: its jobs can be made, found again, and gone on with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::error::CampaignError;
use super::folder;
use super::ledger::Ledger;
use super::row::Row;
use crate::batch::{Context, JobError, RemoteJob};
use crate::error::BoxError;

/// A remote service, or several of one kind.
pub(crate) trait Service: Send + Sync + 'static {
    /// A row's job.
    type Job: ServiceJob;

    /// What is to become the row's job: nothing is sent yet. It tells the ticket's diary before the
    /// request that makes it, and its name has the ticket's token.
    ///
    /// # Errors
    /// Why no job can be made of the row, whatever is tried.
    fn make(&self, ticket: Ticket) -> Result<Self::Job, BoxError>;

    /// Looks for a job that was asked for, by the token in its name; `None` if there surely is none
    /// at this moment.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] as a fatal error, if it can't be found out.
    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError>;

    /// Goes on with the ticket's job.
    ///
    /// # Errors
    /// As for any step of a job.
    fn adopt(&self, ticket: Ticket) -> Result<Adopted<Self::Job>, JobError>;
}

/// What came of adopting a job.
#[cfg_attr(not(feature = "openeo"), allow(dead_code, reason = "PAIRS stops no query, and a poll tells what is gone"))]
pub(crate) enum Adopted<J> {
    /// It is there.
    Job(J),
    /// The service doesn't know it any more.
    Gone(BoxError),
}

/// A row's job, as the campaign sees it between its steps.
pub(crate) trait ServiceJob: RemoteJob {
    /// Whether the service has the job, and we know its id.
    fn is_made(&self) -> bool;

    /// Whether the reply to the request that makes the job was lost, so that the service may have a
    /// job whose id we don't know.
    fn is_lost(&self) -> bool;

    /// How it has ended, once a poll has said that it is ready.
    fn ending(&self) -> Ending;

    /// How the job has ended, if `error` of a poll means that it has: it failed on the service, or
    /// the service doesn't have it any more. `None` if the job may still run.
    fn failure(&self, error: &JobError) -> Option<Ending>;

    /// Whether `error` of a submit or a poll says that the service has surely refused to make the
    /// job, or to start it, and why. `None` if the job may run, or if the error is of another kind.
    fn refusal(&self, error: &JobError) -> Option<Refusal> {
        let _ = error;
        None
    }

    /// Whether the job, whose start was refused, was started all the same: asks the service.
    ///
    /// # Errors
    /// As for any step of a job.
    fn is_at_work(&mut self) -> Result<bool, JobError> {
        Ok(false)
    }

    /// What the job has cost so far, as far as the service tells. It may ask.
    fn cost(&mut self) -> Option<f64>;

    /// Stops the job.
    ///
    /// # Errors
    /// As for any step of a job.
    fn stop(&mut self, cx: &mut Context<'_>) -> Result<Stopped, JobError>;

    /// The files that were fetched.
    fn files(&self, output: &Self::Output) -> Vec<PathBuf>;
}

/// How a job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    /// Fetching it says why.
    Failed,
    /// A person or another program has stopped it on purpose: the campaign doesn't make it again.
    Canceled,
}

/// Why a service doesn't make or start a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "openeo"), allow(dead_code, reason = "PAIRS makes and starts a query by one request"))]
pub(crate) enum Refusal {
    /// For what the job is: the same job would be refused again.
    Job,
    /// For the state of the account or of the service, whatever the job: what a person can do.
    Service(&'static str),
}

/// What a row waits for that was refused for no fault of its own.
#[derive(Debug, thiserror::Error)]
#[error("{}: {remedy}, and run the same program again", if *.is_made { "its job is made, and isn't started" } else { "no job is made of it" })]
pub(crate) struct Refused {
    pub(super) is_made: bool,
    pub(super) remedy: &'static str,
    #[source]
    pub(super) error: JobError,
}

/// What came of stopping a job.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(feature = "openeo"), allow(dead_code, reason = "PAIRS stops no query, and a poll tells what is gone"))]
pub(crate) enum Stopped {
    /// It had finished before.
    Finished,
    /// It runs no more, and has cost that much, if the service tells.
    Stopped(Option<f64>),
}

/// A row whose job is to be made, found or gone on with. Cheap to clone, for the job to keep.
#[derive(Clone)]
pub struct Ticket {
    pub(crate) row: Row,
    /// What stands in the name of the row's job, and in no other.
    pub(crate) token: String,
    /// The back-end that has the job, or was asked for it.
    pub(crate) back_end: String,
    /// The job's id, if it is known.
    pub(crate) job: String,
    /// Where the job tells how far it is.
    pub(crate) diary: Diary,
    /// Where results go, and how the folders there are called.
    pub(super) root: Option<PathBuf>,
    pub(super) pattern: Option<String>,
}

impl Ticket {
    /// The row, with its parameters.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// What stands in the name of the row's job, and in no other: letters, digits, `-` and `.`. For
    /// services where names have other forms, or that take an id from their users.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What the job is to be called on the service, `name` included: the token is in front, for
    /// some services cut names.
    pub fn title(&self, name: &str) -> String {
        format!("[{}] {name}", self.token).trim_end().to_owned()
    }

    /// Whether a job that is called so on the service is the row's: whether it was named by
    /// [`title`](Ticket::title).
    pub fn is_it(&self, name: &str) -> bool {
        name.contains(&format!("[{}]", self.token))
    }

    /// A folder for the results of the job of that id: below
    /// [`download_to`](super::CampaignOptions::download_to), called by the
    /// [pattern](super::CampaignOptions::folders), and no other row's. It stays the same once it
    /// was asked for; it isn't made.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] without `download_to`, or for a pattern that makes no sense;
    /// [`CampaignError::Ledger`].
    pub fn folder(&self, id: &str) -> Result<PathBuf, CampaignError> {
        let Some(root) = &self.root else {
            return Err(CampaignError::Invalid("results need a folder: set `download_to`".to_owned()));
        };
        let pattern = self.pattern.as_deref().unwrap_or(folder::DEFAULT);
        let wanted = folder::name(pattern, &self.row.params, &self.back_end, id).map_err(CampaignError::Invalid)?;
        Ok(root.join(self.diary.place(&wanted)?))
    }

    /// That the ticket's job is of the service of that name.
    pub(crate) fn check_back_end(&self, name: &str) -> Result<(), JobError> {
        if self.back_end == name {
            return Ok(());
        }
        Err(JobError::fatal(CampaignError::Invalid(format!(
            "its job was submitted to {:?}, and this run asks {name:?}: go on with a client of that one",
            self.back_end
        ))))
    }

    /// The error to return if it can't be found out whether the row has a job. It tells a person
    /// what to look for.
    pub fn unclear(&self, why: &str) -> JobError {
        JobError::fatal(CampaignError::Invalid(format!(
            "whether its job was made can't be found out ({why}): look for a job whose name begins with [{}]",
            self.token
        )))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("row", &self.row).field("token", &self.token).finish_non_exhaustive()
    }
}

/// A job that isn't started yet is estimated to cost so much that the limit could be passed.
#[derive(Debug, thiserror::Error)]
#[error("the back-end estimates that it costs {0}, which could pass the limit")]
pub(crate) struct BeyondLimit(pub(super) f64);

/// A cost that can be added up.
pub(crate) fn sound_cost(cost: Option<f64>) -> Option<f64> {
    cost.filter(|cost| cost.is_finite() && *cost >= 0.0)
}

/// One row's part of the ledger. What is written is on the disk before the call returns.
#[derive(Clone)]
pub(crate) struct Diary {
    pub(super) ledger: Arc<Ledger>,
    pub(super) id: i64,
    /// What all jobs may cost together, and what one was estimated to cost.
    pub(super) limit: Option<f64>,
    pub(super) estimate: Option<f64>,
}

impl Diary {
    /// The next request may make the job on the back-end of that name.
    pub(crate) fn will_create(&self, back_end: &str) -> Result<(), CampaignError> {
        self.ledger.intend(self.id, back_end)
    }

    /// It is made there.
    pub(crate) fn made(&self, back_end: &str, id: &str) -> Result<(), CampaignError> {
        self.ledger.made(self.id, back_end, id)
    }

    /// Before the job is started: what it may cost, as the back-end estimates it by `ask`, is
    /// reserved. Without a limit the back-end isn't asked.
    ///
    /// # Errors
    /// [`BeyondLimit`] as a fatal error, if that could pass the limit.
    #[cfg_attr(not(feature = "openeo"), allow(dead_code, reason = "PAIRS estimates no costs"))]
    pub(crate) fn may_start(&self, ask: impl FnOnce() -> Option<f64>) -> Result<(), JobError> {
        let Some(limit) = self.limit else { return Ok(()) };
        match sound_cost(ask()) {
            Some(cost) if !self.ledger.may_cost(self.id, cost, limit, self.estimate)? => {
                Err(JobError::fatal(BeyondLimit(cost)))
            }
            _ => Ok(()),
        }
    }

    /// The folder of the row's results, or the name of its files: `wanted`, or that with a number
    /// behind it if another row has it. Once chosen, it stays.
    pub(crate) fn place(&self, wanted: &str) -> Result<String, CampaignError> {
        self.ledger.folder(self.id, wanted)
    }
}

/// When a job was asked for, by this machine's clock, to now.
pub(super) fn age(intended: Option<SystemTime>) -> std::time::Duration {
    // A clock that was set back lets it wait a little longer, and no more.
    intended.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}
