//! What a back-end tells about the work on a job.

use std::fmt;

use serde_json::Value;

use super::table::Table;
use super::text::{plain, text_of};

/// How grave a log entry is, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Details for debugging.
    Debug,
    /// For the record.
    Info,
    /// Something may be wrong.
    Warning,
    /// Something is.
    Error,
}

impl LogLevel {
    /// In the API's words: `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
        }
    }

    /// The level of that name, in any case; `None` for a name that isn't one.
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

    /// What the back-end calls the entry: what a later call can go on from.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How grave it is. What has no level that is known counts as an error, so that no filter hides
    /// it.
    pub fn level(&self) -> LogLevel {
        let level = self.text("level").map(|level| if level.eq_ignore_ascii_case("warn") { "warning" } else { level });
        level.and_then(LogLevel::of).unwrap_or(LogLevel::Error)
    }

    /// What it says; what is no text is told as JSON.
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

    /// None of them, and why.
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

    /// Whether these are all. A page that can't be had leaves those before it; a link to another
    /// host, or in a circle, isn't followed, nor is one after 1,000 pages or 100,000 entries. Ask
    /// for what comes after the [id](LogEntry::id) of the last.
    pub fn is_complete(&self) -> bool {
        self.gap.is_none()
    }

    /// Why there may be more, in words.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// As a JSON array of what came.
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
