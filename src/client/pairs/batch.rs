//! Runs many queries at once, in a sliding window.
//!
//! Source: `ibmpairs` 3.1.17, `query.py`: `batch_query` and `query_worker`, whose options these
//! are.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::backoff::Backoff;
use crate::batch::{Batch, BatchReport, BatchRunner, BatchRunnerBuilder};
use crate::client::creation::Ledger;
use crate::client::date;
use crate::client::http::archive::Limits;
use crate::client::http::check_file_name;
use crate::client::pairs::Query;
use crate::client::pairs::client::Client;
use crate::client::pairs::download::Allowance;
#[cfg(feature = "sqlite")]
use crate::client::pairs::job::DEFAULT_FOLDER;
use crate::client::pairs::job::{Job, Name, QueryResult, Shared};
use crate::error::{Error, Result};
use crate::sync::Mutex;

/// Status intervals shorter than this are refused, unless [`BatchOptions::status_interval_floor`]
/// says otherwise. (`QUERY_MIN_STATUS_INTERVAL`)
const FLOOR: Duration = Duration::from_secs(15);

/// `QUERY_STATUS_CHECK_INTERVAL`.
const INTERVAL: Duration = Duration::from_secs(30);

/// The default number of queries in flight, which is `QUERY_MAX_WORKERS` of the Python client.
const WORKERS: usize = 8;

/// How often a step of a query is tried, if its failure may be temporary.
const ATTEMPTS: u32 = 10;

/// Runs queries, with a limited number in flight, and waits for all. Each is submitted, polled
/// until it is done, and downloaded. The report has every query, in input order, with its result or
/// its error; a failed query doesn't affect the others.
///
/// If the reply to a submission was lost, the client looks for the job in the user's list. It
/// submits the query again only if that list is complete and has no job like it; then a note of the
/// report says so. If that can't be proven, a note says that there may be a job.
///
/// # Errors
/// [`Error::Invalid`] if an option is invalid. The outcome of each query is in the report.
///
/// ```no_run
/// use fulmar::client::pairs::{BatchOptions, Client, Query, batch_query};
///
/// let client = Client::builder("https://pairs.res.ibm.com").password_file("me", "auth/basic.txt").build()?;
/// let day: Query = std::fs::read_to_string("query.json")?.parse()?;
/// let queries = [day.clone(), day.replace_dates("2023-01-02", "2023-01-02")?];
/// let report = batch_query(&client, queries, BatchOptions::new().folder("results"))?;
/// for job in &report.jobs {
///     match &job.outcome {
///         Ok(result) => println!("{:?}: {:?}", job.id, result.files.files),
///         Err(failure) => println!("{:?}: {failure}", job.id),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn batch_query(
    client: &Client,
    queries: impl IntoIterator<Item = Query>,
    options: BatchOptions,
) -> Result<BatchReport<QueryResult>> {
    start_batch_query(client, queries, options)?.finish()
}

/// As [`batch_query`], but returns at once. Use the [`Batch`] to read counters, to wait with a time
/// limit, or to cancel.
///
/// # Errors
/// [`Error::Invalid`] if an option is invalid.
pub fn start_batch_query(
    client: &Client,
    queries: impl IntoIterator<Item = Query>,
    options: BatchOptions,
) -> Result<Batch<QueryResult>> {
    let (shared, runner) = prepare(client, options)?;
    let mut names = Names::new();
    let jobs: Vec<Job> = queries
        .into_iter()
        .map(|query| {
            let name = names.of(&query);
            Job::new(Arc::clone(&shared), query, name)
        })
        .collect();
    Ok(runner.start(jobs))
}

/// Makes what all queries of a batch share, and the runner of their steps.
pub(super) fn prepare(client: &Client, options: BatchOptions) -> Result<(Arc<Shared>, BatchRunner)> {
    let runner = options.runner()?;
    let shared = Arc::new(Shared {
        client: client.clone(),
        submit: options.submit,
        status: options.status,
        download: options.download,
        compact_csv: options.compact_csv,
        online: options.online,
        folder: options.folder,
        attempts: options.attempts,
        allowance: Allowance {
            max_bytes: options.max_bytes.unwrap_or(client.allowance().max_bytes),
            archive: options.archive_limits.unwrap_or(client.allowance().archive),
        },
        ledger: Ledger::default(),
        places: Mutex::new(HashSet::new()),
        served: Mutex::new(Instant::now()),
    });
    Ok((shared, runner))
}

/// Options of [`batch_query`]: those of the Python client's function, and some more.
#[derive(Clone)]
#[must_use]
pub struct BatchOptions {
    workers: usize,
    interval: Duration,
    floor: Duration,
    submit: bool,
    status: bool,
    download: bool,
    compact_csv: bool,
    online: bool,
    folder: Option<PathBuf>,
    attempts: u32,
    max_bytes: Option<u64>,
    archive_limits: Option<Limits>,
    runner: BatchRunnerBuilder,
}

