//! Changes to a job that exists.
//!
//! Source: openEO API 1.2, "Modify a batch job" (`PATCH /jobs/{job_id}`).

use serde_json::{Map, Value, json};

use super::graph::ProcessGraph;
use super::job::BatchJob;
use crate::client::http::Method;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::log::LogLevel;

/// Changes to a job, for [`BatchJob::change`]. All that isn't set here stays as it is.
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
    /// No changes yet.
    pub fn new() -> JobChange {
        JobChange::default()
    }

    /// The new title, which the job list shows.
    pub fn title(self, title: &str) -> JobChange {
        self.field("title", json!(title))
    }

    /// The new description, in CommonMark.
    pub fn description(self, description: &str) -> JobChange {
        self.field("description", json!(description))
    }

    /// The new process graph.
    pub fn graph(self, graph: &ProcessGraph) -> JobChange {
        self.field("process", json!({"process_graph": graph.as_json()}))
    }

    /// The new billing plan.
    pub fn plan(self, plan: &str) -> JobChange {
        self.field("plan", json!(plan))
    }

    /// The new limit of the job's costs, in the back-end's currency; `None` means no limit. If it
    /// isn't a finite number, the change can't be sent.
    pub fn budget(mut self, budget: impl Into<Option<f64>>) -> JobChange {
        let budget = budget.into();
        let is_sound = budget.is_none_or(f64::is_finite);
        self.fault = (!is_sound).then_some("the budget of a job is a finite number, or none");
        self.field("budget", json!(budget))
    }

    /// The new least level of log entries that the back-end keeps.
    pub fn log_level(self, level: LogLevel) -> JobChange {
        self.field("log_level", json!(level.as_str()))
    }

    /// Any other property of the request; null removes it.
    pub fn field(mut self, name: &str, value: Value) -> JobChange {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The JSON of the request.
    pub fn as_json(&self) -> Value {
        Value::Object(self.fields.clone())
    }
}

impl BatchJob {
    /// Changes a job that isn't queued or running.
    ///
    /// # Errors
    /// The back-end's error: `JobLocked` if the job is queued or running.
    pub fn change(&self, change: &JobChange) -> Result<(), OpenEoError> {
        if let Some(fault) = change.fault {
            return Err(OpenEoError::Invalid(fault.to_owned()));
        }
        let request = self.connection().request(Method::Patch, &self.path("")).json(&change.as_json());
        // Setting the same values twice has the same effect as once.
        self.connection().send(request.idempotent(true)).map(drop)
    }
}
