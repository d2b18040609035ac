//! Validation of a process graph by the back-end.

use serde_json::{Value, json};

use super::graph::ProcessGraph;
use super::new_job::NewJob;
use crate::client::http::Method;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;
use crate::trace::event;

impl Connection {
    /// Has the back-end validate a process graph. Returns `code: message` for each fault that it
    /// finds.
    ///
    /// # Errors
    /// The back-end's error, for example if it can't validate.
    pub fn validate(&self, graph: &ProcessGraph) -> Result<Vec<String>, OpenEoError> {
        let body = json!({"process_graph": graph.as_json()});
        // A validation changes nothing, so it may be repeated.
        let request = self.request(Method::Post, "/validation").idempotent(true).json(&body);
        let reply = self.json_of(request)?;
        let errors = reply.get("errors").and_then(Value::as_array).into_iter().flatten();
        let text = |error: &Value, name: &str| plain(error.get(name).and_then(Value::as_str).unwrap_or("?"), 500);
        Ok(errors.map(|error| format!("{}: {}", text(error, "code"), text(error, "message"))).collect())
    }

    /// The findings of the validation, if the job wants one. If the validation itself fails, that
    /// is a warning, too.
    pub(crate) fn warnings_of(&self, job: &NewJob) -> Vec<String> {
        if !job.is_validated() || !self.capabilities().supports("POST", "/validation") {
            return Vec::new();
        }
        let found = self.validate(job.graph()).unwrap_or_else(|error| vec![format!("the validation failed: {error}")]);
        for _warning in &found {
            event!(WARN, "the back-end's validation of a process graph", warning = _warning);
        }
        found
    }
}
