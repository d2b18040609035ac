//! The alarm that steps the window at its next time, when no step ends before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{Run, reason_of};
use crate::batch::job::RemoteJob;
use crate::batch::report::StopReason;
use crate::batch::window::{Action, Input};
use crate::executor::{Alarmed, Told};
use crate::sync::thread;
use crate::timer::Alarm;
use crate::trace::event;

/// The alarm that steps the window at its next time.
#[derive(Default)]
pub(super) struct Wake {
    /// When it rings. An alarm for another time may still ring if it could not be called off in
    /// time: that does no harm.
    at: Option<Instant>,
    /// Counts the alarms, so that one that is out of date can be told apart.
    generation: u64,
    alarm: Option<Alarm>,
}

impl Wake {
    /// Changes the time to `due`. Returns the alarm to set for it, and the earlier one to call off.
    pub(super) fn aim(&mut self, due: Option<Instant>) -> (Option<(Instant, u64)>, Option<Alarm>) {
        if self.at == due {
            return (None, None);
        }
        let retired = self.alarm.take();
        self.forget();
        self.at = due;
        (due.map(|at| (at, self.generation)), retired)
    }

    /// Forgets the alarm, because it has rung or is called off.
    fn forget(&mut self) {
        self.at = None;
        self.alarm = None;
        self.generation += 1;
    }
}

impl<J: RemoteJob> Run<J> {
    /// Sets an alarm for the window's next time. If the executor refuses it, stops the batch.
    pub(super) fn arm(self: &Arc<Self>, at: Instant, generation: u64, inputs: &mut VecDeque<Input>) {
        let ring = Arc::new(Ring { run: self.clone(), generation });
        match self.executor.alarm_at(at, ring) {
            Ok(alarm) => {
                let mut state = self.state.lock();
                if state.wake.generation == generation {
                    state.wake.alarm = Some(alarm);
                } else {
                    // Another thread has set a newer alarm meanwhile, or this one has rung.
                    drop(state);
                    self.executor.call_off(alarm);
                }
            }
            Err(refused) => {
                event!(WARN, "batch has no timer any more", error = refused);
                inputs.push_back(Input::Stop(reason_of(&refused)));
            }
        }
    }

    /// Interrupts the steps at work whose time is over.
    fn interrupt_late(&self) {
        let mut actions = Vec::new();
        let told: Vec<Told> = {
            let state = &mut *self.state.lock();
            state.window.interrupt_late(Instant::now(), &mut actions);
            let late = actions.into_iter().filter_map(|action| match action {
                Action::Interrupt { job } => Some(job),
                _ => None,
            });
            late.filter_map(|job| state.tell(job)).collect()
        };
        if !told.is_empty() {
            // Not here: hooks are the user's, and may take their time.
            self.executor.call_foreign(move || told.iter().for_each(Told::interrupt));
        }
    }
}

/// The alarm for the window's next time.
struct Ring<J: RemoteJob> {
    run: Arc<Run<J>>,
    generation: u64,
}

impl<J: RemoteJob> Alarmed for Ring<J> {
    fn ring(self: Arc<Self>) {
        // Not by the request below: the steps that are to be interrupted may hold all threads.
        self.run.interrupt_late();
        let ring = self.clone();
        let woken = self.run.executor.spawn_accepted(move || {
            {
                let mut state = ring.run.state.lock();
                if state.wake.generation == ring.generation {
                    state.wake.forget();
                }
            }
            ring.run.advance(Input::Woken, None);
        });
        if let Err(refused) = woken {
            // Not on the timer's thread: this ends jobs, and callbacks may block.
            let run = self.run.clone();
            let stop = move || run.advance(Input::Stop(reason_of(&refused)), None);
            if thread::spawn("fulmar-batch".into(), None, stop).is_err() {
                self.run.advance(Input::Stop(StopReason::NoThread), None);
            }
        }
    }

    fn give_up(self: Arc<Self>) {
        self.run.advance(Input::Stop(StopReason::ShutDown), None);
    }
}
