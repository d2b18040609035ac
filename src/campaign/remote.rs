//! Campaigns over a service of the user's own: what it has to tell, and how its jobs fit in.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::CampaignError;
use super::service::{Adopted, Ending, Service, ServiceJob, Stopped, Ticket, sound_cost};
use super::{Campaign, CampaignOptions, CampaignReport, CampaignRun};
use crate::batch::{BatchRunnerBuilder, Context, JobError, Poll, RemoteJob, Submitted};
use crate::error::BoxError;
use crate::executor::is_cancelled;

/// A service of your own whose jobs a [`Campaign`] runs: [`Campaign::run`].
///
/// The jobs are [`RemoteJob`]s, as for a batch. A campaign also has to find a job again whose maker
/// died before it knew the id. So each job gets a name on the service that no other job has
/// ([`Ticket::title`]), and [`find`](RemoteService::find) looks for it.
///
/// What [`RemoteJob::submit`] returns tells a campaign whether there may be a job:
///
/// | `submit` returns | for the campaign |
/// |---|---|
/// | [`Submitted`] | the job is made; its id is on the disk before the next call |
/// | [`JobError::retry`] | a job may have been made: `find` looks for it before another is made |
/// | [`JobError::wait`] | no job was made, the service is busy, say; `submit` is called again |
/// | [`JobError::fatal`] | no job was made, and none can be: the row has failed |
///
/// If the campaign is stopped, a step at work is interrupted ([`RemoteJob`]). Then an error that
/// isn't a `wait` says nothing of the row: what `submit` may have made is looked for by the next
/// run.
///
/// A fatal error of [`RemoteJob::poll`] says that the job has failed on the service; another
/// attempt is made if [`attempts`](CampaignOptions::attempts) and
/// [`retry_if`](CampaignOptions::retry_if) allow it. A fatal error of [`RemoteJob::fetch`] leaves
/// the job: the next run fetches it again. `fetch` is also called again if the process dies before
/// the ledger has its end, so it should replace what it finds.
///
/// Here the service is a list in memory; `examples/campaign_own.rs` has one in files, and kills
/// itself.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
///
/// use fulmar::BoxError;
/// use fulmar::batch::{BatchRunner, Context, JobError, Poll, RemoteJob, Submitted};
/// use fulmar::campaign::{Campaign, CampaignOptions, RemoteService, Ticket};
/// use serde_json::json;
///
/// /// Names of jobs; their places are their ids.
/// #[derive(Clone, Default)]
/// struct Farm(Arc<Mutex<Vec<String>>>);
///
/// struct Render { farm: Farm, name: String }
///
/// impl RemoteJob for Render {
///     type Output = ();
///     fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
///         let mut jobs = self.farm.0.lock().expect("no panic");
///         jobs.push(self.name.clone());
///         Ok(Submitted::Accepted { id: (jobs.len() - 1).to_string() })
///     }
///     fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> { Ok(Poll::Ready) }
///     fn fetch(&mut self, _: &mut Context<'_>) -> Result<(), JobError> { Ok(()) }
/// }
///
/// impl RemoteService for Farm {
///     type Job = Render;
///     fn name(&self) -> &str { "farm" }
///     fn make(&self, ticket: &Ticket) -> Result<Render, BoxError> {
///         let name = ticket.title(&ticket.row().get("frame").to_string());
///         Ok(Render { farm: self.clone(), name })
///     }
///     fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
///         let jobs = self.0.lock().expect("no panic");
///         Ok(jobs.iter().position(|name| ticket.is_it(name)).map(|id| id.to_string()))
///     }
///     fn adopt(&self, ticket: &Ticket, _id: &str) -> Result<Render, JobError> {
///         self.make(ticket).map_err(JobError::fatal)
///     }
/// }
///
/// # let folder = std::env::temp_dir().join(format!("fulmar-doc-own-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let campaign = Campaign::open(folder.join("frames.db"))?;
/// campaign.add_rows((0..4).map(|frame| json!({"frame": frame})))?;
/// let runner = BatchRunner::builder().poll_every(Duration::from_millis(1));
/// let options = CampaignOptions::new().run_with(runner);
/// let farm = Farm::default();
/// for _ in 0..2 {
///     let report = campaign.run(farm.clone(), &options)?;
///     assert!(report.is_success(), "{report}");
///     assert_eq!(farm.0.lock().expect("no panic").len(), 4, "the second run has nothing to do");
/// }
/// # drop(campaign);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait RemoteService: Send + Sync + 'static {
    /// A row's job.
    type Job: RemoteJob;

    /// What the ledger and reports call this service: its host, say. A job that was made under
    /// one name is looked for under that name only.
    fn name(&self) -> &str;

    /// What is to become the row's job; sends nothing yet. The request that makes the job must give
    /// it the name [`Ticket::title`].
    ///
    /// # Errors
    /// Why no job can be made of the row: then the row has failed.
    fn make(&self, ticket: &Ticket) -> Result<Self::Job, BoxError>;

    /// The id of the job that [is the ticket's](Ticket::is_it), or `None` if the service
    /// surely has none at this moment. Called if a job was asked for and no reply came.
    ///
    /// # Errors
    /// [`JobError::retry`] if the answer may come with another attempt, and [`Ticket::unclear`] if
    /// the service can't tell: then the row waits for a person.
    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError>;

    /// Goes on with the job of that id, which an earlier process has made: the next call to it is
    /// [`RemoteJob::poll`]. If your `submit` makes a job by one request and starts it by another,
    /// start it here if it isn't.
    ///
    /// # Errors
    /// As for any step of a job.
    fn adopt(&self, ticket: &Ticket, id: &str) -> Result<Self::Job, JobError>;

    /// What the job has cost so far, for the [limit](CampaignOptions::spend_at_most). Called when
    /// the job has ended; it may ask the service. Defaults to not known: then a limit needs an
    /// [estimate](CampaignOptions::estimate).
    fn cost(&self, job: &Self::Job) -> Option<f64> {
        let _ = job;
        None
    }

    /// The files that were fetched, for the report. Defaults to none.
    fn files(&self, output: &<Self::Job as RemoteJob>::Output) -> Vec<PathBuf> {
        let _ = output;
        Vec::new()
    }

    /// Whether a job runs no more after its [`RemoteJob::cancel`] has succeeded. Otherwise a
    /// campaign leaves jobs that run, also when it is cancelled. Defaults to no.
    fn stops_jobs(&self) -> bool {
        false
    }
}

