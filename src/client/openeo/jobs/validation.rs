//! What a back-end thinks of a process graph before it is run.

use serde_json::{Value, json};

use super::graph::ProcessGraph;
use super::new_job::NewJob;
use crate::client::http::Method;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;
use crate::trace::event;

impl Connection {
    /// What the back-end thinks of a process graph: `code: message` for each fault; empty if there
    /// is none.
    ///
    /// # Errors
    /// The back-end's, for instance that it can't tell.
    pub fn validate(&self, graph: &ProcessGraph) -> Result<Vec<String>, OpenEoError> {
        let body = json!({"process_graph": graph.as_json()});
        // It changes nothing, so it may be repeated.
        let request = self.request(Method::Post, "/validation").idempotent(true).json(&body);
        let reply = self.json_of(request)?;
        let errors = reply.get("errors").and_then(Value::as_array).into_iter().flatten();
        let text = |error: &Value, name: &str| plain(error.get(name).and_then(Value::as_str).unwrap_or("?"), 500);
        Ok(errors.map(|error| format!("{}: {}", text(error, "code"), text(error, "message"))).collect())
    }

    /// A validation that fails is a warning like any other.
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
