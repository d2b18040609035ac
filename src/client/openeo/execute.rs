//! Computes a graph while the request waits: for graphs that take seconds or minutes. Longer ones
//! should be batch jobs.
//!
//! Source: openEO API 1.2, "Synchronous Data Processing" (`POST /result`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::api::connection::Connection;
use super::api::error::OpenEoError;
use super::documents::text::plain;
use super::jobs::new_job::NewJob;
use crate::client::http::{Download, Existing, Method, RequestBuilder, Response};

/// The default time limit: that of the Python client.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Options of [`Connection::execute`] and [`Connection::download`].
///
/// ```
/// use fulmar::client::openeo::ExecuteOptions;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use std::time::Duration;
///
/// let stop = AtomicBool::new(false);
/// let options = ExecuteOptions::new().time_limit(Duration::from_secs(120)).cancelled(|| stop.load(Ordering::Relaxed));
/// # let _ = options;
/// ```
#[must_use = "options are for `Connection::execute` and `Connection::download`"]
pub struct ExecuteOptions<'a> {
    time_limit: Option<Duration>,
    existing: Existing,
    max_bytes: Option<u64>,
    cancelled: Option<Box<dyn Fn() -> bool + 'a>>,
    progress: Option<Progress<'a>>,
}

type Progress<'a> = Box<dyn Fn(u64, Option<u64>) + 'a>;

impl<'a> ExecuteOptions<'a> {
    /// The defaults.
    pub fn new() -> ExecuteOptions<'a> {
        ExecuteOptions {
            time_limit: Some(TIME_LIMIT),
            existing: Existing::Replace,
            max_bytes: None,
            cancelled: None,
            progress: None,
        }
    }

    /// How long it may take from the request to the last byte; `None` is no limit. Defaults to 30
    /// minutes.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> ExecuteOptions<'a> {
        self.time_limit = limit.into();
        self
    }

    /// What to do if there is a file with that name. Defaults to [`Existing::Replace`].
    pub fn existing(mut self, existing: Existing) -> ExecuteOptions<'a> {
        self.existing = existing;
        self
    }

    /// The most bytes that the result may have. Defaults to no limit for a file, and to the HTTP
    /// client's limit for a result in memory.
    pub fn max_bytes(mut self, bytes: u64) -> ExecuteOptions<'a> {
        self.max_bytes = Some(bytes);
        self
    }

    /// A function that ends the wait when it returns true. It is called ten times a second while
    /// the back-end computes, and after each piece of the result. If the call runs on an executor,
    /// cancelling its [request](crate::AsyncRequest::cancel) ends the wait, too. The back-end may
    /// go on computing, and may bill it.
    pub fn cancelled(mut self, cancelled: impl Fn() -> bool + 'a) -> ExecuteOptions<'a> {
        self.cancelled = Some(Box::new(cancelled));
        self
    }

    /// A function that gets the number of bytes in the file so far, and how many there will be, if
    /// that is known.
    pub fn progress(mut self, progress: impl Fn(u64, Option<u64>) + 'a) -> ExecuteOptions<'a> {
        self.progress = Some(Box::new(progress));
        self
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled()) || crate::executor::is_cancelled()
    }
}

impl Default for ExecuteOptions<'_> {
    fn default() -> Self {
        ExecuteOptions::new()
    }
}

impl fmt::Debug for ExecuteOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecuteOptions")
            .field("time_limit", &self.time_limit)
            .field("existing", &self.existing)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// A result in memory, of [`Connection::execute`].
pub struct Executed {
    response: Response,
}

impl Executed {
    /// The bytes, in the format that the graph saves.
    pub fn bytes(&self) -> &[u8] {
        self.response.bytes()
    }

    /// The bytes, by value.
    pub fn into_bytes(self) -> Vec<u8> {
        self.response.into_bytes()
    }

    /// The result as JSON: a number, a list, an object.
    ///
    /// # Errors
    /// [`OpenEoError::Http`] of the kind `Content` if it isn't JSON.
    pub fn json(&self) -> Result<Value, OpenEoError> {
        Ok(self.response.json()?)
    }

