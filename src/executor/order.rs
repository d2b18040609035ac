//! The order of all keys, the counts that go with it, and whether new requests are taken: what the order's lock protects.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lanes::{LaneKey, Lanes};
use crate::request::{Job, Kind, Status};

/// The order of all keys, and the counts that go with it.
pub(super) struct Order {
    pub(super) lanes: Lanes<Arc<dyn Job>>,
    /// Why new requests are refused, if they are.
    pub(super) closed: Option<Closed>,
    /// Requests ever deferred.
    pub(super) deferred: u64,
    /// Deferred requests that were queued since.
    pub(super) released: u64,
    pub(super) cancelled_deferred: u64,
    pub(super) cancelled_queued: u64,
}

/// Why an executor takes no requests.
#[derive(Clone)]
pub(super) enum Closed {
    ShutDown,
    /// A setting from outside makes no sense, and this says so.
    Misconfigured(String),
}

/// What a submission is ordered by.
pub(super) struct Place {
    pub(super) kind: Kind,
    /// `None` is ordered with nothing.
    pub(super) lane: Option<LaneKey>,
}

impl Order {
    pub(super) fn new(closed: Option<Closed>) -> Order {
        Order { lanes: Lanes::new(), closed, deferred: 0, released: 0, cancelled_deferred: 0, cancelled_queued: 0 }
    }

    /// An error if new requests are refused.
    pub(super) fn check_open(&self) -> Result<()> {
        self.closed.as_ref().map_or(Ok(()), |closed| Err(closed.error()))
    }

    /// Enters a new request into its lane and says whether it may run at once; it is deferred if not.
    pub(super) fn enter(&mut self, lane: Option<LaneKey>, job: &Arc<dyn Job>) -> bool {
        let ready = self.may_run(lane, job);
        if !ready {
            job.head().defer();
            self.deferred += 1;
        }
        job.head().accepted();
        ready
    }

    /// Enters a request into its lane and says whether it may run at once.
    pub(super) fn may_run(&mut self, lane: Option<LaneKey>, job: &Arc<dyn Job>) -> bool {
        let Some(lane) = lane else { return true };
        let (ticket, ready) = self.lanes.enter(lane, job.head().kind() == Kind::Modifier, job.clone());
        job.head().set_ticket(ticket);
        ready
    }

    /// Undoes `enter`, the last first, so that nobody is let in between.
    pub(super) fn withdraw(&mut self, entered: &[(Option<LaneKey>, Arc<dyn Job>)]) {
        for (_, job) in entered.iter().rev().filter(|(lane, _)| lane.is_some()) {
            self.lanes.leave(job.head().ticket(), |_| {});
            if job.head().status() == Status::Deferred {
                self.deferred -= 1;
            }
        }
    }

    /// Requests ever accepted: those queued at once, and those deferred first.
    pub(super) fn submitted(&self, pushed: u64) -> u64 {
        pushed - self.released + self.deferred
    }
}

impl Closed {
    pub(super) fn error(&self) -> Error {
        match self {
            Closed::ShutDown => Error::ShutDown,
            Closed::Misconfigured(message) => Error::Invalid(message.clone()),
        }
    }
}
