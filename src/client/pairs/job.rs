//! A query as a remote job of a batch: it is submitted, polled until it is done, and downloaded.
//!
//! ```text
//! submit --lost reply--> look --> found: accepted, and noted
//!    |                     `----> surely not there: submitted again, and noted
//!    |-- points, estimate --> fetch
//!    `-- id --> poll .. poll --> fetch
//! ```
//!
//! No step sleeps, and each makes one request. Only the search for a job whose answer was lost
//! takes several.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Context, JobError, Poll, RemoteJob, Submitted};
use crate::client::creation::{Creation, Failure, Ledger, Step};
use crate::client::http::{HttpErrorKind, check_file_name};
use crate::client::pairs::client::Client;
use crate::client::pairs::download::{self, Allowance, Files};
use crate::client::pairs::submit::{self, QueryMaker};
use crate::client::pairs::{Estimate, PairsError, Phase, PointData, Query, QueryJob, Submission};
use crate::sync::Mutex;

/// The folder of the Python client's files.
pub(super) const DEFAULT_FOLDER: &str = "download";

/// How long to wait until other jobs that are submitting the same query have their answers, before
/// looking which entry of the list belongs to which.
const TWINS: Duration = Duration::from_millis(200);

/// How long to wait if a server throttles and doesn't say for how long.
const THROTTLED: Duration = Duration::from_secs(1);

/// If a server throttles a query for this long, and has served no other query of the batch
/// meanwhile, the query fails.
const THROTTLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Point values of more bytes than this are only in their file, and not in memory.
const MAX_DATA: u64 = 64 << 20;

/// The note for a query that ends before it is known whether its job exists.
const MAY_EXIST: &str =
    "the answer to the submission was lost: the server may have a job for it, which this batch doesn't know";

/// The note for CSV whose end can't be told from a cut.
const UNKNOWN_LENGTH: &str = "the server didn't say how long the CSV is: that no line of it was lost can't be known";

/// The result of a query.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueryResult {
    /// The query's id, if it became a job.
    pub id: Option<String>,
    /// Its last state, if it was polled.
    pub status: Option<QueryJob>,
    /// What it would cost, for a dry run.
    pub estimate: Option<Estimate>,
    /// The values of a point query, if they are kept in memory: see
    /// [`BatchOptions::online`](super::BatchOptions::online).
    pub data: Option<PointData>,
    /// The files that were downloaded.
    pub files: Files,
}

/// What all queries of a batch share.
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
    /// The jobs of the server that this client has created or found.
    pub(super) ledger: Ledger,
    /// The paths to which files are being written, without their endings.
    pub(super) places: Mutex<HashSet<PathBuf>>,
    /// When the server last served a request of any query.
    pub(super) served: Mutex<Instant>,
}

/// The name of a query's files.
pub(super) struct Name {
    pub(super) text: String,
    /// Whether the user gave it. If not, the id replaces it when the query becomes a job.
    pub(super) is_given: bool,
}

/// Stores the progress of a query outside of the process, before each call that depends on it, so
/// that a later process can find its job if this one dies.
pub(super) trait Memory: Send {
    /// The next call may create the job.
    fn will_create(&self) -> Result<(), JobError>;
    /// The job was created, with this id.
    fn made(&self, id: &str) -> Result<(), JobError>;
}

/// One query of a batch.
pub(super) struct Job {
    shared: Arc<Shared>,
    query: Query,
    /// The name of its files, unless that is the id.
    name: Option<Name>,
    answer: Option<Box<Submission>>,
    status: Option<Box<QueryJob>>,
    creation: Creation<PairsError>,
    throttled: Option<Instant>,
    /// Whether a failed download may have left a part on the disk.
    has_leftovers: bool,
    memory: Option<Box<dyn Memory>>,
    /// Whether the query's id is that of its job, and whether `memory` has stored it.
    is_made: bool,
    is_remembered: bool,
    /// Whether there may be a job that the client hasn't found.
    is_in_doubt: bool,
}

impl Job {
    pub(super) fn new(shared: Arc<Shared>, query: Query, name: Option<Name>) -> Job {
        let creation = Creation::new(submit::likeness(&query));
        Job {
            shared,
            query,
            name,
            answer: None,
            status: None,
            creation,
            throttled: None,
            has_leftovers: false,
            memory: None,
            is_made: false,
            is_remembered: false,
            is_in_doubt: false,
        }
    }

    fn id(&self) -> Result<&str, JobError> {
        let missing = || PairsError::Invalid("the query has no id: submit it, or give the id that it got".to_owned());
        self.query.id().ok_or_else(|| JobError::fatal(missing()))
    }

    fn folder(&self) -> PathBuf {
        let of_batch = || self.shared.folder.clone().unwrap_or_else(|| DEFAULT_FOLDER.into());
        self.query.download_folder().map_or_else(of_batch, Path::to_owned)
    }

    /// The name of the files of the job with this id.
    fn name_for(&self, id: &str) -> String {
        self.name.as_ref().filter(|name| name.is_given).map_or(id, |name| &name.text).to_owned()
    }

