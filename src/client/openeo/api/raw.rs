//! Whatever else the API has: requests of the caller's own, as safe as the client's.

use super::connection::Connection;
use super::error::OpenEoError;
use crate::client::http::{Method, RequestBuilder};
use crate::client::openeo::documents::text::plain;

impl Connection {
    /// A request to any path of the API, such as `/services` or `/files/{user}/{path}`: with the
    /// user's credentials, which go nowhere else, the connection's time limits, rate limits and
    /// attempts. `send` it, `stream` the reply, or `download` it to a file; send JSON, bytes, or a
    /// file of any size (`body_file`). [`OpenEoError::from`] reads a refusal in openEO's words.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] for a path without a slash before it, or one that leads out of the
    /// API.
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
                "{shown:?} is no path of the API: it begins with a slash, and stays below the root"
            )));
        }
        Ok(self.request(method, path))
    }
}
