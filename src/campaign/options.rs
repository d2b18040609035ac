//! How a campaign is run: limits, retries, folders.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::progress::CampaignProgress;

type RetryIf = Arc<dyn Fn(&(dyn Error + 'static)) -> bool + Send + Sync>;
pub(super) type OnProgress = Arc<dyn Fn(&CampaignProgress) + Send + Sync>;

/// How a campaign is run. Every setting has a default. `R` is how the service's client runs jobs:
/// its own options.
#[derive(Clone)]
#[must_use = "options are for a run of a `Campaign`"]
pub struct CampaignOptions<R> {
    pub(crate) run: R,
    pub(crate) settings: Settings,
}

/// What is the same for every service.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) limit: Option<f64>,
    pub(super) estimate: Option<f64>,
    pub(super) stops_over_limit: bool,
    pub(super) on_progress: Option<OnProgress>,
    pub(crate) attempts: u32,
    pub(super) retry_if: Option<RetryIf>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) pattern: Option<String>,
    pub(crate) settle: Duration,
}

impl<R: Default> CampaignOptions<R> {
    /// The defaults: no limit, one attempt.
    pub fn new() -> CampaignOptions<R> {
        let settings = Settings {
            limit: None,
            estimate: None,
            stops_over_limit: false,
            on_progress: None,
            attempts: 1,
            retry_if: None,
            root: None,
            pattern: None,
            settle: Duration::from_secs(60),
        };
        CampaignOptions { run: R::default(), settings }
    }
}

impl<R> CampaignOptions<R> {
    /// How jobs are run, asked about and downloaded. Its folder gives way to
    /// [`download_to`](CampaignOptions::download_to).
    pub fn run_with(mut self, options: R) -> CampaignOptions<R> {
        self.run = options;
        self
    }

    /// What all jobs of the campaign may cost together, in the back-ends' currency, those of
    /// earlier runs included. A job is made only if what was spent, what jobs at work may still
    /// cost and what it may cost itself are no more than that. Defaults to no limit.
    ///
    /// What a job may cost is the [estimate](CampaignOptions::estimate), or what the dearest so far
    /// has cost, if that is more. If neither is known, one job runs alone first. A back-end of
    /// openEO that estimates costs is asked about each job before its start. A job for which it
    /// names more than that is started only if that fits the limit; otherwise the job is deleted
    /// again, and its row waits. A job that turns out dearer than all this can pass the limit, and
    /// is the last.
    pub fn spend_at_most(mut self, limit: f64) -> CampaignOptions<R> {
        self.settings.limit = Some(limit);
        self
    }

    /// What one job may cost. Needed for a limit if the back-end doesn't tell what jobs have cost:
    /// then each counts with its estimate. So do those of earlier runs that had none.
    pub fn estimate(mut self, cost: f64) -> CampaignOptions<R> {
        self.settings.estimate = Some(cost);
        self
    }

    /// Whether jobs that run are stopped if they could pass the limit: when one turns out dearer
    /// than was estimated, those at work may cost more together than is left. The oldest that still
    /// fit go on; the others are stopped, and their rows wait for a run with a higher limit. What a
    /// stopped job has cost counts; if the back-end doesn't tell, it counts with its estimate.
    /// Defaults to no: jobs that run go on.
    pub fn cancel_over_limit(mut self, stops: bool) -> CampaignOptions<R> {
        self.settings.stops_over_limit = stops;
        self
    }

    /// Called each time a row has ended, on the thread that has ended it: how many are left, what
    /// is spent, and when it will be done. A panic in it is contained.
    pub fn on_progress(mut self, hook: impl Fn(&CampaignProgress) + Send + Sync + 'static) -> CampaignOptions<R> {
        self.settings.on_progress = Some(Arc::new(hook));
        self
    }

    /// How many jobs a row may have at most, if those before failed on the back-end, or if it
    /// refused to start them for what they are. What each has cost counts. A refusal for the
    /// account's sake, because it has no credits left, say, isn't the row's failure: its job stays,
    /// and the next run starts it. Defaults to 1.
    pub fn attempts(mut self, attempts: u32) -> CampaignOptions<R> {
        self.settings.attempts = attempts.max(1);
        self
    }

    /// Which failures are worth another attempt, if there are any left: told by the client's error,
    /// whose text has what the service said, the job's logs included; it can be downcast. Defaults
    /// to all.
    pub fn retry_if(
        mut self,
        is_worth_it: impl Fn(&(dyn Error + 'static)) -> bool + Send + Sync + 'static,
    ) -> CampaignOptions<R> {
        self.settings.retry_if = Some(Arc::new(is_worth_it));
        self
    }

    /// Where results go: below this folder. Without it openEO jobs are not downloaded, PAIRS
    /// queries go where their own options say, and a service of your own
    /// [decides](super::Ticket::folder).
    pub fn download_to(mut self, root: impl Into<PathBuf>) -> CampaignOptions<R> {
        self.settings.root = Some(root.into());
        self
    }

    /// How those folders are called: `{id}` is the job's id, `{back_end}` the back-end's name, and
    /// any other `{name}` a parameter of the row; slashes make folders. If two come to the same
    /// name, the second gets a number. Defaults to `job_{id}`, and for PAIRS to no folder of its
    /// own: there the files' names tell queries apart.
    pub fn folders(mut self, pattern: &str) -> CampaignOptions<R> {
        self.settings.pattern = Some(pattern.to_owned());
        self
    }

    /// For how long a back-end may still be making a job whose request was sent by a process that
    /// has died since. Until then no other is made in its place. Defaults to a minute.
    pub fn settle(mut self, time: Duration) -> CampaignOptions<R> {
        self.settings.settle = time;
        self
    }
}

impl<R: Default> Default for CampaignOptions<R> {
    fn default() -> Self {
        CampaignOptions::new()
    }
}

impl<R: fmt::Debug> fmt::Debug for CampaignOptions<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignOptions").field("run", &self.run).field("settings", &self.settings).finish()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("limit", &self.limit)
            .field("estimate", &self.estimate)
            .field("cancel_over_limit", &self.stops_over_limit)
            .field("attempts", &self.attempts)
            .field("root", &self.root)
            .field("pattern", &self.pattern)
            .field("settle", &self.settle)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Whether what all jobs cost is limited.
    #[cfg(feature = "openeo")]
    pub(crate) fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether jobs that run are to be stopped if they could pass the limit.
    pub(crate) fn stops_jobs(&self) -> bool {
        self.stops_over_limit
    }
}
