//! The logs of a job.

use std::fmt;

use serde_json::Value;

use super::table::Table;
use super::text::{plain, text_of};

/// The severity of a log entry, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Details for debugging.
    Debug,
    /// Information.
    Info,
    /// Something may be wrong.
    Warning,
    /// Something is wrong.
    Error,
}

impl LogLevel {
    /// The level as the API writes it: `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
        }
    }

    /// The level with this name, in upper or lower case; `None` if there is no such level.
    pub fn of(name: &str) -> Option<LogLevel> {
        let all = [LogLevel::Debug, LogLevel::Info, LogLevel::Warning, LogLevel::Error];
        all.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of a job's logs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    id: String,
    message: String,
    document: Value,
}

impl LogEntry {
    pub(crate) fn new(document: Value) -> LogEntry {
        LogEntry { id: text_of(document.get("id")), message: text_of(document.get("message")), document }
    }

    /// The entry as it came.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// The entry's id. A later call can ask for the entries after it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its level. An entry without a known level counts as an error, so that no filter hides it.
    pub fn level(&self) -> LogLevel {
        let level = self.text("level").map(|level| if level.eq_ignore_ascii_case("warn") { "warning" } else { level });
        level.and_then(LogLevel::of).unwrap_or(LogLevel::Error)
    }

    /// Its message. If that isn't text, it is returned as JSON.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When it was written, as the back-end wrote it.
    pub fn time(&self) -> Option<&str> {
        self.text("time")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.document.get(name).and_then(Value::as_str)
    }
}

/// Log entries, in the back-end's order. Prints as a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logs {
    entries: Vec<LogEntry>,
    gap: Option<String>,
}

impl Logs {
    pub(crate) fn new(entries: Vec<LogEntry>, gap: Option<String>) -> Logs {
        Logs { entries, gap }
    }

    /// No entries, and the reason.
    pub(crate) fn none(gap: String) -> Logs {
        Logs { entries: Vec::new(), gap: Some(gap) }
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = &LogEntry> {
        self.entries.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether these are all entries. Not if a page can't be read, if a link leads to another host
    /// or in a circle, or after 1,000 pages or 100,000 entries. To read on, ask for the entries
    /// after the [id](LogEntry::id) of the last.
    pub fn is_complete(&self) -> bool {
        self.gap.is_none()
    }

    /// Why there may be more entries, as a text.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// The entries as they came, as a JSON array.
    pub fn to_json(&self) -> Value {
        self.entries.iter().map(|entry| entry.document.clone()).collect()
    }
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["id", "time", "level", "message"]);
        for entry in &self.entries {
            let time = entry.time().unwrap_or_default();
            table.row(&[entry.id(), time, entry.level().as_str(), &plain(entry.message(), 2_000)]);
        }
        table.fmt(f)?;
        self.gap.as_ref().map_or(Ok(()), |gap| write!(f, "\n(there may be more: {gap})"))
    }
}
