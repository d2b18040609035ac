//! What a step may say to its batch.

use std::time::Instant;

use super::event::EventKind;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Passed to each step of a [`RemoteJob`](super::RemoteJob): what it may ask, and what it may tell.
pub struct Context<'a> {
    pub(super) attempt: u32,
    pub(super) stopped: Option<&'a AtomicBool>,
    pub(super) deadline: Option<Instant>,
    pub(super) downloaded: &'a AtomicU64,
    pub(super) emit: &'a dyn Fn(EventKind<'_>),
    pub(super) notes: Vec<String>,
    /// Bytes of the result that were counted, in this call and those before.
    pub(super) counted: u64,
    /// What was said last, and what of it was told.
    pub(super) last: Option<(u64, Option<u64>)>,
    pub(super) told: Option<u64>,
}

/// A download tells of itself each time that this much more is there, and at the end of its step.
const TELL_EVERY: u64 = 256 * 1024;

impl Context<'_> {
    /// The number of this attempt at this step, from 1. It begins anew after each success.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tells how far the download of the job's result is: `done` bytes, of `total` where that is known. If the result is
    /// several files, these are their sums. Cheap enough for every block.
    pub fn bytes(&mut self, done: u64, total: Option<u64>) {
        // What is downloaded anew, after a cut or in another call, was counted before.
        let news = done.saturating_sub(self.counted);
        self.counted += news;
        // Relaxed: a counter that protects nothing.
        self.downloaded.fetch_add(news, Ordering::Relaxed);
        self.last = Some((done, total));
        if self.told.is_none_or(|told| done < told || done - told >= TELL_EVERY) {
            self.tell_bytes(done, total);
        }
    }

    pub(super) fn tell_last_bytes(&mut self) {
        if let Some((done, total)) = self.last.filter(|(done, _)| self.told != Some(*done)) {
            self.tell_bytes(done, total);
        }
    }

    fn tell_bytes(&mut self, bytes: u64, total: Option<u64>) {
        self.told = Some(bytes);
        (self.emit)(EventKind::Downloading { bytes, total });
    }

    /// Puts a remark into the job's report, and tells of it in an event: that a job may exist twice, say.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        (self.emit)(EventKind::Noted { text: &text });
        self.notes.push(text);
    }

    /// Whether the batch was cancelled or a time limit has passed, so that a long step had better end. What it then returns
    /// is ignored, unless it is a result. Never so in [`cancel`](super::RemoteJob::cancel).
    pub fn is_cancelled(&self) -> bool {
        // Relaxed: it is a hint that protects nothing.
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
