//! The options of downloading a job's assets.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::asset::Target;
use super::names::METADATA;
use super::write::write_json;
use crate::batch::{BatchRunner, BatchRunnerBuilder};
use crate::client::http::Existing;
use crate::client::openeo::api::error::OpenEoError;

/// Options of downloading the assets of a job.
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
        let runner = BatchRunner::builder().window(4).max_concurrent(4);
        DownloadOptions { existing: Existing::Replace, verify: true, metadata: true, max_bytes: u64::MAX, runner }
    }

    /// What to do if a file with that name exists. Defaults to [`Existing::Replace`]. With
    /// [`Existing::Keep`] a folder is completed: files with the expected size and checksum aren't
    /// downloaded again, and an existing `job-results.json` stays as it is.
    pub fn existing(mut self, existing: Existing) -> DownloadOptions {
        self.existing = existing;
        self
    }

    /// Whether to check the files against `file:size` and `file:checksum` of the metadata. Defaults
    /// to yes.
    pub fn verify(mut self, verify: bool) -> DownloadOptions {
        self.verify = verify;
        self
    }

    /// Whether to write the metadata to `job-results.json`, after the assets, even if some of these
    /// failed. The metadata include the links, also signed ones. Defaults to yes.
    pub fn metadata(mut self, written: bool) -> DownloadOptions {
        self.metadata = written;
        self
    }

    /// The most bytes that an asset may have. Defaults to no limit.
    pub fn max_bytes(mut self, bytes: u64) -> DownloadOptions {
        self.max_bytes = bytes;
        self
    }

    /// The runner of the downloads: its executor, how many run at once, and the attempts. Defaults
    /// to the global executor, 4 at once, and the attempts of [`BatchRunner`].
    pub fn run_on(mut self, runner: BatchRunnerBuilder) -> DownloadOptions {
        self.runner = runner;
        self
    }

    pub(crate) fn target(&self, folder: &Path, name: &str) -> Target {
        let (existing, verify, max_bytes) = (self.existing, self.verify, self.max_bytes);
        Target { folder: folder.to_owned(), name: name.to_owned(), existing, verify, max_bytes }
    }

    /// Fails if the metadata can't be written because their file exists and must stay: called
    /// before anything is downloaded.
    pub(crate) fn check_metadata(&self, folder: &Path) -> Result<(), OpenEoError> {
        let path = folder.join(METADATA);
        if self.metadata && self.existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            let text = "it is there already and isn't replaced: remove it, or set `existing` or `metadata`";
            return Err(OpenEoError::written(&path, io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        Ok(())
    }

    /// Writes the metadata, if the options say so.
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
