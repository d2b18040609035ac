//! The settings of a batch, and its start.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::job::RemoteJob;
#[cfg(feature = "progress")]
use super::progress;
use super::report::BatchReport;
use super::run::{Batch, Tell};
use super::window::Rules;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::executor::Executor;

/// Runs batches of [remote jobs](RemoteJob). Cheap to clone, and good for any number of batches, also at once.
#[derive(Clone)]
pub struct BatchRunner {
    executor: Executor,
    rules: Rules,
    time_limit: Option<Duration>,
    tell: Option<Arc<Tell>>,
    #[cfg(feature = "progress")]
    progress: bool,
}

/// Settings of a [`BatchRunner`].
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct BatchRunnerBuilder {
    executor: Option<Executor>,
    rules: Rules,
    time_limit: Option<Duration>,
    tell: Option<Arc<Tell>>,
    #[cfg(feature = "progress")]
    progress: bool,
}

impl BatchRunner {
    /// Settings, with their defaults.
    pub fn builder() -> BatchRunnerBuilder {
        BatchRunnerBuilder {
            executor: None,
            rules: Rules {
                window: 8,
                at_once: 8,
                poll: Backoff::new(Duration::from_secs(1)).factor(1.25).cap(Duration::from_secs(60)).jitter(0.1),
                attempts: 10,
                backoff: Backoff::new(Duration::from_millis(500)).cap(Duration::from_secs(60)).jitter(0.5),
                job_time_limit: None,
                max_failures: None,
                deadline: None,
                seed: 0,
            },
            time_limit: None,
            tell: None,
            #[cfg(feature = "progress")]
            progress: false,
        }
    }

    /// Runs `jobs` and waits until each has ended. What became of them is in the report: a job that failed is no error here.
    ///
    /// In an operation of the same executor the wait lends its thread to the steps.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] in a step or a callback of this very batch.
    pub fn run<J: RemoteJob>(&self, jobs: impl IntoIterator<Item = J>) -> Result<BatchReport<J::Output>> {
        self.start(jobs).wait(None)
    }

    /// Starts `jobs`, and returns at once. They are collected first, on this thread. On an executor that is shut down they all
    /// end as [stopped](super::JobFailure::Stopped).
    ///
    /// Each step is a request of the executor, and counts in its [`Stats`](crate::Stats). A shutdown of the executor ends the
    /// batch: steps at work are finished, and jobs in flight are reported as stopped, with a note.
    pub fn start<J: RemoteJob>(&self, jobs: impl IntoIterator<Item = J>) -> Batch<J::Output> {
        let jobs: Vec<J> = jobs.into_iter().collect();
        let began = Instant::now();
        let deadline = self.time_limit.and_then(|limit| began.checked_add(limit));
        // Each batch has a seed of its own, so that those who began together don't poll together.
        let seed = RandomState::new().build_hasher().finish();
        let rules = Rules { deadline, seed, ..self.rules };
        let listeners = self.listeners(jobs.len());
        Batch::start(self.executor.clone(), jobs, began, rules, listeners)
    }

    fn listeners(&self, _jobs: usize) -> Vec<Arc<Tell>> {
        let own = self.tell.iter().cloned();
        #[cfg(feature = "progress")]
        let own = own.chain(self.progress.then(|| progress::on_stderr(_jobs)));
        own.collect()
    }
}

impl BatchRunnerBuilder {
    /// Where steps run. Defaults to [`Executor::global`]. Steps are never refused for a full queue.
    pub fn executor(mut self, executor: &Executor) -> BatchRunnerBuilder {
        self.executor = Some(executor.clone());
        self
    }

    /// How many jobs are in flight at most: begun, and not ended. Defaults to 8.
    pub fn window(mut self, jobs: usize) -> BatchRunnerBuilder {
        self.rules.window = jobs;
        self
    }

    /// How many steps are at work at most, each on a thread of the executor. Defaults to 8; more than the executor has
    /// threads is of no use.
    pub fn at_once(mut self, steps: usize) -> BatchRunnerBuilder {
        self.rules.at_once = steps;
        self
    }

    /// When to ask about a job: the first delay after its submission, and so on, each counted from the answer before.
    /// Where the service says when, that wins, between the first delay and an hour. Defaults to 1 s growing by a quarter to
    /// 60 s, less up to a tenth so that jobs submitted together aren't polled together.
    pub fn poll(mut self, schedule: Backoff) -> BatchRunnerBuilder {
        self.rules.poll = schedule;
        self
    }

