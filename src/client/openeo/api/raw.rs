//! Requests to any other part of the API, with the connection's credentials and limits.

use super::connection::Connection;
use super::error::OpenEoError;
use crate::client::http::{Method, RequestBuilder};
use crate::client::openeo::documents::text::plain;

impl Connection {
    /// A request to any path of the API, such as `/services` or `/files/{user}/{path}`. It has the
    /// user's credentials, which are sent only to the API, and the connection's time limits, rate
    /// limits and attempts. The body may be JSON, bytes, or a file of any size (`body_file`).
    /// `send` it, `stream` the reply, or `download` that to a file. [`OpenEoError::from`] turns a
    /// refusal into an openEO error.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if the path doesn't begin with a slash, or leads out of the API.
    ///
    /// ```
    /// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
    /// # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
    /// # connection.authenticate_basic("u", "u123")?;
    /// use fulmar::client::http::Method;
    /// use fulmar::client::openeo::OpenEoError;
    /// use serde_json::json;
    ///
    /// let graph = json!({"add1": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": true}});
    /// let request = connection.api(Method::Post, "/validation")?.json(&json!({"process_graph": graph}));
    /// let reply: serde_json::Value = request.send()?.json()?;
    /// assert_eq!(reply["errors"], json!([]));
    ///
    /// let refusal = connection.api(Method::Delete, "/jobs/none")?.send().map_err(OpenEoError::from);
    /// assert_eq!(refusal.unwrap_err().code(), Some("JobNotFound"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn api(&self, method: Method, path: &str) -> Result<RequestBuilder, OpenEoError> {
        if !path.starts_with('/') || !self.is_ours(&format!("{}{path}", self.root_url())) {
            let shown = plain(path.split('?').next().unwrap_or_default(), 100);
            return Err(OpenEoError::Invalid(format!(
                "{shown:?} isn't a path of the API: it begins with a slash, and stays below the root"
            )));
        }
        Ok(self.request(method, path))
    }
}
