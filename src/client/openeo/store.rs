//! The API's verbs as named operations, for requests that come from a file, a message or a queue.

use serde_json::{Value, json};

use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::log::LogLevel;
use crate::client::openeo::execute::ExecuteOptions;
use crate::client::openeo::jobs::change::JobChange;
use crate::client::openeo::jobs::graph::ProcessGraph;
use crate::client::openeo::jobs::list::JobList;
use crate::client::openeo::jobs::new_job::NewJob;
use crate::client::openeo::results::options::DownloadOptions;
use crate::error::BoxError;
use crate::executor::Store;

/// The names of the operations.
const OPERATIONS: &[&str] = &[
    "capabilities",
    "change_job",
    "create_job",
    "delete_job",
    "describe_job",
    "download_results",
    "estimate_job",
    "execute",
    "get",
    "job_logs",
    "job_results",
    "job_status",
    "list_jobs",
    "me",
    "start_job",
    "stop_job",
    "validate",
];

/// Operations take an object, and those on a job its `id` in it:
///
/// | operation | further arguments | result |
/// |---|---|---|
/// | `capabilities`, `me` | | the document |
/// | `get` | `path` | the document below that path |
/// | `list_jobs` | | an array |
/// | `create_job` | `process`, and whatever else the API takes: `title`, `description`, `plan`, `budget`, .. | `{"id": ..}` |
/// | `change_job` | `id`, and what is to be another way, null to take it away | null |
/// | `execute` | `process`, and whatever else the API takes | the value, computed at once |
/// | `validate` | `process` | an array of texts |
/// | `describe_job`, `estimate_job`, `job_results` | `id` | the document |
/// | `job_status` | `id` | a text |
/// | `start_job`, `stop_job`, `delete_job` | `id` | null |
/// | `job_logs` | `id`, `offset`, `level` | an array |
/// | `download_results` | `id`, `folder` | an array of paths |
///
/// Requests on one job come in the order of their submission if they name it as `key`, too: `{"id":
/// id, "key": id}`.
///
/// ```
/// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
/// # let url = server.url();
/// use fulmar::Executor;
/// use fulmar::client::openeo::Connection;
/// use serde_json::json;
/// use std::sync::Arc;
///
/// let connection = Arc::new(Connection::connect(&url)?);
/// connection.authenticate_basic("u", "u123")?;
/// let executor = Executor::builder().threads(2).build()?;
/// let graph = json!({"add1": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": true}});
/// let job = json!({"title": "sum", "process": {"process_graph": graph}});
/// let made = executor.submit(&connection, "create_job", true, job)?.wait(None)?;
/// let status = executor.submit(&connection, "job_status", false, json!({"id": made["id"]}))?.wait(None)?;
/// assert_eq!(status, "created");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Store for Connection {
    fn name(&self) -> &str {
        Connection::name(self)
    }

    fn call(&self, op: &str, args: Value) -> Result<Value, BoxError> {
        Ok(self.perform(op, args)?)
    }
}

impl Connection {
    /// Does what `op` names, by the table at `impl Store for Connection`, and waits for the result.
    /// Fails with `OpenEoError::Invalid` if there is no such operation, or if an argument is
    /// missing or has the wrong type; otherwise with the error of the call.
    fn perform(&self, op: &str, args: Value) -> Result<Value, OpenEoError> {
        let text = |name: &str| {
            args.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
                OpenEoError::Invalid(format!("the operation `{op}` takes an object with a text `{name}`"))
            })
        };
        let job = || text("id").map(|id| self.job(&id));
        Ok(match op {
            "capabilities" => self.capabilities().as_json().clone(),
            "me" => self.me()?,
            "get" => self.get_json(&text("path")?)?,
            "list_jobs" => jobs_of(&self.list_jobs()?),
            "validate" => json!(self.validate(&ProcessGraph::from_json(args)?)?),
            "describe_job" => job()?.describe()?.as_json().clone(),
            "job_status" => json!(job()?.status()?.as_str()),
            "estimate_job" => job()?.estimate()?,
            "job_results" => job()?.results().metadata()?.as_ref().clone(),
            "change_job" => {
                let fields =
                    args.as_object().into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "id" | "key"));
                let change = fields.fold(JobChange::new(), |change, (name, value)| change.field(name, value.clone()));
                nothing(job()?.change(&change)?)
            }
            "execute" => self.execute(NewJob::from_json(args)?, &ExecuteOptions::new())?.json()?,
            "start_job" => nothing(job()?.start()?),
            "stop_job" => nothing(job()?.stop()?),
            "delete_job" => nothing(job()?.delete()?),
            "job_logs" => {
                let level = args.get("level").and_then(Value::as_str).map(|name| {
                    LogLevel::of(name).ok_or_else(|| OpenEoError::Invalid(format!("{name:?} isn't a level of logs")))
                });
                let offset = args.get("offset").and_then(Value::as_str);
                job()?.logs(offset, level.transpose()?)?.to_json()
            }
            "download_results" => {
                let files = job()?.results().download_files(text("folder")?, &DownloadOptions::new())?;
                files.iter().map(|path| Value::from(path.display().to_string())).collect()
            }
            "create_job" => {
                json!({"id": self.create_job(NewJob::from_json(args)?)?.id()})
            }
            other => {
                let known = OPERATIONS.join(", ");
                return Err(OpenEoError::Invalid(format!("openEO has no operation `{other}`, but: {known}")));
            }
        })
    }
}

fn nothing((): ()) -> Value {
    Value::Null
}

fn jobs_of(list: &JobList) -> Value {
    list.iter().map(|job| job.as_json().clone()).collect()
}
