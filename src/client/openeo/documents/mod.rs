//! Reads a back-end's documents with caution: any field may be missing, null, or of another type.
//! Pure: it makes no requests.

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
