//! A job of a batch: what is known of it, and its part of the report.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::job::{JobError, RemoteJob};
use crate::batch::report::{Attempts, JobFailure, JobReport};
use crate::batch::window::Ending;

pub(super) struct Entry<J: RemoteJob> {
    /// `None` while a step runs, and after the job's end.
    pub(super) job: Option<J>,
    pub(super) id: Option<Arc<str>>,
    pub(super) state: Option<Cow<'static, str>>,
    pub(super) progress: Option<f32>,
    /// How many bytes of its result are in the batch's counter.
    pub(super) counted: u64,
    pub(super) started: Option<Duration>,
    pub(super) submitted: Option<Duration>,
    pub(super) ended: Duration,
    pub(super) attempts: Attempts,
    pub(super) notes: Vec<String>,
    /// The text of the last failure of a step, for a note if a stop or a time limit ends the job.
    pub(super) trouble: Option<Box<str>>,
    /// Whether `submit` was interrupted, so that the job may exist.
    pub(super) in_doubt: bool,
    // In a box, so that a waiting job doesn't take the memory of its result.
    pub(super) outcome: Option<Box<Outcome<J>>>,
}

pub(super) type Outcome<J> = Result<<J as RemoteJob>::Output, JobFailure>;

/// The outcome of a step, if it may be the job's outcome: its result, or how it failed.
pub(super) type Last<J> = Result<<J as RemoteJob>::Output, LastWord>;

pub(super) enum LastWord {
    Error(JobError),
    Panic(String),
}

impl<J: RemoteJob> Entry<J> {
    pub(super) fn new(job: J) -> Entry<J> {
        Entry {
            job: Some(job),
            id: None,
            state: None,
            progress: None,
            counted: 0,
            started: None,
            submitted: None,
            ended: Duration::ZERO,
            attempts: Attempts::default(),
            notes: Vec::new(),
            trouble: None,
            in_doubt: false,
            outcome: None,
        }
    }

    /// Adds notes for what the outcome doesn't say: the last failure before a stop or a time limit,
    /// and that the remote job may still run.
    pub(super) fn remark(&mut self, ending: Ending, may_still_run: bool, gave_up: bool) {
        let was_cancelled = self.attempts.cancel > 0;
        let trouble = self.trouble.take();
        let was_left = match ending {
            Ending::TimedOut { .. } | Ending::Stopped(_) => {
                match trouble {
                    Some(trouble) if self.in_doubt => self
                        .notes
                        .push(format!("its creation was interrupted, so that the remote job may exist: {trouble}")),
                    Some(trouble) if was_cancelled => self
                        .notes
                        .push(format!("the remote job may still run, because it could not be cancelled: {trouble}")),
                    Some(trouble) => self.notes.push(format!("the last trouble before that: {trouble}")),
                    None => {}
                }
                !was_cancelled
            }
            Ending::Failed { .. } | Ending::Panicked { .. } => gave_up,
            Ending::Done => false,
        };
        if may_still_run && was_left {
            self.notes.push("the remote job may still run: it was not cancelled".into());
        }
    }

    pub(super) fn into_report(self, index: usize) -> Option<JobReport<J::Output>> {
        Some(JobReport {
            index,
            id: self.id.map(|id| id.to_string()),
            outcome: *self.outcome?,
            started: self.started,
            submitted: self.submitted,
            ended: self.ended,
            attempts: self.attempts,
            notes: self.notes,
        })
    }
}
