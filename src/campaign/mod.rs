//! Campaigns: many remote jobs out of a table, with a memory on the disk. To resume one, run the
//! same program again.
//!
//! What is to be, what was asked for, what was made and what is here stands in a ledger: a SQLite
//! file, or a schema on a PostgreSQL server. An intention is written before a job is made, and its
//! id before the next call. So a process can be killed at any moment, and the next one goes on: it
//! adopts jobs that run, makes those that are missing, and downloads what isn't here.
//!
//! ```text
//! rows ──▶ ledger ──▶ a job each, as many at once as the back-ends take ──▶ folders, ledger
//!            ▲                                                                        │
//!            └──────── killed? run the same program again ◀───────────────────────────┘
//! ```
//!
//! - **Nothing is made twice.** A job whose maker died before it knew the id is looked for in the
//!   job list by its title, which begins with a name that no other job has.
//! - **Nothing is spent beyond the limit** but by the job that turns out dearer than all before.
//! - **A refusal isn't a failure** if it is for the account's sake: no credits are left, say. The
//!   row keeps its job and all of its attempts, nothing is reserved for it, and the report says
//!   what to do before the program is run again. A job that the back-end refuses for what it is has
//!   failed.
//! - **Several processes** may run one campaign at once, of one machine with SQLite and of many
//!   with PostgreSQL, and a process may run it several times at once: each row is one run's alone.
//!   What a process held that was killed is free at once.
//!
//! It knows no service: a client makes, finds and adopts jobs for it (`service.rs`), and adds to
//! [`Campaign`] the methods that its users call. A service of your own does so by being a
//! [`RemoteService`]. For people and their tools the ledger has a view,
//! `campaign_ledger`, with a line for each job that was made or is to be made: `row_id`, `key` (a
//! digest of the parameters), `attempt`, `state` (`new`, `intended`, `made`, `finished` on the
//! back-end, `done` here, `failed`), `back_end`, `job`, `reserved`, `cost`, `folder` and `error`.

mod error;
pub(crate) mod folder;
mod ledger;
mod options;
mod owner;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
mod remote;
mod report;
mod row;
mod run;
pub(crate) mod service;
mod sqlite;
mod store;

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::batch::{Batch, BatchRunner, JobReport};
use crate::error::chain;
use crate::sync::{AtomicBool, Mutex, Ordering, interrupt};

use ledger::Ledger;
use options::Settings;
use progress::Gauge;
use run::{Outcome, RowJob, Shared};
use service::{Refused, Service};

pub use error::CampaignError;
pub use options::CampaignOptions;
pub use progress::CampaignProgress;
pub use remote::RemoteService;
pub use report::{CampaignReport, RowReport, RowState};
pub use row::Row;
pub use service::Ticket;

/// Many jobs out of a table, with a ledger on the disk.
///
/// Each client adds the methods that run its jobs: `run_jobs` for openEO back-ends, `run_queries`
/// for IBM PAIRS. [`run`](Campaign::run) is for a service of your own.
pub struct Campaign {
    ledger: Arc<Ledger>,
}

impl Campaign {
    /// Opens the ledger, or makes it. It has to be on a disk of this machine.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`] if it can't be had; [`CampaignError::Invalid`] if another version
    /// of this crate has made it, which this one doesn't know.
    pub fn open(path: impl AsRef<Path>) -> Result<Campaign, CampaignError> {
        Ok(Campaign { ledger: Arc::new(Ledger::open(path.as_ref())?) })
    }

    /// Opens the ledger in a schema of a PostgreSQL server's database, or makes it: for many
    /// machines, each with the same program. Results go to the disk of the machine that has the
    /// row, so give `download_to` a folder that all of them share. `conninfo` is a URL or libpq's
    /// `keyword=value` words, for a server and no pooler in transaction mode: that a process is at
    /// work, the server knows by its session. If a machine loses its power, its rows are free when
    /// the server notices, in half a minute; a killed process's are free at once.
    ///
    /// # Errors
    /// As for [`open`](Campaign::open). No message has the password.
    #[cfg(feature = "postgres")]
    pub fn connect(conninfo: &str, schema: &str) -> Result<Campaign, CampaignError> {
        Ok(Campaign { ledger: Arc::new(Ledger::connect(conninfo, schema)?) })
    }

