//! The fence: what has to be so for a worker to change a task that it has claimed.
//!
//! A file of its own, because tests/run builds a copy of this crate in which another stands in its
//! place (`tests/unfenced`), to see that the tests notice.

/// For a task `t`, a step `s`, and `$1` the worker. Used beside `now!`.
///
/// A step that only gives the task up does what the rescue of an expired lease would.
///
/// `IS NOT DISTINCT FROM` keeps the index on workers out of the plan: without statistics the server
/// prefers it to the task's number, and walks past all that the worker ever held.
macro_rules! fence {
    () => {
        concat!(
            "t.token = s.token AND t.worker IS NOT DISTINCT FROM $1::text AND (s.gives_up = 1 OR t.lease > ",
            now!(),
            ") AND t.status = s.leaves"
        )
    };
}

pub(super) use fence;
