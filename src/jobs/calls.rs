//! Calls of users' closures: what they say comes back, and their panics go no further.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{BoxError, Error};

/// What a handler may return: nothing, or a result without a value.
pub trait Handled {
    /// Itself as a result.
    ///
    /// # Errors
    /// The handler's own, boxed.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Handled for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> Handled for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// Calls `f`; a panic comes back as [`Error::Panicked`].
pub(super) fn call<R>(f: impl FnOnce() -> R) -> Result<R, Error> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| Error::Panicked(message(panic)))
}

/// What a panic said, if it said it in words.
fn message(panic: Box<dyn Any + Send>) -> String {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a value that is not text".to_owned(),
    };
    if let Err(another) = catch_unwind(AssertUnwindSafe(move || drop(panic))) {
        // The payload's destructor panicked, and that payload's might, too.
        std::mem::forget(another);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_in_words() {
        let said = |panicked: Result<(), Error>| match panicked {
            Err(Error::Panicked(message)) => message,
            other => panic!("not a panic: {other:?}"),
        };
        assert_eq!(said(call(|| panic!("in a test, on purpose"))), "in a test, on purpose");
        assert_eq!(said(call(|| panic!("number {}", 7))), "number 7");
        assert_eq!(said(call(|| std::panic::panic_any(7))), "a value that is not text");
        assert_eq!(call(|| 7).expect("no panic"), 7);
    }
}
