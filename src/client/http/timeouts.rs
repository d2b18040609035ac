//! The time limits of a request.

use std::time::{Duration, Instant};

use crate::time::Deadline;

/// The time limits of a request, each counted separately; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For looking up the host's name, and once more for connecting to it, encryption included.
    /// Defaults to 10 s.
    pub connect: Option<Duration>,
    /// The longest wait until the network takes the next 64 KiB of the request. Defaults to 60 s.
    pub send: Option<Duration>,
    /// From the end of sending until the reply's headers are there. Defaults to 60 s.
    pub first_byte: Option<Duration>,
    /// The longest silence within the reply's body. Defaults to 60 s.
    pub body: Option<Duration>,
    /// For the whole request, with all attempts, redirects and waits. Defaults to 5 minutes. It
    /// doesn't apply to downloads, which may be of any size: set
    /// [`RequestBuilder::timeout`](super::RequestBuilder::timeout) for these.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Some(Duration::from_secs(10)),
            send: Some(Duration::from_secs(60)),
            first_byte: Some(Duration::from_secs(60)),
            body: Some(Duration::from_secs(60)),
            total: Some(Duration::from_secs(300)),
        }
    }
}

/// When a phase that starts now has to end.
pub(super) fn until(phase: Option<Duration>, total: Deadline) -> Option<Instant> {
    [Deadline::start(phase).at(), total.at()].into_iter().flatten().min()
}
