//! The request for a new job, and which jobs on a back-end may have come from it. Pure.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::graph::ProcessGraph;
use crate::client::creation::{Likeness, Match};
use crate::client::date;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::job::JobStatus;
use crate::client::openeo::documents::log::LogLevel;

/// A job to create: a process graph, with a title and other settings.
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
    /// Why it can't be sent, if it can't.
    fault: Option<&'static str>,
}

impl NewJob {
    /// A job without a title.
    pub fn new(graph: ProcessGraph) -> NewJob {
        NewJob { graph, fields: Map::new(), validated: true, fault: None }
    }

    /// Reads a job as the API defines it: `{"title": .., "process": {"process_graph": ..}, ..}`.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if its process graph is invalid: see [`ProcessGraph::from_json`].
    pub fn from_json(mut document: Value) -> Result<NewJob, OpenEoError> {
        let process = document.get_mut("process").map(Value::take).unwrap_or_default();
        let mut job = NewJob::new(ProcessGraph::from_json(process)?);
        if let Value::Object(fields) = document {
            job.fields = fields;
            job.fields.remove("process");
        }
        Ok(job)
    }

    /// The title, which the job list shows. Different titles for different jobs also help to find a
    /// job whose reply was lost.
    pub fn title(self, title: &str) -> NewJob {
        self.field("title", json!(title))
    }

    /// The description, in CommonMark.
    pub fn description(self, description: &str) -> NewJob {
        self.field("description", json!(description))
    }

    /// The billing plan. Defaults to the back-end's.
    pub fn plan(self, plan: &str) -> NewJob {
        self.field("plan", json!(plan))
    }

    /// The limit of the job's costs, in the back-end's currency. Defaults to no limit. If it isn't
    /// a finite number, the job can't be created: JSON has no such numbers, and leaving it out
    /// would mean no limit.
    pub fn budget(mut self, budget: f64) -> NewJob {
        self.fault =
            (!budget.is_finite()).then_some("the budget of a job is a finite number; without one, don't set it");
        self.field("budget", json!(budget))
    }

    /// The least level of log entries that the back-end keeps. Defaults to the back-end's choice.
    pub fn log_level(self, level: LogLevel) -> NewJob {
        self.field("log_level", json!(level.as_str()))
    }

    /// Options that only this back-end has, such as `{"driver-memory": "1G"}`, sent as
    /// `job_options`.
    pub fn job_options(self, options: Value) -> NewJob {
        self.field("job_options", options)
    }