impl BatchOptions {
    /// The defaults: 8 workers, a status interval of 30 s, everything on, files to `download`.
    pub fn new() -> BatchOptions {
        BatchOptions {
            workers: WORKERS,
            interval: INTERVAL,
            floor: FLOOR,
            submit: true,
            status: true,
            download: true,
            compact_csv: false,
            online: false,
            folder: None,
            attempts: ATTEMPTS,
            max_bytes: None,
            archive_limits: None,
            runner: BatchRunner::builder()
                .backoff(Backoff::new(Duration::from_millis(500)).cap(Duration::from_secs(30)).jitter(0.5)),
        }
    }

    /// How many queries are in flight at most. Defaults to 8; there is no upper limit. A query in
    /// flight needs no thread; `max_concurrent` of the [runner](BatchOptions::runner_with) sets how
    /// many steps run at once.
    pub fn workers(mut self, workers: usize) -> BatchOptions {
        self.workers = workers;
        self
    }

    /// The longest time between two polls of a query. Defaults to 30 s, and must be at least the
    /// [floor](BatchOptions::status_interval_floor). The first poll comes after the floor's time,
    /// and then the delays grow by a quarter each time, up to this.
    pub fn status_interval(mut self, interval: Duration) -> BatchOptions {
        self.interval = interval;
        self
    }

    /// The shortest time between two polls of a query. Defaults to 15 s, because many users share a
    /// server. For a server of your own, or in tests, you can set less.
    pub fn status_interval_floor(mut self, floor: Duration) -> BatchOptions {
        self.floor = floor;
        self
    }

    /// Whether queries are submitted. Defaults to true. If not, each must have the id of an earlier
    /// submission.
    pub fn submit(mut self, submit: bool) -> BatchOptions {
        self.submit = submit;
        self
    }

    /// Whether to wait until each query is done. Defaults to true. A download always waits for its
    /// query.
    pub fn status(mut self, status: bool) -> BatchOptions {
        self.status = status;
        self
    }

    /// Whether the results of the queries are downloaded. Defaults to true.
    pub fn download(mut self, download: bool) -> BatchOptions {
        self.download = download;
        self
    }

    /// Whether the server should return points as CSV, even if a query asks for another format.
    /// Defaults to false.
    pub fn compact_csv(mut self, compact_csv: bool) -> BatchOptions {
        self.compact_csv = compact_csv;
        self
    }

    /// Whether the values of point queries with `batch` are kept in memory as well as in their
    /// files. Defaults to false. The values of point queries without `batch` always are, even if
    /// the server made a job of one. Values of more than 64 MiB are only in their file, and the
    /// report says so.
    pub fn online(mut self, online: bool) -> BatchOptions {
        self.online = online;
        self
    }

    /// The folder for files, unless a query has its own. Defaults to `download`.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> BatchOptions {
        self.folder = Some(folder.into());
        self
    }

    /// How often each step is tried, if its failure may be temporary. Defaults to 10.
    pub fn attempts(mut self, attempts: u32) -> BatchOptions {
        self.attempts = attempts;
        self
    }

    /// The most bytes of one query's download, before it is unpacked. Defaults to the
    /// [client's](super::ClientBuilder::max_bytes) limit.
    pub fn max_bytes(mut self, bytes: u64) -> BatchOptions {
        self.max_bytes = Some(bytes);
        self
    }

    /// Limits on one query's archive, when it is unpacked. Defaults to the
    /// [client's](super::ClientBuilder::archive_limits) limits.
    pub fn archive_limits(mut self, limits: Limits) -> BatchOptions {
        self.archive_limits = Some(limits);
        self
    }

    /// Other settings of the [`BatchRunner`]: its executor, how many steps run at once, time
    /// limits, events and progress. Its window, polls and attempts are replaced by those of these
    /// options.
    pub fn runner_with(mut self, set: impl FnOnce(BatchRunnerBuilder) -> BatchRunnerBuilder) -> BatchOptions {
        self.runner = set(self.runner);
        self
    }

    /// Whether queries are submitted and waited for, as those of a campaign must be.
    #[cfg(feature = "sqlite")]
    pub(super) fn runs_all(&self) -> bool {
        self.submit && (self.status || self.download)
    }

    /// The folder for files.
    #[cfg(feature = "sqlite")]
    pub(super) fn place(&self) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| DEFAULT_FOLDER.into())
    }

    fn runner(&self) -> Result<BatchRunner> {
        if self.interval < self.floor {
            return Err(Error::Invalid(format!(
                "a status interval of {:?} is below the floor of {:?}: ask less often, or lower `status_interval_floor`",
                self.interval, self.floor
            )));
        }
        if !(self.submit || self.status || self.download) {
            return Err(Error::Invalid("there is nothing to do: turn on `submit`, `status` or `download`".to_owned()));
        }
        let first = self.floor.max(Duration::from_millis(1));
        let polls = Backoff::new(first).factor(1.25).cap(self.interval.max(first));
        self.runner.clone().window(self.workers).poll(polls).attempts(self.attempts).build()
    }
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions::new()
    }
}

