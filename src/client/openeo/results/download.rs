//! Downloads all files of a job's results, several at once, by a batch.

use std::fs;
use std::path::{Path, PathBuf};

use super::asset::{ResultAsset, Target, assets};
use super::handle::JobResults;
use super::options::DownloadOptions;
use crate::batch::{Context, JobError, JobFailure, Poll, RemoteJob, Submitted};
use crate::client::http::Downloaded;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::step::download_error;
use crate::client::openeo::documents::text::plain;

impl JobResults {
    /// Downloads all assets to `folder`, several at once, and the metadata to `job-results.json`.
    /// Creates the folder if necessary. Returns the paths of the assets' files, in the order of the
    /// keys.
    ///
    /// A file gets its name when it is complete and checked. A download that broke off is resumed.
    /// A key that is a safe file name is kept; others are changed. A
    /// [`BatchRunner`](crate::batch::BatchRunner) runs the downloads, and has the settings for
    /// threads, attempts and backoff.
    ///
    /// # Errors
    /// - The errors of [`metadata`](JobResults::metadata).
    /// - [`OpenEoError::Downloads`] if assets, or items that name them, could not be downloaded.
    ///   The files of the others are there.
    /// - [`OpenEoError::PartialResults`] if the job hasn't finished. The files of its results so
    ///   far are there.
    pub fn download_files(
        &self,
        folder: impl AsRef<Path>,
        options: &DownloadOptions,
    ) -> Result<Vec<PathBuf>, OpenEoError> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|error| OpenEoError::written(folder, error))?;
        let metadata = self.cache.get()?;
        let assets = assets(&self.cache, &metadata);
        options.check_metadata(folder)?;
        let total = assets.len() + metadata.unread.len();
        let keys: Vec<String> = assets.iter().map(|asset| plain(asset.key(), 100)).collect();
        let jobs = assets.into_iter().map(|asset| {
            let target = options.target(folder, asset.file_name());
            Fetch { asset: asset.once(), target }
        });
        let report = options.runner.clone().build()?.run(jobs)?;
        let (mut files, mut failed, mut source) = (Vec::new(), Vec::new(), None);
        for job in report.jobs {
            match job.outcome {
                Ok(file) => files.push(file.path),
                Err(failure) => {
                    let error = self.error_of(failure);
                    failed.push((keys[job.index].clone(), error.to_string()));
                    source.get_or_insert(error);
                }
            }
        }
        for unread in &*metadata.unread {
            failed.push((unread.name.clone(), unread.why.clone()));
            source.get_or_insert_with(|| self.cache.wrong(format!("{}: {}", unread.name, unread.why)));
        }
        // Write the metadata with the last links: these may have been renewed meanwhile.
        let written = self.metadata().and_then(|metadata| options.write_metadata(folder, &metadata));
        match source {
            None => {
                written?;
                self.check_finished(|| files.clone())?;
                Ok(files)
            }
            Some(error) => {
                let id = self.job().id().to_owned();
                Err(OpenEoError::Downloads { id, total, failed, source: Box::new(error) })
            }
        }
    }

    fn error_of(&self, failure: JobFailure) -> OpenEoError {
        match failure {
            JobFailure::Failed { source, .. } => match source.downcast::<OpenEoError>() {
                Ok(error) => *error,
                Err(other) => self.cache.wrong(other.to_string()),
            },
            other => self.cache.wrong(other.to_string()),
        }
    }
}

/// One download as a job of a batch. It has nothing to submit or poll, only a result to fetch.
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
        self.asset.fetch(&self.target, cx).map_err(|error| download_error(error, attempt))
    }
}
