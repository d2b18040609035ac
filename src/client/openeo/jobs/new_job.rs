//! A job in the making, and which of the jobs on a back-end may be it. Pure.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::graph::ProcessGraph;
use crate::client::creation::Likeness;
use crate::client::date;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::log::LogLevel;

/// A job in the making: a process graph, and what its author says about it.
///
/// ```
/// use fulmar::client::openeo::{NewJob, ProcessGraph};
///
/// let graph = ProcessGraph::load_collection("SENTINEL2_L2A").bands(["B04"]);
/// let job = NewJob::new(graph).title("red").out_format("GTiff");
/// assert_eq!(job.as_json()["process"]["process_graph"]["saveresult1"]["arguments"]["format"], "GTiff");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a job is made by `Connection::create_job`"]
pub struct NewJob {
    graph: ProcessGraph,
    fields: Map<String, Value>,
    validated: bool,
    /// What is wrong with it, so that it can't be sent.
    fault: Option<&'static str>,
}

impl NewJob {
    /// A job without a title.
    pub fn new(graph: ProcessGraph) -> NewJob {
        NewJob { graph, fields: Map::new(), validated: true, fault: None }
    }

    /// A job as the API has it: `{"title": .., "process": {"process_graph": ..}, ..}`.
    ///
    /// # Errors
    /// As for [`ProcessGraph::from_json`].
    pub fn from_json(mut document: Value) -> Result<NewJob, OpenEoError> {
        let process = document.get_mut("process").map(Value::take).unwrap_or_default();
        let mut job = NewJob::new(ProcessGraph::from_json(process)?);
        if let Value::Object(fields) = document {
            job.fields = fields;
            job.fields.remove("process");
        }
        Ok(job)
    }

    /// What the job list calls it. Titles that tell jobs apart also help to find a job whose reply was lost.
    pub fn title(self, title: &str) -> NewJob {
        self.field("title", json!(title))
    }

    /// What it is for, in CommonMark.
    pub fn description(self, description: &str) -> NewJob {
        self.field("description", json!(description))
    }

    /// The billing plan. Defaults to the back-end's.
    pub fn plan(self, plan: &str) -> NewJob {
        self.field("plan", json!(plan))
    }

    /// What it may cost at most, in the back-end's currency. Defaults to no limit. A job with a budget that is no finite number
    /// can't be made: JSON has no such, and to leave it out would mean no limit.
    pub fn budget(mut self, budget: f64) -> NewJob {
        self.fault =
            (!budget.is_finite()).then_some("the budget of a job is a finite number; without one, don't set it");
        self.field("budget", json!(budget))
    }

    /// The least level of log entries that the back-end is to keep. Defaults to the back-end's.
    pub fn log_level(self, level: LogLevel) -> NewJob {
        self.field("log_level", json!(level.as_str()))
    }

    /// Options of this back-end, such as `{"driver-memory": "1G"}`, sent as `job_options`.
    pub fn job_options(self, options: Value) -> NewJob {
        self.field("job_options", options)
    }

    /// Any other property of the request.
    pub fn field(mut self, name: &str, value: Value) -> NewJob {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// Saves the result in this format, unless the graph says so itself.
    pub fn out_format(mut self, format: &str) -> NewJob {
        if !self.graph.is_saved() {
            self.graph = self.graph.save_result(format);
        }
        self
    }

    /// Whether the back-end is asked first, where it can be, what it thinks of the graph. Defaults to yes. What it says are
    /// [warnings](crate::client::openeo::BatchJob::warnings), and notes in the report of [`run_jobs`](crate::client::openeo::run_jobs), which asks once for all jobs
    /// with the same graph: the job is made all the same.
    pub fn validate(mut self, validated: bool) -> NewJob {
        self.validated = validated;
        self
    }

    /// As it is sent.
    pub fn as_json(&self) -> Value {
        let mut body = self.fields.clone();
        body.insert("process".to_owned(), json!({"process_graph": self.graph.as_json()}));
        Value::Object(body)
    }

    pub(crate) fn check(&self) -> Result<(), OpenEoError> {
        self.fault.map_or(Ok(()), |fault| Err(OpenEoError::Invalid(fault.to_owned())))
    }

    /// The process graph.
    pub(crate) fn graph(&self) -> &ProcessGraph {
        &self.graph
    }

    /// Whether the back-end is asked about the graph first.
    pub(crate) fn is_validated(&self) -> bool {
        self.validated
    }

    /// What tells like process graphs.
    pub(crate) fn graph_likeness(&self) -> Likeness {
        Sha256::digest(json!(self.graph.as_json()).to_string()).into()
    }

    /// The title; empty if it has none.
    pub(crate) fn shown_title(&self) -> &str {
        self.fields.get("title").and_then(Value::as_str).unwrap_or_default()
    }

    /// What tells like jobs.
    pub(crate) fn likeness(&self) -> Likeness {
        Sha256::digest(self.as_json().to_string()).into()
    }

    /// Whether a job in the list may be this one: never started, with the same words, and none from before.
    pub(crate) fn may_be(&self, listed: &Value, earliest: i64) -> bool {
        let same = |name: &str| {
            let own = self.fields.get(name).and_then(Value::as_str).unwrap_or_default();
            own == listed.get(name).and_then(Value::as_str).unwrap_or_default()
        };
        // Some lists leave the description out.
        same("title")
            && (listed.get("description").is_none() || same("description"))
            && listed.get("status").and_then(Value::as_str) == Some("created")
            && !listed.get("created").and_then(Value::as_str).is_some_and(|created| is_before(created, earliest))
    }

    /// Whether a job's details are this job's, as far as they say.
    pub(crate) fn is(&self, details: &Value, earliest: i64) -> bool {
        let graph = details.get("process").and_then(|process| process.get("process_graph"));
        // Where one says nothing, the back-end's default counts, which isn't known here.
        let agrees = |name: &str| match (self.fields.get(name), details.get(name)) {
            // The names of plans have no case. (openEO API 1.2)
            (Some(Value::String(own)), Some(Value::String(told))) => own.eq_ignore_ascii_case(told),
            (Some(own), Some(told)) => own.is_null() || told.is_null() || same(own, told),
            _ => true,
        };
        self.may_be(details, earliest)
            && agrees("plan")
            && agrees("budget")
            && graph.is_none_or(|graph| graph.as_object().is_some_and(|graph| same_object(graph, self.graph.as_json())))
    }
}

impl From<ProcessGraph> for NewJob {
    fn from(graph: ProcessGraph) -> NewJob {
        NewJob::new(graph)
    }
}

/// Whether a time of the API, in UTC, is before `earliest`, in milliseconds since 1970. What is no such time is not.
fn is_before(created: &str, earliest: i64) -> bool {
    let utc = created.strip_suffix("+00:00").unwrap_or(created);
    let seconds = date::parse(utc).filter(|_| utc.contains('T'));
    seconds.is_some_and(|seconds| seconds.saturating_mul(1_000) < earliest)
}

/// Whether two documents say the same; `4` and `4.0` do.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => same_object(a, b),
        _ => a == b,
    }
}

