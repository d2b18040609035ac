//! Calls of users' closures: what they say comes back, and their panics go no further.

use crate::error::Error;
use crate::panics;

/// Calls `f`; a panic comes back as [`Error::Panicked`].
pub(super) fn call<R>(f: impl FnOnce() -> R) -> Result<R, Error> {
    panics::catch(f).map_err(Error::Panicked)
}
