//! Calls of users' closures: what they say comes back, and their panics go no further.

use crate::error::{BoxError, Error};
use crate::panics;

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
    panics::catch(f).map_err(Error::Panicked)
}
