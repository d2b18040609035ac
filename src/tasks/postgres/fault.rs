//! What an operation can fail with: PostgreSQL's errors, of which some are worth another try, and
//! the room's own.

use super::super::error::TaskError;
use super::error::PgError;

#[derive(Debug)]
pub(super) enum Fault {
    Pg(PgError),
    Task(TaskError),
}

impl From<PgError> for Fault {
    fn from(error: PgError) -> Fault {
        Fault::Pg(error)
    }
}

impl From<TaskError> for Fault {
    fn from(error: TaskError) -> Fault {
        Fault::Task(error)
    }
}

/// What the room's users are told.
pub(super) fn told(doing: &'static str, error: PgError) -> TaskError {
    match error {
        PgError::Invalid(message) => TaskError::Invalid(message),
        error if error.is_lost() => TaskError::Unreachable { doing, source: error.into() },
        // Disk full; out of memory, locks or connections; the server's own limits on a statement.
        error if error.sqlstate() == Some("53100") => TaskError::DiskFull { doing, source: error.into() },
        error if error.is_out_of_something() => TaskError::Unreachable { doing, source: error.into() },
        error => TaskError::Database { doing, source: error.into() },
    }
}
