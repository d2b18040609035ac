//! The results of a job: their metadata, and their files, fetched at once.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::asset::{ResultAsset, Target};
use super::connection::Pace;
use super::error::OpenEoError;
use super::job::BatchJob;
use super::names::{METADATA, file_names};
use super::table::Table;
use super::text::plain;
use crate::batch::{BatchRunner, BatchRunnerBuilder, Context, JobError, JobFailure, Poll, RemoteJob, Submitted};
use crate::client::http::{Downloaded, Existing, Method};
use crate::sync::Mutex;

/// How many assets are named in an error.
const NAMED: usize = 20;

/// A handle to the results of a job. It asks when it has to, and keeps the metadata.
#[derive(Clone)]
pub struct JobResults {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) job: BatchJob,
    current: Mutex<Option<Metadata>>,
}

/// The metadata as of one request. Links in it may expire.
#[derive(Clone)]
pub(super) struct Metadata {
    pub(super) generation: u64,
    document: Arc<Value>,
}

/// How to download the assets of a job.
///
/// ```
/// use fulmar::Executor;
/// use fulmar::batch::BatchRunner;
/// use fulmar::client::http::Existing;
/// use fulmar::client::openeo::DownloadOptions;
///
/// let executor = Executor::builder().threads(8).build()?;
/// let options = DownloadOptions::new().existing(Existing::Keep).run_on(BatchRunner::builder().executor(&executor).window(8));
/// # Ok::<(), fulmar::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options are for `download_files`"]
pub struct DownloadOptions {
    existing: Existing,
    verify: bool,
    metadata: bool,
    max_bytes: u64,
    runner: BatchRunnerBuilder,
}

impl DownloadOptions {
    /// The defaults.
    pub fn new() -> DownloadOptions {
        let runner = BatchRunner::builder().window(4).at_once(4);
        DownloadOptions { existing: Existing::Replace, verify: true, metadata: true, max_bytes: u64::MAX, runner }
    }

    /// What to do about files of that name. Defaults to [`Existing::Replace`]. With [`Existing::Keep`] a folder is
    /// completed: what is there with the expected size and checksum isn't fetched again, and a `job-results.json` stays
    /// as it is.
    pub fn existing(mut self, existing: Existing) -> DownloadOptions {
        self.existing = existing;
        self
    }

    /// Whether `file:size` and `file:checksum` of the metadata must be those of the files. Defaults to yes.
    pub fn verify(mut self, verify: bool) -> DownloadOptions {
        self.verify = verify;
        self
    }

    /// Whether the metadata are written to `job-results.json` as well, after the assets, also if some of these failed. They
    /// hold the links, signatures of signed ones included. Defaults to yes.
    pub fn metadata(mut self, written: bool) -> DownloadOptions {
        self.metadata = written;
        self
    }

    /// The most bytes that an asset may have. Defaults to no limit.
    pub fn max_bytes(mut self, bytes: u64) -> DownloadOptions {
        self.max_bytes = bytes;
        self
    }

    /// What runs the downloads: on which executor, how many at once, how often each is tried. Defaults to the global
    /// executor, 4 at once, and the attempts of [`BatchRunner`].
    pub fn run_on(mut self, runner: BatchRunnerBuilder) -> DownloadOptions {
        self.runner = runner;
        self
    }

    pub(super) fn target(&self, folder: &Path, name: &str) -> Target {
        let (existing, verify, max_bytes) = (self.existing, self.verify, self.max_bytes);
        Target { folder: folder.to_owned(), name: name.to_owned(), existing, verify, max_bytes }
    }

    /// Whether the metadata may be written, which is better known before anything is fetched.
    pub(super) fn check_metadata(&self, folder: &Path) -> Result<(), OpenEoError> {
        let path = folder.join(METADATA);
        if self.metadata && self.existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            let text = "it is there already and isn't replaced: remove it, or set `existing` or `metadata`";
            return Err(OpenEoError::written(&path, io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        Ok(())
    }

    /// Writes the metadata, as far as the options want that.
    pub(super) fn write_metadata(&self, folder: &Path, document: &Value) -> Result<(), OpenEoError> {
        let path = folder.join(METADATA);
        let is_kept = self.existing == Existing::Keep && path.symlink_metadata().is_ok();
        if !self.metadata || is_kept {
            return Ok(());
        }
        self.check_metadata(folder)?;
        write_json(&path, document)
    }
}

impl Default for DownloadOptions {
    fn default() -> Self {
        DownloadOptions::new()
    }
}

impl JobResults {
    pub(super) fn new(job: BatchJob) -> JobResults {
        JobResults { shared: Arc::new(Shared { job, current: Mutex::new(None) }) }
    }

    /// The job.
    pub fn job(&self) -> &BatchJob {
        &self.shared.job
    }

    /// The metadata of the results: a STAC item or collection. Asked for once; a download that finds its link expired asks
    /// again.
    ///
    /// # Errors
    /// The back-end's: `JobNotFinished`, for instance.
    pub fn metadata(&self) -> Result<Arc<Value>, OpenEoError> {
        Ok(self.shared.metadata(Pace::Patient)?.document)
    }

    /// All assets, in the order of their keys.
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata).
    pub fn assets(&self) -> Result<Vec<ResultAsset>, OpenEoError> {
        self.assets_at(Pace::Patient)
    }

    /// The asset of that key.
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata); [`OpenEoError::Asset`] names the keys that there are.
    pub fn asset(&self, key: &str) -> Result<ResultAsset, OpenEoError> {
        self.shared.asset(&self.shared.metadata(Pace::Patient)?, key)
    }

