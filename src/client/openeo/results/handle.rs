//! The handle to a job's results: their metadata, and their files by key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::asset::{ResultAsset, asset_of, assets, named};
use super::metadata::{MetadataCache, Unread};
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::table::Table;
use crate::client::openeo::documents::text::plain;
use crate::client::openeo::jobs::job::BatchJob;

/// A handle to the results of a job. It reads the metadata when they are first needed, and keeps
/// them.
#[derive(Clone)]
pub struct JobResults {
    pub(super) cache: MetadataCache,
}

impl BatchJob {
    /// A handle to the results. Sends no request yet.
    pub fn results(&self) -> JobResults {
        JobResults { cache: MetadataCache::new(self.clone(), false) }
    }

    /// A handle to the results so far of a job that may not have finished, on back-ends that
    /// support this. (openEO API 1.2, `partial`)
    pub fn partial_results(&self) -> JobResults {
        JobResults { cache: MetadataCache::new(self.clone(), true) }
    }
}

impl JobResults {
    /// The job.
    pub fn job(&self) -> &BatchJob {
        self.cache.job()
    }

    /// The metadata of the results: a STAC item or collection. They are read once, and again if a
    /// download finds its link expired.
    ///
    /// # Errors
    /// The back-end's error, for example `JobNotFinished`.
    pub fn metadata(&self) -> Result<Arc<Value>, OpenEoError> {
        Ok(Arc::clone(&self.cache.get()?.results.document))
    }

    /// All assets, in the order of their keys. If a collection has no data among its own assets,
    /// those of its items follow; [`gaps`](JobResults::gaps) names the items that can't be read.
    ///
    /// # Errors
    /// The back-end's error, if the metadata can't be read.
    pub fn assets(&self) -> Result<Vec<ResultAsset>, OpenEoError> {
        Ok(assets(&self.cache, &self.cache.get()?))
    }

    /// What the results lack, one line each: items that could not be read, and whether the job
    /// hasn't finished. Empty if the results are complete.
    ///
    /// # Errors
    /// The back-end's error, if the metadata can't be read.
    pub fn gaps(&self) -> Result<Vec<String>, OpenEoError> {
        let metadata = self.cache.get()?;
        let unread = metadata.unread.iter().map(|unread| format!("{}: {}", unread.name, unread.why));
        let unfinished = metadata.unfinished().map(|status| format!("the job hasn't finished: its status is {status}"));
        Ok(unread.chain(unfinished).collect())
    }

    /// How many numbers in the metadata JSON doesn't have (`NaN`, `Infinity`): they are read as
    /// null.
    ///
    /// # Errors
    /// The back-end's error, if the metadata can't be read.
    pub fn not_numbers(&self) -> Result<usize, OpenEoError> {
        Ok(self.cache.get()?.not_numbers())
    }

    /// The asset with this key.
    ///
    /// # Errors
    /// The back-end's error, if the metadata can't be read. [`OpenEoError::Asset`] if there is no
    /// such key; it names those that exist.
    pub fn asset(&self, key: &str) -> Result<ResultAsset, OpenEoError> {
        asset_of(&self.cache, &self.cache.get()?, key)
    }

    /// Downloads the asset with this key, or the only one, to `target`: a file, or an existing
    /// folder.
    ///
    /// # Errors
    /// [`OpenEoError::Asset`] if there is no such asset, or if no key is given and there isn't
    /// exactly one. [`OpenEoError::PartialResults`] if the job hasn't finished; the file is there.
    /// Otherwise the error of the download.
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
                    (None, _) => return Err(self.cache.wrong("the results have no assets".to_owned())),
                    (Some(last), false) => {
                        let keys = assets.iter().chain([&last]).map(ResultAsset::key);
                        return Err(self.cache.wrong(format!("name one of several assets: {}", named(keys))));
                    }
                }
            }
        };
        let file = asset.download(target)?;
        self.check_finished(|| vec![file.clone()])?;
        Ok(file)
    }

    /// Fails if the results are partial and the caller didn't ask for partial ones.
    pub(crate) fn check_finished(&self, files: impl FnOnce() -> Vec<PathBuf>) -> Result<(), OpenEoError> {
        match self.cache.get()?.unfinished().filter(|_| !self.cache.is_partial()) {
            Some(status) => {
                Err(OpenEoError::PartialResults { id: plain(self.job().id(), 200), status, files: files() })
            }
            None => Ok(()),
        }
    }

    /// Reads the metadata again, and returns the assets.
    pub(crate) fn ask_again(&self) -> Result<Vec<ResultAsset>, OpenEoError> {
        let generation = self.cache.known().map_or(0, |metadata| metadata.generation);
        Ok(assets(&self.cache, &self.cache.newer(generation)?))
    }

    /// The items that could not be read.
    pub(crate) fn unread(&self) -> Result<Arc<[Unread]>, OpenEoError> {
        Ok(self.cache.get()?.unread)
    }
}

impl fmt::Debug for JobResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobResults").field("job", &self.job().id()).finish_non_exhaustive()
    }
}

/// A table of the assets, if they are known already.
impl fmt::Display for JobResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.cache.known();
        let Some(assets) = known.map(|metadata| assets(&self.cache, &metadata)) else {
            return write!(f, "the results of job '{}'", plain(self.job().id(), 200));
        };
        let mut table = Table::new(&["asset", "type", "bytes", "file"]);
        for asset in &assets {
            let size = asset.size().map_or_else(String::new, |size| size.to_string());
            table.row(&[asset.key(), asset.media_type().unwrap_or_default(), &size, asset.file_name()]);
        }
        table.fmt(f)
    }
}
