//! A query as a remote job: submitted, asked about until it is done, downloaded.
//!
//! ```text
//! submit --lost reply--> unsure --look--> found: accepted, and noted
//!    |                      `----------> not found: submitted again, and noted
//!    |-- points, estimate --> fetch
//!    `-- id --> poll .. poll --> fetch
//! ```
//!
//! No step sleeps, and each asks the server once; only the look for a job whose answer was lost takes several questions.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::batch::{Context, JobError, Poll, RemoteJob, Submitted};
use crate::client::date;
use crate::client::http::{HttpErrorKind, check_file_name};
use crate::client::pairs::client::Client;
use crate::client::pairs::download::{self, Allowance, Files};
use crate::client::pairs::{Estimate, PairsError, Phase, PointData, Query, QueryJob, Submission};
use crate::sync::Mutex;

/// Where the Python client puts its files.
const DEFAULT_FOLDER: &str = "download";

/// How long to wait for those who submit the very same query at this moment, before looking whose job is whose.
const TWINS: Duration = Duration::from_millis(200);

/// A server that throttles names a time; if it doesn't, this is it.
const THROTTLED: Duration = Duration::from_secs(1);

/// A server that throttles a query for so long, and has served no other of the batch meanwhile, won't stop.
const THROTTLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How far the server's clock may be off within what it says itself: its `Date` has whole seconds.
const SLACK: Duration = Duration::from_secs(3);

/// How many jobs of a list are looked through for a lost one, page by page.
const PAGE: u32 = 100;
const PAGES: u32 = 20;

/// How many of them are asked what they were asked.
const CANDIDATES: usize = 50;

/// A point answer beyond this size, in bytes, stays in its file alone.
const MAX_DATA: u64 = 64 << 20;

/// What the report says of a query that ends before it is known whether there is a job.
const NOBODY_KNOWS: &str =
    "the answer to the submission was lost: there may be a job on the server that nobody knows of";

/// What came of a query.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueryResult {
    /// The query's id, if it became a job.
    pub id: Option<String>,
    /// How it ended, if it was asked for.
    pub status: Option<QueryJob>,
    /// What it would cost, for a dry run.
    pub estimate: Option<Estimate>,
    /// The values of points that were to be answered at once, or to be kept in memory:
    /// [`BatchOptions::online`](super::BatchOptions::online).
    pub data: Option<PointData>,
    /// What was downloaded.
    pub files: Files,
}

/// What all queries of a batch have in common.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) submit: bool,
    pub(super) status: bool,
    pub(super) download: bool,
    pub(super) compact_csv: bool,
    pub(super) online: bool,
    pub(super) folder: Option<PathBuf>,
    pub(super) attempts: u32,
    pub(super) allowance: Allowance,
    pub(super) owners: Mutex<Owners>,
    /// Where files are being written, without their endings.
    pub(super) places: Mutex<HashSet<PathBuf>>,
    /// When the server last did what it was asked, for any query.
    pub(super) served: Mutex<Instant>,
}

/// Whose job is whose.
#[derive(Default)]
pub(super) struct Owners {
    /// Ids that a query of this batch has.
    ids: HashSet<String>,
    /// How many submissions of one and the same query are under way, by its hash.
    under_way: HashMap<u64, u32>,
}

/// What a query's files are called.
pub(super) struct Name {
    pub(super) text: String,
    /// Whether the user gave it; one that was made up gives way to the id, if there is one.
    pub(super) is_given: bool,
}

/// One query of a batch.
pub(super) struct Job {
    shared: Arc<Shared>,
    query: Query,
    /// What its files are called, unless that is the id.
    name: Option<Name>,
    answer: Option<Box<Submission>>,
    status: Option<Box<QueryJob>>,
    /// Since when there may be a job whose id never came.
    unsure: Option<Instant>,
    throttled: Option<Instant>,
    /// Whether a download has failed that may have left something behind.
    has_leftovers: bool,
}