    /// Fails if the folder can't be used: called before the submission, so that the server doesn't
    /// work for hours in vain.
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

    /// Notes that the server has served a request.
    fn was_served(&mut self) {
        self.throttled = None;
        *self.shared.served.lock() = Instant::now();
    }

    fn is_waited_for(&self) -> bool {
        self.shared.status || self.shared.download
    }

    fn accepted(&mut self, id: String) -> Result<Submitted, JobError> {
        self.query.set_id(&id);
        self.is_made = true;
        if let (Some(memory), false) = (&self.memory, self.is_remembered) {
            memory.made(&id)?;
            self.is_remembered = true;
        }
        Ok(if self.is_waited_for() { Submitted::Accepted { id } } else { Submitted::Ready { id } })
    }

    /// Decides what the batch does after an error: another attempt, a wait, or the end of the
    /// query.
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
        if matches!(&error, PairsError::Http(error) if error.kind() == HttpErrorKind::Cancelled && !error.may_have_arrived())
        {
            // Nothing was sent.
            return JobError::wait(error, THROTTLED);
        }
        // A status of 500 is mostly temporary here, but a submission that got it may have created a
        // job.
        let server_error = matches!(&error, PairsError::Http(error) if error.status() == Some(500));
        // The call has renewed its token once, and a slow call may have outlived the new one, too.
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

    /// Decides what follows a failed search for a lost job. After the last attempt, the error says
    /// how the answer was lost, and that the list could not be read.
    fn after_failed_look(&mut self, error: PairsError, cx: &mut Context<'_>) -> JobError {
        let why = error.to_string();
        let next = self.follow(error, false);
        if !next.is_fatal() && cx.attempt() < self.shared.attempts {
            return next;
        }
        cx.note(MAY_EXIST);
        // A wait isn't an attempt, so the search goes on after it.
        if next.is_wait() { next } else { self.lost(why) }
    }

    /// The end of a query whose job may exist.
    fn lost(&mut self, why: String) -> JobError {
        self.is_in_doubt = true;
        let creation = Creation::new(submit::likeness(&self.query));
        JobError::fatal(match std::mem::replace(&mut self.creation, creation).into_lost() {
            Some(source) => {
                let name = self.query.name().unwrap_or_default().to_owned();
                PairsError::LostReply { name, why, source: Box::new(source) }
            }
            None => PairsError::Reply(why),
        })
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

    /// Downloads the result of the query's job by one request, and reads the values of points from
    /// the file if they are wanted in memory.
    ///
    /// `JobError::wait` while another query of the batch writes to the same files. Other errors are
    /// followed up by `follow`; but a 404 is tried again, because the result isn't packaged yet.
    fn download(&mut self, cx: &mut Context<'_>) -> Result<QueryResult, JobError> {
        let id = self.id()?.to_owned();
        let name = self.name_for(&id);
        let folder = self.folder();
        let shared = Arc::clone(&self.shared);
        // Two queries of a batch may have the same id, and must not write to the same files at
        // once.
        let Some(_place) = FolderLock::take(&shared.places, folder.join(&name)) else {
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
                // A 404 after success means that the result isn't packaged yet. Retry it only as
                // often as the attempts allow.
                return Err(if is_packaging { JobError::retry(error) } else { self.follow(error, false) });
            }
        };
        self.has_leftovers = false;
        #[cfg(feature = "sqlite")]
        if self.memory.is_some() {
            // No other process works on this row of the campaign.
            download::discard_of_the_dead(&folder, &name);
        }
        self.was_served();
        if files.files.is_empty() {
            cx.note("the archive of the result holds no file");
        }
        if files.may_lack_lines {
            cx.note(UNKNOWN_LENGTH);
        }
        if files.not_numbers > 0 {
            let count = files.not_numbers;
            cx.note(format!("{count} numbers of the JSON are none that JSON knows (NaN, Infinity): null in memory, as they came in the file"));
        }
        let wanted = self.shared.online || self.query.is_interactive();
        let data = if wanted && files.archive.is_none() { points_in(&files, cx) } else { None };
        Ok(QueryResult { id: Some(id), status: self.status.take().map(|status| *status), data, files, estimate: None })
    }
}

#[cfg(feature = "sqlite")]
impl Job {
    pub(super) fn remembered(mut self, memory: Box<dyn Memory>) -> Job {
        self.memory = Some(memory);
        self
    }

    /// Continues a job that another process has submitted.
    pub(super) fn adopted(mut self, id: &str) -> Result<Job, PairsError> {
        self.query = self.query.clone().with_id(id)?;
        (self.is_made, self.is_remembered) = (true, true);
        Ok(self)
    }

    /// Whether the server has created a job or returned the values.
    pub(super) fn is_made(&self) -> bool {
        self.is_made || self.answer.is_some()
    }

    /// Whether the submission may have arrived, and its answer was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.is_in_doubt || self.creation.lost_by().is_some()
    }
}

impl RemoteJob for Job {
    type Output = QueryResult;