    /// Any other property of the request.
    pub fn field(mut self, name: &str, value: Value) -> NewJob {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// Saves the result in this format, unless the graph saves it itself.
    pub fn out_format(mut self, format: &str) -> NewJob {
        if !self.graph.is_saved() {
            self.graph = self.graph.save_result(format);
        }
        self
    }

    /// Whether the back-end validates the graph first, if it can. Defaults to yes. Its findings are
    /// [warnings](crate::client::openeo::BatchJob::warnings), and the job is created all the same.
    /// [`run_jobs`](crate::client::openeo::run_jobs) validates once for all jobs with the same
    /// graph, and puts the findings into the report's notes.
    pub fn validate(mut self, validated: bool) -> NewJob {
        self.validated = validated;
        self
    }

    /// The JSON of the request.
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

    /// Whether the back-end validates the graph first.
    pub(crate) fn is_validated(&self) -> bool {
        self.validated
    }

    /// A digest that is the same for equal process graphs.
    pub(crate) fn graph_likeness(&self) -> Likeness {
        Sha256::digest(json!(self.graph.as_json()).to_string()).into()
    }

    /// The title; empty if it has none.
    pub(crate) fn shown_title(&self) -> &str {
        self.fields.get("title").and_then(Value::as_str).unwrap_or_default()
    }

    /// A digest that is the same for equal jobs.
    pub(crate) fn likeness(&self) -> Likeness {
        Sha256::digest(self.as_json().to_string()).into()
    }

    /// Whether an entry of the job list may be this job. A list has no details, so the answer is
    /// never `Same`.
    pub(crate) fn alike_in_list(&self, listed: &Value) -> Match {
        match self.words_alike(listed) {
            Match::Different => Match::Different,
            _ => Match::Possible,
        }
    }

    /// Whether a job is this one, by its details. Unless it is certainly another, it is at least
    /// `Possible`.
    pub(crate) fn alike(&self, details: &Value) -> Match {
        let graph = details.get("process").and_then(|process| process.get("process_graph"));
        let graph = match graph.filter(|graph| !graph.is_null()) {
            Some(graph) => self.graph_alike(graph),
            // Without a graph in the details it can't be told: another job may have the same title.
            None => Match::Possible,
        };
        // If one of them doesn't say, the back-end's default applies, which we don't know.
        let differs = |name: &str| match (self.fields.get(name), details.get(name)) {
            // The case of a plan's name doesn't matter. (openEO API 1.2)
            (Some(Value::String(own)), Some(Value::String(told))) => !own.eq_ignore_ascii_case(told),
            (Some(own), Some(told)) => !own.is_null() && !told.is_null() && !same(own, told),
            _ => false,
        };
        if differs("plan") || differs("budget") {
            return Match::Different;
        }
        least([self.words_alike(details), graph, status_alike(details)])
    }

    /// Compares title, description and status.
    fn words_alike(&self, told: &Value) -> Match {
        let words = |document: Option<&Value>| {
            let text = document.and_then(Value::as_str).unwrap_or_default();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let alike = |name: &str| {
            let (own, told) = (words(self.fields.get(name)), words(told.get(name)));
            match (own.as_str(), told.as_str()) {
                (own, told) if own == told => Match::Same,
                // Lists have no descriptions, and neither do some details.
                (_, "") if name == "description" => Match::Same,
                // A back-end may add a title to a job without one, or drop one.
                ("", _) | (_, "") => Match::Possible,
                // A back-end may cut long texts.
                (own, told) if told.len() >= CUT && own.starts_with(told.trim_end_matches(['.', '…'])) => {
                    Match::Possible
                }
                _ => Match::Different,
            }
        };
        least([alike("title"), alike("description"), status_alike(told)])
    }

    /// Compares process graphs. Back-ends add defaults to arguments, so only different nodes or
    /// processes make a graph `Different`.
    fn graph_alike(&self, told: &Value) -> Match {
        let own = self.graph.as_json();
        let Some(told) = told.as_object() else { return Match::Possible };
        if same_object(told, own) {
            return Match::Same;
        }
        let process = |node: &Value| node.get("process_id").and_then(Value::as_str).map(str::to_owned);
        let is_other = told.len() != own.len()
            || own.iter().any(|(name, node)| told.get(name).is_none_or(|told| process(told) != process(node)));
        if is_other { Match::Different } else { Match::Possible }
    }
}

/// A title or description of so many bytes may have been cut by the back-end.
const CUT: usize = 32;

/// Compares the status with that of a new job, which was never started: a job that runs or has
/// ended is another. A back-end may itself queue a new job, or give it a status that we don't know.
fn status_alike(told: &Value) -> Match {
    match JobStatus::of(told.get("status").and_then(Value::as_str).unwrap_or_default()) {
        JobStatus::Created => Match::Same,
        status if status.is_ended() => Match::Different,
        _ => Match::Possible,
    }
}

/// The weakest of several matches.
fn least<const N: usize>(all: [Match; N]) -> Match {
    if all.contains(&Match::Different) {
        Match::Different
    } else if all.contains(&Match::Possible) {
        Match::Possible
    } else {
        Match::Same
    }
}

/// When a job was made, in milliseconds since 1970: `2022-06-08T08:58:11Z`, or with an offset.
pub(crate) fn created(document: &Value) -> Option<i64> {
    let text = document.get("created")?.as_str()?.trim();
    let (text, offset) = match text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at)) {
        Some(at) if text[at..].starts_with(['+', '-']) && text.contains('T') => {
            let (hours, minutes) = text[at + 1..].split_once(':')?;
            let offset = hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60;
            (&text[..at], if text[at..].starts_with('-') { -offset } else { offset })
        }
        _ => (text, 0),
    };
    let seconds = date::parse(text).filter(|_| text.contains('T'))?;
    Some((seconds - offset).saturating_mul(1_000))
}

impl From<ProcessGraph> for NewJob {
    fn from(graph: ProcessGraph) -> NewJob {
        NewJob::new(graph)
    }
}

