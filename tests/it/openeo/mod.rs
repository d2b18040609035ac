//! The openEO client against a back-end of its own (`tests/peers/openeo-server`), faults and all.
//! Real back-ends and the real Python client are in `tests/openeo_peer`.

mod auth;
#[cfg(feature = "sqlite")]
pub(crate) mod campaign;
#[cfg(feature = "sqlite")]
mod campaign_reports;
mod connection;
mod create;
mod documents;
mod execute;
mod jobs;
mod many;
mod processes;
mod properties;
mod results;
mod scale;
#[allow(dead_code, clippy::duplicate_mod, reason = "a room of the tests of HTTP, of which these need a part")]
#[path = "../http/server.rs"]
mod scripted;
#[allow(dead_code, clippy::duplicate_mod, reason = "a room of the tests of HTTP, of which these need a part")]
#[path = "../http/tls_server.rs"]
mod tls_server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::client::http::{HttpClient, RetryPolicy};
use fulmar::client::openeo::{BatchJob, Connection, NewJob, ProcessGraph, WaitOptions};
use openeo_server::{Config, Server};
use serde_json::json;

/// A client that doesn't wait long before it tries again.
fn impatient() -> fulmar::client::http::HttpClientBuilder {
    HttpClient::builder().retry(RetryPolicy::attempts(4).backoff(Backoff::new(Duration::from_millis(5))))
}

fn connect(server: &Server) -> Connection {
    let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    connection
}

fn server(config: Config) -> (Server, Connection) {
    let server = Server::start(config).expect("a server");
    let connection = connect(&server);
    (server, connection)
}

fn sum(title: &str) -> NewJob {
    NewJob::new(ProcessGraph::start("add", json!({"x": 3, "y": 5}))).title(title)
}

/// Looks every few milliseconds, and says nothing.
fn soon<'a>() -> WaitOptions<'a> {
    WaitOptions::new()
        .poll(Backoff::new(Duration::from_millis(5)).factor(1.0))
        .soft_errors(10, Duration::from_millis(5))
        .quiet()
}

fn finished(connection: &Connection, title: &str) -> BatchJob {
    let job = connection.create_job(sum(title)).expect("created");
    job.start_and_wait(soon()).expect("finished");
    job
}

/// A folder that is gone when the test is.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fulmar-openeo-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The names of what is in it, in order.
    fn names(&self) -> Vec<String> {
        names_in(&self.0)
    }
}

pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
