//! What became of a campaign: every row of its ledger, and the sums.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use super::error::CampaignError;
use super::ledger::{Entry, State, Totals};

/// How a campaign stands after a run: every row, those of earlier runs and of other processes
/// included.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CampaignReport {
    /// Every row, in the order in which they were added.
    pub rows: Vec<RowReport>,
    /// What all jobs have cost so far, in the back-ends' currency. A job whose cost the back-end
    /// doesn't tell counts with its estimate.
    pub spent: f64,
    /// What jobs at work may still cost, if there is a limit.
    pub reserved: f64,
    /// What the limit leaves beyond those two, if there is a limit.
    pub left: Option<f64>,
    /// Rows that got no job in this run, or whose job was stopped, because it could have passed the
    /// limit.
    pub over_budget: usize,
    /// Rows that a back-end refused in this run for its own or the account's sake: it has no
    /// credits left, say, or the login isn't good any more. Nothing is reserved for them, and they
    /// have lost no attempt. Their errors say what to do.
    pub refused: usize,
    /// What to do about the first of these.
    pub(super) remedy: Option<&'static str>,
    /// Rows that another process, or another run of this campaign, was at work on.
    pub elsewhere: usize,
}

/// How one row stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RowReport {
    /// What it was added as.
    pub params: Value,
    /// How far it has come.
    pub state: RowState,
    /// The number of its last attempt, from 1.
    pub attempt: u32,
    /// The name of the back-end that has its job.
    pub back_end: Option<String>,
    /// The id of its job.
    pub job: Option<String>,
    /// What its last job has cost, if that is known.
    pub cost: Option<f64>,
    /// The folder of its results, below the root.
    pub folder: Option<PathBuf>,
    /// The files of its results.
    pub files: Vec<PathBuf>,
    /// Why it failed, or why it hasn't come further.
    pub error: Option<String>,
}

/// How far a row has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RowState {
    /// It has no job yet.
    Waiting,
    /// Its job is made, or may be; a run goes on with it.
    Started,
    /// Its job has finished on the back-end, and its results aren't here yet.
    Finished,
    /// Its results are here; or its job has finished, if nothing is downloaded.
    Done,
    /// It has failed for good. [`retry_failed`](super::Campaign::retry_failed) lets it be tried
    /// again.
    Failed,
}

impl fmt::Display for RowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RowState::Waiting => "waiting",
            RowState::Started => "started",
            RowState::Finished => "finished",
            RowState::Done => "done",
            RowState::Failed => "failed",
        })
    }
}

impl CampaignReport {
    /// The report of these rows and sums. `left` isn't below 0. The caller sets how many
    /// were over budget, refused or elsewhere, and the remedy.
    pub(super) fn new(entries: Vec<Entry>, totals: Totals, limit: Option<f64>) -> CampaignReport {
        let Totals { spent, reserved } = totals;
        let left = limit.map(|limit| (limit - spent - reserved).max(0.0));
        let rows = entries.into_iter().map(RowReport::new).collect();
        CampaignReport { rows, spent, reserved, left, over_budget: 0, refused: 0, remedy: None, elsewhere: 0 }
    }

    /// Whether every row is done.
    pub fn is_success(&self) -> bool {
        self.rows.iter().all(|row| row.state == RowState::Done)
    }

    /// How many rows stand like that.
    pub fn count(&self, state: RowState) -> usize {
        self.rows.iter().filter(|row| row.state == state).count()
    }

    /// The rows that aren't done and say why.
    pub fn failures(&self) -> impl Iterator<Item = &RowReport> {
        self.rows.iter().filter(|row| row.state != RowState::Done && row.error.is_some())
    }

    /// Writes all rows as CSV: `params`, as JSON, then `state`, `attempt`, `back_end`, `job`,
    /// `cost`, `folder` and `error`.
    ///
    /// # Errors
    /// [`CampaignError::Invalid`] with what `to` says.
    pub fn write_csv(&self, to: impl Write) -> Result<(), CampaignError> {
        let broken = |error: csv::Error| CampaignError::Invalid(format!("the summary can't be written: {error}"));
        let mut table = csv::Writer::from_writer(to);
        let header = ["params", "state", "attempt", "back_end", "job", "cost", "folder", "error"];
        table.write_record(header).map_err(broken)?;
        for row in &self.rows {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let cells = [
                row.params.to_string(),
                row.state.to_string(),
                row.attempt.to_string(),
                text(&row.back_end),
                text(&row.job),
                row.cost.map_or_else(String::new, |cost| cost.to_string()),
                row.folder.as_ref().map_or_else(String::new, |folder| folder.display().to_string()),
                text(&row.error),
            ];
            table.write_record(cells).map_err(broken)?;
        }
        table.flush().map_err(|error| broken(error.into()))
    }
}

impl RowReport {
    /// Turns a row of the ledger into its report. `Intended` and `Made` are both reported as
    /// `Started`: in either case the service may have a job of this row.
    fn new(entry: Entry) -> RowReport {
        let state = match entry.state {
            State::New => RowState::Waiting,
            State::Intended | State::Made => RowState::Started,
            State::Finished => RowState::Finished,
            State::Done => RowState::Done,
            State::Failed => RowState::Failed,
        };
        RowReport {
            params: entry.params,
            state,
            attempt: entry.attempt,
            back_end: entry.back_end,
            job: entry.job,
            cost: entry.cost,
            folder: entry.folder.map(PathBuf::from),
            files: entry.files,
            error: entry.error,
        }
    }
}

impl fmt::Display for CampaignReport {
    /// Writes one line: how many rows stand how, what is spent and left, and what the user can do
    /// to go on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} done", self.count(RowState::Done), self.rows.len())?;
        for state in [RowState::Failed, RowState::Finished, RowState::Started, RowState::Waiting] {
            match self.count(state) {
                0 => {}
                count => write!(f, ", {count} {state}")?,
            }
        }
        write!(f, "; spent {}", self.spent)?;
        if self.reserved > 0.0 {
            write!(f, ", reserved {}", self.reserved)?;
        }
        if let Some(left) = self.left {
            write!(f, ", left {left}")?;
        }
        let open = self.rows.len() - self.count(RowState::Done) - self.count(RowState::Failed);
        if open > self.over_budget + self.elsewhere {
            f.write_str("; to go on, run the same program again")?;
        }
        if self.over_budget > 0 {
            write!(f, "; {} rows wait for a higher limit", self.over_budget)?;
        }
        if let Some(remedy) = self.remedy {
            write!(f, "; the back-end refused {} rows: {remedy}", self.refused)?;
        }
        Ok(())
    }
}