/// Whether two JSON values are equal, with `4` and `4.0` as equal.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => same_object(a, b),
        _ => a == b,
    }
}

/// As [`same`], but a field that is null may be missing in the other object.
fn same_object(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let covers = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter().all(|(name, value)| b.get(name).map_or(is_nothing(name, value), |other| same(value, other)))
    };
    covers(a, b) && covers(b, a)
}

/// Whether a field may be missing: some back-ends leave such fields out, and others add them.
fn is_nothing(name: &str, value: &Value) -> bool {
    value.is_null() || (name == "result" && value == false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> NewJob {
        NewJob::new(ProcessGraph::start("add", json!({"x": 3, "y": 5}))).title("t").description("d")
    }

    fn details() -> Value {
        let graph = json!({"add1": {"process_id": "add", "arguments": {"x": 3.0, "y": 5}, "result": true, "description": null}});
        json!({"id": "1", "title": "t", "description": "d", "status": "created", "process": {"process_graph": graph}})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut details = details();
        details[name] = value;
        details
    }

    #[test]
    fn a_like_job_has_the_same_words_and_graph_and_was_never_started() {
        assert_eq!(job().alike(&details()), Match::Same);
        for (name, other) in [("title", json!("u")), ("description", json!("e")), ("status", json!("finished"))] {
            assert_eq!(job().alike(&with(name, other.clone())), Match::Different, "{name}");
            assert_eq!(job().alike_in_list(&with(name, other)), Match::Different, "{name}");
        }
        let mut listed = details();
        listed.as_object_mut().expect("an object").retain(|name, _| name != "process" && name != "description");
        assert_eq!(job().alike_in_list(&listed), Match::Possible, "a list may leave things out");
    }

    #[test]
    fn a_title_alone_makes_no_job_ours() {
        for process in [Value::Null, json!({}), json!({"process_graph": null})] {
            assert_eq!(job().alike(&with("process", process.clone())), Match::Possible, "{process}");
        }
    }

    #[test]
    fn what_a_back_end_may_have_changed_is_possible() {
        for (name, changed) in [("title", Value::Null), ("status", json!("queued")), ("status", json!("preparing"))] {
            assert_eq!(job().alike(&with(name, changed)), Match::Possible, "{name}");
        }
        let graph = |node: Value| with("process", json!({"process_graph": {"add1": node}}));
        let defaults = json!({"process_id": "add", "arguments": {"x": 3, "y": 5, "z": 0}, "result": true});
        assert_eq!(job().alike(&graph(defaults)), Match::Possible);
        assert_eq!(job().alike(&graph(json!({"process_id": "subtract", "arguments": {}}))), Match::Different);
        let long = "a title that is much longer than what some back-ends keep";
        let mut cut = details();
        cut["title"] = json!("a title that is much longer than ...");
        assert_eq!(job().title(long).alike(&cut), Match::Possible);
        assert_eq!(job().title(" t\n").alike(&details()), Match::Same, "blanks");
    }

    #[test]
    fn another_plan_or_budget_is_another_job() {
        let mut told = with("plan", json!("FREE"));
        told["budget"] = json!(4.0);
        assert_eq!(job().alike(&told), Match::Same, "the back-end's defaults");
        assert_eq!(job().plan("free").budget(4.0).alike(&told), Match::Same);
        assert_eq!(job().plan("pro").alike(&told), Match::Different);
        assert_eq!(job().budget(5.0).alike(&told), Match::Different);
    }

    #[test]
    fn a_time_of_the_api_is_read_or_is_none() {
        let read = |text: &str| created(&json!({ "created": text }));
        for text in
            ["2022-06-08T08:58:11Z", "2022-06-08T08:58:11.5Z", "2022-06-08T10:58:11+02:00", "2022-06-08T08:58:11"]
        {
            assert_eq!(read(text), Some(1_654_678_691_000), "{text}");
        }
        for text in ["yesterday", "", "2022-06-08", "+02:00", "T+a:b", "ääääää"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(created(&json!({"created": 5})), None);
    }

    #[test]
    fn likeness_is_of_all_that_is_sent() {
        assert_eq!(job().likeness(), job().likeness());
        assert_ne!(job().likeness(), job().budget(3.0).likeness());
    }
}
