//! A query as a remote job: submitted, asked about until it is done, downloaded.
//!
//! ```text
//! submit --lost reply--> look --> found: accepted, and noted
//!    |                     `----> surely not there: submitted again, and noted
//!    |-- points, estimate --> fetch
//!    `-- id --> poll .. poll --> fetch
//! ```
//!
//! No step sleeps, and each asks the server once; only the look for a job whose answer was lost
//! takes several questions.

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

/// Where the Python client puts its files.
pub(super) const DEFAULT_FOLDER: &str = "download";

/// How long to wait for jobs that submit the very same query at this moment, before looking which
/// one of the list belongs to which.
const TWINS: Duration = Duration::from_millis(200);

/// A server that throttles names a time; if it doesn't, this is it.
const THROTTLED: Duration = Duration::from_secs(1);

/// A server that throttles a query for so long, and has served no other of the batch meanwhile,
/// won't stop.
const THROTTLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A point answer beyond this size, in bytes, stays in its file alone.
const MAX_DATA: u64 = 64 << 20;

/// What the report says of a query that ends before it is known whether there is a job.
const MAY_EXIST: &str =
    "the answer to the submission was lost: the server may have a job for it, which this batch doesn't know";

/// What the report says of CSV whose end nothing proves.
const UNKNOWN_LENGTH: &str = "the server didn't say how long the CSV is: that no line of it was lost can't be known";

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
    /// Which jobs of the server this client has made or found.
    pub(super) ledger: Ledger,
    /// Where files are being written, without their endings.
    pub(super) places: Mutex<HashSet<PathBuf>>,
    /// When the server last did what it was asked, for any query.
    pub(super) served: Mutex<Instant>,
}

/// What a query's files are called.
pub(super) struct Name {
    pub(super) text: String,
    /// Whether the user gave it; one that was made up gives way to the id, if there is one.
    pub(super) is_given: bool,
}

/// What a query on its way tells before the next call, so that it isn't lost if the process dies.
pub(super) trait Memory: Send {
    /// The next call may make the job.
    fn will_create(&self) -> Result<(), JobError>;
    /// It is made.
    fn made(&self, id: &str) -> Result<(), JobError>;
}

/// One query of a batch.
pub(super) struct Job {
    shared: Arc<Shared>,
    query: Query,
    /// What its files are called, unless that is the id.
    name: Option<Name>,
    answer: Option<Box<Submission>>,
    status: Option<Box<QueryJob>>,
    creation: Creation<PairsError>,
    throttled: Option<Instant>,
    /// Whether a download has failed that may have left something behind.
    has_leftovers: bool,
    memory: Option<Box<dyn Memory>>,
    /// Whether the query's id is that of its job, and whether the memory knows it.
    is_made: bool,
    is_remembered: bool,
    /// Whether there may be a job that wasn't found.
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

    fn accepted(&mut self, id: String) -> Result<Submitted, JobError> {
        self.query.set_id(&id);
        self.is_made = true;
        if let (Some(memory), false) = (&self.memory, self.is_remembered) {
            memory.made(&id)?;
            self.is_remembered = true;
        }
        Ok(if self.is_waited_for() { Submitted::Accepted { id } } else { Submitted::Ready { id } })
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
        // The protocol's 500 mostly is a passing one; but a submission that it befell may have done
        // its work.
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

    /// What is to follow a look for a lost job that failed. The last one tells how the answer was
    /// lost, and that the list could not be had.
    fn after_failed_look(&mut self, error: PairsError, cx: &mut Context<'_>) -> JobError {
        let why = error.to_string();
        let next = self.follow(error, false);
        if !next.is_fatal() && cx.attempt() < self.shared.attempts {
            return next;
        }
        cx.note(MAY_EXIST);
        // A wait is no attempt: it goes on.
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
                // 404 after success means that it isn't packaged yet. There is a limit to believing
                // that: the attempts.
                return Err(if is_packaging { JobError::retry(error) } else { self.follow(error, false) });
            }
        };
        self.has_leftovers = false;
        #[cfg(feature = "sqlite")]
        if self.memory.is_some() {
            // The row is this process's alone.
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

    /// Goes on with a job that another process has submitted.
    pub(super) fn adopted(mut self, id: &str) -> Result<Job, PairsError> {
        self.query = self.query.clone().with_id(id)?;
        (self.is_made, self.is_remembered) = (true, true);
        Ok(self)
    }

    /// Whether the server has answered with a job, or with the values themselves.
    pub(super) fn is_made(&self) -> bool {
        self.is_made || self.answer.is_some()
    }

    /// Whether a request to make it may have arrived, and nothing more is known.
    pub(super) fn is_lost(&self) -> bool {
        self.is_in_doubt || self.creation.lost_by().is_some()
    }
}

impl RemoteJob for Job {
    type Output = QueryResult;

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
            // A batch that is cancelled calls for no further step.
            Ok(_) if cx.is_cancelled() => {
                cx.note(MAY_EXIST);
                Err(JobError::wait("it is cancelled", TWINS))
            }
            Ok(Step::Look(after)) => Err(JobError::wait("the answer to the submission was lost", after)),
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
        // No later attempt goes on with what a failed download has left.
        if self.has_leftovers {
            if let Some(id) = self.query.id() {
                download::discard(&self.folder(), &self.name_for(id));
            }
        }
    }
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

/// The values in a file of points, unless they are too many for memory.
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
