//! A sleep that a cancel ends.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::interrupt::InterruptibleWait;
use crate::sync::thread;
use crate::time::Deadline;

/// Sleeps for `duration`, or until the operation that calls this is cancelled.
///
/// Outside of an operation it sleeps to the end. It keeps the thread of the pool, as
/// `std::thread::sleep` does: where work is to be done later,
/// [`Executor::submit_after`](crate::Executor::submit_after) holds none.
///
/// With it, an operation waits for a child process and kills it when it is cancelled. The thread
/// that waits is also the one that kills, so no other process can have the number by then, and no
/// zombie stays:
///
/// ```
/// # #[cfg(unix)] {
/// use std::process::{Child, Command, ExitStatus};
/// use std::time::Duration;
///
/// fn finish(mut child: Child) -> std::io::Result<ExitStatus> {
///     loop {
///         if let Some(status) = child.try_wait()? {
///             return Ok(status);
///         }
///         if fulmar::sleep(Duration::from_millis(10)).is_err() {
///             child.kill()?;
///             return child.wait();
///         }
///     }
/// }
///
/// let executor = fulmar::Executor::builder().threads(1).build()?;
/// let (started, starts) = std::sync::mpsc::channel();
/// let request = executor.spawn(move || {
///     let child = Command::new("sleep").arg("3600").spawn();
///     started.send(()).ok();
///     finish(child?)
/// })?;
/// starts.recv()?;
/// request.cancel();
/// assert!(!request.wait(None)??.success(), "it was killed");
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Timing
/// Monotonic clock, counted from this call. A sum past the clock's range means no limit. If the
/// operation was cancelled before, it returns at once.
/// # Errors
/// [`Error::Interrupted`], if the operation was cancelled, before or meanwhile.
pub fn sleep(duration: Duration) -> Result<()> {
    let (deadline, wait) = (Deadline::start(duration), InterruptibleWait::begin(None));
    while !wait.is_interrupted() && !deadline.is_past() {
        thread::park_until(deadline.at());
    }
    if wait.is_interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}