impl Job {
    pub(super) fn new(shared: Arc<Shared>, query: Query, name: Option<Name>) -> Job {
        Job { shared, query, name, answer: None, status: None, unsure: None, throttled: None, has_leftovers: false }
    }

    fn id(&self) -> Result<&str, JobError> {
        let missing = || PairsError::Invalid("the query has no id: submit it, or give the id that it got".to_owned());
        self.query.id().ok_or_else(|| JobError::fatal(missing()))
    }

    fn folder(&self) -> PathBuf {
        let of_batch = || self.shared.folder.clone().unwrap_or_else(|| DEFAULT_FOLDER.into());
        self.query.download_folder().map_or_else(of_batch, Path::to_owned)
    }

    /// What the files of a job are called.
    fn name_for(&self, id: &str) -> String {
        self.name.as_ref().filter(|name| name.is_given).map_or(id, |name| &name.text).to_owned()
    }

    /// Whether there is a place for the files: better known before the server has worked for hours.
    fn check_place(&self) -> Result<(), PairsError> {
        if !self.shared.download {
            return Ok(());
        }
        if let Some(name) = &self.name {
            check_file_name(&name.text).map_err(|error| PairsError::Invalid(error.to_string()))?;
        }
        let folder = self.folder();
        fs::create_dir_all(&folder).map_err(|error| PairsError::file(&folder, error))
    }

    /// Notes that the server did what it was asked.
    fn was_served(&mut self) {
        self.throttled = None;
        *self.shared.served.lock() = Instant::now();
    }

    fn is_waited_for(&self) -> bool {
        self.shared.status || self.shared.download
    }

    fn accepted(&mut self, id: String) -> Submitted {
        self.query.set_id(&id);
        self.unsure = None;
        if self.is_waited_for() { Submitted::Accepted { id } } else { Submitted::Ready { id } }
    }

    /// Looks for the job whose id never came, first in the list, and then, to be sure, what was asked.
    fn look(&self, since: Instant, cx: &Context<'_>) -> Result<Look, PairsError> {
        let calls = self.shared.client.once();
        let body = self.query.to_submit();
        let mut candidates = 0;
        for page in 1..=PAGES {
            let (list, date) = calls.list(false, page, PAGE)?;
            let earliest = date::earliest(date.as_deref(), since.elapsed(), SLACK);
            let is_recent = |job: &QueryJob| job.start.is_none_or(|start| start >= earliest);
            for job in list.jobs.iter().filter(|job| is_recent(job) && self.may_be(job)) {
                candidates += 1;
                if candidates > CANDIDATES {
                    return Ok(Look::Nowhere);
                }
                if cx.is_cancelled() {
                    return Ok(Look::Unknown);
                }
                let asked = match calls.history(&job.id) {
                    // Whoever has no history can't be recognised.
                    Err(PairsError::Http(error)) if error.status() == Some(404) => None,
                    history => history?.query,
                };
                if !asked.is_some_and(|asked| holds(&asked.to_submit(), &body)) {
                    continue;
                }
                let mut owners = self.shared.owners.lock();
                // Whoever began to submit the same since may have made this one, and hasn't heard of it yet.
                if owners.under_way.contains_key(&hash(&self.query)) {
                    return Ok(Look::Unknown);
                }
                if owners.ids.insert(job.id.clone()) {
                    return Ok(Look::Found(job.id.clone()));
                }
            }
            // The list is sorted, the newest first.
            if u64::from(page) >= list.pages || !list.jobs.iter().all(is_recent) {
                break;
            }
        }
        // What a look that was cancelled hasn't found is no reason to submit.
        Ok(if cx.is_cancelled() { Look::Unknown } else { Look::Nowhere })
    }

    /// Whether a job of the list can be this query's, by what the list says: a server may leave the name out.
    fn may_be(&self, job: &QueryJob) -> bool {
        let same_name = job.nickname.as_deref().is_none_or(|name| name.is_empty() || Some(name) == self.query.name());
        same_name && !self.shared.owners.lock().ids.contains(&job.id)
    }

