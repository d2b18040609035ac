//! The results of a job: their metadata, asked for once, and their files by name.

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

/// A handle to the results of a job. It asks when it has to, and keeps the metadata.
#[derive(Clone)]
pub struct JobResults {
    pub(super) cache: MetadataCache,
}

impl BatchJob {
    /// A handle to the results. Sends no request yet.
    pub fn results(&self) -> JobResults {
        JobResults { cache: MetadataCache::new(self.clone(), false) }
    }

    /// A handle to what there is of the results of a job that hasn't finished, on back-ends that
    /// have that. (openEO API 1.2, `partial`)
    pub fn partial_results(&self) -> JobResults {
        JobResults { cache: MetadataCache::new(self.clone(), true) }
    }
}

impl JobResults {
    /// The job.
    pub fn job(&self) -> &BatchJob {
        self.cache.job()
    }

    /// The metadata of the results: a STAC item or collection. Asked for once; a download that
    /// finds its link expired asks again.
    ///
    /// # Errors
    /// The back-end's: `JobNotFinished`, for instance.
    pub fn metadata(&self) -> Result<Arc<Value>, OpenEoError> {
        Ok(Arc::clone(&self.cache.get()?.results.document))
    }

    /// All assets, in the order of their keys. Where a collection has no data among its own, those
    /// of its items follow; what can't be had of these is in [`gaps`](JobResults::gaps).
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata).
    pub fn assets(&self) -> Result<Vec<ResultAsset>, OpenEoError> {
        Ok(assets(&self.cache, &self.cache.get()?))
    }

    /// What the results lack, and why, one line each: items that could not be had, and that the job
    /// hasn't finished. Empty if they are whole.
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata).
    pub fn gaps(&self) -> Result<Vec<String>, OpenEoError> {
        let metadata = self.cache.get()?;
        let unread = metadata.unread.iter().map(|unread| format!("{}: {}", unread.name, unread.why));
        let unfinished = metadata.unfinished().map(|status| format!("the job hasn't finished: its status is {status}"));
        Ok(unread.chain(unfinished).collect())
    }

    /// How many numbers of the metadata are none that JSON knows (`NaN`, `Infinity`): they are null
    /// in what was read.
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata).
    pub fn not_numbers(&self) -> Result<usize, OpenEoError> {
        Ok(self.cache.get()?.not_numbers())
    }

    /// The asset of that key.
    ///
    /// # Errors
    /// As for [`metadata`](JobResults::metadata); [`OpenEoError::Asset`] names the keys that there
    /// are.
    pub fn asset(&self, key: &str) -> Result<ResultAsset, OpenEoError> {
        asset_of(&self.cache, &self.cache.get()?, key)
    }

    /// Downloads the only asset, or the one of the key, to `target`: a file, or a folder that is
    /// there.
    ///
    /// # Errors
    /// [`OpenEoError::Asset`], if no key is given and there are several assets, or none.
    /// [`OpenEoError::PartialResults`], if the job hasn't finished; the file is there.
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

    /// An error if the results are partial, and weren't asked for as such.
    pub(crate) fn check_finished(&self, files: impl FnOnce() -> Vec<PathBuf>) -> Result<(), OpenEoError> {
        match self.cache.get()?.unfinished().filter(|_| !self.cache.is_partial()) {
            Some(status) => {
                Err(OpenEoError::PartialResults { id: plain(self.job().id(), 200), status, files: files() })
            }
            None => Ok(()),
        }
    }

    /// The assets as they are now.
    pub(crate) fn ask_again(&self) -> Result<Vec<ResultAsset>, OpenEoError> {
        let generation = self.cache.known().map_or(0, |metadata| metadata.generation);
        Ok(assets(&self.cache, &self.cache.newer(generation)?))
    }

    /// The items that could not be had.
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
