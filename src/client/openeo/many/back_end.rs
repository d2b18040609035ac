//! A back-end to run jobs on, with the user's settings for it.

use crate::client::openeo::api::connection::Connection;

/// A back-end to run jobs on, and how many jobs it gets at once.
#[derive(Clone, Debug)]
#[must_use = "a back-end is for `run_jobs`"]
pub struct BackEnd {
    pub(in crate::client::openeo) connection: Connection,
    pub(in crate::client::openeo) name: String,
    pub(super) parallel_jobs: usize,
    pub(super) queue_limit: usize,
}

impl BackEnd {
    /// A back-end that gets 2 jobs at once, and none while 10 of ours are queued, as in the Python
    /// client's job manager.
    pub fn new(connection: &Connection) -> BackEnd {
        let name = connection.name().to_owned();
        BackEnd { connection: connection.clone(), name, parallel_jobs: 2, queue_limit: 10 }
    }

    /// Its name in reports. Defaults to its title.
    pub fn name(mut self, name: &str) -> BackEnd {
        self.name = name.to_owned();
        self
    }

    /// How many of these jobs it gets at once: created, queued and running ones. Defaults to 2. If
    /// it says before that that it has too many, it gets none for a while.
    pub fn parallel_jobs(mut self, jobs: usize) -> BackEnd {
        self.parallel_jobs = jobs;
        self
    }

    /// Stop submitting to this back-end while so many of our jobs are queued there. Defaults to 10.
    pub fn queue_limit(mut self, jobs: usize) -> BackEnd {
        self.queue_limit = jobs;
        self
    }
}
