//! The time limits of a request, and when they end.

use std::time::{Duration, Instant};

use crate::time::Deadline;

/// The time limits of a request, each counted on its own; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Finding the host, and again connecting to it, encryption included. Defaults to 10 s.
    pub connect: Option<Duration>,
    /// The longest wait until the network takes the next 64 KiB of the request. Defaults to 60 s.
    pub send: Option<Duration>,
    /// From the end of sending until the reply's headers are there. Defaults to 60 s.
    pub first_byte: Option<Duration>,
    /// The longest silence within the reply's body. Defaults to 60 s.
    pub body: Option<Duration>,
    /// The whole, with all attempts, redirects and waits. Defaults to 5 minutes. Downloads, which
    /// may be of any size, have none but what
    /// [`RequestBuilder::timeout`](super::RequestBuilder::timeout) says.
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
