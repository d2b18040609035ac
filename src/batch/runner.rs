//! The settings of a batch, and its start.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Event;
use super::handle::Batch;
use super::job::RemoteJob;
#[cfg(feature = "progress")]
use super::progress;
use super::report::BatchReport;
use super::run::Tell;
use super::window::Rules;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::executor::Executor;

/// Runs batches of [remote jobs](RemoteJob). It is cheap to clone, and can run several batches at
/// once.
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
    /// A builder with the default settings.
    pub fn builder() -> BatchRunnerBuilder {
        BatchRunnerBuilder {
            executor: None,
            rules: Rules {
                window: 8,
                max_concurrent: 8,
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

    /// Runs `jobs` and waits until each has ended. The report has the outcome of each; a job that
    /// failed isn't an error of `run`.
    ///
    /// If an operation of the same executor calls this, another thread works in its place
    /// meanwhile. If that operation is cancelled, so is the batch, and this returns its report.
    ///
    /// # Errors
    /// [`Error::WouldDeadlock`] if a step or a callback of the same batch calls this.
    pub fn run<J: RemoteJob>(&self, jobs: impl IntoIterator<Item = J>) -> Result<BatchReport<J::Output>> {
        self.start(jobs).finish()
    }

    /// Collects `jobs` on the calling thread, starts them, and returns. If the executor is shut
    /// down, they all end as [stopped](super::JobFailure::Stopped).
    ///
    /// Each step is a request of the executor, and counts in its [`Stats`](crate::Stats). A
    /// shutdown of the executor ends the batch: running steps are finished, and jobs in flight are
    /// reported as stopped, with a note.
    pub fn start<J: RemoteJob>(&self, jobs: impl IntoIterator<Item = J>) -> Batch<J::Output> {
        let jobs: Vec<J> = jobs.into_iter().collect();
        let began = Instant::now();
        let deadline = self.time_limit.and_then(|limit| began.checked_add(limit));
        // Each batch has a different seed, so that batches that began at the same time don't poll
        // at the same time.
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
    /// The executor on which steps run. Defaults to [`Executor::global`]. It accepts steps even if
    /// its queue is full.
    pub fn executor(mut self, executor: &Executor) -> BatchRunnerBuilder {
        self.executor = Some(executor.clone());
        self
    }

    /// How many jobs are in flight at most, which means started and not ended. Defaults to 8.
    pub fn window(mut self, jobs: usize) -> BatchRunnerBuilder {
        self.rules.window = jobs;
        self
    }

    /// How many steps run at once at most, each on a thread of the executor. Defaults to 8. More
    /// than the executor has threads has no effect.
    pub fn max_concurrent(mut self, steps: usize) -> BatchRunnerBuilder {
        self.rules.max_concurrent = steps;
        self
    }

    /// How long to wait before each poll of a job, counted from the service's last answer about it.
    /// If the service says when to poll again, that wins, but at least the first delay and at most
    /// an hour. Defaults to 1 s, growing by a quarter up to 60 s. Each delay is shortened at random
    /// by up to a tenth, so that jobs that were submitted together aren't polled together.
    pub fn poll(mut self, schedule: Backoff) -> BatchRunnerBuilder {
        self.rules.poll = schedule;
        self
    }

    /// Sets a fixed interval between [polls](BatchRunnerBuilder::poll).
    pub fn poll_every(self, interval: Duration) -> BatchRunnerBuilder {
        self.poll(Backoff::new(interval).factor(1.0).cap(interval))
    }

    /// How often a step is called at most if it fails with an error that
    /// [may be retried](super::JobError::retry). The count starts anew after each success. Defaults
    /// to 10, which takes two to three minutes with the default
    /// [backoff](BatchRunnerBuilder::backoff).
    pub fn attempts(mut self, attempts: u32) -> BatchRunnerBuilder {
        self.rules.attempts = attempts;
        self
    }

    /// How long to wait before another attempt. If the service asks for more, it is that, up to an
    /// hour. Defaults to 0.5 s, doubled each time up to 60 s, and shortened at random by up to a
    /// half.
    pub fn backoff(mut self, schedule: Backoff) -> BatchRunnerBuilder {
        self.rules.backoff = schedule;
        self
    }

    /// How long a job may take from its start, retries included. After that the batch cancels the
    /// job, and it has failed. A step at work is interrupted as by [`Batch::cancel`]. Defaults to
    /// no limit.
    pub fn job_time_limit(mut self, limit: impl Into<Option<Duration>>) -> BatchRunnerBuilder {
        self.rules.job_time_limit = limit.into();
        self
    }

    /// How long a batch may take from its start. After that it stops as if it was cancelled.
    /// Defaults to no limit.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> BatchRunnerBuilder {
        self.time_limit = limit.into();
        self
    }

    /// Starts no more jobs once this many have failed; the jobs in flight still finish. Defaults to
    /// no limit.
    pub fn stop_after_failures(mut self, failures: impl Into<Option<usize>>) -> BatchRunnerBuilder {
        self.rules.max_failures = failures.into();
        self
    }

    /// Calls `tell` with every event, on the thread on which it happens, so `tell` should return
    /// quickly. The events of one job come in order; those of different jobs may come from several
    /// threads at once. A panic of `tell` is contained. A second call of `on_event` replaces the
    /// first.
    pub fn on_event(mut self, tell: impl Fn(&Event<'_>) + Send + Sync + 'static) -> BatchRunnerBuilder {
        self.tell = Some(Arc::new(tell));
        self
    }

    /// Shows the batch's progress on standard error (feature `progress`): on a terminal, a bar for
    /// the whole batch and a line for each of up to a dozen active jobs; elsewhere, a line for each
    /// job that ends, fails or is retried.
    #[cfg(feature = "progress")]
    pub fn progress(mut self) -> BatchRunnerBuilder {
        self.progress = true;
        self
    }

    /// Checks the settings and returns the runner.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `window`, `max_concurrent`, `attempts` or `stop_after_failures` is 0,
    /// or if `FULMAR_THREADS` is invalid.
    pub fn build(self) -> Result<BatchRunner> {
        let BatchRunnerBuilder { executor, rules, time_limit, tell, .. } = self;
        for (value, name, least) in [
            (rules.window, "window", "one job in flight"),
            (rules.max_concurrent, "max_concurrent", "one step"),
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

impl Default for BatchRunnerBuilder {
    /// As [`BatchRunner::builder`].
    fn default() -> BatchRunnerBuilder {
        BatchRunner::builder()
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
        .field("max_concurrent", &rules.max_concurrent)
        .field("poll", &rules.poll)
        .field("attempts", &rules.attempts)
        .field("backoff", &rules.backoff)
        .field("job_time_limit", &rules.job_time_limit)
        .field("time_limit", &time_limit)
        .field("stop_after_failures", &rules.max_failures)
        .finish_non_exhaustive()
}