    /// Downloads the only asset, or the one of the key, to `target`: a file, or a folder that is there.
    ///
    /// # Errors
    /// [`OpenEoError::Asset`], if no key is given and there are several assets, or none.
    pub fn download_file<'a>(
        &self,
        target: impl AsRef<Path>,
        key: impl Into<Option<&'a str>>,
    ) -> Result<PathBuf, OpenEoError> {
        let asset = match key.into() {
            Some(key) => self.asset(key)?,
            None => {
                let mut assets = self.assets()?;
                match (assets.pop(), assets.is_empty()) {
                    (Some(only), true) => only,
                    (None, _) => return Err(self.shared.wrong("the results have no assets".to_owned())),
                    (Some(last), false) => {
                        let keys = assets.iter().chain([&last]).map(ResultAsset::key);
                        return Err(self.shared.wrong(format!("name one of several assets: {}", named(keys))));
                    }
                }
            }
        };
        asset.download(target)
    }

    /// Downloads all assets to `folder`, which is made if it isn't there, several at once, and the metadata to
    /// `job-results.json`. The paths of the assets' files come in the order of the keys.
    ///
    /// Each file appears under its name when it is whole and checked, and a cut download goes on where it was. Names are
    /// made safe; keys that are sound names of files are kept. It is run by a [`BatchRunner`], which is what brings the
    /// threads, the attempts and the backoff; this client has no dealings with executors.
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata); [`OpenEoError::Downloads`], if assets could not be had: the others are there.
    pub fn download_files(
        &self,
        folder: impl AsRef<Path>,
        options: &DownloadOptions,
    ) -> Result<Vec<PathBuf>, OpenEoError> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|error| OpenEoError::written(folder, error))?;
        let assets = self.assets()?;
        options.check_metadata(folder)?;
        let total = assets.len();
        let keys: Vec<String> = assets.iter().map(|asset| plain(asset.key(), 100)).collect();
        let jobs = assets.into_iter().map(|asset| {
            let target = options.target(folder, asset.file_name());
            Fetch { asset, target }
        });
        let report = options.runner.clone().build()?.run(jobs)?;
        let (mut files, mut failed, mut source) = (Vec::new(), Vec::new(), None);
        for job in report.jobs {
            match job.outcome {
                Ok(file) => files.push(file.path),
                Err(failure) => {
                    let error = self.shared.error_of(failure);
                    failed.push((keys[job.index].clone(), error.to_string()));
                    source.get_or_insert(error);
                }
            }
        }
        // As of the last links, should they have expired meanwhile.
        let written = self.metadata().and_then(|metadata| options.write_metadata(folder, &metadata));
        match source {
            None => written.map(|()| files),
            Some(error) => {
                let id = self.shared.job.id().to_owned();
                Err(OpenEoError::Downloads { id, total, failed, source: Box::new(error) })
            }
        }
    }

    pub(super) fn assets_at(&self, pace: Pace) -> Result<Vec<ResultAsset>, OpenEoError> {
        self.shared.assets(&self.shared.metadata(pace)?)
    }

    pub(super) fn metadata_at(&self, pace: Pace) -> Result<Arc<Value>, OpenEoError> {
        Ok(self.shared.metadata(pace)?.document)
    }
}

impl fmt::Debug for JobResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobResults").field("job", &self.shared.job.id()).finish_non_exhaustive()
    }
}

/// A table of the assets, if they are known already.
impl fmt::Display for JobResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.shared.current.lock().clone();
        let Some(assets) = known.and_then(|metadata| self.shared.assets(&metadata).ok()) else {
            return write!(f, "the results of job '{}'", plain(self.shared.job.id(), 200));
        };
        let mut table = Table::new(&["asset", "type", "bytes", "file"]);
        for asset in &assets {
            let size = asset.size().map_or_else(String::new, |size| size.to_string());
            table.row(&[asset.key(), asset.media_type().unwrap_or_default(), &size, asset.file_name()]);
        }
        table.fmt(f)
    }
}

