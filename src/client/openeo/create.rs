//! Making jobs, each exactly once, whatever becomes of the reply.
//!
//! `POST /jobs` is never repeated blindly. When its reply is lost, the job may exist: then the job list is searched for one like
//! it (same title and description, not started, not made before the request was sent, and in its details the same process
//! graph, plan and budget) that no other call of this connection has had. Only if there is none, the job is made again.
//!
//! Two calls that make alike jobs must not take each other's: so the search waits until no call for a like job is on its
//! way, and calls for like jobs wait while one searches.
//!
//! ```text
//! post (shared among like jobs) -> answered: id known
//!                               -> lost: search (alone among like jobs) -> found: id known | none: post again
//! ```

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::connection::{Connection, Pace};
use super::error::OpenEoError;
use super::graph::ProcessGraph;
use super::job::BatchJob;
use super::logs::LogLevel;
use super::text::plain;
use super::wait::WaitOptions;
use crate::client::date;
use crate::client::http::{Method, Response};
use crate::sync::{Condvar, Mutex};
use crate::trace::event;

/// How often a job is posted at most.
const POSTS: u32 = 3;

/// How many kinds of jobs, and how many ids of each, are remembered: a job that this connection made itself is never taken for
/// one whose reply was lost.
const REMEMBERED: usize = 10_000;

/// How long a call waits for another that makes a like job, before it gives up on it.
const PATIENCE: Duration = Duration::from_secs(300);