    /// Its media type, without parameters: `image/tiff`.
    pub fn content_type(&self) -> Option<String> {
        self.response.content_type()
    }

    /// What it has cost, in the back-end's currency, if the back-end says.
    pub fn costs(&self) -> Option<f64> {
        self.response
            .header("openeo-costs")
            .and_then(|costs| costs.trim().parse().ok())
            .filter(|costs: &f64| costs.is_finite())
    }

    /// The back-end's id of this computation, in its logs and bills, if it says.
    pub fn id(&self) -> Option<String> {
        self.response.header("openeo-identifier").map(|id| plain(id, 200))
    }

    /// Whether the back-end said how long the result is. If not, one that was cut short can't
    /// always be told from a complete one.
    pub fn length_known(&self) -> bool {
        self.response.length_known()
    }
}

impl fmt::Debug for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed").field("bytes", &self.bytes().len()).field("type", &self.content_type()).finish()
    }
}

impl Connection {
    /// Computes a graph while the call waits, and returns its result in memory. The plan, budget
    /// and options of a [`NewJob`] are sent with it, but no job is made. (`POST /result`)
    ///
    /// If the reply is lost, the request isn't repeated, because the back-end would compute and
    /// bill the result once more. You decide whether to call again.
    ///
    /// # Errors
    /// The back-end's error: it may refuse a graph that takes too long. [`OpenEoError::Http`] of
    /// the kind `Timeout` if the time limit passes, `Cancelled` if the caller cancelled, and
    /// `TooLarge` if the result is too large for memory: [`download`](Connection::download) it.
    ///
    /// ```
    /// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
    /// # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
    /// # connection.authenticate_basic("u", "u123")?;
    /// use fulmar::client::openeo::{ExecuteOptions, ProcessGraph};
    /// use serde_json::json;
    ///
    /// let sum = connection.execute(ProcessGraph::start("add", json!({"x": 3, "y": 5})), &ExecuteOptions::new())?;
    /// assert_eq!(sum.json()?, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn execute(&self, graph: impl Into<NewJob>, options: &ExecuteOptions<'_>) -> Result<Executed, OpenEoError> {
        let request = self.result_request(&graph.into(), options)?;
        let request = match options.max_bytes {
            Some(bytes) => request.max_body(bytes),
            None => request,
        };
        let response = request.send_unless(|| options.is_cancelled())?;
        // An HTML page mostly comes from a proxy that asks for a login.
        if response.content_type().as_deref() == Some("text/html") {
            return Err(OpenEoError::reply("a page in HTML in place of a result"));
        }
        Ok(Executed { response })
    }

    /// Computes a graph while the call waits, as [`execute`](Connection::execute), and streams its
    /// result to a file, so that a large result needs no more memory. The file gets its name when
    /// it is complete.
    ///
    /// # Errors
    /// The errors of `execute`, and those of writing the file.
    pub fn download(
        &self,
        graph: impl Into<NewJob>,
        path: impl AsRef<Path>,
        options: &ExecuteOptions<'_>,
    ) -> Result<PathBuf, OpenEoError> {
        let path = path.as_ref();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| OpenEoError::Invalid(format!("{} isn't a path of a file", path.display())))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Don't resume a partial result: another request would compute a new one.
        let download = Download::new(folder, name).existing(options.existing).resume(false);
        let download = download.max_bytes(options.max_bytes.unwrap_or(u64::MAX));
        let download = download.cancelled(|| options.is_cancelled()).progress(|done, total| {
            if let Some(progress) = &options.progress {
                progress(done, total);
            }
        });
        Ok(self.result_request(&graph.into(), options)?.download(&download)?.path)
    }

    fn result_request(&self, graph: &NewJob, options: &ExecuteOptions<'_>) -> Result<RequestBuilder, OpenEoError> {
        graph.check()?;
        let request = self.request(Method::Post, "/result").accept("*/*").json(&graph.as_json()).first_byte(None);
        Ok(match options.time_limit {
            Some(limit) => request.timeout(limit),
            None => request.timeout(Duration::MAX),
        })
    }
}
