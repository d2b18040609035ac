//! The fence: what has to be so for a worker to change a task that it has claimed.
//!
//! A file of its own, because tests/run builds a copy of this crate in which another stands in its
//! place (`tests/unfenced`), to see that the tests notice.

/// For a task `t`, a step `s`, and `$1` the worker. Used beside `now!`.
///
/// A step of kind 5 or 7 only gives the task up: the rescue of an expired lease would do the same.
///
/// `IS NOT DISTINCT FROM` keeps the index on workers out of the plan: without statistics the server
/// prefers it to the task's number, and walks past all that the worker ever held.
macro_rules! fence {
    () => {
        concat!(
            "t.token = s.token AND t.worker IS NOT DISTINCT FROM $1::text AND (s.kind IN (5, 7) OR t.lease > ",
            now!(),
            ") AND t.status = CASE WHEN s.kind IN (0, 5) THEN 1 ELSE 2 END"
        )
    };
}

pub(super) use fence;