    /// Submits under the eyes of those who submit the same at this moment.
    fn submit_now(&mut self) -> Result<Submission, PairsError> {
        let began = Instant::now();
        let shared = Arc::clone(&self.shared);
        let under_way = UnderWay::begin(&shared.owners, hash(&self.query));
        let outcome = self.shared.client.once().submit(&self.query, self.shared.compact_csv);
        match &outcome {
            Ok(Submission::Job(id)) => {
                self.shared.owners.lock().ids.insert(id.clone());
            }
            Ok(_) => {}
            // A dry run creates nothing.
            Err(error) if self.may_have_created(error) => {
                self.unsure.get_or_insert(began);
            }
            Err(_) => {}
        }
        drop(under_way);
        outcome
    }

    /// Whether a submission that failed like this may have created a job.
    fn may_have_created(&self, error: &PairsError) -> bool {
        match error {
            // Nothing but a cost was asked for.
            _ if self.query.is_dry_run() => false,
            PairsError::Http(error) => error.may_have_arrived() && !self.shared.client.has_outlived_token(error),
            // The server said something, but not what.
            PairsError::Reply(_) => true,
            _ => false,
        }
    }

    /// What is to follow an error: another attempt, a wait, or the end.
    fn follow(&mut self, error: PairsError, is_creating: bool) -> JobError {
        let (throttled, after) = match &error {
            PairsError::Http(error) => {
                let throttled = matches!(error.kind(), HttpErrorKind::Status(429) | HttpErrorKind::RateLimited);
                (throttled, error.retry_after())
            }
            _ => (false, None),
        };
        if throttled {
            let since = *self.throttled.get_or_insert_with(Instant::now);
            let served = *self.shared.served.lock();
            if since.max(served).elapsed() > THROTTLE_LIMIT {
                return JobError::fatal(error);
            }
            return JobError::wait(error, after.unwrap_or(THROTTLED));
        }
        // The protocol's 500 mostly is a passing one; but a submission that it befell may have done its work.
        let server_error = matches!(&error, PairsError::Http(error) if error.status() == Some(500));
        // The call has renewed its token once already: a slow one may have outlived that as well.
        let outlived = matches!(&error, PairsError::Http(error) if self.shared.client.has_outlived_token(error));
        if error.is_retryable() || outlived || (server_error && !is_creating) {
            let retry = JobError::retry(error);
            return match after {
                Some(after) => retry.after(after),
                None => retry,
            };
        }
        JobError::fatal(error)
    }

    /// What is to follow an error of a submission; if nothing is, the report says what may be.
    fn note_if_last(&mut self, error: PairsError, is_creating: bool, cx: &mut Context<'_>) -> JobError {
        let error = self.follow(error, is_creating);
        if self.unsure.is_some() && (error.is_fatal() || cx.attempt() >= self.shared.attempts) {
            cx.note(NOBODY_KNOWS);
        }
        error
    }

