//! The schema's versions, one file each, numbered, never changed once released. The number of the
//! last is the schema's version.

/// Those of SQLite, oldest first.
#[cfg(feature = "sqlite")]
pub(super) const SQLITE: &[&str] = &[
    include_str!("sqlite/0001_tasks.sql"),
    include_str!("sqlite/0002_operators.sql"),
    include_str!("sqlite/0003_schedules.sql"),
    include_str!("sqlite/0004_unique.sql"),
    include_str!("sqlite/0005_context.sql"),
    include_str!("sqlite/0006_many_types.sql"),
    include_str!("sqlite/0007_limits.sql"),
    include_str!("sqlite/0008_durable.sql"),
];

/// Those of PostgreSQL, oldest first.
#[cfg(feature = "postgres")]
pub(super) const POSTGRES: &[&str] = &[
    include_str!("postgres/0001_tasks.sql"),
    include_str!("postgres/0002_plans.sql"),
    include_str!("postgres/0003_operators.sql"),
    include_str!("postgres/0004_schedules.sql"),
    include_str!("postgres/0005_unique.sql"),
    include_str!("postgres/0006_context.sql"),
    include_str!("postgres/0007_locks.sql"),
    include_str!("postgres/0008_many_types.sql"),
    include_str!("postgres/0009_limits.sql"),
    include_str!("postgres/0010_enqueue.sql"),
    include_str!("postgres/0011_durable.sql"),
    include_str!("postgres/0012_enqueue.sql"),
];