impl Campaign {
    /// Runs what isn't done yet on a service of your own, and waits until this run can do no more.
    ///
    /// # Errors
    /// As for [`start`](Campaign::start), and [`CampaignError::Ledger`]. A row that fails is no
    /// error here.
    pub fn run<S: RemoteService>(
        &self,
        service: S,
        options: &CampaignOptions<BatchRunnerBuilder>,
    ) -> Result<CampaignReport, CampaignError> {
        self.start(service, options)?.wait()
    }

    /// As [`run`](Campaign::run), and returns at once.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] for a limit or an estimate that is no number, and for
    /// `cancel_over_limit` with a service that [stops no job](RemoteService::stops_jobs);
    /// [`CampaignError::Client`] if the batch's settings make no sense.
    pub fn start<S: RemoteService>(
        &self,
        service: S,
        options: &CampaignOptions<BatchRunnerBuilder>,
    ) -> Result<CampaignRun, CampaignError> {
        if options.settings.stops_jobs() && !service.stops_jobs() {
            let text = format!("{} stops no job that runs: leave `cancel_over_limit` off", service.name());
            return Err(CampaignError::Invalid(text));
        }
        let runner = options.run.clone().build().map_err(|error| CampaignError::Client(error.into()))?;
        let service = Arc::new(service);
        self.begin(&options.settings, move || Ok((Own(Arc::clone(&service)), runner.clone())))
    }
}

struct Own<S>(Arc<S>);

