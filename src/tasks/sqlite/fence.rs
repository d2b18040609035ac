//! The fence: what has to be so for a worker to change a task that it has claimed.
//!
//! A file of its own, because tests/run builds a copy of this crate in which another stands in its
//! place (`tests/unfenced`), to see that the tests notice.

/// `?1` the task's number, `?2` the claim's token, `?3` the worker, `?4` the time, `?5` whether the
/// step only gives the task up, as the rescue of an expired lease would, `?6` the status that it
/// leaves.
pub(super) const FENCE: &str = "id = ?1 AND token = ?2 AND worker = ?3 AND (lease > ?4 OR ?5) AND status = ?6";
