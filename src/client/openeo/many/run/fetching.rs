//! The last step of a job: downloads the results, or finds out why the job failed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::batch::{Context, JobError};
use crate::client::http::sound_name;
use crate::client::http::{HttpError, HttpErrorKind};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::step::{is_later, is_soft, job_error};
use crate::client::openeo::documents::job::JobStatus;
use crate::client::openeo::documents::log::{LogLevel, Logs};
use crate::client::openeo::documents::text::plain;
use crate::client::openeo::jobs::job::BatchJob;
use crate::client::openeo::results::names;
use crate::client::openeo::results::write::write_json;

use super::Run;

/// For requests that aren't essential (details, logs): how often one is repeated, the first pause
/// before that, and the longest pause that the back-end can ask for.
const SIDE_QUESTIONS: u32 = 2;
const SIDE_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_SIDE_PAUSE: Duration = Duration::from_secs(30);

impl Run {
    /// A folder that only this job uses, whatever characters its id has.
    fn folder(&mut self, root: &Path, id: &str) -> Result<PathBuf, JobError> {
        if let (None, Some(memory)) = (&self.folder, &mut self.memory) {
            let back_end = self.site.as_ref().map_or("", |site| site.back_end.name.as_str());
            self.folder = Some(root.join(memory.folder(back_end, id)?));
        }
        let own = || {
            let stem = format!("job_{}", sound_name(id));
            let mut taken = self.shared.folders.lock();
            let names = (1..).map(|number| if number == 1 { stem.clone() } else { format!("{stem}-{number}") });
            let name = names.into_iter().find(|name| taken.insert(name.to_lowercase())).unwrap_or(stem.clone());
            root.join(name)
        };
        Ok(self.folder.get_or_insert_with(own).clone())
    }

    /// Downloads details, metadata and assets of a finished job. If one of them fails, it still
    /// downloads the others.
    pub(super) fn download(
        &mut self,
        job: &BatchJob,
        root: &Path,
        cx: &mut Context<'_>,
    ) -> Result<Vec<PathBuf>, JobError> {
        let folder = self.folder(root, job.id())?;
        std::fs::create_dir_all(&folder).map_err(|error| OpenEoError::written(&folder, error))?;
        let results = match &self.results {
            Some(results) => results.clone(),
            None => {
                self.write_details(job, &folder, cx)?;
                self.shared.options.downloads.check_metadata(&folder)?;
                self.results.insert(job.once().results()).clone()
            }
        };
        // Ask again: an item that couldn't be read before may be readable now, or the results may
        // be complete.
        let assets = if cx.attempt() > 1 && !results.gaps()?.is_empty() {
            self.files.clear();
            results.ask_again()?
        } else {
            results.assets()?
        };
        if cx.attempt() == 1 {
            match results.not_numbers()? {
                0 => {}
                count => {
                    cx.note(format!("{count} numbers of its metadata are none of JSON's (NaN, Infinity), and null"))
                }
            }
        }
        let mut failed = Failed::default();
        for asset in &assets {
            if self.files.contains_key(asset.key()) {
                continue;
            }
            if let Some(why) = self.given_up.get(asset.key()) {
                failed.named.push((asset.key().to_owned(), why.clone()));
                continue;
            }
            let target = self.shared.options.downloads.target(&folder, asset.file_name());
            match asset.fetch(&target, cx) {
                Ok(file) => {
                    self.files.insert(asset.key().to_owned(), file.path);
                }
                Err(error) if is_later(&error) => return Err(job_error(error)),
                Err(error) => {
                    let may_pass = !is_final(&error, cx.attempt());
                    if !may_pass {
                        self.given_up.insert(asset.key().to_owned(), error.to_string());
                    }
                    failed.add(asset.key(), error, may_pass);
                }
            }
        }
        self.shared.options.downloads.write_metadata(&folder, &*results.metadata()?)?;
        let unread = results.unread()?;
        for unread in unread.iter() {
            failed.may_pass |= unread.may_pass;
            failed.named.push((unread.name.clone(), unread.why.clone()));
        }
        let files = || assets.iter().filter_map(|asset| self.files.get(asset.key()).cloned()).collect::<Vec<_>>();
        match failed.into_error(job, assets.len() + unread.len()) {
            Some(error) => Err(error),
            None => {
                results.check_finished(files)?;
                Ok(files())
            }
        }
    }

