//! How far a campaign has come while it runs, and how long the rest will take.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::CampaignError;
use super::ledger::{Counts, Ledger};
use super::options::Settings;
use crate::panics;

/// How a campaign stands while it runs, the rows of other processes included.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CampaignProgress {
    /// All rows.
    pub rows: usize,
    /// Rows that are done.
    pub done: usize,
    /// Rows that have failed for good.
    pub failed: usize,
    /// Rows that have a job, or may have one, and aren't done.
    pub at_work: usize,
    /// Rows that have no job yet.
    pub waiting: usize,
    /// What all jobs have cost so far.
    pub spent: f64,
    /// What jobs at work may still cost, if there is a limit.
    pub reserved: f64,
    /// What the limit leaves beyond those two, if there is a limit.
    pub left: Option<f64>,
    /// How long this run has been at work.
    pub elapsed: Duration,
    /// How long the rest will take, if it goes on as since the beginning of this run. `None` until
    /// this run has seen a row end. Rows that the limit leaves no money for count like all others.
    pub remaining: Option<Duration>,
}

impl CampaignProgress {
    fn new(counts: &Counts, ended_before: usize, elapsed: Duration, limit: Option<f64>) -> CampaignProgress {
        let Counts { done, failed, at_work, waiting, spent, reserved } = *counts;
        let ended = (done + failed).saturating_sub(ended_before);
        let open = at_work + waiting;
        let remaining = match (open, ended) {
            (0, _) => Some(Duration::ZERO),
            (_, 0) => None,
            _ => Duration::try_from_secs_f64(elapsed.as_secs_f64() * open as f64 / ended as f64).ok(),
        };
        let left = limit.map(|limit| (limit - spent - reserved).max(0.0));
        let rows = done + failed + open;
        CampaignProgress { rows, done, failed, at_work, waiting, spent, reserved, left, elapsed, remaining }
    }
}

impl fmt::Display for CampaignProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CampaignProgress { rows, done, failed, at_work, waiting, spent, .. } = self;
        write!(f, "{done} of {rows} done, {failed} failed, {at_work} at work, {waiting} waiting; spent {spent}")?;
        if let Some(left) = self.left {
            write!(f, ", left {left}")?;
        }
        match self.remaining {
            Some(remaining) => write!(f, "; {} s to go", remaining.as_secs_f64().ceil()),
            None => Ok(()),
        }
    }
}

/// What reads the progress of one run, and tells it.
pub(super) struct Gauge {
    ledger: Arc<Ledger>,
    settings: Settings,
    began: Instant,
    /// Rows that had ended before this run began.
    ended_before: usize,
}

impl Gauge {
    pub(super) fn new(ledger: &Arc<Ledger>, settings: &Settings) -> Result<Gauge, CampaignError> {
        let counts = ledger.counts()?;
        let ended_before = counts.done + counts.failed;
        Ok(Gauge { ledger: Arc::clone(ledger), settings: settings.clone(), began: Instant::now(), ended_before })
    }

    pub(super) fn read(&self) -> Result<CampaignProgress, CampaignError> {
        let counts = self.ledger.counts()?;
        Ok(CampaignProgress::new(&counts, self.ended_before, self.began.elapsed(), self.settings.limit))
    }

    /// A row has ended.
    pub(super) fn tell(&self) {
        // A ledger that can't be read now is told of by the next call that has to read it.
        if let (Some(hook), Ok(progress)) = (&self.settings.on_progress, self.read()) {
            panics::contain(|| hook(&progress));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_it_has_gone_so_far() {
        let counts = Counts { done: 30, failed: 10, at_work: 10, waiting: 50, spent: 60.0, reserved: 20.0 };
        let of = |before| CampaignProgress::new(&counts, before, Duration::from_secs(100), Some(90.0));
        let progress = of(20);
        assert_eq!(progress.remaining, Some(Duration::from_secs(300)), "20 ended in 100 s, and 60 are left");
        assert_eq!((progress.rows, progress.left), (100, Some(10.0)));
        let text = "30 of 100 done, 10 failed, 10 at work, 50 waiting; spent 60, left 10; 300 s to go";
        assert_eq!(progress.to_string(), text);
        assert_eq!(of(40).remaining, None, "nothing is known yet");
        let over = Counts { at_work: 0, waiting: 0, ..counts };
        assert_eq!(CampaignProgress::new(&over, 40, Duration::ZERO, None).remaining, Some(Duration::ZERO));
    }
}
