//! What keeps the queue in order: lost tasks go back, retired ones are deleted. Every worker does
//! it now and then; a queue without workers may be tidied by hand.

use super::error::Result;
use super::queue::TaskQueue;

/// How many tasks are rescued, or deleted, in one transaction: so few that no other call waits long
/// for it.
const BATCH: usize = 100;

/// What a tidying did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tidied {
    /// Tasks taken from lost workers that went back to the queue.
    pub returned: u64,
    /// Tasks taken from lost workers that have failed, because their restart limit was reached.
    pub failed: u64,
    /// Tasks taken from lost workers whose cancellation was asked for.
    pub cancelled: u64,
    /// Tasks that could not be rescued because their rows make no sense: they have failed.
    pub bad: u64,
    /// Ended tasks whose retention was over, and that were deleted.
    pub deleted: u64,
}

impl TaskQueue {
    /// Rescues the tasks of lost workers, and deletes those whose retention is over, in small
    /// batches, until none is left.
    ///
    /// # Errors
    /// Those of the database. What was done before stays done.
    pub fn tidy(&self) -> Result<Tidied> {
        let mut tidied = Tidied::default();
        loop {
            let reaped = self.engine().reap(BATCH)?;
            tidied.returned += reaped.returned;
            tidied.failed += reaped.failed;
            tidied.cancelled += reaped.cancelled;
            tidied.bad += reaped.bad;
            // In turns: a million that have retired keep no lost task from being rescued.
            let deleted = self.engine().prune(BATCH)?;
            tidied.deleted += deleted;
            if reaped.total().max(deleted) < BATCH as u64 {
                break;
            }
        }
        // The parents of these ended in other ways than by a call that would have told them.
        self.cancel_children(None, "its parent failed or was cancelled")?;
        Ok(tidied)
    }
}