    /// Submits the query, or goes on after a lost answer: each call makes one request, or one
    /// search in the server's list of jobs. A query that has a job already, or that the batch
    /// doesn't submit, only gives its id.
    ///
    /// `Accepted` if there is a job to poll. `Ready` if the answer came at once, as for points and
    /// for an estimate, or if this batch doesn't wait for jobs.
    ///
    /// If the answer was lost, the error has the batch call this again: first to search for the
    /// job, and then to submit once more if there surely is none. If the search can't tell, the
    /// query fails, and a note in its report says that the server may have a job for it.
    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        if cx.attempt() == 1 {
            self.check_place().map_err(JobError::fatal)?;
        }
        if !self.shared.submit || self.is_made {
            let id = self.id()?.to_owned();
            return self.accepted(id);
        }
        let shared = Arc::clone(&self.shared);
        let maker = QueryMaker { client: &shared.client, query: &self.query, compact_csv: shared.compact_csv };
        let was_lost = self.creation.lost_by().is_some();
        if let (false, Some(memory)) = (was_lost, &self.memory) {
            memory.will_create()?;
        }
        match self.creation.advance(&shared.ledger, &maker) {
            Ok(Step::Made(Submission::Job(id))) => {
                self.was_served();
                self.accepted(id)
            }
            Ok(Step::Made(answer)) => {
                self.was_served();
                let id = self.query.name().unwrap_or(answer.describe()).to_owned();
                self.answer = Some(Box::new(answer));
                Ok(Submitted::Ready { id })
            }
            Ok(Step::Found(id)) => {
                cx.note(format!("the answer to the submission was lost; the list of jobs has it as {id}"));
                self.accepted(id)
            }
            // A cancelled batch calls no further step of this query, so add the note now.
            Ok(_) if cx.is_cancelled() => {
                cx.note(MAY_EXIST);
                Err(JobError::wait("it is cancelled", TWINS))
            }
            Ok(Step::Look(after)) => {
                // If a proxy answered instead of the server, it may have said when to come back.
                let asked = match self.creation.lost_by().filter(|_| !was_lost) {
                    Some(PairsError::Http(error)) => error.retry_after().unwrap_or_default(),
                    _ => Duration::ZERO,
                };
                Err(JobError::wait("the answer to the submission was lost", after.max(asked)))
            }
            Ok(Step::Again) => {
                cx.note(
                    "submitted again after an answer was lost: no such job was in the list, but if it comes to be, it \
                     is there twice",
                );
                Err(JobError::wait("it isn't in the list of jobs, so it is submitted again", Duration::ZERO))
            }
            Ok(Step::NotYet) => Err(JobError::wait("the same query is being submitted", TWINS)),
            Err(Failure::Refused(error)) => {
                if was_lost {
                    self.is_in_doubt = true;
                    cx.note(MAY_EXIST);
                }
                Err(self.follow(error, true))
            }
            Err(Failure::NoLook(error)) => Err(self.after_failed_look(error, cx)),
            Err(Failure::Unclear(why)) => {
                cx.note(format!("{MAY_EXIST} ({why})"));
                Err(self.lost(why))
            }
        }
    }

    /// Asks for the job's state by one request. `Ready` if it has succeeded; the state is kept for
    /// the result. A job that has failed, or whose state isn't known here, is a fatal error.
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

    /// Returns the values or the estimate if they came at once, and writes values to a file if the
    /// batch downloads. Otherwise downloads the job's result, or returns the last state if the
    /// batch downloads nothing.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<QueryResult, JobError> {
        // Take the answer out: after a failure from here on, the step isn't called again.
        match self.answer.take().map(|answer| *answer) {
            Some(Submission::Points(points)) => {
                if points.is_empty() {
                    cx.note("the server has no value for these points: there is no file");
                }
                if !points.length_known() {
                    cx.note(UNKNOWN_LENGTH);
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
        // No later attempt will resume the failed download, so remove its part.
        if self.has_leftovers {
            if let Some(id) = self.query.id() {
                download::discard(&self.folder(), &self.name_for(id));
            }
        }
    }
}

/// The path to which only this query may write, until it is dropped.
struct FolderLock<'a> {
    places: &'a Mutex<HashSet<PathBuf>>,
    path: PathBuf,
}

impl<'a> FolderLock<'a> {
    fn take(places: &'a Mutex<HashSet<PathBuf>>, path: PathBuf) -> Option<FolderLock<'a>> {
        places.lock().insert(path.clone()).then(|| FolderLock { places, path })
    }
}

impl Drop for FolderLock<'_> {
    fn drop(&mut self) {
        self.places.lock().remove(&self.path);
    }
}

/// Reads the values from a file of points, unless it is too large for memory.
fn points_in(files: &Files, cx: &mut Context<'_>) -> Option<PointData> {
    let path = files.files.first()?;
    if files.bytes > MAX_DATA {
        cx.note(format!("the values are {} bytes, too many for memory: they are in the file alone", files.bytes));
        return None;
    }
    let reason = match fs::read_to_string(path).map(|text| Submission::parse(&text, true, !files.may_lack_lines)) {
        Ok(Ok(Submission::Points(points))) => return Some(points),
        Ok(Ok(other)) => format!("it holds {}", other.describe()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    cx.note(format!("the values are in the file alone: {reason}"));
    None
}
