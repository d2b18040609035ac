//! Wakes the threads that wait in this process when another one has committed. SQLite itself tells
//! none of them: so a thread looks at the version of the data, every few milliseconds, while a
//! thread waits, and sleeps otherwise.
//!
//! It looks through the writing connection, on which the version changes with the commits of others
//! alone. A look takes locks in the log's shared memory, so where the log was not written for a
//! while, the time of its last change will do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::error::{Result, TaskError};
use super::super::signal::Signal;
use super::file::Files;
use super::writer::Writer;
use crate::sync::thread::{self, JoinHandle};

/// Half of it is the median of the time from a commit to the ring.
const PERIOD: Duration = Duration::from_millis(5);

/// For how long after the log was written a look has to be taken: the system's times of files are
/// some milliseconds coarse, and a commit shows only after the disk has it.
const SETTLED: Duration = Duration::from_millis(200);

/// The thread; it has ended when this is dropped.
pub(super) struct Watch {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// # Errors
    /// [`TaskError::Database`] if the system refuses a thread.
    pub(super) fn start(writer: &Arc<Writer>, files: &Files, signal: &Arc<Signal>) -> Result<Watch> {
        let (writer, files, watched) = (Arc::clone(writer), files.clone(), Arc::clone(signal));
        let watch = move || {
            let mut settled = None;
            watched.watch(PERIOD, || {
                let written = files.log_written();
                if settled.is_some() && settled == written {
                    return false;
                }
                // A time in the future, by a clock that was set, has not settled.
                let age = written.and_then(|written| SystemTime::now().duration_since(written).ok());
                settled = written.filter(|_| age.is_some_and(|age| age > SETTLED));
                writer.has_foreign_commits()
            });
        };
        let thread = thread::spawn_joinable("fulmar-watch".into(), None, watch, || ())
            .map_err(|error| TaskError::Database { doing: "starting to watch the file", source: error.into() })?;
        Ok(Watch { signal: Arc::clone(signal), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal.close();
        // Until it has ended, it keeps the file open.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