/// How far the clock that dates a back-end's jobs may be off the one that dates its replies; both have whole seconds.
const SLACK: Duration = Duration::from_secs(10);

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
    /// [warnings](BatchJob::warnings), and notes in the report of [`run_jobs`](super::run_jobs), which asks once for all jobs
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

    fn check(&self) -> Result<(), OpenEoError> {
        self.fault.map_or(Ok(()), |fault| Err(OpenEoError::Invalid(fault.to_owned())))
    }

    /// The title; empty if it has none.
    pub(super) fn shown_title(&self) -> &str {
        self.fields.get("title").and_then(Value::as_str).unwrap_or_default()
    }

    /// What tells like jobs.
    fn likeness(&self) -> Likeness {
        Sha256::digest(self.as_json().to_string()).into()
    }

    /// Whether a job in the list may be this one: never started, with the same words, and none from before.
    fn may_be(&self, listed: &Value, earliest: i64) -> bool {
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
    fn is(&self, details: &Value, earliest: i64) -> bool {
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

impl Connection {
    /// Makes a job. It isn't started yet.
    ///
    /// # Errors
    /// The back-end's refusal. [`OpenEoError::LostReply`], if the reply was lost and the job list couldn't be read either:
    /// then the job may exist.
    pub fn create_job(&self, job: impl Into<NewJob>) -> Result<BatchJob, OpenEoError> {
        let job = job.into();
        job.check()?;
        let warnings = self.warnings_of(&job, Pace::Patient);
        let mut creation = Creation::new(job);
        let began = Instant::now();
        loop {
            match creation.advance(self, Pace::Patient)? {
                Progress::Made(id) => return Ok(self.job(&id).with_warnings(warnings)),
                Progress::Again => {}
                Progress::NotYet if began.elapsed() > PATIENCE => return Err(creation.given_up()),
                Progress::NotYet => self.shared.creations.wait_for_change(),
            }
        }
    }

    /// Makes a job, starts it and waits for its end: [`create_job`](Connection::create_job) and
    /// [`BatchJob::start_and_wait`].
    ///
    /// # Errors
    /// Those of both.
    pub fn execute_batch(&self, job: impl Into<NewJob>, options: WaitOptions<'_>) -> Result<BatchJob, OpenEoError> {
        let job = self.create_job(job)?;
        job.start_and_wait(options)?;
        Ok(job)
    }

    /// What the back-end thinks of a process graph: `code: message` for each fault; empty if there is none.
    ///
    /// # Errors
    /// The back-end's, for instance that it can't tell.
    pub fn validate(&self, graph: &ProcessGraph) -> Result<Vec<String>, OpenEoError> {
        self.validate_at(graph, Pace::Patient)
    }

    fn validate_at(&self, graph: &ProcessGraph, pace: Pace) -> Result<Vec<String>, OpenEoError> {
        let body = json!({"process_graph": graph.as_json()});
        // It changes nothing, so it may be repeated.
        let request = self.request(Method::Post, "/validation", pace).idempotent(true).json(&body);
        let reply = self.json_of(request)?;
        let errors = reply.get("errors").and_then(Value::as_array).into_iter().flatten();
        let text = |error: &Value, name: &str| plain(error.get(name).and_then(Value::as_str).unwrap_or("?"), 500);
        Ok(errors.map(|error| format!("{}: {}", text(error, "code"), text(error, "message"))).collect())
    }

    /// A validation that fails is a warning like any other. In a step of a batch a graph is asked about once.
    pub(super) fn warnings_of(&self, job: &NewJob, pace: Pace) -> Vec<String> {
        if !job.validated || !self.capabilities().supports("POST", "/validation") {
            return Vec::new();
        }
        let creations = &self.shared.creations;
        let digest: Likeness = Sha256::digest(json!(job.graph.as_json()).to_string()).into();
        if let Some(known) = creations.warnings.lock().get(&digest).filter(|_| pace == Pace::Step) {
            return known.clone();
        }
        let found =
            self.validate_at(&job.graph, pace).unwrap_or_else(|error| vec![format!("the validation failed: {error}")]);
        for _warning in &found {
            event!(WARN, "the back-end's validation of a process graph", warning = _warning);
        }
        let mut all = creations.warnings.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(digest, found.clone());
        found
    }
}

type Likeness = [u8; 32];

/// Who makes which jobs just now, on one connection and its clones.
pub(super) struct Creations {
    like: Mutex<HashMap<Likeness, Like>>,
    changed: Condvar,
    /// What was said about process graphs.
    warnings: Mutex<HashMap<Likeness, Vec<String>>>,
}

/// The calls that make like jobs.
#[derive(Default)]
struct Like {
    posting: usize,
    searching: bool,
    taken: HashSet<String>,
}

impl Creations {
    pub(super) fn new() -> Creations {
        Creations { like: Mutex::new(HashMap::new()), changed: Condvar::new(), warnings: Mutex::new(HashMap::new()) }
    }

    fn wait_for_change(&self) {
        let mut like = self.like.lock();
        // Looks again now and then, too: a change between the refusal and this lock went unseen.
        let _ = self.changed.wait_until(&mut like, Instant::now() + Duration::from_millis(100));
    }

    fn with<T>(&self, likeness: &Likeness, change: impl FnOnce(&mut Like) -> T) -> T {
        let mut all = self.like.lock();
        if all.len() >= REMEMBERED && !all.contains_key(likeness) {
            all.retain(|_, like| like.searching || like.posting > 0);
        }
        let like = all.entry(*likeness).or_default();
        if like.taken.len() >= REMEMBERED {
            like.taken.clear();
        }
        let result = change(like);
        drop(all);
        self.changed.notify_all();
        result
    }
}

/// One job on its way to existence, step by step: each is one call or one search, and none waits.
pub(super) struct Creation {
    job: NewJob,
    likeness: Likeness,
    state: State,
    posts: u32,
}

enum State {
    ToPost,
    /// The reply to a request that was sent then was lost, by this error's account.
    Lost(OpenEoError, Instant),
}

/// What a step has come to.
pub(super) enum Progress {
    /// There it is, by this id.
    Made(String),
    /// Call again.
    Again,
    /// Call again when calls for like jobs have ended.
    NotYet,
}

impl Creation {
    pub(super) fn new(job: NewJob) -> Creation {
        Creation { likeness: job.likeness(), job, state: State::ToPost, posts: 0 }
    }

    pub(super) fn job(&self) -> &NewJob {
        &self.job
    }

    /// How the reply was lost, if it was, so that the job may exist.
    pub(super) fn lost_by(&self) -> Option<&OpenEoError> {
        match &self.state {
            State::Lost(error, _) => Some(error),
            State::ToPost => None,
        }
    }

    /// One call, or one search. After an error that passes it may be called again, and goes on where it was.
    pub(super) fn advance(&mut self, connection: &Connection, pace: Pace) -> Result<Progress, OpenEoError> {
        match self.state {
            State::ToPost => self.post(connection, pace),
            State::Lost(_, since) => self.search(connection, pace, since),
        }
    }

    /// What to say if nobody goes on.
    pub(super) fn given_up(&mut self) -> OpenEoError {
        match std::mem::replace(&mut self.state, State::ToPost) {
            State::Lost(error, _) => self.lost(error, "calls for like jobs did not end"),
            State::ToPost => {
                OpenEoError::Invalid("calls for like jobs did not end: give jobs titles of their own".into())
            }
        }
    }

    fn post(&mut self, connection: &Connection, pace: Pace) -> Result<Progress, OpenEoError> {
        self.job.check()?;
        let creations = &connection.shared.creations;
        let may = creations.with(&self.likeness, |like| {
            let may = !like.searching;
            like.posting += usize::from(may);
            may
        });
        if !may {
            return Ok(Progress::NotYet);
        }
        let body = self.job.as_json();
        let began = Instant::now();
        let outcome = connection
            .send(connection.request(Method::Post, "/jobs", pace).json(&body))
            .and_then(|reply| id_of(&reply));
        let lost = |error: &OpenEoError| matches!(error, OpenEoError::Reply(_)) || error.may_have_arrived();
        creations.with(&self.likeness, |like| {
            like.posting -= 1;
            if let Ok(id) = &outcome {
                like.taken.insert(id.clone());
            }
        });
        self.posts += 1;
        match outcome {
            Ok(id) => Ok(Progress::Made(id)),
            Err(error) if lost(&error) => {
                event!(WARN, "the reply to creating a job was lost", error = error.to_string());
                self.state = State::Lost(error, began);
                Ok(Progress::Again)
            }
            Err(error) => Err(error),
        }
    }

    fn search(&mut self, connection: &Connection, pace: Pace, since: Instant) -> Result<Progress, OpenEoError> {
        let creations = &connection.shared.creations;
        let taken = creations.with(&self.likeness, |like| {
            let may = !like.searching && like.posting == 0;
            like.searching |= may;
            may.then(|| like.taken.clone())
        });
        let Some(taken) = taken else { return Ok(Progress::NotYet) };
        let found = self.find(connection, pace, since, &taken);
        creations.with(&self.likeness, |like| {
            like.searching = false;
            if let Ok(Some(id)) = &found {
                like.taken.insert(id.clone());
            }
        });
        match found {
            Ok(Some(id)) => {
                event!(INFO, "a job whose reply was lost was found", id = id);
                Ok(Progress::Made(id))
            }
            Ok(None) => {
                let State::Lost(error, _) = std::mem::replace(&mut self.state, State::ToPost) else {
                    return Ok(Progress::Again);
                };
                // The server surely has no such job; a refusal that doesn't pass is one.
                let again = self.posts < POSTS && (error.is_retryable() || error.status().is_some_and(|s| s >= 500));
                if again { Ok(Progress::Again) } else { Err(error) }
            }
            Err(error) if pace == Pace::Step && error.is_retryable() => Err(error),
            Err(why) => {
                let State::Lost(error, _) = std::mem::replace(&mut self.state, State::ToPost) else { return Err(why) };
                Err(self.lost(error, &why.to_string()))
            }
        }
    }

    /// The newest job in the list that is like this one, and that nobody else has.
    fn find(
        &self,
        connection: &Connection,
        pace: Pace,
        since: Instant,
        taken: &HashSet<String>,
    ) -> Result<Option<String>, OpenEoError> {
        let (list, date) = connection.dated_list(pace)?;
        let earliest = date::earliest(date.as_deref(), since.elapsed(), SLACK);
        let mut candidates: Vec<_> = list
            .iter()
            .filter(|listed| {
                self.job.may_be(listed.as_json(), earliest) && !listed.id().is_empty() && !taken.contains(listed.id())
            })
            .collect();
        candidates.sort_by(|a, b| b.created().cmp(&a.created()));
        for candidate in candidates {
            match connection.job(candidate.id()).describe_at(pace) {
                Ok(details) if self.job.is(details.as_json(), earliest) => return Ok(Some(candidate.id().to_owned())),
                Ok(_) => {}
                // Deleted meanwhile.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        if !list.is_complete() {
            return Err(OpenEoError::reply("the job list goes on where it can't be followed"));
        }
        Ok(None)
    }

    fn lost(&self, error: OpenEoError, why: &str) -> OpenEoError {
        let title = plain(self.job.shown_title(), 100);
        OpenEoError::LostReply { title, why: why.to_owned(), source: Box::new(error) }
    }
}

/// What the back-end calls the new job. `Location` need not be a URL, and is only looked at if nothing else tells.
fn id_of(reply: &Response) -> Result<String, OpenEoError> {
    let from_location = || reply.header("location")?.trim_end_matches('/').rsplit('/').next();
    let id = reply.header("openeo-identifier").map(str::trim).filter(|id| !id.is_empty()).or_else(from_location);
    let id = id.filter(|id| !id.is_empty() && id.len() <= 500 && !id.chars().any(char::is_control));
    id.map(str::to_owned)
        .ok_or_else(|| OpenEoError::reply("a job was created, and its id not told (no OpenEO-Identifier)"))
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
