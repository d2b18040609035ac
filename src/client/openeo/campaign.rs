//! Campaigns of openEO jobs: [`Campaign::run_jobs`]. [`crate::campaign`] says what a campaign is
//! and promises; this module makes its jobs, finds them in job lists and adopts them.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::api::error::OpenEoError;
use super::api::step::{is_of_the_account, job_error};
use super::documents::job::{JobDescription, JobStatus};
use super::jobs::graph::ProcessGraph;
use super::jobs::job::BatchJob;
use super::jobs::new_job::NewJob;
use super::many::run::{Memory, Run, Shared};
use super::many::site::Site;
use super::many::{self, BackEnd, JobRun, RunOptions};
use crate::batch::{Context, JobError, RemoteJob};
use crate::campaign::folder;
use crate::campaign::service::{Adopted, Diary, Ending, Refusal, Service, ServiceJob, Stopped, Ticket, sound_cost};
use crate::client::creation::Match;
use crate::error::BoxError;

pub use crate::campaign::{
    Campaign, CampaignError, CampaignProgress, CampaignReport, CampaignRun, CampaignStopper, Row, RowReport, RowState,
};

/// The settings of a campaign of openEO jobs.
pub type CampaignOptions = crate::campaign::CampaignOptions<RunOptions>;

/// For how many entries of a job list without a title the details are read.
const UNTITLED: usize = 50;

impl Campaign {
    /// Runs the rows that aren't done, and waits until this run can do no more. `make` returns the
    /// job of a row; the row's name is put in front of the job's title. If `make` fails, the row
    /// has failed.
    ///
    /// ```
    /// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
    /// # let url = server.url();
    /// # let folder = std::env::temp_dir().join(format!("fulmar-doc-campaign-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// use fulmar::client::openeo::campaign::{Campaign, CampaignOptions};
    /// use fulmar::client::openeo::{BackEnd, Connection, NewJob, ProcessGraph, RunOptions};
    /// use serde_json::json;
    /// use std::time::Duration;
    ///
    /// let connection = Connection::connect(&url)?;
    /// connection.authenticate_basic("u", "u123")?;
    /// let campaign = Campaign::open(folder.join("sums.db"))?;
    /// campaign.add_rows((0..4).map(|n| json!({"x": n, "y": 5})))?;
    ///
    /// let run = RunOptions::new().poll(Duration::from_millis(50), Duration::from_secs(1));
    /// let options = CampaignOptions::new().run_with(run).spend_at_most(100.0).download_to(folder.join("out"));
    /// let back_ends = [BackEnd::new(&connection).parallel_jobs(2)];
    /// let report = campaign.run_jobs(back_ends, |row| Ok(NewJob::new(ProcessGraph::start("add", row.params.clone()))), &options)?;
    /// assert!(report.is_success(), "{report}");
    ///
    /// // Once more, as after a crash: nothing is left to do.
    /// assert_eq!(campaign.add_rows([json!({"y": 5, "x": 0})])?, 0);
    /// # drop(campaign);
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`start_jobs`](Campaign::start_jobs), and [`CampaignError::Ledger`] if the
    /// ledger can't be read or written. A row that fails isn't an error here.
    pub fn run_jobs(
        &self,
        back_ends: impl IntoIterator<Item = BackEnd>,
        make: impl Fn(&Row) -> Result<NewJob, BoxError> + Send + Sync + 'static,
        options: &CampaignOptions,
    ) -> Result<CampaignReport, CampaignError> {
        self.start_jobs(back_ends, make, options)?.wait()
    }

    /// Starts what [`run_jobs`](Campaign::run_jobs) does, and returns at once. The handle waits for
    /// the end, and dropping it doesn't stop the jobs. This call itself asks no back-end.
    ///
    /// # Errors
    /// - [`CampaignError::Invalid`] if two back-ends have the same name, or if
    ///   [`spend_at_most`](crate::campaign::CampaignOptions::spend_at_most) or
    ///   [`estimate`](crate::campaign::CampaignOptions::estimate) is negative or not a finite
    ///   number. Also if there is a `spend_at_most` and the capabilities of two back-ends name
    ///   different currencies.
    /// - [`CampaignError::Client`] if there is no back-end, if one has a
    ///   [`parallel_jobs`](BackEnd::parallel_jobs) or [`queue_limit`](BackEnd::queue_limit) of 0,
    ///   or if a setting of the batch is invalid.
    /// - [`CampaignError::Ledger`] if the ledger can't be read or written.
    pub fn start_jobs(
        &self,
        back_ends: impl IntoIterator<Item = BackEnd>,
        make: impl Fn(&Row) -> Result<NewJob, BoxError> + Send + Sync + 'static,
        options: &CampaignOptions,
    ) -> Result<CampaignRun, CampaignError> {
        let back_ends: Vec<BackEnd> = back_ends.into_iter().collect();
        // The ledger identifies back-ends by their names.
        for (index, back_end) in back_ends.iter().enumerate() {
            if back_ends[..index].iter().any(|other| other.name == back_end.name) {
                let name = &back_end.name;
                let text = format!("two back-ends are called {name:?}: give them names of their own");
                return Err(CampaignError::Invalid(text));
            }
        }
        let make: Arc<Make> = Arc::new(make);
        let settings = options.settings.clone();
        if settings.has_limit() {
            check_currencies(&back_ends)?;
        }
        let mut run = options.run.clone();
        run.folder.clone_from(&settings.root);
        let pattern = settings.pattern.clone().unwrap_or_else(|| folder::DEFAULT.to_owned());
        self.begin(&settings, move || {
            let (many, runner) = many::prepare(back_ends.iter().cloned(), &run)?;
            Ok((BackEnds { many, make: Arc::clone(&make), pattern: pattern.clone() }, runner))
        })
    }
}

