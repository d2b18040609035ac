//! Campaigns: many jobs out of a table, with a memory on the disk. To resume one, run the same
//! program again.
//!
//! What is to be, what was asked for, what was made and what is here stands in a ledger: a SQLite
//! file. An intention is written before a job is made, and its id before the next call. So a
//! process can be killed at any moment, and the next one goes on: it adopts jobs that run, makes
//! those that are missing, and downloads what isn't here.
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
//! - **Several processes** of one machine may run one campaign at once: each row is one's alone.
//!   What a process held that was killed is free at once.

mod error;
mod folder;
mod ledger;
mod options;
mod owner;
mod progress;
mod report;
mod row;
mod run;

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::jobs::new_job::NewJob;
use super::many::{self, BackEnd};
use crate::batch::Batch;
use crate::error::BoxError;
use crate::sync::{AtomicBool, Mutex, Ordering};

use ledger::Ledger;
use progress::Gauge;
use run::{Make, Outcome, RowJob, Shared, words};

pub use error::CampaignError;
pub use options::CampaignOptions;
pub use progress::CampaignProgress;
pub use report::{CampaignReport, RowReport, RowState};
pub use row::Row;

/// Many jobs out of a table, with a ledger on the disk.
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

    /// Adds rows, and says how many are new: a row with the same parameters is the same row, whatever
    /// their order, so that the same table can be added again. All of them are added or none.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn add_rows(&self, rows: impl IntoIterator<Item = Value>) -> Result<usize, CampaignError> {
        let rows: Vec<(String, String)> =
            rows.into_iter().map(|params| (row::key_of(&params), params.to_string())).collect();
        self.ledger.add(&rows)
    }

    /// Adds rows out of a text of one JSON value a line; empty lines are passed over. For CSV there is
    /// [`parameters_from_csv`](super::parameters_from_csv).
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] names the first line that is no JSON, and nothing is added.
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

    /// Runs what isn't done yet, and waits until this run can do no more. `make` makes a row's job;
    /// its title gets the row's name put in front.
    ///
    /// # Errors
    /// As for [`start_jobs`](Campaign::start_jobs), and [`CampaignError::Ledger`]. A row that fails
    /// is no error here.
    pub fn run_jobs(
        &self,
        back_ends: impl IntoIterator<Item = BackEnd>,
        make: impl Fn(&Row) -> Result<NewJob, BoxError> + Send + Sync + 'static,
        options: &CampaignOptions,
    ) -> Result<CampaignReport, CampaignError> {
        self.start_jobs(back_ends, make, options)?.wait()
    }

    /// As [`run_jobs`](Campaign::run_jobs), and returns at once.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] for two back-ends of one name, and for a limit or an estimate that
    /// is no number; [`OpenEoError::Invalid`](super::OpenEoError::Invalid), if there is no back-end,
    /// or one that takes no job.
    pub fn start_jobs(
        &self,
        back_ends: impl IntoIterator<Item = BackEnd>,
        make: impl Fn(&Row) -> Result<NewJob, BoxError> + Send + Sync + 'static,
        options: &CampaignOptions,
    ) -> Result<CampaignRun, CampaignError> {
        let invalid = |text: String| Err(CampaignError::Invalid(text));
        let back_ends: Vec<BackEnd> = back_ends.into_iter().collect();
        // The ledger knows them by their names.
        for (index, back_end) in back_ends.iter().enumerate() {
            if back_ends[..index].iter().any(|other| other.name == back_end.name) {
                return invalid(format!("two back-ends are called {:?}: give them names of their own", back_end.name));
            }
        }
        for (name, value) in [("spend_at_most", options.limit), ("estimate", options.estimate)] {
            if let Some(value) = value.filter(|value| !value.is_finite() || *value < 0.0) {
                return invalid(format!("{name}({value}) makes no sense: give a number from 0 on"));
            }
        }
        let (ledger, make): (_, Arc<Make>) = (Arc::clone(&self.ledger), Arc::new(make));
        let gauge = Arc::new(Gauge::new(&ledger, options)?);
        let (round, is_over) = (Mutex::new(None), AtomicBool::new(false));
        let work = Work { ledger, make, back_ends, options: options.clone(), gauge, round, is_over };
        let first = work.start_round()?;
        *work.round.lock() = Some(first);
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

struct Work {
    ledger: Arc<Ledger>,
    make: Arc<Make>,
    back_ends: Vec<BackEnd>,
    options: CampaignOptions,
    gauge: Arc<Gauge>,
    round: Mutex<Option<Round>>,
    /// Whether no other round is to follow.
    is_over: AtomicBool,
}

/// One pass over all rows that are open.
#[derive(Clone)]
struct Round {
    ids: Arc<Vec<i64>>,
    shared: Arc<Shared>,
    batch: Arc<Batch<Outcome>>,
}

impl Work {
    fn start_round(&self) -> Result<Round, CampaignError> {
        let mut run = self.options.run.clone();
        run.folder.clone_from(&self.options.root);
        let (many, runner) = many::prepare(self.back_ends.iter().cloned(), &run)?;
        let shared = Arc::new(Shared {
            ledger: Arc::clone(&self.ledger),
            many,
            make: Arc::clone(&self.make),
            options: self.options.clone(),
            stops_jobs: AtomicBool::new(false),
            gauge: Arc::clone(&self.gauge),
            beyond: Mutex::new(None),
        });
        let ids = Arc::new(self.ledger.open_rows()?);
        let batch = Arc::new(runner.start(ids.iter().map(|id| RowJob::new(&shared, *id))));
        Ok(Round { ids, shared, batch })
    }

    fn stop(&self, stops_jobs: bool) {
        let round = {
            // The lock orders it with a round that is about to begin.
            let round = self.round.lock();
            self.is_over.store(true, Ordering::Relaxed);
            round.clone()
        };
        // Without the lock: a hook that hears of it may stop the run, too.
        if let Some(round) = round {
            round.shared.stops_jobs.store(stops_jobs, Ordering::Relaxed);
            round.batch.cancel();
        }
    }
}

impl CampaignRun {
    /// Waits until this run can do no more.
    ///
    /// # Errors
    /// [`CampaignError::Ledger`].
    pub fn wait(self) -> Result<CampaignReport, CampaignError> {
        let work = &self.work;
        loop {
            let round = work.round.lock().clone();
            let Some(round) = round else { return Err(CampaignError::Invalid("the run wasn't started".to_owned())) };
            let ended = round.batch.wait(None).map_err(super::OpenEoError::from)?;
            for job in &ended.jobs {
                if let (Err(failure), Some(id)) = (&job.outcome, round.ids.get(job.index)) {
                    work.ledger.note(*id, &words(failure))?;
                }
            }
            let count = |outcome| ended.jobs.iter().filter(|job| job.outcome.as_ref().ok() == Some(&outcome)).count();
            // Rows that gave way to jobs of a process that has died since; those come first now.
            if count(Outcome::Deferred) > 0 && count(Outcome::Done) > 0 && ended.stopped.is_none() {
                let mut round = work.round.lock();
                if !work.is_over.load(Ordering::Relaxed) {
                    *round = Some(work.start_round()?);
                    continue;
                }
            }
            let mut report = CampaignReport::new(work.ledger.entries()?, work.ledger.totals()?, work.options.limit);
            (report.over_budget, report.elsewhere) = (count(Outcome::OverBudget), count(Outcome::Elsewhere));
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
            .field("options", &self.work.options)
            .finish_non_exhaustive()
    }
}

/// Stops a [`CampaignRun`] from any thread.
#[derive(Clone)]
pub struct CampaignStopper {
    work: Arc<Work>,
}

impl CampaignStopper {
    /// Starts nothing more, and leaves jobs on the back-ends as they are, those that run included: a
    /// later run goes on with them. [`wait`](CampaignRun::wait) returns, and its report says how to
    /// go on. For Ctrl-C.
    pub fn detach(&self) {
        self.work.stop(false);
    }

    /// Starts nothing more, stops jobs that run, and deletes those that were made and never started.
    /// A later run makes them again.
    pub fn cancel(&self) {
        self.work.stop(true);
    }
}

impl fmt::Debug for CampaignStopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignStopper").field("path", &self.work.ledger.path()).finish_non_exhaustive()
    }
}