    /// [Polls](BatchRunnerBuilder::poll) at a fixed interval.
    pub fn poll_every(self, interval: Duration) -> BatchRunnerBuilder {
        self.poll(Backoff::new(interval).factor(1.0).cap(interval))
    }

    /// How often a step is called at most, if it [may be retried](super::JobError::retry). Counted anew after each success.
    /// Defaults to 10, which with the default [backoff](BatchRunnerBuilder::backoff) is some two to three minutes.
    pub fn attempts(mut self, attempts: u32) -> BatchRunnerBuilder {
        self.rules.attempts = attempts;
        self
    }

    /// How long to wait before another attempt; longer where the service says so, up to an hour. Defaults to 0.5 s,
    /// doubled each time to 60 s, less up to a half by chance.
    pub fn backoff(mut self, schedule: Backoff) -> BatchRunnerBuilder {
        self.rules.backoff = schedule;
        self
    }

    /// How long a job may take, from its start, retries included. Then it is cancelled and has failed. A step at work is
    /// not interrupted, but can [see it](super::Context::is_cancelled). Defaults to no limit.
    pub fn job_time_limit(mut self, limit: impl Into<Option<Duration>>) -> BatchRunnerBuilder {
        self.rules.job_time_limit = limit.into();
        self
    }

    /// How long a batch may take, from its start. Then it is stopped as if cancelled. Defaults to no limit.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> BatchRunnerBuilder {
        self.time_limit = limit.into();
        self
    }

    /// Starts no more jobs once so many have failed; those in flight still finish. Defaults to no limit.
    pub fn stop_after_failures(mut self, failures: impl Into<Option<usize>>) -> BatchRunnerBuilder {
        self.rules.max_failures = failures.into();
        self
    }

    /// Told of everything that happens, on the thread on which it happens: to be quick is its part. Events of one job come
    /// in order, those of different jobs from several threads at once. A panic in it is contained. A second call replaces the
    /// first.
    pub fn on_event(mut self, tell: impl Fn(&Event<'_>) + Send + Sync + 'static) -> BatchRunnerBuilder {
        self.tell = Some(Arc::new(tell));
        self
    }

    /// Draws on standard error how the batch stands (feature `progress`): on a terminal a bar for the whole and a line for
    /// each of a dozen active jobs, otherwise a line for each job that ends, fails or is retried.
    #[cfg(feature = "progress")]
    pub fn progress(mut self) -> BatchRunnerBuilder {
        self.progress = true;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a window, a number of steps at once, of attempts or of failures of zero, or if
    /// `FULMAR_THREADS` makes no sense.
    pub fn build(self) -> Result<BatchRunner> {
        let BatchRunnerBuilder { executor, rules, time_limit, tell, .. } = self;
        for (value, name, least) in [
            (rules.window, "window", "one job in flight"),
            (rules.at_once, "at_once", "one step"),
            (rules.attempts as usize, "attempts", "one attempt"),
            (rules.max_failures.unwrap_or(1), "stop_after_failures", "one failure; or leave it out"),
        ] {
            if value == 0 {
                return Err(Error::Invalid(format!("{name}(0) lets no job run: allow at least {least}")));
            }
        }
        let executor = executor.unwrap_or_else(|| Executor::global().clone());
        executor.check_settings()?;
        Ok(BatchRunner {
            executor,
            rules,
            time_limit,
            tell,
            #[cfg(feature = "progress")]
            progress: self.progress,
        })
    }
}

impl fmt::Debug for BatchRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, "BatchRunner", &self.rules, self.time_limit)
    }
}

impl fmt::Debug for BatchRunnerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, "BatchRunnerBuilder", &self.rules, self.time_limit)
    }
}

fn describe(f: &mut fmt::Formatter<'_>, name: &str, rules: &Rules, time_limit: Option<Duration>) -> fmt::Result {
    f.debug_struct(name)
        .field("window", &rules.window)
        .field("at_once", &rules.at_once)
        .field("poll", &rules.poll)
        .field("attempts", &rules.attempts)
        .field("backoff", &rules.backoff)
        .field("job_time_limit", &rules.job_time_limit)
        .field("time_limit", &time_limit)
        .field("stop_after_failures", &rules.max_failures)
        .finish_non_exhaustive()
}