impl From<OpenEoError> for CampaignError {
    fn from(error: OpenEoError) -> CampaignError {
        CampaignError::Client(error.into())
    }
}

/// Costs in two currencies have no sum that a limit could be held against.
fn check_currencies(back_ends: &[BackEnd]) -> Result<(), CampaignError> {
    let told = |back_end: &'_ BackEnd| {
        let currency = back_end.connection.capabilities().currency()?.to_uppercase();
        Some((back_end.name.clone(), currency))
    };
    let told: Vec<(String, String)> = back_ends.iter().filter_map(told).collect();
    match told.iter().find(|(_, currency)| *currency != told[0].1) {
        None => Ok(()),
        Some((name, currency)) => Err(CampaignError::Invalid(format!(
            "`spend_at_most` needs one currency, but {:?} counts in {} and {name:?} in {currency}: give each a campaign of its own",
            told[0].0, told[0].1
        ))),
    }
}

type Make = dyn Fn(&Row) -> Result<NewJob, BoxError> + Send + Sync;

/// The back-ends of one run.
struct BackEnds {
    many: Arc<Shared>,
    make: Arc<Make>,
    pattern: String,
}

impl BackEnds {
    fn site(&self, ticket: &Ticket) -> Result<Arc<Site>, JobError> {
        let name = &ticket.back_end;
        let site = self.many.sites.iter().find(|site| site.back_end.name == *name);
        site.cloned().ok_or_else(|| {
            JobError::fatal(CampaignError::Invalid(format!(
                "its job is on the back-end {name:?}, which this run doesn't have: name it, too"
            )))
        })
    }

    /// What is to be made of the ticket's row.
    fn new_job(&self, ticket: &Ticket) -> Result<NewJob, BoxError> {
        let job = (self.make)(&ticket.row)?;
        let title = ticket.title(job.shown_title());
        Ok(job.title(&title))
    }

    fn memory(&self, ticket: Ticket) -> Box<RowMemory> {
        Box::new(RowMemory { diary: ticket.diary, params: ticket.row.params, pattern: self.pattern.clone() })
    }
}

impl Service for BackEnds {
    type Job = Run;

    fn make(&self, ticket: Ticket) -> Result<Run, BoxError> {
        let job = self.new_job(&ticket)?;
        job.check()?;
        Ok(Run::new(&self.many, job).remembered(self.memory(ticket)))
    }

    /// Looks for the title in the whole job list. If the list leaves titles out, it reads the
    /// details of up to `UNTITLED` jobs. It is unclear if there are more of them, or if a job has
    /// no title there either and may compute the same.
    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
        let connection = self.site(ticket)?.connection().once();
        let (list, _) = connection.whole_list().map_err(job_error)?;
        if let Some(gap) = list.gap() {
            return Err(JobError::retry(OpenEoError::reply(format!("the job list may lack some: {gap}"))));
        }
        let is_it = |job: &JobDescription| job.title().is_some_and(|title| ticket.is_it(title));
        if let Some(found) = list.iter().find(|job| is_it(job)) {
            return Ok(Some(found.id().to_owned()));
        }
        let untitled: Vec<&JobDescription> = list.iter().filter(|job| is_untitled(job)).collect();
        if untitled.len() > UNTITLED {
            return Err(ticket.unclear(&format!("the job list of {:?} tells no titles", ticket.back_end)));
        }
        for job in untitled {
            match connection.job(job.id()).describe() {
                Ok(details) if is_it(&details) => return Ok(Some(job.id().to_owned())),
                // This back-end may drop titles: then what the job computes has to tell it apart.
                Ok(details) if is_untitled(&details) => {
                    let own = self.new_job(ticket).map_err(JobError::fatal)?;
                    if own.alike(details.as_json()) != Match::Different {
                        return Err(ticket.unclear(&format!("job '{}' has no title, and may be it", job.id())));
                    }
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(job_error(error)),
            }
        }
        Ok(None)
    }

    fn adopt(&self, ticket: Ticket) -> Result<Adopted<Run>, JobError> {
        let site = self.site(&ticket)?;
        let id = &ticket.job;
        let found = match site.connection().job(id).once().describe() {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(Adopted::Gone(error.into())),
            Err(error) => return Err(job_error(error)),
        };
        // The job exists already, so its graph isn't needed.
        let made = NewJob::new(ProcessGraph::start("none", json!({})));
        let found = if found.id() == id { found } else { with_id(&found, id) };
        Ok(Adopted::Job(Run::new(&self.many, made).remembered(self.memory(ticket)).adopt(&site, found)))
    }
}

