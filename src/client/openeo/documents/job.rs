//! A back-end's description of a job.

use std::fmt;

use serde_json::Value;

use super::table::Table;
use super::text::{number_of, plain, text_of};

/// The status of a batch job. (openEO API 1.2)
///
/// ```text
/// created -> queued -> running -> finished | error | canceled        a started job may be stopped, an ended one started again
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobStatus {
    /// Created, and not started.
    Created,
    /// Started, and waiting in the back-end's queue.
    Queued,
    /// Running.
    Running,
    /// Stopped.
    Canceled,
    /// Done, with results.
    Finished,
    /// Failed.
    Error,
    /// A status that this client doesn't know. It counts as a job that goes on.
    Other(String),
}

impl JobStatus {
    pub(crate) fn of(text: &str) -> JobStatus {
        match text.trim().to_ascii_lowercase().as_str() {
            "created" => JobStatus::Created,
            "queued" => JobStatus::Queued,
            "running" => JobStatus::Running,
            "canceled" | "cancelled" => JobStatus::Canceled,
            "finished" => JobStatus::Finished,
            "error" => JobStatus::Error,
            _ => JobStatus::Other(plain(text, 40)),
        }
    }

    /// The status as the API writes it: `queued`.
    pub fn as_str(&self) -> &str {
        match self {
            JobStatus::Created => "created",
            JobStatus::Queued => "queued",
            JobStatus::Running => "running",
            JobStatus::Canceled => "canceled",
            JobStatus::Finished => "finished",
            JobStatus::Error => "error",
            JobStatus::Other(text) => text,
        }
    }

    /// Whether the job has ended: nothing more happens unless it is started again.
    pub fn is_ended(&self) -> bool {
        matches!(self, JobStatus::Canceled | JobStatus::Finished | JobStatus::Error)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A back-end's description of one job. An entry of the job list has fewer details. Prints as a
/// table.
#[derive(Clone, Debug, PartialEq)]
pub struct JobDescription {
    id: String,
    document: Value,
}

impl JobDescription {
    pub(crate) fn new(document: Value) -> JobDescription {
        JobDescription { id: text_of(document.get("id")), document }
    }

    /// The document as it came.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// The job's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The job's status.
    pub fn status(&self) -> JobStatus {
        JobStatus::of(self.text("status").unwrap_or("unknown"))
    }

    /// The title that its author gave it.
    pub fn title(&self) -> Option<&str> {
        self.text("title")
    }

    /// The description that its author gave it.
    pub fn description(&self) -> Option<&str> {
        self.text("description")
    }

    /// How much of the work is done, in percent, if the back-end says so.
    pub fn progress(&self) -> Option<f64> {
        number_of(self.document.get("progress")).filter(|percent| (0.0..=100.0).contains(percent))
    }

    /// When it was created, as the back-end writes it: `2022-06-08T08:58:11Z`.
    pub fn created(&self) -> Option<&str> {
        self.text("created")
    }

    /// When its status last changed.
    pub fn updated(&self) -> Option<&str> {
        self.text("updated")
    }

    /// What it has cost, in the back-end's currency.
    pub fn costs(&self) -> Option<f64> {
        number_of(self.document.get("costs"))
    }

    /// What it has used: CPU, memory and such, each with `value` and `unit`.
    pub fn usage(&self) -> Option<&Value> {
        self.document.get("usage").filter(|usage| !usage.is_null())
    }

    /// The process graph, if this description has it.
    pub fn process_graph(&self) -> Option<&Value> {
        self.document.get("process")?.get("process_graph").filter(|graph| !graph.is_null())
    }

    /// `N/A`, `40%` for a whole number, or `12.5%`, as the reference client prints it.
    pub(crate) fn shown_progress(&self) -> String {
        match self.document.get("progress") {
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => format!("{number}%"),
            Some(Value::Number(number)) => format!("{:.1}%", number.as_f64().unwrap_or_default()),
            _ => "N/A".to_owned(),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.document.get(name).and_then(Value::as_str)
    }
}

impl fmt::Display for JobDescription {
    /// Writes a table: a line for the status, for each of the main fields that the back-end gave,
    /// for each kind of usage, and for each process of the graph.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["job", self.id()]);
        table.row(&["status", &format!("{} (progress {})", self.status(), self.shown_progress())]);
        let costs = self.costs().map(|costs| costs.to_string());
        let words = [
            ("title", self.title()),
            ("description", self.description()),
            ("created", self.created()),
            ("updated", self.updated()),
            ("costs", costs.as_deref()),
        ];
        for (name, value) in words.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            table.row(&[name, value]);
        }
        for (name, used) in self.usage().and_then(Value::as_object).into_iter().flatten() {
            let unit = used.get("unit").and_then(Value::as_str).unwrap_or_default();
            let value = used.get("value").map_or_else(String::new, Value::to_string);
            table.row(&[&format!("usage: {name}"), &format!("{value} {unit}")]);
        }
        for (name, node) in self.process_graph().and_then(Value::as_object).into_iter().flatten() {
            let process = node.get("process_id").and_then(Value::as_str).unwrap_or("?");
            let result = if node.get("result") == Some(&Value::Bool(true)) { " (result)" } else { "" };
            table.row(&[&format!("process: {name}"), &format!("{process}{result}")]);
        }
        table.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn progress_prints_as_the_reference_does() {
        let shown = |progress: Value| JobDescription::new(json!({ "progress": progress })).shown_progress();
        assert_eq!(
            [shown(json!(20)), shown(json!(20.0)), shown(json!(null)), shown(json!("x"))],
            ["20%", "20.0%", "N/A", "N/A"]
        );
        assert_eq!(JobDescription::new(json!({"progress": 120})).progress(), None);
    }

    #[test]
    fn a_status_is_known_however_it_is_written() {
        for (text, status) in
            [("Finished", JobStatus::Finished), ("cancelled", JobStatus::Canceled), (" ERROR", JobStatus::Error)]
        {
            assert_eq!(JobStatus::of(text), status);
        }
    }

    #[test]
    fn an_unknown_status_is_kept_and_goes_on() {
        let status = JobStatus::of("post\u{1b}processing");
        assert_eq!((status.as_str(), status.is_ended()), ("post processing", false));
        for name in ["created", "queued", "running", "canceled", "finished", "error"] {
            assert_eq!(JobStatus::of(name).to_string(), name);
        }
    }
}
