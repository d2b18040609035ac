//! The logs of a job.

use super::job::BatchJob;
use crate::client::http::Method;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pages::Pages;
use crate::client::openeo::documents::log::{LogEntry, LogLevel, Logs};

impl BatchJob {
    /// The job's logs: the entries of at least `level`, and after the entry with the id `offset`,
    /// if these are given. It reads all pages; if one can't be read, the logs end before it, and
    /// [`Logs::gap`] says why.
    ///
    /// # Errors
    /// The back-end's error, if the first page can't be read.
    pub fn logs<'a>(
        &self,
        offset: impl Into<Option<&'a str>>,
        level: impl Into<Option<LogLevel>>,
    ) -> Result<Logs, OpenEoError> {
        let (offset, level) = (offset.into(), level.into());
        let connection = self.connection();
        let mut request = connection.request(Method::Get, &self.path("/logs"));
        if let Some(offset) = offset {
            request = request.query("offset", offset);
        }
        if let Some(level) = level {
            request = request.query("level", level.as_str());
        }
        let pages = Pages::read(connection, request, "logs")?;
        // Filter here, too: a back-end may ignore the parameter.
        let is_wanted = |entry: &LogEntry| level.is_none_or(|least| entry.level() >= least);
        let entries = pages.items.into_iter().map(LogEntry::new).filter(is_wanted).collect();
        Ok(Logs::new(entries, pages.gap))
    }
}
