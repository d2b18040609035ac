//! Calls of users' closures: returns their result, and contains their panics.

use crate::error::Error;
use crate::panics;

/// Calls `f` and returns its result, or [`Error::Panicked`] if it panics.
pub(super) fn call<R>(f: impl FnOnce() -> R) -> Result<R, Error> {
    panics::catch(f).map_err(Error::Panicked)
}
