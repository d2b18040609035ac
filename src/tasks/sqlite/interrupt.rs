//! Statements of the user's own, on a database of SQLite, that end when their operation is
//! cancelled.

use std::ffi::c_int;

use rusqlite::Connection;

use crate::executor::is_cancelled;

/// Some tens of microseconds of a statement's work.
const STEPS: c_int = 10_000;

/// Has each statement on `connection` end with
/// [`ErrorCode::OperationInterrupted`](rusqlite::ErrorCode::OperationInterrupted) soon after the
/// operation that runs it was cancelled. A transaction that is open may then be rolled back.
///
/// Called once for a connection, best where it is opened (a [`PerThread`](crate::PerThread) store
/// does that). It is for the connection's life, and costs a look every 10,000 steps of SQLite's
/// machine. It takes the place of the connection's own
/// [`progress_handler`](Connection::progress_handler).
///
/// Why not `sqlite3_interrupt` in a hook of [`on_cancel`](crate::on_cancel): it ends what runs at
/// that moment, so that a cancel just before the statement's first step would be lost. A wait for
/// another connection's lock has no steps: it ends when the connection's `busy_timeout` is over.
///
/// ```
/// use fulmar::tasks::{interrupt_on_cancel, rusqlite::Connection};
///
/// let executor = fulmar::Executor::builder().threads(1).build()?;
/// let (started, starts) = std::sync::mpsc::channel();
/// let request = executor.spawn(move || -> Result<i64, fulmar::tasks::rusqlite::Error> {
///     let db = Connection::open_in_memory()?;
///     interrupt_on_cancel(&db);
///     started.send(()).ok();
///     let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
///     db.query_row(endless, [], |row| row.get(0))
/// })?;
/// starts.recv()?;
/// request.cancel();
/// assert!(request.wait(None)?.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn interrupt_on_cancel(connection: &Connection) {
    connection.progress_handler(STEPS, Some(is_cancelled));
}
