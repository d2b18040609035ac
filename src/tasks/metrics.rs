//! Counters and histograms of this process, and with those of the database a page for Prometheus.
//!
//! Format: OpenMetrics 1.0, text, which Prometheus, Grafana's agents and OpenTelemetry's collectors
//! read.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Result;
use super::queue::TaskQueue;
use super::stats::QueueStats;
use super::status::TaskStatus;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Upper bounds of a histogram's buckets, in seconds; one more takes the rest.
const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0, 86_400.0];

/// How long something took, how often.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Of each bucket by itself: they are added up where they are written.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS.len());
        // Relaxed, like all of these: each number stands for itself.
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Does `work`, and records how long it took, whatever it came to.
    pub(super) fn time<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let done = work();
        self.record(start.elapsed());
        done
    }

    fn write(&self, page: &mut String, name: &str, labels: &str) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut sum = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            sum += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS.get(at).map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            writeln!(page, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}")?;
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let seconds = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        writeln!(page, "{name}_count{braces} {sum}\n{name}_sum{braces} {seconds:?}")
    }
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Finished,
    Failed,
    Retried,
    Paused,
    Cancelled,
    Lost,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Finished, "finished"),
    (Outcome::Failed, "failed"),
    (Outcome::Retried, "retried"),
    (Outcome::Paused, "paused"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::Lost, "lost"),
];

/// What this process has done with tasks of one type.
#[derive(Debug, Default)]
pub(super) struct OfType {
    pub(super) enqueued: AtomicU64,
    /// Handlers that lost their task and did not return.
    pub(super) stuck: AtomicU64,
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// From when they could start until they were taken.
    pub(super) waiting: Histogram,
    /// Their handlers.
    running: Histogram,
}

impl OfType {
    /// An attempt has ended.
    pub(super) fn ended(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        self.running.record(took);
    }
}

/// What this process has done with a queue.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) enqueue: Histogram,
    pub(super) claim: Histogram,
    pub(super) commit: Histogram,
    types: Mutex<BTreeMap<String, Arc<OfType>>>,
}

impl Metrics {
    pub(super) fn of_type(&self, name: &str) -> Arc<OfType> {
        let mut types = self.types.lock();
        match types.get(name) {
            Some(of_type) => of_type.clone(),
            None => types.entry(name.to_owned()).or_default().clone(),
        }
    }
}

