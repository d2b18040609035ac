//! A PAIRS server of this program's own, and queries for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulmar::client::pairs::Query;
use pairs_server::{Config, Server};

/// A server on this machine, and a temporary folder that is removed at the end.
pub(crate) struct Local {
    server: Server,
    folder: PathBuf,
}

impl Local {
    pub(crate) fn start(announced: bool) -> io::Result<Local> {
        // As many at once as anybody asks for: what is shown here is the client.
        let server = Server::start(Config { run: Duration::from_secs(2), slots: 100_000, ..Config::default() })?;
        if announced {
            println!("no --host: a PAIRS server of this program's own, whose queries take 2 s each");
        }
        let folder = std::env::temp_dir().join(format!("pairs-batch-{}", std::process::id()));
        Ok(Local { server, folder })
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It may never have been made, or be somebody's open folder; either way it is a temporary one.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The maximum temperature over the same box, on 40 days.
pub(crate) fn queries() -> Vec<Query> {
    let first = Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).snapshot("2018-11-01T00:00:00");
    let first = first.build().unwrap_or_else(|error| unreachable!("a sound query: {error}"));
    let day = |n: u32| {
        let date = if n < 30 { format!("2018-11-{:02}", n + 1) } else { format!("2018-12-{:02}", n - 29) };
        first.replace_dates(&date, &date).unwrap_or_else(|error| unreachable!("a date: {error}"))
    };
    (0..40).map(day).collect()
}
