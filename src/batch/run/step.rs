//! One step of one job: a call of the user's code, and what its answer changes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::entry::{Last, LastWord};
use super::{Inside, Run, StepOrder};
use crate::batch::context::Context;
use crate::batch::event::EventKind;
use crate::batch::job::{JobError, Poll, RemoteJob, Stage, Submitted};
use crate::batch::window::{Input, StepEnd};
use crate::panics;

/// What a step has returned, for each kind of step.
enum Answer<T> {
    Submitted(Submitted),
    Poll(Poll),
    Fetched(T),
    Cancelled,
}

impl<J: RemoteJob> Run<J> {
    /// Runs one step of one job, on a thread of the executor, and then what follows from it.
    pub(super) fn perform(self: &Arc<Self>, order: StepOrder) {
        let StepOrder { job: index, stage, attempt, first, deadline, call } = order;
        let _inside = Inside::enter(self);
        let mut net = StepGuard { run: self, index, is_needed: true };
        let (job, id, counted) = {
            let mut state = self.state.lock();
            let is_too_late = state.window.is_too_late(Instant::now(), index);
            let entry = &mut state.entries[index];
            if is_too_late {
                // The step would only be cut short. The window decides what comes instead.
                drop(state);
                net.is_needed = false;
                return self.advance(Input::Stepped { job: index, end: StepEnd::NotRun }, None);
            }
            entry.attempts.count(stage);
            if first {
                entry.started = Some(self.began.elapsed());
            }
            let taken = (entry.job.take(), entry.id.clone(), entry.counted);
            state.stats.polls += u64::from(stage == Stage::Poll);
            taken
        };
        let Some(mut job) = job else { return };
        if first {
            self.tell(index, None, EventKind::Started);
        }
        let mut context = Context {
            attempt,
            // `cancel` is called because of the stop, and must not give up because of it.
            stopped: (stage != Stage::Cancel).then_some(&self.stopped),
            deadline,
            downloaded: &self.bytes,
            emit: &|kind| self.tell(index, id.as_deref(), kind),
            notes: Vec::new(),
            counted,
            last: None,
            told: None,
        };
        // Only the job's own code is interrupted: a listener has to do with other things.
        let answer = call.run(|| {
            panics::catch(|| match stage {
                Stage::Submit => job.submit(&mut context).map(Answer::Submitted),
                Stage::Poll => job.poll(&mut context).map(Answer::Poll),
                Stage::Fetch => job.fetch(&mut context).map(Answer::Fetched),
                Stage::Cancel => job.cancel(&mut context).map(|()| Answer::Cancelled),
            })
        });
        context.tell_last_bytes();
        let (notes, counted) = (context.notes, context.counted);
        {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.notes.extend(notes);
            entry.counted = counted;
            entry.job = Some(job);
            if stage == Stage::Submit {
                // A step that waits for its turn has sent nothing, or told of it by itself.
                let may_be_made =
                    !matches!(&answer, Ok(Ok(_))) && !matches!(&answer, Ok(Err(error)) if error.is_wait());
                entry.in_doubt = may_be_made && call.is_told();
            }
        }
        let answer = match answer {
            Ok(answer) => answer.map_err(LastWord::Error),
            Err(message) => Err(LastWord::Panic(message)),
        };
        let (end, last) = self.take_in(index, stage, attempt, answer);
        let orders = self.drive(Input::Stepped { job: index, end }, last);
        net.is_needed = false;
        let ended = self.carry_out(orders);
        self.tell_ends(ended);
    }

