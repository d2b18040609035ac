//! How a campaign is run: limits, retries, folders.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::many::RunOptions;

use super::progress::CampaignProgress;

type RetryIf = Arc<dyn Fn(&OpenEoError) -> bool + Send + Sync>;
pub(super) type OnProgress = Arc<dyn Fn(&CampaignProgress) + Send + Sync>;

/// How a campaign is run. Every setting has a default.
#[derive(Clone)]
#[must_use = "options are for `Campaign::run_jobs`"]
pub struct CampaignOptions {
    pub(super) run: RunOptions,
    pub(super) limit: Option<f64>,
    pub(super) estimate: Option<f64>,
    pub(super) stops_over_limit: bool,
    pub(super) on_progress: Option<OnProgress>,
    pub(super) attempts: u32,
    pub(super) retry_if: Option<RetryIf>,
    pub(super) root: Option<PathBuf>,
    pub(super) pattern: String,
    pub(super) settle: Duration,
}

impl CampaignOptions {
    /// The defaults: no limit, one attempt, no downloads.
    pub fn new() -> CampaignOptions {
        CampaignOptions {
            run: RunOptions::new(),
            limit: None,
            estimate: None,
            stops_over_limit: false,
            on_progress: None,
            attempts: 1,
            retry_if: None,
            root: None,
            pattern: "job_{id}".to_owned(),
            settle: Duration::from_secs(60),
        }
    }

    /// How jobs are run, asked about and downloaded. Its folder gives way to
    /// [`download_to`](CampaignOptions::download_to).
    pub fn run_with(mut self, options: RunOptions) -> CampaignOptions {
        self.run = options;
        self
    }

    /// What all jobs of the campaign may cost together, in the back-ends' currency, those of earlier
    /// runs included. A job is made only if what was spent, what jobs at work may still cost and what
    /// it may cost itself are no more than that. Defaults to no limit.
    ///
    /// What a job may cost is the [estimate](CampaignOptions::estimate), or what the dearest so far
    /// has cost, if that is more. If neither is known, one job runs alone first. A job that turns
    /// out dearer than that can pass the limit, and is the last.
    pub fn spend_at_most(mut self, limit: f64) -> CampaignOptions {
        self.limit = Some(limit);
        self
    }

    /// What one job may cost. Needed for a limit if the back-end doesn't tell what jobs have cost.
    pub fn estimate(mut self, cost: f64) -> CampaignOptions {
        self.estimate = Some(cost);
        self
    }

    /// Whether jobs that run are stopped if they could pass the limit: when one turns out dearer
    /// than was estimated, those at work may cost more together than is left. The oldest that still
    /// fit go on; the others are stopped, and their rows wait for a run with a higher limit. What a
    /// stopped job has cost counts; if the back-end doesn't tell, it counts with its estimate.
    /// Defaults to no: jobs that run go on.
    pub fn cancel_over_limit(mut self, stops: bool) -> CampaignOptions {
        self.stops_over_limit = stops;
        self
    }

    /// Called each time a row has ended, on the thread that has ended it: how many are left, what is
    /// spent, and when it will be done. A panic in it is contained.
    pub fn on_progress(mut self, hook: impl Fn(&CampaignProgress) + Send + Sync + 'static) -> CampaignOptions {
        self.on_progress = Some(Arc::new(hook));
        self
    }

    /// How many jobs a row may have at most, if those before failed on the back-end. What each has
    /// cost counts. Defaults to 1.
    pub fn attempts(mut self, attempts: u32) -> CampaignOptions {
        self.attempts = attempts.max(1);
        self
    }

    /// Which failures are worth another attempt, if there are any left: told by the error, which
    /// has the job's logs. Defaults to all.
    pub fn retry_if(mut self, is_worth_it: impl Fn(&OpenEoError) -> bool + Send + Sync + 'static) -> CampaignOptions {
        self.retry_if = Some(Arc::new(is_worth_it));
        self
    }

    /// Downloads the results, each row's to a folder of its own below this one.
    pub fn download_to(mut self, root: impl Into<PathBuf>) -> CampaignOptions {
        self.root = Some(root.into());
        self
    }

    /// How those folders are called: `{id}` is the job's id, `{back_end}` the back-end's name, and
    /// any other `{name}` a parameter of the row; slashes make folders. If two come to the same
    /// name, the second gets a number. Defaults to `job_{id}`.
    pub fn folders(mut self, pattern: &str) -> CampaignOptions {
        self.pattern = pattern.to_owned();
        self
    }

    /// For how long a back-end may still be making a job whose request was sent by a process that
    /// has died since. Until then no other is made in its place. Defaults to a minute.
    pub fn settle(mut self, time: Duration) -> CampaignOptions {
        self.settle = time;
        self
    }
}

impl Default for CampaignOptions {
    fn default() -> Self {
        CampaignOptions::new()
    }
}

impl fmt::Debug for CampaignOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignOptions")
            .field("limit", &self.limit)
            .field("estimate", &self.estimate)
            .field("cancel_over_limit", &self.stops_over_limit)
            .field("attempts", &self.attempts)
            .field("root", &self.root)
            .field("pattern", &self.pattern)
            .field("settle", &self.settle)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}
