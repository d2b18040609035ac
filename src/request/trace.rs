//! The spans of a request, for whoever listens through the `tracing` facade (feature `tracing`).
//!
//! A span `request` with its `id` and `kind` lasts from the acceptance to the end, when its `status` is recorded; it is a
//! child of the submitter's span. Its own children are the stages `deferred`, `queued` and `running`, one after the other;
//! the operation runs inside the last. All are `INFO`, under the target `fulmar`.
//!
//! A subscriber is called while the executor holds locks: it must not submit.

#[cfg(feature = "tracing")]
pub(super) use on::Trace;

#[cfg(not(feature = "tracing"))]
pub(super) use off::Trace;

#[cfg(feature = "tracing")]
mod on {
    use std::mem::replace;

    use tracing::span::EnteredSpan;
    use tracing::{Span, field, info_span};

    use crate::request::{Kind, Status};
    use crate::sync::Mutex;

    pub(in crate::request) struct Trace(Mutex<Spans>);

    struct Spans {
        request: Span,
        stage: Span,
    }

    impl Trace {
        pub(in crate::request) fn new(id: u64, kind: Kind) -> Trace {
            let request = info_span!(target: "fulmar", "request", id, ?kind, status = field::Empty);
            Trace(Mutex::new(Spans { request, stage: Span::none() }))
        }

        /// The request has come to a stage.
        pub(in crate::request) fn stage(&self, status: Status) {
            let mut spans = self.0.lock();
            let parent = &spans.request;
            let stage = match status {
                Status::Deferred => info_span!(target: "fulmar", parent: parent, "deferred"),
                Status::Queued => info_span!(target: "fulmar", parent: parent, "queued"),
                _ => info_span!(target: "fulmar", parent: parent, "running"),
            };
            let left = replace(&mut spans.stage, stage);
            drop(spans);
            drop(left);
        }

        /// The operation is about to run on this thread, until the guard goes.
        pub(in crate::request) fn run(&self) -> EnteredSpan {
            self.stage(Status::Running);
            self.0.lock().stage.clone().entered()
        }

        pub(in crate::request) fn end(&self, status: Status) {
            let mut spans = self.0.lock();
            let request = replace(&mut spans.request, Span::none());
            let stage = replace(&mut spans.stage, Span::none());
            drop(spans);
            drop(stage);
            request.record("status", field::debug(status));
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use crate::request::{Kind, Status};

    /// Nothing, and no bytes of a request.
    pub(in crate::request) struct Trace;

    pub(in crate::request) struct Guard;

    impl Trace {
        pub(in crate::request) fn new(_id: u64, _kind: Kind) -> Trace {
            Trace
        }

        pub(in crate::request) fn stage(&self, _status: Status) {}

        pub(in crate::request) fn run(&self) -> Guard {
            Guard
        }

        pub(in crate::request) fn end(&self, _status: Status) {}
    }
}