/// As [`same`]; what is null may be left out.
fn same_object(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let covers = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter().all(|(name, value)| b.get(name).map_or(is_nothing(name, value), |other| same(value, other)))
    };
    covers(a, b) && covers(b, a)
}

/// What some back-ends leave out, and others add.
fn is_nothing(name: &str, value: &Value) -> bool {
    value.is_null() || (name == "result" && value == false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> NewJob {
        NewJob::new(ProcessGraph::start("add", json!({"x": 3, "y": 5}))).title("t").description("d")
    }

    const LONG_AGO: i64 = 0;
    /// `2022-06-08T08:58:11Z`.
    const THEN: i64 = 1_654_678_691_000;

    #[test]
    fn a_like_job_has_the_same_words_and_graph_and_was_never_started() {
        let graph = json!({"add1": {"process_id": "add", "arguments": {"x": 3.0, "y": 5}, "result": true, "description": null}});
        let details = json!({"id": "1", "title": "t", "description": "d", "status": "created", "process": {"process_graph": graph}});
        assert!(job().is(&details, LONG_AGO));
        for (name, other) in [("title", json!("u")), ("description", json!("e")), ("status", json!("queued"))] {
            let mut changed = details.clone();
            changed[name] = other;
            assert!(!job().is(&changed, LONG_AGO), "{name}");
        }
        let mut other_graph = details.clone();
        other_graph["process"]["process_graph"]["add1"]["arguments"]["x"] = json!(4);
        assert!(!job().is(&other_graph, LONG_AGO));
        let mut listed = details;
        listed.as_object_mut().expect("an object").retain(|name, _| name != "process" && name != "description");
        assert!(job().may_be(&listed, LONG_AGO), "a list may leave things out");
    }

    #[test]
    fn a_like_job_was_not_made_before_and_has_no_other_plan_or_budget() {
        let graph = job().graph.as_json().clone();
        let details = json!({
            "title": "t", "description": "d", "status": "created", "process": {"process_graph": graph}, "plan": "FREE",
            "budget": 4.0, "created": "2022-06-08T08:58:11Z",
        });
        assert!(job().is(&details, THEN));
        assert!(!job().is(&details, THEN + 1_000));
        assert!(job().plan("free").budget(4.0).is(&details, LONG_AGO));
        assert!(!job().plan("pro").is(&details, LONG_AGO));
        assert!(!job().budget(5.0).is(&details, LONG_AGO));
    }

    #[test]
    fn a_time_of_the_api_is_before_another_or_is_none() {
        for before in
            ["2022-06-08T08:58:10Z", "2021-12-31T23:59:59.999Z", "2022-06-08T08:58:10", "2022-06-08T08:58:10+00:00"]
        {
            assert!(is_before(before, THEN), "{before}");
        }
        for not in [
            "2022-06-08T08:58:11Z",
            "2022-06-08T08:58:11.5Z",
            "2022-06-08T08:00:00-02:00",
            "yesterday",
            "",
            "2022-06-08",
        ] {
            assert!(!is_before(not, THEN), "{not}");
        }
    }

    #[test]
    fn likeness_is_of_all_that_is_sent() {
        assert_eq!(job().likeness(), job().likeness());
        assert_ne!(job().likeness(), job().budget(3.0).likeness());
    }
}
