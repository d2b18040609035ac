//! The logs of a job.

use super::job::BatchJob;
use crate::client::http::Method;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pages::Pages;
use crate::client::openeo::documents::log::{LogEntry, LogLevel, Logs};

impl BatchJob {
    /// The job's logs: of at least `level`, and after the entry whose id is `offset`, if they are
    /// given. Pages are followed to the end, or as far as they can be had: [`Logs::gap`] tells.
    ///
    /// # Errors
    /// The back-end's, for the first page.
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
        // A back-end may not know the filter.
        let is_wanted = |entry: &LogEntry| level.is_none_or(|least| entry.level() >= least);
        let entries = pages.items.into_iter().map(LogEntry::new).filter(is_wanted).collect();
        Ok(Logs::new(entries, pages.gap))
    }
}
