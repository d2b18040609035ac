//! A graph computed at once, while the request waits: for what takes seconds or minutes. Longer
//! ones are batch jobs.
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

/// As long as the Python client waits.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How a graph is computed at once.
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

    /// How long the whole may take, from the request to the last byte; `None` is for ever. Defaults
    /// to 30 minutes.
    pub fn time_limit(mut self, limit: impl Into<Option<Duration>>) -> ExecuteOptions<'a> {
        self.time_limit = limit.into();
        self
    }

    /// What to do about a file of that name. Defaults to [`Existing::Replace`].
    pub fn existing(mut self, existing: Existing) -> ExecuteOptions<'a> {
        self.existing = existing;
        self
    }

    /// The most bytes that the result may have. Defaults to no limit for a file, and to the HTTP
    /// client's for a value.
    pub fn max_bytes(mut self, bytes: u64) -> ExecuteOptions<'a> {
        self.max_bytes = Some(bytes);
        self
    }

    /// Asked ten times a second while the back-end computes, and after each piece that comes;
    /// `true` ends the wait. So does a cancel of the [request](crate::AsyncRequest::cancel) that
    /// computes it, if it runs on an executor. What the back-end does about a caller that has gone,
    /// and whether it bills it, is its own affair.
    pub fn cancelled(mut self, cancelled: impl Fn() -> bool + 'a) -> ExecuteOptions<'a> {
        self.cancelled = Some(Box::new(cancelled));
        self
    }

    /// Told how many bytes have come into the file, and how many there will be, if that is known.
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

/// A result that was computed at once, in memory.
pub struct Executed {
    response: Response,
}

impl Executed {
    /// The bytes, as the format of the graph has them.
    pub fn bytes(&self) -> &[u8] {
        self.response.bytes()
    }

    /// The bytes, to keep.
    pub fn into_bytes(self) -> Vec<u8> {
        self.response.into_bytes()
    }

    /// The result as JSON: a number, a list, an object.
    ///
    /// # Errors
    /// [`OpenEoError::Http`] of the kind `Content` if it is none.
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

    /// What the back-end calls this computation, in its logs and its bills, if it says.
    pub fn id(&self) -> Option<String> {
        self.response.header("openeo-identifier").map(|id| plain(id, 200))
    }

    /// Whether the back-end said how long the result is. If not, one that was cut short can't
    /// always be told from a whole one.
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
    /// Computes a graph at once, and returns its result in memory. Plan, budget and options of a
    /// [`NewJob`] go along; there is no job. (`POST /result`)
    ///
    /// A reply that is lost is not asked for again: it would be computed, and billed, once more.
    /// That is for you to decide.
    ///
    /// # Errors
    /// The back-end's: it may refuse what is too large for this. [`OpenEoError::Http`] of the kind
    /// `Timeout` if the time limit passes, `Cancelled` if the caller cancelled, and `TooLarge` for
    /// more than fits: [`download`](Connection::download) it.
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
        // As with a file: mostly of a proxy that wants a login.
        if response.content_type().as_deref() == Some("text/html") {
            return Err(OpenEoError::reply("a page in HTML in place of a result"));
        }
        Ok(Executed { response })
    }

    /// Computes a graph at once, and streams its result to a file, which has its name when it is
    /// whole. As [`execute`](Connection::execute), and memory stays the same for any size.
    ///
    /// # Errors
    /// As for `execute`, and what is wrong with the file.
    pub fn download(
        &self,
        graph: impl Into<NewJob>,
        path: impl AsRef<Path>,
        options: &ExecuteOptions<'_>,
    ) -> Result<PathBuf, OpenEoError> {
        let path = path.as_ref();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| OpenEoError::Invalid(format!("{} is no path of a file", path.display())))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A result that has come in part is never gone on with: another request would compute
        // another.
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