impl fmt::Debug for BatchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchOptions")
            .field("workers", &self.workers)
            .field("status_interval", &self.interval)
            .field("status_interval_floor", &self.floor)
            .field("submit", &self.submit)
            .field("status", &self.status)
            .field("download", &self.download)
            .field("compact_csv", &self.compact_csv)
            .field("online", &self.online)
            .field("folder", &self.folder)
            .field("attempts", &self.attempts)
            .field("max_bytes", &self.max_bytes)
            .field("archive_limits", &self.archive_limits)
            .finish_non_exhaustive()
    }
}

/// Chooses the file names of all queries before the batch starts, so that no two queries get the
/// same.
pub(super) struct Names {
    taken: HashSet<String>,
    /// The last number that was appended to each name.
    numbers: HashMap<String, u32>,
    began: SystemTime,
}

impl Names {
    pub(super) fn new() -> Names {
        Names { taken: HashSet::new(), numbers: HashMap::new(), began: SystemTime::now() }
    }

    /// The name of a query's files, and whether they keep it if the query becomes a job; `None` if
    /// they are named by the id. As in the Python client, it is the name that the query gives. If
    /// it gives none, the files of a point query are named by the query's name, or by
    /// `point_query_` and the time, here in UTC. If a name occurs again, a number is appended.
    pub(super) fn of(&mut self, query: &Query) -> Option<Name> {
        let given = query.download_file_name().filter(|name| !is_id(name));
        let name = match (given, query.is_interactive()) {
            (Some(name), _) => name.to_owned(),
            (None, false) => return None,
            (None, true) => {
                let usable = query.name().map(plain).filter(|name| check_file_name(name).is_ok());
                usable.unwrap_or_else(|| format!("point_query_{}", date::compact(self.began)))
            }
        };
        let mut unique = name.clone();
        // Start at the last number, because thousands of point queries may have the same name, or
        // none.
        let number = self.numbers.entry(name.to_lowercase()).or_insert(1);
        // Ignore case, because some file systems do.
        while !self.taken.insert(unique.to_lowercase()) {
            *number += 1;
            unique = format!("{name}-{number}");
        }
        Some(Name { text: unique, is_given: given.is_some() })
    }
}

/// Whether a name is the id of an earlier run, which a query still has if it was printed and read
/// again. (`QUERY_ID_PATTERN`)
fn is_id(name: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('_').is_some_and(|(one, other)| digits(one, 10) && digits(other, 8))
}

/// The name without the characters that would make it a path.
fn plain(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_control() || "/\\:".contains(c) { '_' } else { c }).collect();
    plain.trim().trim_end_matches('.').chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_two_queries_get_one_name() {
        let mut names = Names { taken: HashSet::new(), numbers: HashMap::new(), began: SystemTime::UNIX_EPOCH };
        let query = |value| Query::from_value(value).expect("a query");
        let point = json!({"type": "point"});
        let mut of = |value| names.of(&query(value)).map(|name| name.text);
        assert_eq!(of(json!({"spatial": {"type": "square"}, "name": "a"})), None, "called by its id");
        assert_eq!(of(json!({"spatial": point, "name": "a/b"})).as_deref(), Some("a_b"));
        assert_eq!(of(json!({"spatial": point, "name": "A_B"})).as_deref(), Some("A_B-2"));
        assert_eq!(of(json!({"spatial": point})).as_deref(), Some("point_query_19700101-000000"));
        assert_eq!(of(json!({"spatial": point})).as_deref(), Some("point_query_19700101-000000-2"));
        assert_eq!(of(json!({"spatial": point, "name": "..."})).as_deref(), Some("point_query_19700101-000000-3"));
        assert_eq!(of(json!({"download_file_name": "mine"})).as_deref(), Some("mine"));
        assert_eq!(of(json!({"download_file_name": "1722427200_15201227"})), None, "of an earlier run");
    }

    #[test]
    fn thousands_of_points_without_a_name_are_named_in_no_time() {
        let mut names = Names { taken: HashSet::new(), numbers: HashMap::new(), began: SystemTime::UNIX_EPOCH };
        let point = |name: &str| {
            let query = json!({"spatial": {"type": "point"}, "name": name});
            Query::from_value(query).expect("a query")
        };
        for number in 1..=30_000 {
            let name = names.of(&point("p")).map(|name| name.text).expect("a name");
            assert!(number == 1 || name == format!("p-{number}"), "{name}");
        }
        assert_eq!(names.of(&point("q-2")).map(|name| name.text).as_deref(), Some("q-2"));
        assert_eq!(names.of(&point("q")).map(|name| name.text).as_deref(), Some("q"));
        assert_eq!(names.of(&point("q")).map(|name| name.text).as_deref(), Some("q-3"), "the second is taken");
    }
}
