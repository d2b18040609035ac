//! How assets are downloaded, and where to.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::asset::Target;
use super::names::METADATA;
use super::write::write_json;
use crate::batch::{BatchRunner, BatchRunnerBuilder};
use crate::client::http::Existing;
use crate::client::openeo::api::error::OpenEoError;

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
    pub(super) runner: BatchRunnerBuilder,
}

impl DownloadOptions {
    /// The defaults.
    pub fn new() -> DownloadOptions {
        let runner = BatchRunner::builder().window(4).at_once(4);
        DownloadOptions { existing: Existing::Replace, verify: true, metadata: true, max_bytes: u64::MAX, runner }
    }

    /// What to do about files of that name. Defaults to [`Existing::Replace`]. With
    /// [`Existing::Keep`] a folder is completed: what is there with the expected size and checksum
    /// isn't fetched again, and a `job-results.json` stays as it is.
    pub fn existing(mut self, existing: Existing) -> DownloadOptions {
        self.existing = existing;
        self
    }

    /// Whether `file:size` and `file:checksum` of the metadata must be those of the files. Defaults
    /// to yes.
    pub fn verify(mut self, verify: bool) -> DownloadOptions {
        self.verify = verify;
        self
    }

    /// Whether the metadata are written to `job-results.json` as well, after the assets, also if
    /// some of these failed. They hold the links, signatures of signed ones included. Defaults to
    /// yes.
    pub fn metadata(mut self, written: bool) -> DownloadOptions {
        self.metadata = written;
        self
    }

    /// The most bytes that an asset may have. Defaults to no limit.
    pub fn max_bytes(mut self, bytes: u64) -> DownloadOptions {
        self.max_bytes = bytes;
        self
    }

    /// What runs the downloads: on which executor, how many at once, how often each is tried.
    /// Defaults to the global executor, 4 at once, and the attempts of [`BatchRunner`].
    pub fn run_on(mut self, runner: BatchRunnerBuilder) -> DownloadOptions {
        self.runner = runner;
        self
    }

    pub(crate) fn target(&self, folder: &Path, name: &str) -> Target {
        let (existing, verify, max_bytes) = (self.existing, self.verify, self.max_bytes);
        Target { folder: folder.to_owned(), name: name.to_owned(), existing, verify, max_bytes }
    }

    /// Whether the metadata may be written, which is better known before anything is fetched.
    pub(crate) fn check_metadata(&self, folder: &Path) -> Result<(), OpenEoError> {
        let path = folder.join(METADATA);
        if self.metadata && self.existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            let text = "it is there already and isn't replaced: remove it, or set `existing` or `metadata`";
            return Err(OpenEoError::written(&path, io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        Ok(())
    }

    /// Writes the metadata, as far as the options want that.
    pub(crate) fn write_metadata(&self, folder: &Path, document: &Value) -> Result<(), OpenEoError> {
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