    /// Writes the values of points that were answered at once to a file.
    fn write_points(&self, points: &PointData) -> Result<Files, PairsError> {
        let name = self.name.as_ref().map_or("point_query", |name| &name.text);
        let (folder, file_name) = (self.folder(), format!("{name}.{}", points.extension()));
        check_file_name(&file_name).map_err(|error| PairsError::Invalid(error.to_string()))?;
        let path = folder.join(&file_name);
        let part = folder.join(format!("{file_name}.part"));
        let text = points.to_file_text();
        let write = || {
            let mut file = fs::File::create(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&part);
            PairsError::file(&path, error)
        })?;
        Ok(Files { bytes: text.len() as u64, files: vec![path], ..Files::default() })
    }

    fn download(&mut self, cx: &mut Context<'_>) -> Result<QueryResult, JobError> {
        let id = self.id()?.to_owned();
        let name = self.name_for(&id);
        let folder = self.folder();
        let shared = Arc::clone(&self.shared);
        // The same id may be there twice: what two write at once in one place is neither's.
        let Some(_place) = Place::take(&shared.places, folder.join(&name)) else {
            let error = PairsError::Invalid(format!("another query of the batch writes the files of {name}"));
            return Err(JobError::wait(error, TWINS));
        };
        self.has_leftovers = true;
        let cell = std::cell::RefCell::new(cx);
        let mut progress = |done, total| cell.borrow_mut().bytes(done, total);
        let cancelled = || cell.try_borrow().is_ok_and(|cx| cx.is_cancelled());
        let fetched =
            download::fetch(&shared.client.once(), &id, &folder, &name, shared.allowance, &mut progress, &cancelled);
        let cx = cell.into_inner();
        let files = match fetched {
            Ok(files) => files,
            Err(error) => {
                let is_packaging = matches!(&error, PairsError::Http(error) if error.status() == Some(404));
                // 404 after success means that it isn't packaged yet. There is a limit to believing that: the attempts.
                return Err(if is_packaging { JobError::retry(error) } else { self.follow(error, false) });
            }
        };
        self.has_leftovers = false;
        self.was_served();
        if files.files.is_empty() {
            cx.note("the archive of the result holds no file");
        }
        let wanted = self.shared.online || self.query.is_interactive();
        let data = if wanted && files.archive.is_none() { points_in(&files, cx) } else { None };
        Ok(QueryResult { id: Some(id), status: self.status.take().map(|status| *status), data, files, estimate: None })
    }
}

impl RemoteJob for Job {
    type Output = QueryResult;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        if cx.attempt() == 1 {
            self.check_place().map_err(JobError::fatal)?;
        }
        if !self.shared.submit {
            let id = self.id()?.to_owned();
            return Ok(self.accepted(id));
        }
        if let Some(since) = self.unsure {
            if self.shared.owners.lock().under_way.contains_key(&hash(&self.query)) {
                let error = PairsError::Invalid("the same query is being submitted".to_owned());
                return Err(JobError::wait(error, TWINS));
            }
            match self.look(since, cx) {
                Ok(Look::Found(id)) => {
                    cx.note(format!("the answer to the submission was lost; the list of jobs has it as {id}"));
                    return Ok(self.accepted(id));
                }
                Ok(Look::Unknown) => {
                    if cx.is_cancelled() {
                        cx.note(NOBODY_KNOWS);
                    }
                    let error = PairsError::Invalid("whose job is whose is not known yet".to_owned());
                    return Err(JobError::wait(error, TWINS));
                }
                Ok(Look::Nowhere) => {
                    cx.note(
                        "submitted again after an answer was lost: no such job was in the list, but if it comes to be, it \
                         is there twice",
                    );
                    self.unsure = None;
                }
                Err(error) => return Err(self.note_if_last(error, false, cx)),
            }
        }
        match self.submit_now() {
            Ok(Submission::Job(id)) => {
                self.was_served();
                Ok(self.accepted(id))
            }
            Ok(answer) => {
                self.was_served();
                self.unsure = None;
                let id = self.query.name().unwrap_or(answer.describe()).to_owned();
                self.answer = Some(Box::new(answer));
                Ok(Submitted::Ready { id })
            }
            Err(error) => Err(self.note_if_last(error, true, cx)),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        let id = self.id()?.to_owned();
        let job = match self.shared.client.once().status(&id) {
            Ok(job) => job,
            Err(error) => return Err(self.follow(error, false)),
        };
        self.was_served();
        match job.code.phase() {
            Phase::Running => {
                let state = job.code.name().map_or_else(|| Cow::Owned(job.status), Cow::Borrowed);
                Ok(Poll::Pending { state, progress: job.progress, retry_after: None })
            }
            Phase::Succeeded => {
                self.status = Some(Box::new(job));
                Ok(Poll::Ready)
            }
            Phase::Failed | Phase::Unknown => {
                let message = job.message.unwrap_or_default();
                Err(JobError::fatal(PairsError::Failed { id, code: job.code, status: job.status, message }))
            }
        }
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<QueryResult, JobError> {
        // Taken out: no failure from here on is one to be tried again.
        match self.answer.take().map(|answer| *answer) {
            Some(Submission::Points(points)) => {
                if points.is_empty() {
                    cx.note("the server has no value for these points: there is no file");
                }
                let files = if self.shared.download && !points.is_empty() {
                    self.write_points(&points).map_err(JobError::fatal)?
                } else {
                    Files::default()
                };
                return Ok(QueryResult { data: Some(points), files, ..QueryResult::default() });
            }
            Some(Submission::Estimate(estimate)) => {
                return Ok(QueryResult { estimate: Some(estimate), ..QueryResult::default() });
            }
            Some(Submission::Job(_)) | None => {}
        }
        if !self.shared.download {
            let status = self.status.take().map(|status| *status);
            return Ok(QueryResult { id: Some(self.id()?.to_owned()), status, ..QueryResult::default() });
        }
        self.download(cx)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Nobody will go on with what a failed download has left.
        if self.has_leftovers {
            if let Some(id) = self.query.id() {
                download::discard(&self.folder(), &self.name_for(id));
            }
        }
    }
}

/// What came of a look for a job whose id never came.
enum Look {
    Found(String),
    Nowhere,
    /// The batch was cancelled meanwhile, or somebody else has submitted the same.
    Unknown,
}

/// Where one query writes and no other, until dropped.
struct Place<'a> {
    places: &'a Mutex<HashSet<PathBuf>>,
    path: PathBuf,
}