impl Shared {
    /// What is known, or else asked for.
    fn metadata(self: &Arc<Self>, pace: Pace) -> Result<Metadata, OpenEoError> {
        let known = self.current.lock().clone();
        known.map_or_else(|| self.ask(0, pace), Ok)
    }

    /// Newer metadata than those of `generation`: somebody else's, or asked for.
    pub(super) fn newer(self: &Arc<Self>, generation: u64, pace: Pace) -> Result<Metadata, OpenEoError> {
        let known = self.current.lock().clone().filter(|known| known.generation > generation);
        known.map_or_else(|| self.ask(generation, pace), Ok)
    }

    fn ask(self: &Arc<Self>, generation: u64, pace: Pace) -> Result<Metadata, OpenEoError> {
        let request = self.job.connection().request(Method::Get, &self.job.path("/results"), pace);
        let document = self.job.connection().json_of(request)?;
        if !document.get("assets").is_none_or(Value::is_object) {
            return Err(OpenEoError::reply("the `assets` of the results are no object"));
        }
        let metadata = Metadata { generation: generation + 1, document: Arc::new(document) };
        *self.current.lock() = Some(metadata.clone());
        Ok(metadata)
    }

    pub(super) fn asset(self: &Arc<Self>, metadata: &Metadata, key: &str) -> Result<ResultAsset, OpenEoError> {
        let assets = self.assets(metadata)?;
        let named = named(assets.iter().map(ResultAsset::key));
        let found = assets.into_iter().find(|asset| asset.key() == key);
        found.ok_or_else(|| self.wrong(format!("there is no asset {:?}, but: {named}", plain(key, 100))))
    }

    fn assets(self: &Arc<Self>, metadata: &Metadata) -> Result<Vec<ResultAsset>, OpenEoError> {
        let empty = serde_json::Map::new();
        let assets = metadata.document.get("assets").and_then(Value::as_object).unwrap_or(&empty);
        let text = |asset: &Value, name: &str| asset.get(name).and_then(Value::as_str).map(str::to_owned);
        let mut found = Vec::new();
        for (key, asset) in assets {
            let href = text(asset, "href").and_then(|href| self.job.connection().resolve(&href));
            let href = href.ok_or_else(|| self.wrong(format!("asset {:?} has no link", plain(key, 100))))?;
            found.push((key.clone(), href, text(asset, "type"), asset.clone()));
        }
        let names = file_names(found.iter().map(|(key, href, kind, _)| (key.as_str(), href.as_str(), kind.as_deref())));
        let assets = found.into_iter().zip(names).map(|((key, href, _, document), name)| {
            ResultAsset::new(Arc::clone(self), metadata.generation, key, href, document, name)
        });
        Ok(assets.collect())
    }

    pub(super) fn wrong(&self, reason: String) -> OpenEoError {
        OpenEoError::Asset { id: plain(self.job.id(), 200), reason }
    }

    fn error_of(&self, failure: JobFailure) -> OpenEoError {
        match failure {
            JobFailure::Failed { source, .. } => match source.downcast::<OpenEoError>() {
                Ok(error) => *error,
                Err(other) => self.wrong(other.to_string()),
            },
            other => self.wrong(other.to_string()),
        }
    }
}

/// One download as a job of a batch: there is nothing to submit, and nothing to ask about.
struct Fetch {
    asset: ResultAsset,
    target: Target,
}

impl RemoteJob for Fetch {
    type Output = Downloaded;

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        Ok(Submitted::Ready { id: plain(self.asset.key(), 200) })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        Ok(Poll::Ready)
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<Downloaded, JobError> {
        let attempt = cx.attempt();
        self.asset.fetch(&self.target, cx).map_err(|error| super::many::download_error(error, attempt))
    }
}

/// Writes JSON in one step: the old file, or the new.
pub(super) fn write_json(path: &Path, document: &Value) -> Result<(), OpenEoError> {
    let (new, mut file) = create_beside(path).map_err(|error| OpenEoError::written(path, error))?;
    let mut write = || {
        file.write_all(format!("{document:#}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        OpenEoError::written(path, error)
    })
}

/// A file of a name of its own: somebody else may write the same at this moment, or have died at it.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0..1_000 {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{number}"));
        let new = path.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).open(&new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (new, file)),
        }
    }
    Err(io::Error::other("1,000 unfinished files are beside it: remove them"))
}

fn named<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let mut keys: Vec<String> = keys.take(NAMED + 1).map(|key| plain(key, 100)).collect();
    if keys.len() > NAMED {
        keys[NAMED] = "..".to_owned();
    }
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}
