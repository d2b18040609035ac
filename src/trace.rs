//! Events for whoever listens, through the `tracing` facade (feature `tracing`), under the target `fulmar`.
//!
//! Without the feature they are nothing: what they mention is type-checked and never evaluated.
//!
//! The lifecycle is `INFO`, what happens to each value `TRACE`, what is dropped or fails `WARN`. Values themselves are
//! never shown: nobody is asked to make theirs printable, and a log is no place for what may be a secret.

/// `event!(WARN, "a thing happened", id = 7, count = 3)`; fields are shown with `Debug`.
#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $message:literal $(, $field:ident = $value:expr)* $(,)?) => {
        tracing::event!(target: "fulmar", tracing::Level::$level, $($field = ?$value,)* $message)
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