impl<'a> Place<'a> {
    fn take(places: &'a Mutex<HashSet<PathBuf>>, path: PathBuf) -> Option<Place<'a>> {
        places.lock().insert(path.clone()).then(|| Place { places, path })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.lock().remove(&self.path);
    }
}

/// Counts a submission as under way, until dropped.
struct UnderWay<'a> {
    owners: &'a Mutex<Owners>,
    hash: u64,
}

impl<'a> UnderWay<'a> {
    fn begin(owners: &'a Mutex<Owners>, hash: u64) -> UnderWay<'a> {
        *owners.lock().under_way.entry(hash).or_default() += 1;
        UnderWay { owners, hash }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut owners = self.owners.lock();
        if let Some(count) = owners.under_way.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                owners.under_way.remove(&self.hash);
            }
        }
    }
}

/// Whether all that was submitted is in what the server says was asked; it may have added to it.
fn holds(asked: &Value, submitted: &Value) -> bool {
    match (asked, submitted) {
        (Value::Object(asked), Value::Object(submitted)) => {
            submitted.iter().all(|(name, value)| asked.get(name).is_some_and(|asked| holds(asked, value)))
        }
        (Value::Array(asked), Value::Array(submitted)) => {
            asked.len() == submitted.len() && asked.iter().zip(submitted).all(|(asked, value)| holds(asked, value))
        }
        (Value::Number(asked), Value::Number(submitted)) => asked.as_f64() == submitted.as_f64(),
        (asked, submitted) => asked == submitted,
    }
}

fn hash(query: &Query) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.to_submit().to_string().hash(&mut hasher);
    hasher.finish()
}

/// The values in a file of points, unless they are too many for memory.
fn points_in(files: &Files, cx: &mut Context<'_>) -> Option<PointData> {
    let path = files.files.first()?;
    if files.bytes > MAX_DATA {
        cx.note(format!("the values are {} bytes, too many for memory: they are in the file alone", files.bytes));
        return None;
    }
    let reason = match fs::read_to_string(path).map(|text| Submission::parse(&text, true)) {
        Ok(Ok(Submission::Points(points))) => return Some(points),
        Ok(Ok(other)) => format!("it holds {}", other.describe()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    cx.note(format!("the values are in the file alone: {reason}"));
    None
}