    /// Adds rows, and says how many are new: a row with the same parameters is the same row,
    /// whatever their order, so that the same table can be added again. All of them are added or
    /// none.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn add_rows(&self, rows: impl IntoIterator<Item = Value>) -> Result<usize, CampaignError> {
        let rows: Vec<(String, String)> =
            rows.into_iter().map(|params| (row::key_of(&params), params.to_string())).collect();
        self.ledger.add(&rows)
    }

    /// Adds rows out of a table in CSV, with the names of the parameters in its first line. Every
    /// value is a text, and an empty cell is null. To have numbers and other values as the
    /// parameters of a process want them, read it with `client::openeo::parameters_from_csv`.
    ///
    /// ```
    /// # let folder = std::env::temp_dir().join(format!("fulmar-doc-csv-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # use fulmar::campaign::Campaign;
    /// # use serde_json::json;
    /// let campaign = Campaign::open(folder.join("tiles.db"))?;
    /// assert_eq!(campaign.add_csv("tile,day\n31UFS,2024-06-01\n31UFT,\n".as_bytes())?, 2);
    /// assert_eq!(campaign.report()?.rows[1].params, json!({"tile": "31UFT", "day": null}));
    /// # drop(campaign);
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] names the line that isn't CSV, or that has more or fewer cells
    /// than the first, or the name that two columns have; then nothing is added.
    pub fn add_csv(&self, table: impl Read) -> Result<usize, CampaignError> {
        self.add_rows(row::from_csv(table).map_err(CampaignError::Invalid)?)
    }

    /// Adds rows out of a text of one JSON value a line; empty lines are passed over.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] names the first line that isn't JSON, and nothing is added.
    pub fn add_json_lines(&self, text: impl Read) -> Result<usize, CampaignError> {
        let mut rows = Vec::new();
        for (index, line) in BufReader::new(text).lines().enumerate() {
            let invalid = |why: String| CampaignError::Invalid(format!("line {} of the rows: {why}", index + 1));
            let line = line.map_err(|error| invalid(error.to_string()))?;
            if !line.trim().is_empty() {
                rows.push(serde_json::from_str(&line).map_err(|error| invalid(error.to_string()))?);
            }
        }
        self.add_rows(rows)
    }

    /// Lets rows that have failed for good be tried again, and says how many there are. What they
    /// have cost stays in the account.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn retry_failed(&self) -> Result<usize, CampaignError> {
        self.ledger.retry_failed()
    }

    /// How it stands.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn report(&self) -> Result<CampaignReport, CampaignError> {
        Ok(CampaignReport::new(self.ledger.entries()?, self.ledger.totals()?, None))
    }

    /// Starts what isn't done yet. `prepare` makes what is used for one pass over the rows.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] for a limit or an estimate that isn't a number, and what
    /// `prepare` says.
    pub(crate) fn begin<S: Service>(
        &self,
        settings: &Settings,
        prepare: impl Fn() -> Result<(S, BatchRunner), CampaignError> + Send + Sync + 'static,
    ) -> Result<CampaignRun, CampaignError> {
        for (name, value) in [("spend_at_most", settings.limit), ("estimate", settings.estimate)] {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
                return Err(CampaignError::Invalid(format!(
                    "{name}({value}) is out of range: give a number of 0 or more"
                )));
            }
        }
        if settings.limit.is_some() {
            self.ledger.count_untold(settings.estimate)?;
        }
        let ledger = Arc::clone(&self.ledger);
        let gauge = Arc::new(Gauge::new(&ledger, settings)?);
        let (own, settings_of, told) = (Arc::clone(&ledger), settings.clone(), Arc::clone(&gauge));
        let start = move || {
            let (service, runner) = prepare()?;
            let stops_jobs = Arc::new(AtomicBool::new(false));
            let shared = Arc::new(Shared {
                ledger: Arc::clone(&own),
                service,
                settings: settings_of.clone(),
                stops_jobs: Arc::clone(&stops_jobs),
                gauge: Arc::clone(&told),
                beyond: Mutex::new(None),
            });
            let ids = Arc::new(own.open_rows()?);
            let batch = Arc::new(runner.start(ids.iter().map(|id| RowJob::new(&shared, *id))));
            Ok(Round { ids, stops_jobs, batch })
        };
        let first = start()?;
        let (round, is_over) = (Mutex::new(first), AtomicBool::new(false));
        let work = Work { ledger, settings: settings.clone(), gauge, start: Box::new(start), round, is_over };
        Ok(CampaignRun { work: Arc::new(work) })
    }
}

impl fmt::Debug for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Campaign").field("path", &self.ledger.path()).finish_non_exhaustive()
    }
}

/// A campaign at work. Dropping it changes nothing: the jobs go on.
pub struct CampaignRun {
    work: Arc<Work>,
}

type Start = dyn Fn() -> Result<Round, CampaignError> + Send + Sync;