impl TaskQueue {
    /// All numbers of the queue as a page of OpenMetrics text, to be served as
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8` to Prometheus and the like: of
    /// the database, what [`stats`](TaskQueue::stats) tells, at its price; of this process, since
    /// it opened the queue, what it enqueued and what its workers' attempts came to, by type, with
    /// histograms of the time that tasks waited from when they could start, of the handlers, and of
    /// the database's claims, commits and enqueuings. Counters and histograms of several processes
    /// add up; gauges (`fulmar_tasks`, ..) are of the whole queue in each.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskType};
    ///
    /// # let folder = std::env::temp_dir().join(format!("fulmar-metrics-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).map_err(|error| TaskError::Invalid(error.to_string()))?;
    /// let queue = TaskQueue::open(folder.join("queue.db"))?;
    /// queue.register(TaskType::new("mail"))?;
    /// queue.enqueue(NewTask::new("mail", "a"))?;
    /// let page = queue.open_metrics()?;
    /// assert!(page.contains("fulmar_tasks{type=\"mail\",status=\"accepted\"} 1\n"));
    /// assert!(page.contains("fulmar_enqueued_total{type=\"mail\"} 1\n"));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # }
    /// # Ok::<(), fulmar::tasks::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// Those of the database.
    pub fn open_metrics(&self) -> Result<String> {
        let stats = self.stats()?;
        let mut page = String::new();
        // A string takes all.
        let _ = write_stats(&mut page, &stats).and_then(|()| self.metrics().write(&mut page));
        page.push_str("# EOF\n");
        Ok(page)
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(page, "# TYPE {name} {kind}")?;
    if name.ends_with("_seconds") {
        writeln!(page, "# UNIT {name} seconds")?;
    }
    writeln!(page, "# HELP {name} {help}")
}

/// Writes the numbers of the database, all as gauges: tasks by type and status, how long the oldest
/// ready task has waited, which types are paused, the capacity if there is one, and how many
/// warnings there are. Fails only if `page` does, which a `String` never does.
fn write_stats(page: &mut String, stats: &QueueStats) -> fmt::Result {
    head(page, "fulmar_tasks", "gauge", "Tasks in the database, by type and status.")?;
    for of_type in &stats.types {
        for status in TaskStatus::ALL {
            let (name, status_name) = (escaped(&of_type.name), status.to_string().to_lowercase());
            writeln!(page, "fulmar_tasks{{type=\"{name}\",status=\"{status_name}\"}} {}", of_type.count(status))?;
        }
    }
    head(page, "fulmar_oldest_ready_seconds", "gauge", "How long the oldest task that could start now has waited.")?;
    for of_type in &stats.types {
        let age = of_type.oldest_ready.unwrap_or_default().as_secs_f64();
        writeln!(page, "fulmar_oldest_ready_seconds{{type=\"{}\"}} {age:?}", escaped(&of_type.name))?;
    }
    head(page, "fulmar_paused", "gauge", "Whether no worker takes tasks of the type.")?;
    for of_type in &stats.types {
        writeln!(page, "fulmar_paused{{type=\"{}\"}} {}", escaped(&of_type.name), u8::from(of_type.paused))?;
    }
    if let Some(capacity) = stats.capacity {
        head(page, "fulmar_capacity", "gauge", "How many tasks may wait.")?;
        writeln!(page, "fulmar_capacity {capacity}")?;
    }
    head(page, "fulmar_warnings", "gauge", "What needs attention: `stats` says it in words.")?;
    writeln!(page, "fulmar_warnings {}", stats.warnings.len())
}

impl Metrics {
    /// Writes what this process has counted since it opened the queue: counters of tasks and
    /// attempts by type, and histograms of times. The counters go on while they are read, so they
    /// are not all of one moment. Fails only if `page` does, which a `String` never does.
    fn write(&self, page: &mut String) -> fmt::Result {
        let types: Vec<(String, Arc<OfType>)> =
            self.types.lock().iter().map(|(name, of_type)| (escaped(name), of_type.clone())).collect();
        head(page, "fulmar_enqueued", "counter", "Tasks that this process enqueued.")?;
        for (name, of_type) in &types {
            let enqueued = of_type.enqueued.load(Ordering::Relaxed);
            writeln!(page, "fulmar_enqueued_total{{type=\"{name}\"}} {enqueued}")?;
        }
        head(
            page,
            "fulmar_stuck",
            "counter",
            "Handlers of this process that lost their task and did not return soon.",
        )?;
        for (name, of_type) in &types {
            writeln!(page, "fulmar_stuck_total{{type=\"{name}\"}} {}", of_type.stuck.load(Ordering::Relaxed))?;
        }
        head(page, "fulmar_attempts", "counter", "Attempts of this process that have ended, by what they came to.")?;
        for (name, of_type) in &types {
            for (outcome, words) in OUTCOMES {
                let count = of_type.outcomes[outcome as usize].load(Ordering::Relaxed);
                writeln!(page, "fulmar_attempts_total{{type=\"{name}\",outcome=\"{words}\"}} {count}")?;
            }
        }
        let name = "fulmar_waiting_seconds";
        head(page, name, "histogram", "From when a task could start until a worker of this process took it.")?;
        for (of_type, metrics) in &types {
            metrics.waiting.write(page, name, &format!("type=\"{of_type}\""))?;
        }
        let name = "fulmar_running_seconds";
        head(page, name, "histogram", "Handlers of this process.")?;
        for (of_type, metrics) in &types {
            metrics.running.write(page, name, &format!("type=\"{of_type}\""))?;
        }
        for (name, help, histogram) in [
            ("fulmar_enqueue_seconds", "Enqueuings of this process, with their commits.", &self.enqueue),
            ("fulmar_claim_seconds", "Claims of this process, empty ones included.", &self.claim),
            ("fulmar_commit_seconds", "Commits that start and end tasks of this process.", &self.commit),
        ] {
            head(page, name, "histogram", help)?;
            histogram.write(page, name, "")?;
        }
        Ok(())
    }
}

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_bounds_belong_to_them() {
        let histogram = Histogram::default();
        for millis in [1, 2, 100_000_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let mut page = String::new();
        histogram.write(&mut page, "x_seconds", "type=\"t\"").expect("a string takes all");
        assert!(page.starts_with("x_seconds_bucket{type=\"t\",le=\"0.001\"} 1\n"), "{page}");
        assert!(
            page.contains("{type=\"t\",le=\"0.0025\"} 2\n") && page.contains("{type=\"t\",le=\"86400.0\"} 2\n"),
            "{page}"
        );
        assert!(
            page.ends_with("le=\"+Inf\"} 3\nx_seconds_count{type=\"t\"} 3\nx_seconds_sum{type=\"t\"} 100000.003\n")
        );
    }

    #[test]
    fn a_type_s_name_can_not_break_out_of_its_label() {
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }
}
