//! What users see of a request's state: its status and its kind.

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Accepted, and held back: by an earlier request on its key, by the request that it follows,
    /// or because its time has not come.
    Deferred,
    /// Waiting for a thread.
    Queued,
    /// A thread runs the operation.
    Running,
    /// The operation returned a value.
    Completed,
    /// The operation returned an error.
    Failed,
    /// The operation panicked.
    Panicked,
    /// The request was cancelled before it started.
    Cancelled,
}

impl Status {
    /// Whether it never changes again.
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Deferred | Status::Queued | Status::Running)
    }
}

/// Whether an operation changes what it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads: shares its key with other accessors.
    Accessor,
    /// Writes: runs alone on its key.
    Modifier,
}

impl Kind {
    /// The kind that the flag `is_modifier` of a submission names.
    pub(crate) fn of(is_modifier: bool) -> Kind {
        if is_modifier { Kind::Modifier } else { Kind::Accessor }
    }
}
