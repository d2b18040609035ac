//! A value that a stage of a pipeline could not handle, with the error.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::sync::Mutex;

/// A value that a stage of a [`Pipeline`](super::Pipeline) could not handle, with the name of the
/// stage and the error.
///
/// It prints as the name of the stage; the [source](std::error::Error::source) is the error,
/// [`Error::Operation`] or [`Error::Panicked`]. (Or [`Error::Interrupted`], of the stage `output`,
/// if the operation that waits for the pipeline was cancelled.)
pub struct Failure(Box<Inner>);

struct Inner {
    stage: Arc<str>,
    error: Error,
    /// In a lock because an error should be `Sync`, and the value needn't be.
    value: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Failure {
    pub(super) fn new(stage: &Arc<str>, error: Error, value: Option<Box<dyn Any + Send>>) -> Failure {
        Failure(Box::new(Inner { stage: stage.clone(), error, value: Mutex::new(value) }))
    }

    /// The name of the stage.
    pub fn stage(&self) -> &str {
        &self.0.stage
    }

    /// Why it failed.
    pub fn error(&self) -> &Error {
        &self.0.error
    }

    /// Takes out the value that the stage could not handle, to try it again or to put it aside.
    /// Returns `None` if it was taken before, if it isn't a `T`, or if the stage consumed it
    /// ([`map`](super::PipelineBuilder::map)).
    pub fn take_value<T: 'static>(&self) -> Option<T> {
        let mut place = self.0.value.lock();
        match place.take()?.downcast() {
            Ok(value) => Some(*value),
            Err(other) => {
                // Put it back: the caller may try another type.
                *place = Some(other);
                None
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage `{}` of the pipeline failed", self.stage())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("stage", &self.stage()).field("error", self.error()).finish_non_exhaustive()
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.error)
    }
}
