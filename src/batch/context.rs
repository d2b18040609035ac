//! What a step may say to its batch.

use std::mem;
use std::time::Instant;

use super::event::EventKind;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Passed to each step of a [`RemoteJob`](super::RemoteJob): what it may ask, and what it may tell.
pub struct Context<'a> {
    pub(super) attempt: u32,
    pub(super) stopped: &'a AtomicBool,
    pub(super) deadline: Option<Instant>,
    pub(super) downloaded: &'a AtomicU64,
    pub(super) emit: &'a dyn Fn(EventKind<'_>),
    pub(super) notes: Vec<String>,
    /// Bytes that were counted, and bytes that were told of.
    pub(super) counted: u64,
    pub(super) told: u64,
}

/// A download tells of itself each time that this much more is there, and at its end.
const TELL_EVERY: u64 = 256 * 1024;

impl Context<'_> {
    /// The number of this attempt at this step, from 1. It begins anew after each success.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Tells how far a download is: `done` bytes, of `total` where that is known. Cheap enough for every block.
    pub fn bytes(&mut self, done: u64, total: Option<u64>) {
        // A download that starts over has fewer bytes than before, and only news are counted.
        let news = done.saturating_sub(mem::replace(&mut self.counted, done));
        // Relaxed: a counter that protects nothing.
        self.downloaded.fetch_add(news, Ordering::Relaxed);
        if done < self.told || done - self.told >= TELL_EVERY || (Some(done) == total && done != self.told) {
            self.told = done;
            (self.emit)(EventKind::Downloading { bytes: done, total });
        }
    }

    /// Puts a remark into the job's report, and tells of it in an event: that a job may exist twice, say.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        (self.emit)(EventKind::Noted { text: &text });
        self.notes.push(text);
    }

    /// Whether the batch was cancelled or a time limit has passed, so that a long step had better end. What it then returns
    /// is ignored, unless it is a result.
    pub fn is_cancelled(&self) -> bool {
        // Relaxed: it is a hint that protects nothing.
        self.stopped.load(Ordering::Relaxed)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            || crate::request::is_cancelled()
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
