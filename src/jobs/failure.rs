//! What a stage of a pipeline could not handle, and why.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::sync::Mutex;

/// A value that a stage of a [`Pipeline`](super::Pipeline) could not handle: which stage, why, and
/// the value itself.
///
/// It prints as the name of the stage; the [source](std::error::Error::source) is the error,
/// [`Error::Operation`] or [`Error::Panicked`].
pub struct Failure(Box<Inner>);

struct Inner {
    stage: Arc<str>,
    error: Error,
    /// Behind a lock only because a value needn't be `Sync`, and an error that is sent around has
    /// to be.
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

    /// Takes out the value that the stage was given, to try it again or to put it aside. It is
    /// taken once: `None` after that, if the value is of another type, and if the stage
    /// consumed it ([`map`](super::PipelineBuilder::map)).
    pub fn take_value<T: 'static>(&self) -> Option<T> {
        let mut place = self.0.value.lock();
        match place.take()?.downcast() {
            Ok(value) => Some(*value),
            Err(other) => {
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