    /// Stores a step's answer and sends its events, before the window moves on: otherwise the
    /// events of the job's next step could come first.
    fn take_in(
        &self,
        index: usize,
        stage: Stage,
        attempt: u32,
        answer: Result<Answer<J::Output>, LastWord>,
    ) -> (StepEnd, Option<Last<J>>) {
        match answer {
            Ok(Answer::Submitted(Submitted::Accepted { id })) => {
                self.created(index, &id);
                (StepEnd::Accepted, None)
            }
            Ok(Answer::Submitted(Submitted::Ready { id })) => {
                self.created(index, &id);
                (StepEnd::Ready, None)
            }
            Ok(Answer::Poll(Poll::Ready)) => (StepEnd::Ready, None),
            Ok(Answer::Poll(Poll::Pending { state, progress, retry_after })) => {
                self.pending(index, state, progress);
                (StepEnd::Pending { retry_after }, None)
            }
            Ok(Answer::Cancelled) => {
                self.state.lock().entries[index].trouble = None;
                (StepEnd::Complete, None)
            }
            Ok(Answer::Fetched(output)) => (StepEnd::Complete, Some(Ok(output))),
            Err(LastWord::Error(error)) => {
                let then = error.then;
                self.not_done(index, stage, attempt, &error);
                (StepEnd::NotDone(then), Some(Err(LastWord::Error(error))))
            }
            Err(LastWord::Panic(message)) => {
                self.state.lock().entries[index].trouble = Some(format!("a panic: {message}").into());
                (StepEnd::Panicked, Some(Err(LastWord::Panic(message))))
            }
        }
    }

    fn created(&self, index: usize, id: &str) {
        let id: Arc<str> = id.into();
        {
            let mut state = self.state.lock();
            state.stats.submitted += 1;
            let entry = &mut state.entries[index];
            entry.submitted = Some(self.began.elapsed());
            entry.id = Some(id.clone());
            entry.trouble = None;
        }
        self.tell(index, Some(&id), EventKind::Submitted);
    }

    /// A poll of the job `index` has said that it isn't ready: stores its state and progress, and
    /// tells the callbacks what has changed.
    fn pending(&self, index: usize, new_state: Cow<'static, str>, progress: Option<f32>) {
        let (id, new_state, progress) = {
            let mut state = self.state.lock();
            let entry = &mut state.entries[index];
            entry.trouble = None;
            let changed = entry.state.as_ref() != Some(&new_state);
            if changed {
                entry.state = Some(new_state.clone());
            }
            // A service may round up to more than 1: that counts as 1. A share that is negative or
            // not a number is ignored.
            let progress = progress.filter(|share| *share >= 0.0 && share.is_finite()).map(|share| share.min(1.0));
            let progress = progress.filter(|share| entry.progress != Some(*share));
            entry.progress = progress.or(entry.progress);
            (entry.id.clone(), changed.then_some(new_state), progress)
        };
        if let Some(state) = new_state {
            self.tell(index, id.as_deref(), EventKind::StateChanged { state: &state });
        }
        if let Some(share) = progress {
            self.tell(index, id.as_deref(), EventKind::Progress { share });
        }
    }

    fn not_done(&self, index: usize, stage: Stage, attempt: u32, error: &JobError) {
        let text = words_of(error);
        let (id, delay) = {
            let mut state = self.state.lock();
            let delay = state.window.retry_after(Instant::now(), index, error.then);
            state.stats.retries += u64::from(delay.is_some());
            let entry = &mut state.entries[index];
            entry.trouble = Some(text.into());
            (entry.id.clone(), delay)
        };
        if let Some(delay) = delay {
            self.tell(index, id.as_deref(), EventKind::Retrying { stage, attempt, delay, error });
        }
    }
}

/// Reports a step as panicked if its thread unwinds before the window knows of the step's end:
/// otherwise no thread would ever continue the job.
struct StepGuard<'a, J: RemoteJob> {
    run: &'a Arc<Run<J>>,
    index: usize,
    is_needed: bool,
}

impl<J: RemoteJob> Drop for StepGuard<'_, J> {
    fn drop(&mut self) {
        if self.is_needed {
            let fallen = Input::Stepped { job: self.index, end: StepEnd::Panicked };
            panics::contain(|| self.run.advance(fallen, None));
        }
    }
}

/// The text of a user's error, whose `Display` may panic.
fn words_of(error: &JobError) -> String {
    panics::catch(|| error.to_string()).unwrap_or_else(|_| "an error that panics when it is printed".into())
}
