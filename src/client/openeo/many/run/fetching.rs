//! Downloading what a finished job has made; of one that failed, why.

use std::path::{Path, PathBuf};

use crate::batch::Context;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::JobStatus;
use crate::client::openeo::documents::log::LogLevel;
use crate::client::openeo::jobs::job::BatchJob;
use crate::client::openeo::results::names::sound;
use crate::client::openeo::results::write::write_json;

use super::Run;

impl Run {
    /// A folder of its own, whatever its id is.
    fn folder(&mut self, root: &Path, id: &str) -> PathBuf {
        let own = || {
            let stem = format!("job_{}", sound(id));
            let mut taken = self.shared.folders.lock();
            let names = (1..).map(|number| if number == 1 { stem.clone() } else { format!("{stem}-{number}") });
            let name = names.into_iter().find(|name| taken.insert(name.to_lowercase())).unwrap_or(stem.clone());
            root.join(name)
        };
        self.folder.get_or_insert_with(own).clone()
    }

    /// Details, results and assets of a job that is done.
    pub(super) fn download(&mut self, job: &BatchJob, root: &Path, cx: &mut Context<'_>) -> Result<(), OpenEoError> {
        let folder = self.folder(root, job.id());
        let name = sound(job.id());
        std::fs::create_dir_all(&folder).map_err(|error| OpenEoError::written(&folder, error))?;
        let results = match &self.results {
            Some(results) => results.clone(),
            None => {
                if !self.described {
                    self.last = Some(job.once().describe()?);
                    self.described = true;
                }
                if let Some(last) = &self.last {
                    write_json(&folder.join(format!("job_{name}.json")), last.as_json())?;
                }
                self.shared.options.downloads.check_metadata(&folder)?;
                self.results.insert(job.once().results()).clone()
            }
        };
        let assets = results.assets()?;
        for asset in assets.iter().skip(self.files.len()) {
            let target = self.shared.options.downloads.target(&folder, asset.file_name());
            self.files.push(asset.fetch(&target, cx)?.path);
        }
        self.shared.options.downloads.write_metadata(&folder, &*results.metadata()?)
    }

    /// Why a job that has ended is not done.
    pub(super) fn failure(&mut self, job: &BatchJob, status: JobStatus) -> Result<OpenEoError, OpenEoError> {
        let logs = match job.once().logs(None, LogLevel::Error) {
            Err(error) if error.is_retryable() => return Err(error),
            // That there are no logs to be had is not why it failed.
            logs => logs.unwrap_or_default(),
        };
        if let Some(root) = self.shared.options.folder.clone().filter(|_| !logs.is_empty()) {
            let folder = self.folder(&root, job.id());
            std::fs::create_dir_all(&folder).map_err(|error| OpenEoError::written(&folder, error))?;
            write_json(&folder.join(format!("job_{}_errors.json", sound(job.id()))), &logs.to_json())?;
        }
        Ok(OpenEoError::JobFailed { id: job.id().to_owned(), status, logs })
    }
}