impl ServiceJob for Run {
    fn is_made(&self) -> bool {
        self.made().is_some()
    }

    fn is_lost(&self) -> bool {
        Run::is_lost(self)
    }

    fn ending(&self) -> Ending {
        match self.last().map(JobDescription::status) {
            Some(JobStatus::Error) => Ending::Failed,
            Some(JobStatus::Finished) | None => Ending::Finished,
            Some(_) => Ending::Canceled,
        }
    }

    fn failure(&self, error: &JobError) -> Option<Ending> {
        let is_gone = error.error::<OpenEoError>().is_some_and(OpenEoError::is_not_found);
        is_gone.then_some(Ending::Failed)
    }

    fn refusal(&self, error: &JobError) -> Option<Refusal> {
        // A job whose start had an unclear answer before may have been started by that.
        let is_clear = !Run::is_lost(self) && self.started_job().is_none();
        error.error::<OpenEoError>().filter(|_| is_clear).and_then(refusal_of)
    }

    fn is_at_work(&mut self) -> Result<bool, JobError> {
        let Some(job) = self.made() else { return Ok(false) };
        match job.once().describe() {
            Ok(found) => Ok(found.status() != JobStatus::Created),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(job_error(error)),
        }
    }

    fn cost(&mut self) -> Option<f64> {
        // A job list may leave out the costs.
        if self.last().and_then(JobDescription::costs).is_none() {
            self.read_details();
        }
        sound_cost(self.last().and_then(JobDescription::costs))
    }

    fn stop(&mut self, cx: &mut Context<'_>) -> Result<Stopped, JobError> {
        self.cancel(cx)?;
        // A job that was never started was deleted, and has cost nothing.
        let Some(job) = self.started_job() else { return Ok(Stopped::Stopped(Some(0.0))) };
        Ok(match job.once().describe() {
            Ok(last) if last.status() == JobStatus::Finished => Stopped::Finished,
            Ok(last) => Stopped::Stopped(sound_cost(last.costs())),
            Err(_) => Stopped::Stopped(None),
        })
    }

    fn files(&self, output: &JobRun) -> Vec<PathBuf> {
        output.files.clone()
    }
}

/// What a back-end's refusal to make or start a job is due to. (openEO API 1.2, "Errors")
fn refusal_of(error: &OpenEoError) -> Option<Refusal> {
    let (OpenEoError::Api(_) | OpenEoError::Http(_) | OpenEoError::Authentication { .. }) = error else { return None };
    if is_of_the_account(error) {
        let remedy = match (error.status(), error.code()) {
            (Some(402), _) | (_, Some("PaymentRequired")) => "top up the account's credits on the back-end",
            (_, Some("StorageQuotaExceeded")) => {
                "delete old results on the back-end, for the account's storage is full"
            }
            _ => "log in again, or have the back-end permit it",
        };
        return Some(Refusal::Service(remedy));
    }
    match error.status()? {
        // The method, a proxy, the time, a conflict, a lock, the law: none tells of the job.
        405 | 407 | 408 | 409 | 423 | 425 | 429 | 451 | 501 => {
            Some(Refusal::Service("wait, or ask the back-end's support"))
        }
        400..=499 => Some(Refusal::Job),
        _ => None,
    }
}

/// Writes the steps of making a job into the campaign's ledger.
struct RowMemory {
    diary: Diary,
    params: Value,
    pattern: String,
}

impl Memory for RowMemory {
    fn will_create(&mut self, back_end: &str) -> Result<(), JobError> {
        Ok(self.diary.will_create(back_end)?)
    }

    fn made(&mut self, back_end: &str, id: &str) -> Result<(), JobError> {
        Ok(self.diary.made(back_end, id)?)
    }

    fn may_start(&mut self, job: &BatchJob) -> Result<(), JobError> {
        self.diary.may_start(|| {
            if !job.connection().capabilities().supports("GET", "/jobs/{job_id}/estimate") {
                return None;
            }
            // A back-end that can't estimate this job says so by an error. Then it counts as
            // others.
            job.once().estimate().ok()?.get("costs")?.as_f64()
        })
    }

    fn folder(&mut self, back_end: &str, id: &str) -> Result<PathBuf, JobError> {
        let wanted = folder::name(&self.pattern, &self.params, back_end, id);
        let wanted = wanted.map_err(|text| JobError::fatal(CampaignError::Invalid(text)))?;
        Ok(self.diary.place(&wanted)?.into())
    }
}

/// Whether a back-end tells no title of a job.
fn is_untitled(job: &JobDescription) -> bool {
    job.title().is_none_or(|title| title.trim().is_empty())
}

/// The job's details with this id in them: a back-end may write the id in another form, but is
/// asked by ours.
fn with_id(found: &JobDescription, id: &str) -> JobDescription {
    let mut fields = found.as_json().as_object().cloned().unwrap_or_default();
    fields.insert("id".to_owned(), Value::from(id));
    JobDescription::new(Value::Object(fields))
}
