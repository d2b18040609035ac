//! What is to be another way with a job that exists.
//!
//! Source: openEO API 1.2, "Modify a batch job" (`PATCH /jobs/{job_id}`).

use serde_json::{Map, Value, json};

use super::graph::ProcessGraph;
use super::job::BatchJob;
use crate::client::http::Method;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::log::LogLevel;

/// What is to be another way with a job; what isn't named stays.
///
/// ```
/// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
/// # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
/// # connection.authenticate_basic("u", "u123")?;
/// use fulmar::client::openeo::{JobChange, NewJob, ProcessGraph};
///
/// let job = connection.create_job(NewJob::new(ProcessGraph::load_collection("SENTINEL2_L2A")).budget(10.0))?;
/// job.change(&JobChange::new().title("NDVI 2022").budget(None))?;
/// assert_eq!(job.describe()?.title(), Some("NDVI 2022"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a change is made by `BatchJob::change`"]
pub struct JobChange {
    fields: Map<String, Value>,
    fault: Option<&'static str>,
}

impl JobChange {
    /// Nothing is to change yet.
    pub fn new() -> JobChange {
        JobChange::default()
    }

    /// What the job list calls it.
    pub fn title(self, title: &str) -> JobChange {
        self.field("title", json!(title))
    }

    /// What it is for, in CommonMark.
    pub fn description(self, description: &str) -> JobChange {
        self.field("description", json!(description))
    }

    /// What it computes.
    pub fn graph(self, graph: &ProcessGraph) -> JobChange {
        self.field("process", json!({"process_graph": graph.as_json()}))
    }

    /// The billing plan.
    pub fn plan(self, plan: &str) -> JobChange {
        self.field("plan", json!(plan))
    }

    /// What it may cost at most, in the back-end's currency; `None` is no limit. One that is no
    /// finite number can't be sent.
    pub fn budget(mut self, budget: impl Into<Option<f64>>) -> JobChange {
        let budget = budget.into();
        let is_sound = budget.is_none_or(f64::is_finite);
        self.fault = (!is_sound).then_some("the budget of a job is a finite number, or none");
        self.field("budget", json!(budget))
    }

    /// The least level of log entries that the back-end is to keep.
    pub fn log_level(self, level: LogLevel) -> JobChange {
        self.field("log_level", json!(level.as_str()))
    }

    /// Any other property of the request; null takes it away.
    pub fn field(mut self, name: &str, value: Value) -> JobChange {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// As it is sent.
    pub fn as_json(&self) -> Value {
        Value::Object(self.fields.clone())
    }
}

impl BatchJob {
    /// Changes a job that isn't queued or running.
    ///
    /// # Errors
    /// The back-end's: `JobLocked`, for one that is.
    pub fn change(&self, change: &JobChange) -> Result<(), OpenEoError> {
        if let Some(fault) = change.fault {
            return Err(OpenEoError::Invalid(fault.to_owned()));
        }
        let request = self.connection().request(Method::Patch, &self.path("")).json(&change.as_json());
        // Whatever is set is set twice as well.
        self.connection().send(request.idempotent(true)).map(drop)
    }
}
