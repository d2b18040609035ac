//! The spans of a request, for subscribers of the `tracing` facade (feature `tracing`).
//!
//! A span `request` with its `id` and `kind` lasts from the acceptance to the end, when its
//! `status` is recorded; it is a child of the submitter's span. Its own children are the stages
//! `deferred`, `queued` and `running`, one after the other; the operation runs inside the last. All
//! are `INFO`, under the target `fulmar`.
//!
//! The executor holds no lock while a subscriber is called, so a subscriber may submit. A panic in
//! a subscriber is contained: the span that it refused is left out, and the request goes on.

#[cfg(feature = "tracing")]
pub(crate) use on::Trace;

#[cfg(not(feature = "tracing"))]
pub(crate) use off::Trace;

#[cfg(feature = "tracing")]
mod on {
    use std::mem::replace;
    use std::sync::Arc;

    use tracing::span::Id;
    use tracing::{Dispatch, Span, field, info_span};

    use crate::executor::request::status::{Kind, Status};
    use crate::panics;
    use crate::sync::{AtomicBool, Mutex, Ordering};

    pub(crate) struct Trace {
        was_deferred: AtomicBool,
        spans: Mutex<Spans>,
    }

    /// Shared, because a span's own `clone` calls the subscriber.
    struct Spans {
        request: Arc<Span>,
        stage: Arc<Span>,
        /// The last stage whose span was made, or is being made.
        reached: Stage,
    }

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Stage {
        New,
        Deferred,
        Queued,
        Running,
        Ended,
    }

    impl Trace {
        pub(in crate::executor::request) fn new(id: u64, kind: Kind) -> Trace {
            let request = guarded(|| info_span!(target: "fulmar", "request", id, ?kind, status = field::Empty));
            let spans = Spans { request: Arc::new(request), stage: none(), reached: Stage::New };
            Trace { was_deferred: AtomicBool::new(false), spans: Mutex::new(spans) }
        }

        /// Only notes it, because the caller holds a lock; the next call makes the span.
        pub(in crate::executor::request) fn defer(&self) {
            self.was_deferred.store(true, Ordering::Relaxed);
        }

        /// It was not accepted, and may be tried again.
        pub(in crate::executor::request) fn undo_defer(&self) {
            self.was_deferred.store(false, Ordering::Relaxed);
        }

        /// The request was accepted.
        pub(crate) fn accepted(&self) {
            let deferred = self.was_deferred.load(Ordering::Relaxed);
            self.stage(if deferred { Stage::Deferred } else { Stage::Queued });
        }

        /// A request that was held back is queued now.
        pub(crate) fn queued(&self) {
            self.stage(Stage::Queued);
        }

        /// Makes the spans up to `stage`, unless another thread has made them. A worker may take
        /// the request and come here with `Running` before the submitter comes with `Queued`.
        fn stage(&self, stage: Stage) {
            let deferred = self.was_deferred.load(Ordering::Relaxed);
            let (parent, before) = {
                let mut spans = self.spans.lock();
                if spans.reached >= stage {
                    return;
                }
                (spans.request.clone(), replace(&mut spans.reached, stage))
            };
            // After the lock: the subscriber is the user's code.
            for next in [Stage::Deferred, Stage::Queued, Stage::Running] {
                let is_passed = next > before && next <= stage;
                if is_passed && (deferred || next != Stage::Deferred) {
                    self.enter_stage(next, &parent);
                }
            }
            close(parent);
        }

        /// Makes the span of `stage` inside `parent`, puts it in place of that of the stage before,
        /// and closes that one. If the request has gone on to run meanwhile, it closes the new span
        /// instead. The caller holds no lock, because the subscriber is the user's code.
        fn enter_stage(&self, stage: Stage, parent: &Arc<Span>) {
            let parent = &**parent;
            let span = Arc::new(guarded(|| match stage {
                Stage::Deferred => info_span!(target: "fulmar", parent: parent, "deferred"),
                Stage::Queued => info_span!(target: "fulmar", parent: parent, "queued"),
                _ => info_span!(target: "fulmar", parent: parent, "running"),
            }));
            let left = {
                let mut spans = self.spans.lock();
                // Another thread has gone further meanwhile: this stage is over already.
                if spans.reached > stage && spans.reached >= Stage::Running && stage < Stage::Running {
                    span
                } else {
                    replace(&mut spans.stage, span)
                }
            };
            close(left);
        }

        /// Calls the operation inside the span of the last stage.
        pub(in crate::executor::request) fn run<R>(&self, operation: impl FnOnce() -> R) -> R {
            self.stage(Stage::Running);
            let entered = Entered::enter(self.spans.lock().stage.clone());
            let returned = operation();
            drop(entered);
            returned
        }

        pub(crate) fn end(&self, status: Status) {
            let (request, stage) = {
                let mut spans = self.spans.lock();
                spans.reached = Stage::Ended;
                (replace(&mut spans.request, none()), replace(&mut spans.stage, none()))
            };
            close(stage);
            panics::contain(|| {
                request.record("status", field::debug(status));
            });
            close(request);
        }
    }

    impl Drop for Trace {
        fn drop(&mut self) {
            // A request that was refused never ended, and its spans are still here.
            let (request, stage) = {
                let mut spans = self.spans.lock();
                (replace(&mut spans.request, none()), replace(&mut spans.stage, none()))
            };
            close(stage);
            close(request);
        }
    }

    /// A span that this thread is in. Its subscriber is told of the exit even if the operation
    /// panics.
    struct Entered {
        span: Arc<Span>,
        inside: Option<(Id, Dispatch)>,
    }

    impl Entered {
        fn enter(span: Arc<Span>) -> Entered {
            let mut inside = None;
            // Through the subscriber itself and not through `Span::enter`, whose guard would let a
            // panic of the subscriber out of its destructor.
            panics::contain(|| {
                inside = span.with_subscriber(|(id, dispatch)| {
                    dispatch.enter(id);
                    (id.clone(), dispatch.clone())
                });
            });
            Entered { span, inside }
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            if let Some((id, dispatch)) = self.inside.take() {
                panics::contain(|| dispatch.exit(&id));
                panics::contain(|| drop((id, dispatch)));
            }
            close(replace(&mut self.span, none()));
        }
    }

    /// Calls a subscriber that makes a span; none if it panics.
    fn guarded(make: impl FnOnce() -> Span) -> Span {
        let mut span = Span::none();
        panics::contain(|| span = make());
        span
    }

    fn none() -> Arc<Span> {
        Arc::new(Span::none())
    }

    /// Drops a handle of a span; the last one tells the subscriber.
    fn close(span: Arc<Span>) {
        panics::contain(|| drop(span));
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use crate::executor::request::status::{Kind, Status};

    /// Nothing, and no bytes of a request.
    pub(crate) struct Trace;

    impl Trace {
        pub(in crate::executor::request) fn new(_id: u64, _kind: Kind) -> Trace {
            Trace
        }

        pub(in crate::executor::request) fn defer(&self) {}

        pub(in crate::executor::request) fn undo_defer(&self) {}

        pub(crate) fn accepted(&self) {}

        pub(crate) fn queued(&self) {}

        pub(in crate::executor::request) fn run<R>(&self, operation: impl FnOnce() -> R) -> R {
            operation()
        }

        pub(crate) fn end(&self, _status: Status) {}
    }
}
