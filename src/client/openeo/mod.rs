//! openEO batch jobs: from a process graph to files, on any back-end that speaks openEO 1.x.
//!
//! Promises:
//!
//! - A job is created once, even if the reply is lost: the client creates it again only if the job
//!   list is complete and has no job like it. If that can't be proven, the error says that the job
//!   may exist.
//! - A job is started once: if the reply is lost, the client first looks at the job.
//! - If a part of something can't be read (a page, an item, an asset, logs), the other parts still
//!   are, and the result names what is missing.
//! - If a token expires, one thread renews it for all, and the request is repeated once.
//! - A file gets its name when it is complete and has the size and checksum of the metadata.
//! - Credentials are sent only to URLs below the API's root.
//! - Names from a back-end (files, links, pages, log lines) are checked before they are used or
//!   shown.
//!
//! Not included: processes that run here, secondary web services and users' files. For the last two
//! there is [`Connection::api`].
//!
//! Sources: openEO API 1.2; the batch job chapter of the openEO Python client's documentation,
//! whose order this page follows; captured exchanges of that client, version 0.53.0, with two
//! back-ends.
//!
//! # Batch jobs
//!
//! A back-end does long computations as **batch jobs**, in these steps:
//!
//! - create a job, from a process graph, with a title and other settings,
//! - start it,
//! - wait until it is finished, asking for its status now and then,
//! - get the list of its results,
//! - download them, or use them in another way.
//!
//! Each step can be done with another tool: you can start a job in a web editor and download its
//! results here. All examples on this page run against a small back-end in this crate's tests.
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let url = server.url();
//! use fulmar::client::openeo::Connection;
//!
//! let connection = Connection::connect(&url)?;
//! connection.authenticate_basic("u", "u123")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! There are other ways to log in: as a service ([client
//! credentials](Connection::authenticate_oidc_client_credentials)), as a person with a
//! [browser](Connection::authenticate_oidc_device), with a [refresh
//! token](Connection::authenticate_oidc_refresh_token), a
//! [password](Connection::authenticate_oidc_password), a [token from
//! elsewhere](Connection::authenticate_bearer), or as the
//! [environment](Connection::authenticate_from_environment) says.
//!
//! # Create a batch job
//!
//! Build a [`ProcessGraph`] step by step, or read it from JSON. The *format* of the result is a
//! step of the graph, or a setting of the job:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! use fulmar::client::openeo::{NewJob, ProcessGraph};
//! use serde_json::json;
//!
//! let cube = ProcessGraph::load_collection("SENTINEL2_L2A")
//!     .spatial_extent([3.5, 51.0, 3.6, 51.1])
//!     .temporal_extent("2022-06-01", "2022-07-01")
//!     .bands(["B04", "B08"])
//!     .process("ndvi", json!({}));
//!
//! // Store raster data as GeoTIFF files.
//! let job = connection.create_job(cube.clone().save_result("GTiff"))?;
//! // Or directly:
//! let job = connection.create_job(NewJob::new(cube.clone()).out_format("GTiff"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a descriptive title the job is easier to find in the job list, also for the client after a
//! reply was lost:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{NewJob, ProcessGraph};
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! let job = connection.create_job(NewJob::new(cube).title("NDVI timeseries 2022"))?;
//! assert_eq!(job.describe()?.title(), Some("NDVI timeseries 2022"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The batch job object
//!
//! A [`BatchJob`] is a *reference on this side* to a job that *exists on the back-end*, and is
//! fully identified by its id:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::ProcessGraph;
//! # let job = connection.create_job(ProcessGraph::load_collection("SENTINEL2_L2A"))?;
//! assert_eq!(job.id(), "j-000001");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Reconnecting to a batch job
//!
//! Store the id. With it any program can find the job again at any time, whichever client created
//! it:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::ProcessGraph;
//! # connection.create_job(ProcessGraph::load_collection("SENTINEL2_L2A"))?;
//! let job = connection.job("j-000001");
//! // Its details print as a table, where the Python client draws in a notebook.
//! println!("{}", job.describe()?);
//! # assert!(job.describe()?.to_string().contains("process: loadcollection1  load_collection (result)"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # List your batch jobs
//!
//! [`Connection::list_jobs`] follows the list through all its pages. It prints as a table, too:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config { page: Some(1), ..openeo_server::Config::quick() })?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{NewJob, ProcessGraph};
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # connection.create_job(NewJob::new(cube.clone()).title("NDVI timeseries 2021"))?;
//! # connection.create_job(NewJob::new(cube).title("NDVI timeseries 2022"))?;
//! let jobs = connection.list_jobs()?;
//! let titles: Vec<_> = jobs.iter().filter_map(|job| job.title()).collect();
//! assert_eq!(titles, ["NDVI timeseries 2021", "NDVI timeseries 2022"]);
//! println!("{jobs}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Run a batch job
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::ProcessGraph;
//! # let job = connection.create_job(ProcessGraph::load_collection("SENTINEL2_L2A"))?;
//! job.start()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! If that returns no error, the job is queued or running.
//!
//! # Wait for a batch job to finish
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::default())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::ProcessGraph;
//! # let job = connection.create_job(ProcessGraph::load_collection("SENTINEL2_L2A"))?;
//! # job.start()?;
//! use fulmar::client::openeo::JobStatus;
//!
//! assert!(matches!(job.status()?, JobStatus::Queued | JobStatus::Running));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The values are those of [`JobStatus`]: created, queued, running, canceled, finished and error.
//! The results are complete when the job is finished. [`BatchJob::wait`] waits for a job that
//! another program started, and [`Connection::wait_jobs`] for many at once.
//!
//! ## Create, start and wait in one go
//!
//! [`BatchJob::start_and_wait`] starts a job, and asks for its status until it ends: first after 5
//! s, then with delays that grow by a quarter each time, up to 60 s. It prints a line each time:
//!
//! ```text
//! 0:00:00 Job 'b0e8adcf-087f-41de-afe6-b3c0ea88ff38': send 'start'
//! 0:00:36 Job 'b0e8adcf-087f-41de-afe6-b3c0ea88ff38': queued (progress N/A)
//! 0:02:19 Job 'b0e8adcf-087f-41de-afe6-b3c0ea88ff38': running (progress N/A)
//! 0:03:28 Job 'b0e8adcf-087f-41de-afe6-b3c0ea88ff38': finished (progress N/A)
//! ```
//!
//! [`WaitOptions`] set how often it asks, for how long, and where the lines go:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::ProcessGraph;
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! use fulmar::backoff::Backoff;
//! use fulmar::client::openeo::WaitOptions;
//! use std::time::Duration;
//!
//! let mut lines = Vec::new();
//! let options = WaitOptions::new()
//!     .poll(Backoff::new(Duration::from_millis(10)).factor(1.25).cap(Duration::from_secs(60)))
//!     .time_limit(Duration::from_secs(3600))
//!     .printer(|line| lines.push(line.to_owned()));
//! let job = connection.create_job(cube)?;
//! job.start_and_wait(options)?;
//! assert_eq!(lines[0], "0:00:00 Job 'j-000001': send 'start'");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Connection::execute_batch`] also creates the job:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let soon = Backoff::new(Duration::from_millis(10));
//! let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! assert_eq!(job.status()?.as_str(), "finished");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Batch job logs
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let soon = Backoff::new(Duration::from_millis(10));
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! use fulmar::client::openeo::LogLevel;
//!
//! for entry in job.logs(None, LogLevel::Info)?.iter() {
//!     println!("{}: {}", entry.level(), entry.message());
//! }
//! let all = job.logs(None, None)?; // Prints as a table.
//! assert!(all.to_string().contains("Job started with 4 workers"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Automatic batch job log printing
//!
//! If a job fails during the wait, its error logs are printed, with a hint how to see all logs. The
//! error has them, too:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{NewJob, ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let job = connection.create_job(NewJob::new(ProcessGraph::load_collection("SENTINEL2_L2A")).title("to fail"))?;
//! # let mut lines = Vec::new();
//! # let options = WaitOptions::new().poll(Backoff::new(Duration::from_millis(10)));
//! # let options = options.printer(|line| lines.push(line.to_owned()));
//! use fulmar::client::openeo::OpenEoError;
//!
//! let Err(OpenEoError::JobFailed { logs, .. }) = job.start_and_wait(options) else { panic!("it fails") };
//! let messages: Vec<_> = logs.iter().map(|entry| entry.message()).collect();
//! assert_eq!(messages, ["Failed to load data cube: corrupt data for tile 'J9A7K2'."]);
//! # assert!(lines.iter().any(|line| line == "Your batch job 'j-000001' failed."));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Download batch job results
//!
//! The metadata of the results are a STAC item or collection:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let soon = Backoff::new(Duration::from_millis(10));
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! let results = job.results();
//! let metadata = results.metadata()?;
//! assert_eq!(metadata["assets"]["openEO.tif"]["type"], "image/tiff; application=geotiff");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Download all assets
//!
//! This downloads several files at once, and writes the metadata to `job-results.json`. A file
//! appears only when it is complete. Its name is that of the results, if that is safe.
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let soon = Backoff::new(Duration::from_millis(10));
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! # let folder = std::env::temp_dir().join(format!("fulmar-doc-all-{}", std::process::id()));
//! # let (results, folder) = (job.results(), folder.as_path());
//! use fulmar::client::openeo::DownloadOptions;
//!
//! let files = results.download_files(folder, &DownloadOptions::new())?;
//! assert_eq!(files, [folder.join("openEO.tif"), folder.join("out.csv")]);
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Download a single asset
//!
//! If there is only one asset, it needs no name. If there are several, give the key of the one to
//! download:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let soon = Backoff::new(Duration::from_millis(10));
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! # let folder = std::env::temp_dir().join(format!("fulmar-doc-one-{}", std::process::id()));
//! # let results = job.results();
//! assert!(results.download_file(folder.join("result.tiff"), None).is_err(), "there are two");
//! results.download_file(folder.join("result.tiff"), "openEO.tif")?;
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Fine-grained asset downloads
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let soon = Backoff::new(Duration::from_millis(10));
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! # let folder = std::env::temp_dir().join(format!("fulmar-doc-fine-{}", std::process::id()));
//! # let results = job.results();
//! for asset in results.assets()? {
//!     if asset.media_type().is_some_and(|kind| kind.starts_with("image/tiff")) {
//!         // A safe name: the key may be anything.
//!         asset.download(folder.join(format!("result-v2-{}", asset.file_name())))?;
//!     }
//! }
//! assert!(folder.join("result-v2-openEO.tif").is_file());
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Directly load batch job results
//!
//! An asset can be read without a file:
//!
//! ```
//! # let assets = vec![("timeseries.json".to_owned(), "application/json".to_owned(), 40)];
//! # let server = openeo_server::Server::start(openeo_server::Config { assets, ..openeo_server::Config::quick() })?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! # use fulmar::client::openeo::{ProcessGraph, WaitOptions};
//! # use fulmar::backoff::Backoff;
//! # use std::time::Duration;
//! # let soon = Backoff::new(Duration::from_millis(10));
//! # let cube = ProcessGraph::load_collection("SENTINEL2_L2A");
//! # let job = connection.execute_batch(cube, WaitOptions::new().poll(soon).quiet())?;
//! let asset = job.results().asset("timeseries.json")?;
//! assert_eq!(asset.metadata()["type"], "application/json");
//! assert_eq!(asset.load_json()?["job"], job.id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Many jobs
//!
//! [`run_jobs`] does all of this for many jobs, on several back-ends, with as many jobs at once on
//! each as it allows. A [`Connection`] is also a [`Store`](crate::Store), whose operations are the
//! API's verbs.
//!
//! # Compute at once
//!
//! A computation of seconds needs no job: [`Connection::execute`] waits for its value, and
//! [`Connection::download`] for its file.
//!
//! # Processes with parameters
//!
//! A graph can have [`Parameter`]s, with other values for each row of a table, each tile of an
//! area, or each month of a year:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
//! # connection.authenticate_basic("u", "u123")?;
//! use fulmar::client::openeo::{BoundingBox, NewJob, Parameter, Period, ProcessGraph};
//! use serde_json::json;
//!
//! let (tile, month) = (Parameter::bounding_box("tile"), Parameter::temporal_interval("month"));
//! let graph = ProcessGraph::load_collection("SENTINEL2_L2A").spatial_extent(&tile).temporal_interval(&month);
//! let mut jobs = Vec::new();
//! for tile in BoundingBox::new(3.0, 51.0, 4.0, 52.0).split_by_size(0.5)? {
//!     for month in Period::new("2022-01-01", "2022-04-01")?.split_by_months(1)? {
//!         let graph = graph.fill(&json!({"tile": tile.to_json(), "month": month.to_json()}))?;
//!         jobs.push(NewJob::new(graph).title(&format!("{} at {}, {}", month.start(), tile.west, tile.south)));
//!     }
//! }
//! assert_eq!(jobs.len(), 4 * 3); // For `run_jobs`.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`parameters_from_csv`] reads the rows of a table. With
//! [`Connection::save_user_defined_process`] the graph is stored on the back-end under a name, and
//! [`ProcessGraph::call`] uses it there, or one that others share.
//!
//! # What a back-end has
//!
//! Lists and details print as tables, and need no login:
//!
//! ```
//! # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
//! # let url = server.url();
//! # use fulmar::client::openeo::Connection;
//! let connection = Connection::connect(&url)?;
//! println!("{}", connection.list_collections()?);
//! assert_eq!(connection.describe_collection("SENTINEL2_L2A")?.bands(), ["B04", "B08"]);
//! assert_eq!(connection.list_processes(None)?.find("add").map(|add| add.parameters().len()), Some(2));
//! assert_eq!(connection.list_file_formats()?.output()[0].name(), "GTiff");
//! println!("{}", connection.list_udf_runtimes()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod auth;
#[cfg(feature = "sqlite")]
pub mod campaign;
mod discovery;
mod documents;
mod execute;
mod jobs;
mod many;
mod processes;
#[cfg(test)]
mod properties;
mod results;
mod split;
mod store;

pub use api::connection::Connection;
pub use api::error::{ApiError, OpenEoError};
pub use auth::{DevicePrompt, Oidc, RefreshTokens};
pub use documents::capabilities::Capabilities;
pub use documents::collection::Collection;
pub use documents::format::{FileFormat, FileFormats};
pub use documents::job::{JobDescription, JobStatus};
pub use documents::listing::{Listed, Listing};
pub use documents::log::{LogEntry, LogLevel, Logs};
pub use documents::runtime::{UdfRuntime, UdfRuntimes};
pub use execute::{ExecuteOptions, Executed};
pub use jobs::change::JobChange;
pub use jobs::graph::ProcessGraph;
pub use jobs::job::BatchJob;
pub use jobs::list::JobList;
pub use jobs::new_job::NewJob;
pub use jobs::wait_options::WaitOptions;
pub use many::{BackEnd, JobRun, RunOptions, run_jobs, start_jobs};
pub use processes::parameter::Parameter;
pub use processes::process::Process;
pub use processes::rows::parameters_from_csv;
pub use processes::user_defined::NewProcess;
pub use results::asset::ResultAsset;
pub use results::handle::JobResults;
pub use results::options::DownloadOptions;
pub use split::area::BoundingBox;
pub use split::period::Period;
