//! What back-ends send, read with suspicion: any field may be missing, null, or of another type.
//! Pure: nothing is asked here.

pub(super) mod capabilities;
pub(super) mod collection;
pub(super) mod format;
pub(super) mod job;
pub(super) mod listing;
pub(super) mod log;
pub(super) mod runtime;
pub(super) mod table;
pub(super) mod text;
pub(super) mod versions;
