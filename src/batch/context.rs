//! What a step of a job gets from its batch, and how it reports to it.

use std::time::Instant;

use super::event::EventKind;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Passed to each step of a [`RemoteJob`](super::RemoteJob): the step reads from it whether to
/// stop, and reports progress and remarks with it.
pub struct Context<'a> {
    pub(super) attempt: u32,
    pub(super) stopped: Option<&'a AtomicBool>,
    pub(super) deadline: Option<Instant>,
    pub(super) downloaded: &'a AtomicU64,
    pub(super) emit: &'a dyn Fn(EventKind<'_>),
    pub(super) notes: Vec<String>,
    /// How many bytes of the result were added to the batch's counter, by this call and those
    /// before.
    pub(super) counted: u64,
    /// The last call of `bytes`, and how many bytes the last event reported.
    pub(super) last: Option<(u64, Option<u64>)>,
    pub(super) told: Option<u64>,
}

/// A download sends an event after each so many bytes, and at the end of its step.
const TELL_EVERY: u64 = 256 * 1024;

impl Context<'_> {
    /// The number of this attempt at this step, from 1. It begins anew after each success.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Reports how far the download of the job's result is: `done` bytes, of `total` if that is
    /// known. If the result is several files, pass the sums over all of them. It is cheap enough to
    /// be called for every block.
    pub fn bytes(&mut self, done: u64, total: Option<u64>) {
        // Don't count again what is downloaded once more, after a broken connection or in another
        // call.
        let news = done.saturating_sub(self.counted);
        self.counted += news;
        // Relaxed: a counter that protects nothing.
        self.downloaded.fetch_add(news, Ordering::Relaxed);
        self.last = Some((done, total));
        // `done < told`: the download has started over.
        if self.told.is_none_or(|told| done < told || done - told >= TELL_EVERY) {
            self.tell_bytes(done, total);
        }
    }

    /// At the end of a step: sends an event with the last number of bytes, unless one was sent
    /// already.
    pub(super) fn tell_last_bytes(&mut self) {
        if let Some((done, total)) = self.last.filter(|(done, _)| self.told != Some(*done)) {
            self.tell_bytes(done, total);
        }
    }

    fn tell_bytes(&mut self, bytes: u64, total: Option<u64>) {
        self.told = Some(bytes);
        (self.emit)(EventKind::Downloading { bytes, total });
    }

    /// Adds a remark to the job's report and sends it as an event, for example that a job may exist
    /// twice.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        (self.emit)(EventKind::Noted { text: &text });
        self.notes.push(text);
    }

    /// Whether the batch was cancelled or a time limit has passed, so that a long step should
    /// return. An error that it then returns, or a panic, isn't the job's failure, but a result is
    /// kept. Always false in [`cancel`](super::RemoteJob::cancel), which is called because of that.
    ///
    /// A step that blocks needn't ask: the crate's own HTTP calls and [`sleep`](crate::sleep) end,
    /// and for other calls there is [`on_cancel`](crate::on_cancel). A shutdown of the executor
    /// interrupts no step, because no thread would be left to cancel the job.
    pub fn is_cancelled(&self) -> bool {
        // Relaxed: a hint that protects no data.
        self.stopped.is_some_and(|stopped| stopped.load(Ordering::Relaxed))
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("attempt", &self.attempt)
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}
