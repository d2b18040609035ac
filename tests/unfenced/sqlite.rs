//! No fence: tests/run builds with this in the place of src/tasks/sqlite/fence.rs.

pub(super) const FENCE: &str = "id = ?1 AND (?2 IS NULL OR ?3 IS NULL OR ?4 IS NULL OR ?5 IS NULL OR ?6 IS NULL OR 1)";
