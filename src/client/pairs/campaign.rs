//! Campaigns of PAIRS queries: [`Campaign::run_queries`]. What a campaign is and promises stands in
//! [`crate::campaign`]; here queries are submitted, found in the user's list and adopted for it.
//!
//! Files are called as by [`batch_query`](super::batch_query): by what the query says itself, else
//! by the id; points that are answered at once by their name. So the same program run again writes
//! the same files.

use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{self, BatchOptions, Names};
use super::client::Client;
use super::error::PairsError;
use super::job::{Job, Memory, Name, QueryResult, Shared};
use super::query::Query;
use super::status::StatusCode;
use crate::batch::{Context, JobError};
use crate::campaign::folder;
use crate::campaign::service::{Adopted, Diary, Ending, Service, ServiceJob, Stopped, Ticket};
use crate::error::BoxError;

pub use crate::campaign::{
    Campaign, CampaignError, CampaignProgress, CampaignReport, CampaignRun, CampaignStopper, Row, RowReport, RowState,
};

/// The settings of a campaign of PAIRS queries.
pub type CampaignOptions = crate::campaign::CampaignOptions<BatchOptions>;

/// How many jobs a page of the list has, and how many pages are read to find a job.
const PAGE: u32 = 100;
const PAGES: u32 = 100;

/// For how many entries of the list without a name the history is read.
const UNNAMED: usize = 50;

/// The codes of queries that a user has stopped or deleted.
const KILLED: StatusCode = StatusCode::new(30);
const DELETED: StatusCode = StatusCode::new(31);

impl Campaign {
    /// Runs what isn't done yet, and waits until this run can do no more. `make` makes a row's
    /// query; its name on the server gets the row's put in front. PAIRS doesn't tell what queries
    /// have cost: a limit needs an [estimate](crate::campaign::CampaignOptions::estimate).
    ///
    /// ```
    /// # let server = pairs_server::Server::start(pairs_server::Config {
    /// #     run: std::time::Duration::from_millis(10), ..Default::default()
    /// # })?;
    /// # let host = server.url();
    /// # let folder = std::env::temp_dir().join(format!("fulmar-doc-queries-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// use fulmar::client::pairs::campaign::{Campaign, CampaignOptions, Row};
    /// use fulmar::client::pairs::{BatchOptions, Client, Query};
    /// use serde_json::json;
    /// use std::time::Duration;
    ///
    /// let client = Client::builder(&host).basic("me", "a password").build()?;
    /// let campaign = Campaign::open(folder.join("days.db"))?;
    /// campaign.add_rows((1..4).map(|day| json!({"day": format!("2018-11-0{day}")})))?;
    /// let make = |row: &Row| {
    ///     let day = row.get("day").as_str().unwrap_or_default();
    ///     Ok(Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).snapshot(day).build()?)
    /// };
    /// let run = BatchOptions::new()
    ///     .status_interval_floor(Duration::from_millis(10)) // A server that many share deserves the default, 15 s.
    ///     .status_interval(Duration::from_millis(50));
    /// let options = CampaignOptions::new().run_with(run).download_to(folder.join("out"));
    /// let report = campaign.run_queries(&client, make, &options)?;
    /// assert!(report.is_success(), "{report}");
    /// # drop(campaign);
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`start_queries`](Campaign::start_queries), and [`CampaignError::Ledger`] if
    /// the ledger can't be read or written. A row that fails isn't an error here.
    pub fn run_queries(
        &self,
        client: &Client,
        make: impl Fn(&Row) -> Result<Query, BoxError> + Send + Sync + 'static,
        options: &CampaignOptions,
    ) -> Result<CampaignReport, CampaignError> {
        self.start_queries(client, make, options)?.wait()
    }

    /// As [`run_queries`](Campaign::run_queries), and returns at once.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] if a limit or an estimate isn't a number, if the batch options
    /// don't submit or don't wait, or for `cancel_over_limit`, because PAIRS can't stop a query.
    /// [`CampaignError::Client`] if a batch option is invalid.
    pub fn start_queries(
        &self,
        client: &Client,
        make: impl Fn(&Row) -> Result<Query, BoxError> + Send + Sync + 'static,
        options: &CampaignOptions,
    ) -> Result<CampaignRun, CampaignError> {
        let settings = options.settings.clone();
        let mut run = options.run.clone();
        if !run.runs_all() {
            let text =
                "a campaign submits its queries and waits for them: leave `submit` on, and `status` or `download`";
            return Err(CampaignError::Invalid(text.to_owned()));
        }
        if settings.stops_jobs() {
            let text = "PAIRS stops no query that runs: leave `cancel_over_limit` off";
            return Err(CampaignError::Invalid(text.to_owned()));
        }
        if let Some(root) = &settings.root {
            run = run.folder(root);
        }
        let (client, make): (_, Arc<Make>) = (client.clone(), Arc::new(make));
        let (root, pattern) = (run.place(), settings.pattern.clone());
        self.begin(&settings, move || {
            let prepared = batch::prepare(&client, run.clone());
            let (shared, runner) = prepared.map_err(|error| CampaignError::Client(error.into()))?;
            let (host, make) = (client.host().to_owned(), Arc::clone(&make));
            let (root, pattern) = (root.clone(), pattern.clone());
            Ok((Queries { client: client.clone(), host, shared, make, root, pattern }, runner))
        })
    }
}

type Make = dyn Fn(&Row) -> Result<Query, BoxError> + Send + Sync;

/// The queries of one run.
struct Queries {
    client: Client,
    host: String,
    shared: Arc<Shared>,
    make: Arc<Make>,
    root: PathBuf,
    pattern: Option<String>,
}

