//! Events for subscribers, through the `tracing` facade (feature `tracing`), under the target
//! `fulmar`.
//!
//! Without the feature they are nothing: what they mention is type-checked and never evaluated.
//!
//! The lifecycle is `INFO`, what happens to each value `TRACE`, what is dropped or fails `WARN`.
//! Values themselves are never shown: no user has to make theirs printable, and a log isn't a place
//! for what may be a secret.
//!
//! A panic of a subscriber goes no further: it would break off whatever is at work here, for good.
//! Don't tell with a lock held: a listener may ask for what is behind it.

#[cfg(feature = "tracing")]
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `event!(WARN, "a thing happened", id = 7, count = 3)`; fields are shown with `Debug`.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        $crate::trace::tell(|| {
            tracing::event!(target: "fulmar", tracing::Level::$level, $($field = ?$value,)* $message)
        })
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        if false {
            $(let _ = &$value;)*
        }
    };
}

pub(crate) use event;

/// Tells, and has a panic of a subscriber go no further; the panic hook has told of it.
#[cfg(feature = "tracing")]
pub(crate) fn tell(event: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(event)) else { return };
    // Its destructor may panic in turn.
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}

#[cfg(all(test, feature = "tracing"))]
pub(crate) mod tests {
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// Does the same at every event.
    pub(crate) struct Listener<F>(pub(crate) F);

    impl<F: Fn() + 'static> Subscriber for Listener<F> {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            (self.0)();
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_listener_s_panic_does_not_reach_whoever_told() {
        let bad = Listener(|| panic!("in a test, on purpose"));
        tracing::subscriber::with_default(bad, || event!(WARN, "a thing happened", count = 3));
    }
}