struct Work {
    ledger: Arc<Ledger>,
    settings: Settings,
    gauge: Arc<Gauge>,
    start: Box<Start>,
    round: Mutex<Round>,
    /// Whether no other round is to follow.
    is_over: AtomicBool,
}

/// One pass over all rows that are open.
#[derive(Clone)]
struct Round {
    ids: Arc<Vec<i64>>,
    stops_jobs: Arc<AtomicBool>,
    batch: Arc<Batch<Outcome>>,
}

impl Work {
    fn stop(&self, stops_jobs: bool) {
        let round = {
            // The lock orders it with a round that is about to begin.
            let round = self.round.lock();
            self.is_over.store(true, Ordering::Relaxed);
            round.clone()
        };
        // Without the lock: a hook that hears of it may stop the run, too.
        round.stops_jobs.store(stops_jobs, Ordering::Relaxed);
        round.batch.cancel();
    }
}

impl CampaignRun {
    /// Waits until this run can do no more. If the operation that calls this is cancelled, that is
    /// soon, as after [`detach`](CampaignRun::detach).
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn wait(self) -> Result<CampaignReport, CampaignError> {
        let work = &self.work;
        let stopper = self.stopper();
        let _hook = interrupt::on_cancel(move || stopper.detach());
        let mut gave_back = false;
        loop {
            let round = work.round.lock().clone();
            let ended = round.batch.wait_through().map_err(|error| CampaignError::Client(error.into()))?;
            for job in &ended.jobs {
                if let (Err(failure), Some(id)) = (&job.outcome, round.ids.get(job.index)) {
                    work.ledger.note(*id, &chain(failure))?;
                }
            }
            let count = |outcome| ended.jobs.iter().filter(|job| job.outcome.as_ref().ok() == Some(&outcome)).count();
            // Rows that gave way to jobs of a process that has died since, which are out of the
            // way. Without progress once at most: jobs that this run has made give money back, too.
            let goes_on = count(Outcome::Done) > 0 || count(Outcome::Unmade) > 0 && !mem::replace(&mut gave_back, true);
            if count(Outcome::Deferred) > 0 && goes_on && ended.stopped.is_none() {
                let mut round = work.round.lock();
                if !work.is_over.load(Ordering::Relaxed) {
                    *round = (work.start)()?;
                    continue;
                }
            }
            let mut report = CampaignReport::new(work.ledger.entries()?, work.ledger.totals()?, work.settings.limit);
            report.over_budget = count(Outcome::OverBudget) + count(Outcome::Unmade);
            report.elsewhere = count(Outcome::Elsewhere);
            let refused = |job: &JobReport<Outcome>| Some(job.outcome.as_ref().err()?.error::<Refused>()?.remedy);
            let remedies: Vec<&str> = ended.jobs.iter().filter_map(refused).collect();
            (report.refused, report.remedy) = (remedies.len(), remedies.first().copied());
            return Ok(report);
        }
    }

    /// How far it has come, what is spent, and when it will be done.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn progress(&self) -> Result<CampaignProgress, CampaignError> {
        self.work.gauge.read()
    }

    /// What stops this run from another thread while [`wait`](CampaignRun::wait) waits for it: from
    /// one that gets the Ctrl-C, say.
    pub fn stopper(&self) -> CampaignStopper {
        CampaignStopper { work: Arc::clone(&self.work) }
    }

    /// As [`CampaignStopper::detach`].
    pub fn detach(&self) {
        self.work.stop(false);
    }

    /// As [`CampaignStopper::cancel`].
    pub fn cancel(&self) {
        self.work.stop(true);
    }
}

impl fmt::Debug for CampaignRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignRun")
            .field("path", &self.work.ledger.path())
            .field("settings", &self.work.settings)
            .finish_non_exhaustive()
    }
}

/// Stops a [`CampaignRun`] from any thread.
#[derive(Clone)]
pub struct CampaignStopper {
    work: Arc<Work>,
}

impl CampaignStopper {
    /// Starts nothing more, and leaves jobs on the back-ends as they are, those that run included:
    /// a later run goes on with them. [`wait`](CampaignRun::wait) returns, and its report says how
    /// to go on. For Ctrl-C.
    pub fn detach(&self) {
        self.work.stop(false);
    }

    /// Starts nothing more, stops jobs that run, and deletes those that were made and never
    /// started. A later run makes them again.
    pub fn cancel(&self) {
        self.work.stop(true);
    }
}

impl fmt::Debug for CampaignStopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignStopper").field("path", &self.work.ledger.path()).finish_non_exhaustive()
    }
}
