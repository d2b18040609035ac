//! What the executor's timer can ring for other parts of the crate.

use std::sync::Arc;

/// Told when its time has come, or that it won't. Under no lock.
pub(crate) trait Alarmed: Send + Sync {
    /// On the timer's thread: must neither block nor panic.
    fn ring(self: Arc<Self>);
    /// On the thread that shuts the executor down.
    fn give_up(self: Arc<Self>);
}
