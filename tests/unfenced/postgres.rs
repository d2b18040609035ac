//! No fence: tests/run builds with this in the place of src/tasks/postgres/fence.rs.

macro_rules! fence {
    () => {
        "s.token IS NOT NULL AND $1::text IS NOT NULL"
    };
}

pub(super) use fence;