impl Queries {
    /// The row's query, and the name of its files, if that isn't the id.
    fn query(&self, ticket: &Ticket) -> Result<(Query, Option<Name>), BoxError> {
        let query = (self.make)(&ticket.row)?;
        let mut name = Names::new().of(&query);
        let folder = match &self.pattern {
            None => {
                // All rows share a folder, so no two of them may have the same file name.
                if let Some(name) = &mut name {
                    name.text = ticket.diary.place(&name.text)?;
                }
                None
            }
            Some(pattern) if pattern.contains("{id}") => {
                let text = "the folder of a query is chosen before it has an id: leave {id} out of the pattern";
                return Err(CampaignError::Invalid(text.to_owned()).into());
            }
            Some(pattern) => {
                let wanted = folder::name(pattern, &ticket.row.params, &self.host, "");
                Some(self.root.join(ticket.diary.place(&wanted.map_err(CampaignError::Invalid)?)?))
            }
        };
        let title = ticket.title(query.name().unwrap_or_default());
        Ok((query.placed(&title, folder), name))
    }

    fn job(&self, ticket: &Ticket) -> Result<Job, BoxError> {
        let (query, name) = self.query(ticket)?;
        let memory = RowMemory { diary: ticket.diary.clone(), host: self.host.clone() };
        Ok(Job::new(Arc::clone(&self.shared), query, name).remembered(Box::new(memory)))
    }
}

impl Service for Queries {
    type Job = Job;

    fn make(&self, ticket: Ticket) -> Result<Job, BoxError> {
        self.job(&ticket)
    }

    /// Looks for the name in the list of queries. If the list leaves names out, it reads the
    /// histories of up to `UNNAMED` queries. It is unclear if there are more of them, or more than
    /// `PAGES` pages.
    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
        ticket.check_back_end(&self.host)?;
        let calls = self.client.once();
        let mut unnamed = Vec::new();
        for page in 1.. {
            let (list, _) = calls.list(false, page, PAGE).map_err(step_error)?;
            if let Some(found) =
                list.jobs.iter().find(|job| job.nickname.as_deref().is_some_and(|name| ticket.is_it(name)))
            {
                return Ok(Some(found.id.clone()));
            }
            if let Some(what) = list.unreadable.first() {
                return Err(JobError::retry(PairsError::Reply(format!("the list of queries may lack some: {what}"))));
            }
            let is_unnamed = |name: &Option<String>| name.as_ref().is_none_or(String::is_empty);
            unnamed.extend(list.jobs.into_iter().filter(|job| is_unnamed(&job.nickname)).map(|job| job.id));
            if u64::from(page) >= list.pages {
                break;
            }
            if page >= PAGES {
                return Err(ticket.unclear(&format!("the list of queries has more than {PAGES} pages")));
            }
        }
        if unnamed.len() > UNNAMED {
            return Err(ticket.unclear("the list of queries tells no names"));
        }
        for id in unnamed {
            match calls.history(&id) {
                Ok(history) if history.query.as_ref().and_then(Query::name).is_some_and(|name| ticket.is_it(name)) => {
                    return Ok(Some(id));
                }
                Ok(_) => {}
                Err(PairsError::Http(error)) if error.status() == Some(404) => {}
                Err(error) => return Err(step_error(error)),
            }
        }
        Ok(None)
    }

    fn adopt(&self, ticket: Ticket) -> Result<Adopted<Job>, JobError> {
        ticket.check_back_end(&self.host)?;
        // The first poll shows whether the job still exists.
        let job = self.job(&ticket).map_err(JobError::fatal)?;
        Ok(Adopted::Job(job.adopted(&ticket.job).map_err(JobError::fatal)?))
    }
}

impl ServiceJob for Job {
    fn is_made(&self) -> bool {
        Job::is_made(self)
    }

    fn is_lost(&self) -> bool {
        Job::is_lost(self)
    }

    /// How the query has ended. A failed query is an error of its poll.
    fn ending(&self) -> Ending {
        Ending::Finished
    }

    fn failure(&self, error: &JobError) -> Option<Ending> {
        match error.error::<PairsError>()? {
            PairsError::Failed { code, .. } if matches!(*code, KILLED | DELETED) => Some(Ending::Canceled),
            PairsError::Failed { .. } => Some(Ending::Failed),
            PairsError::Http(error) if error.status() == Some(404) => Some(Ending::Failed),
            _ => None,
        }
    }

    fn cost(&mut self) -> Option<f64> {
        None
    }

    fn stop(&mut self, _: &mut Context<'_>) -> Result<Stopped, JobError> {
        Err(JobError::fatal(PairsError::Invalid("PAIRS stops no query: it goes on".to_owned())))
    }

    fn files(&self, output: &QueryResult) -> Vec<PathBuf> {
        output.files.files.clone()
    }
}

/// Writes the steps of submitting a query into the campaign's ledger.
struct RowMemory {
    diary: Diary,
    host: String,
}

impl Memory for RowMemory {
    fn will_create(&self) -> Result<(), JobError> {
        Ok(self.diary.will_create(&self.host)?)
    }

    fn made(&self, id: &str) -> Result<(), JobError> {
        Ok(self.diary.made(&self.host, id)?)
    }
}

/// Turns the error of a request that isn't essential into one after which the step is called again,
/// if that may help.
fn step_error(error: PairsError) -> JobError {
    let after = match &error {
        PairsError::Http(error) => error.retry_after(),
        _ => None,
    };
    if !error.is_retryable() {
        return JobError::fatal(error);
    }
    match after {
        Some(after) => JobError::retry(error).after(after),
        None => JobError::retry(error),
    }
}
