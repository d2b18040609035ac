//! A client as a store: its calls by name, with JSON arguments and results, so that a request can
//! be stored.

use serde_json::{Value, json};

use crate::client::pairs::client::Client;
use crate::client::pairs::reply::{Estimate, MergedLayer, QueryJob};
use crate::client::pairs::{PairsError, Query, Submission};
use crate::error::BoxError;
use crate::executor::Store;

/// The operations are `submit`, `status`, `download`, `merge`, `history`, `list`, `favorite` and
/// `dry_run`; answers have the names of the Python client's dictionaries.
///
/// | operation | arguments | answer |
/// |---|---|---|
/// | `submit` | a query | `{"id"}`, `{"data"}` or `{"info"}` |
/// | `status` | `{"id"}` | `{"id", "status", "status_code", ..}` |
/// | `download` | `{"id", "folder", "name"}`, the latter two optional | `{"files", "archive", "folder", "bytes"}` |
/// | `merge` | `{"id", "other"}` | a list of layers |
/// | `history` | `{"id"}` | the query |
/// | `list` | `{"favorites", "page", "size"}`, all optional | a list of what `status` answers |
/// | `favorite` | `{"id", "favorite"}`, the latter optional | `null` |
/// | `dry_run` | a query | `{"usage", ..}` |
///
/// ```no_run
/// use fulmar::client::pairs::Client;
/// use fulmar::{async_submit, async_wait_request};
/// use serde_json::json;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let client = Arc::new(Client::legacy().basic("me", "a password").build()?);
/// let request = async_submit(&client, "status", false, json!({"id": "1722427200_15201227"}))?;
/// println!("{}", async_wait_request(&request, Duration::from_secs(30))?["status"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Store for Client {
    fn name(&self) -> &str {
        "pairs"
    }

    /// Does what `op` names, by the table above, and waits for the answer. Fails with
    /// `PairsError::Invalid` if there is no such operation, or if an argument is missing or has the
    /// wrong type; otherwise with the error of the call.
    fn call(&self, op: &str, args: Value) -> Result<Value, BoxError> {
        let id = || text(&args, "id");
        let number = |name: &str, default: u32| match args.get(name) {
            None => Ok(default),
            Some(value) => value.as_u64().and_then(|value| u32::try_from(value).ok()).ok_or_else(|| wrong(name)),
        };
        let flag = |name: &str, default| match args.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong(name)),
        };
        Ok(match op {
            "submit" => match self.submit(&Query::from_value(args)?)? {
                Submission::Job(id) => json!({"id": id}),
                Submission::Points(points) => json!({"data": points.to_value()}),
                Submission::Estimate(estimate) => json!({"info": estimate_value(&estimate)}),
            },
            "dry_run" => estimate_value(&self.dry_run(&Query::from_value(args)?)?),
            "status" => job_value(&self.status(id()?)?),
            "download" => {
                let id = id()?;
                let optional = |name: &str| args.get(name).map(|_| text(&args, name)).transpose();
                let folder = optional("folder")?.unwrap_or("download");
                let files = self.download_as(id, folder, optional("name")?.unwrap_or(id))?;
                json!({"files": files.files, "archive": files.archive, "folder": files.folder, "bytes": files.bytes})
            }
            "merge" => self.merge(id()?, text(&args, "other")?)?.iter().map(layer_value).collect(),
            "history" => self.history(id()?)?.query.map_or(Value::Null, |query| query.to_dict()),
            "list" => {
                let list = self.list(flag("favorites", false)?, number("page", 1)?, number("size", 10)?)?;
                list.jobs.iter().map(job_value).collect()
            }
            "favorite" => self.favorite(id()?, flag("favorite", true)?).map(|()| Value::Null)?,
            _ => return Err(Box::new(PairsError::Invalid(format!("a PAIRS client has no operation `{op}`")))),
        })
    }
}

fn text<'a>(args: &'a Value, name: &str) -> Result<&'a str, PairsError> {
    args.get(name).and_then(Value::as_str).ok_or_else(|| wrong(name))
}

fn wrong(name: &str) -> PairsError {
    PairsError::Invalid(format!("the argument `{name}` is missing or has the wrong type"))
}

/// The object without its fields that are null.
fn known(object: Value) -> Value {
    match object {
        Value::Object(object) => Value::Object(object.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}

fn job_value(job: &QueryJob) -> Value {
    let edge = |at: usize| job.square.map(|edges| edges[at]);
    known(json!({
        "id": job.id, "status": job.status, "status_code": job.code.code(), "start": job.start, "nickname": job.nickname,
        "ex_percent": job.progress.map(|share| share * 100.0), "flag": job.favorite, "ready": job.ready,
        "sw_lat": edge(0), "sw_lon": edge(1), "ne_lat": edge(2), "ne_lon": edge(3), "message": job.message,
    }))
}

fn estimate_value(estimate: &Estimate) -> Value {
    known(json!({
        "usage": estimate.usage, "usage_unit": estimate.usage_unit, "max_usage": estimate.max_usage, "size": estimate.size,
        "max_size": estimate.max_size, "count": estimate.count, "max_count": estimate.max_count,
        "interactive_max_count": estimate.interactive_max_count,
    }))
}

fn layer_value(layer: &MergedLayer) -> Value {
    known(json!({
        "name": layer.name, "datalayer": layer.datalayer, "datalayer_id": layer.datalayer_id, "dataset": layer.dataset,
        "dataset_id": layer.dataset_id, "timestamp": layer.timestamp, "type": layer.kind, "min": layer.min, "max": layer.max,
        "geoserver_url": layer.geoserver_url, "geoserver_ws": layer.geoserver_ws, "style": layer.style,
    }))
}
