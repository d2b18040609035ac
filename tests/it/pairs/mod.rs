//! The PAIRS client against a server of its own: every call, every way to say who one is, every fault.

mod auth;
mod calls;
#[cfg(feature = "sqlite")]
mod campaign;
mod faults;
mod folder;
mod hostile;
mod lost;
#[allow(dead_code, clippy::duplicate_mod, reason = "a room of the tests of HTTP, of which these need a part")]
#[path = "../http/server.rs"]
mod scripted;

use std::time::Duration;

use fulmar::Executor;
use fulmar::backoff::Backoff;
use fulmar::batch::BatchReport;
use fulmar::client::pairs::{BatchOptions, Client, Query, QueryResult};
use pairs_server::{Config, Server};

use crate::support::HANG;
pub(crate) use folder::Folder;

pub(crate) fn server(config: Config) -> Server {
    Server::start(config).expect("a server")
}

/// A server whose queries take no time.
pub(crate) fn quick() -> Config {
    Config { run: Duration::from_millis(5), slots: 1_000, ..Config::default() }
}

pub(crate) fn client(server: &Server) -> Client {
    Client::builder(&server.url()).basic("me", "a password").build().expect("a client")
}

pub(crate) fn square(name: &str) -> Query {
    let query = Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).snapshot("2018-11-01T00:00:00");
    query.name(name).build().expect("a query")
}

pub(crate) fn point(name: &str) -> Query {
    let query = Query::builder().layer(92).points(&[(48.7, -97.0)]).snapshot("2018-11-01T00:00:00");
    query.name(name).build().expect("a query")
}

/// Options that lose no time.
pub(crate) fn options(folder: &Folder) -> BatchOptions {
    let executor = Executor::builder().threads(8).build().expect("an executor");
    BatchOptions::new()
        .status_interval_floor(Duration::from_millis(10))
        .status_interval(Duration::from_millis(50))
        .folder(folder.path())
        .runner_with(|runner| {
            let backoff = Backoff::new(Duration::from_millis(20)).cap(Duration::from_millis(500)).jitter(0.5);
            runner.executor(&executor).backoff(backoff).time_limit(HANG)
        })
}

/// What a report says, for messages.
pub(crate) fn told(report: &BatchReport<QueryResult>) -> String {
    let mut text = format!("{report}\n");
    for job in &report.jobs {
        if let Err(failure) = &job.outcome {
            text += &format!("{:?}: {failure}", job.id);
            let mut next = std::error::Error::source(failure);
            while let Some(error) = next {
                text += &format!(": {error}");
                next = error.source();
            }
            text.push('\n');
        }
    }
    text
}