    /// Reads and stores the details of the job, once. They aren't essential, because the job list
    /// has the status.
    fn write_details(&mut self, job: &BatchJob, folder: &Path, cx: &mut Context<'_>) -> Result<(), JobError> {
        if !self.described {
            match job.once().describe() {
                Ok(found) => self.last = Some(found),
                Err(error) if is_soft(&error) && self.side_questions < SIDE_QUESTIONS => {
                    return Err(self.ask_later(error));
                }
                Err(error) => cx.note(format!("its details could not be had: {error}")),
            }
            (self.described, self.side_questions) = (true, 0);
        }
        if let Some(last) = &self.last {
            write_json(&folder.join(names::details(job.id())), last.as_json())?;
        }
        Ok(())
    }

    /// The error of a job that ended without success, with its logs if they can be read.
    pub(super) fn failure(
        &mut self,
        job: &BatchJob,
        status: JobStatus,
        cx: &mut Context<'_>,
    ) -> Result<OpenEoError, JobError> {
        let logs = match job.once().logs(None, LogLevel::Error) {
            Ok(logs) => logs,
            Err(error) if is_soft(&error) && self.side_questions < SIDE_QUESTIONS => return Err(self.ask_later(error)),
            Err(error) => {
                cx.note(format!("its logs could not be had: {error}"));
                Logs::none(format!("they could not be had: {error}"))
            }
        };
        if let Some(root) = self.shared.options.folder.clone().filter(|_| !logs.is_empty()) {
            let folder = self.folder(&root, job.id())?;
            let written = std::fs::create_dir_all(&folder).map_err(|error| OpenEoError::written(&folder, error));
            let path = folder.join(format!("job_{}_errors.json", sound_name(job.id())));
            if let Err(error) = written.and_then(|()| write_json(&path, &logs.to_json())) {
                cx.note(format!("its logs could not be written: {error}"));
            }
        }
        Ok(OpenEoError::JobFailed { id: job.id().to_owned(), status, logs })
    }

    /// After a request that isn't essential has failed: has the step called again later, without
    /// counting that as an attempt, because running out of attempts would end the job with this
    /// error.
    fn ask_later(&mut self, error: OpenEoError) -> JobError {
        self.side_questions += 1;
        let asked = error.http().and_then(HttpError::retry_after).unwrap_or_default();
        let pause = Backoff::new(SIDE_PAUSE).delay(self.side_questions - 1).max(asked.min(LONGEST_SIDE_PAUSE));
        JobError::wait(error, pause)
    }
}

/// What could not be downloaded in one attempt.
#[derive(Default)]
struct Failed {
    named: Vec<(String, String)>,
    /// Whether another attempt may succeed for some of it.
    may_pass: bool,
    /// The first error that another attempt may avoid; otherwise the first error.
    source: Option<OpenEoError>,
}

impl Failed {
    fn add(&mut self, key: &str, error: OpenEoError, may_pass: bool) {
        self.named.push((plain(key, 100), error.to_string()));
        if self.source.is_none() || (may_pass && !self.may_pass) {
            self.source = Some(error);
        }
        self.may_pass |= may_pass;
    }

    /// One error for all of it; `None` if nothing has failed.
    fn into_error(self, job: &BatchJob, total: usize) -> Option<JobError> {
        let Failed { named: failed, may_pass, source } = self;
        let first = failed.first()?;
        let source = source.unwrap_or_else(|| OpenEoError::reply(format!("{}: {}", first.0, first.1)));
        let after = source.http().and_then(HttpError::retry_after);
        let id = job.id().to_owned();
        let error = OpenEoError::Downloads { id, total, failed, source: Box::new(source) };
        Some(match after {
            _ if !may_pass => JobError::fatal(error),
            Some(after) => JobError::retry(error).after(after),
            None => JobError::retry(error),
        })
    }
}

/// Whether another attempt at the same asset would fail in the same way.
fn is_final(error: &OpenEoError, attempt: u32) -> bool {
    let is_content = error.http().is_some_and(|http| http.kind() == HttpErrorKind::Content && !http.is_retryable());
    // If a file came completely but isn't the expected one, download it only once more, because it
    // may be large.
    if is_content { attempt > 1 } else { !is_soft(error) }
}
