//! The results of a job: their metadata, and their files.

pub(super) mod asset;
mod checksum;
mod download;
pub(super) mod handle;
mod metadata;
pub(super) mod names;
pub(super) mod options;
pub(super) mod write;