impl<S: RemoteService> Own<S> {
    fn job(&self, ticket: Ticket, job: S::Job, made: Option<Submitted>) -> OwnJob<S> {
        OwnJob { service: Arc::clone(&self.0), is_noted: made.is_some(), job, ticket, made, is_lost: false }
    }
}

impl<S: RemoteService> Service for Own<S> {
    type Job = OwnJob<S>;

    fn make(&self, mut ticket: Ticket) -> Result<OwnJob<S>, BoxError> {
        ticket.back_end = self.0.name().to_owned();
        let job = self.0.make(&ticket)?;
        Ok(self.job(ticket, job, None))
    }

    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
        ticket.check_back_end(self.0.name())?;
        self.0.find(ticket)
    }

    fn adopt(&self, ticket: Ticket) -> Result<Adopted<OwnJob<S>>, JobError> {
        ticket.check_back_end(self.0.name())?;
        let job = self.0.adopt(&ticket, &ticket.job)?;
        let made = Submitted::Accepted { id: ticket.job.clone() };
        Ok(Adopted::Job(self.job(ticket, job, Some(made))))
    }
}

/// A row's job, which keeps the ledger up to date for the user's.
struct OwnJob<S: RemoteService> {
    service: Arc<S>,
    job: S::Job,
    ticket: Ticket,
    made: Option<Submitted>,
    /// Whether the ledger has the id.
    is_noted: bool,
    is_lost: bool,
}

impl<S: RemoteService> RemoteJob for OwnJob<S> {
    type Output = <S::Job as RemoteJob>::Output;

    /// Makes the user's job once. The ledger has the intention before the user's `submit` is
    /// called, and the id before this returns. A later call only writes an id that the ledger still
    /// lacks.
    ///
    /// If an error leaves open whether there is a job, it sets `is_lost`, and each later call fails
    /// for good: only the service's list can tell.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        let made = match &self.made {
            Some(made) => made.clone(),
            None if self.is_lost => {
                return Err(JobError::fatal("no reply came to the request that makes its job: it is looked for"));
            }
            None => {
                self.ticket.diary.will_create(&self.ticket.back_end)?;
                let outcome = self.job.submit(cx);
                // Sure that no job was made. A fatal error says so, unless a cancel hit the request
                // after it was sent.
                let is_sure = |error: &JobError| error.is_wait() || error.is_fatal() && !is_cancelled();
                self.is_lost = matches!(&outcome, Err(error) if !is_sure(error));
                self.made.insert(outcome?).clone()
            }
        };
        if !self.is_noted {
            let (Submitted::Accepted { id } | Submitted::Ready { id }) = &made;
            self.ticket.diary.made(&self.ticket.back_end, id)?;
            self.is_noted = true;
        }
        Ok(made)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        self.job.poll(cx)
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Self::Output, JobError> {
        self.job.fetch(cx)
    }
}

impl<S: RemoteService> ServiceJob for OwnJob<S> {
    fn is_made(&self) -> bool {
        self.made.is_some()
    }

    fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// A job that has failed says so by an error of its poll.
    fn ending(&self) -> Ending {
        Ending::Finished
    }

    fn failure(&self, _: &JobError) -> Option<Ending> {
        Some(Ending::Failed)
    }

    fn cost(&mut self) -> Option<f64> {
        sound_cost(self.service.cost(&self.job))
    }

    fn stop(&mut self, cx: &mut Context<'_>) -> Result<Stopped, JobError> {
        if !self.service.stops_jobs() {
            let text = format!("{} stops no job: it goes on", self.service.name());
            return Err(JobError::fatal(CampaignError::Invalid(text)));
        }
        self.job.cancel(cx)?;
        // It may have been faster.
        Ok(match self.job.poll(cx) {
            Ok(Poll::Ready) => Stopped::Finished,
            Ok(Poll::Pending { .. }) | Err(_) => Stopped::Stopped(self.cost()),
        })
    }

    fn files(&self, output: &Self::Output) -> Vec<PathBuf> {
        self.service.files(output)
    }
}
