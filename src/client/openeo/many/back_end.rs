//! A back-end to run jobs on, as its user describes it.

use crate::client::openeo::api::connection::Connection;

/// A back-end to run jobs on, and how many at once.
#[derive(Clone, Debug)]
#[must_use = "a back-end is for `run_jobs`"]
pub struct BackEnd {
    pub(super) connection: Connection,
    pub(in crate::client::openeo) name: String,
    pub(super) parallel_jobs: usize,
    pub(super) queue_limit: usize,
}

impl BackEnd {
    /// A back-end that runs 2 jobs at once and queues 10, as the Python client's job manager has
    /// it.
    pub fn new(connection: &Connection) -> BackEnd {
        let name = connection.name().to_owned();
        BackEnd { connection: connection.clone(), name, parallel_jobs: 2, queue_limit: 10 }
    }

    /// What it is called in reports. Defaults to its title.
    pub fn name(mut self, name: &str) -> BackEnd {
        self.name = name.to_owned();
        self
    }

    /// How many of these jobs it is given at once: created, queued and running ones. Defaults to 2.
    /// A back-end that says that it has too many is left alone for a while, whatever this says.
    pub fn parallel_jobs(mut self, jobs: usize) -> BackEnd {
        self.parallel_jobs = jobs;
        self
    }

    /// With how many of them in its queue it gets no more. Defaults to 10.
    pub fn queue_limit(mut self, jobs: usize) -> BackEnd {
        self.queue_limit = jobs;
        self
    }
}
