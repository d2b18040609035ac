//! The sliding window of a batch as plain data: `(now, what happened) -> what to do`, without
//! threads, clock or jobs.
//!
//! Promises: each job is in one place at a time. At most `window` jobs are started and not ended,
//! and at most `max_concurrent` steps run. New jobs and those in flight take turns. A job that
//! waits for its time is in a heap, so that a look at the first tells whether any of a thousand is
//! ready. Every job ends exactly once, in whatever order things happen. `tests` below goes through
//! random histories.
//!
//! Left to `run`: what a step does, on which thread it runs, and to call [`step`](Window::step)
//! again at [`next_due`](Window::next_due).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::job::{Stage, Then};
use super::report::StopReason;
use crate::backoff::Backoff;

/// The longest wait that a service may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The longest wait before another attempt to cancel a job: shorter, because a caller waits for the
/// batch to end.
const LONGEST_WAIT_TO_CANCEL: Duration = Duration::from_secs(10);

/// The shortest wait of a step that waits for its turn, so that a delay of zero doesn't keep a
/// thread busy.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The most jobs started and not ended.
    pub(super) window: usize,
    /// The most steps that run at once.
    pub(super) max_concurrent: usize,
    pub(super) poll: Backoff,
    /// The most attempts at each step.
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) job_time_limit: Option<Duration>,
    pub(super) max_failures: Option<usize>,
    /// When the whole batch has to end.
    pub(super) deadline: Option<Instant>,
    pub(super) seed: u64,
}

/// What has happened since the last step of the window.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// Nothing, but time has passed.
    Woken,
    /// The step of this job that [`Action::Run`] asked for has ended.
    Stepped {
        job: usize,
        end: StepEnd,
    },
    Stop(StopReason),
}

/// How a step has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepEnd {
    /// The service has created the job.
    Accepted,
    /// The result can be fetched.
    Ready,
    /// The result isn't ready: poll again.
    Pending {
        retry_after: Option<Duration>,
    },
    /// The result was fetched, or the job was cancelled.
    Complete,
    NotDone(Then),
    Panicked,
    /// The step was not called: it came too late, or no thread could call it.
    NotRun,
}

/// What the caller of [`Window::step`] has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Call this step. `first`: it is the job's first. `deadline`: when it should give up.
    Run { job: usize, stage: Stage, attempt: u32, first: bool, deadline: Option<Instant> },
    /// Tell the step that is at work to stop, and end the call in which it blocks.
    Interrupt { job: usize },
    /// The job has ended in this way.
    End { job: usize, ending: Ending },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// By the error that this attempt at this step returned.
    Failed {
        stage: Stage,
        attempt: u32,
    },
    Panicked {
        stage: Stage,
    },
    TimedOut {
        limit: Duration,
    },
    Stopped(StopReason),
}

pub(super) struct Window {
    rules: Rules,
    slots: Vec<Slot>,
    /// The number of the first job that hasn't started.
    begun: usize,
    active: usize,
    at_work: usize,
    failures: usize,
    ended: usize,
    stop: Option<StopReason>,
    /// Whether the last job to run was a new one, so that one in flight is next.
    began_last: bool,
    /// Jobs whose time has come, in that order.
    ready: VecDeque<usize>,
    /// Jobs whose time will come. An entry is out of date, and passed over, if its job's slot
    /// doesn't have that time any more.
    sleeping: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When the time limits of the jobs pass, for steps that are at work then. An entry is out of
    /// date if its job has ended or is being cancelled.
    limits: BinaryHeap<Reverse<(Instant, usize)>>,
}

struct Slot {
    state: SlotState,
    /// The step that comes next, or that runs now.
    stage: Stage,
    /// How many attempts at it have failed in a row.
    failed: u32,
    /// How many times in a row it had to wait for its turn.
    waits: u32,
    polls: u32,
    created: bool,
    deadline: Option<Instant>,
    /// Whether the step at work was told to stop.
    told: bool,
    /// Set when the batch cancels the job: how the job ends after that.
    ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Waiting,
    Ready,
    AtWork,
    Sleeping(Instant),
    Ended,
}

impl Window {
    /// A window over so many jobs, none of which has begun.
    pub(super) fn new(jobs: usize, rules: Rules) -> Window {
        let slot = || Slot {
            state: SlotState::Waiting,
            stage: Stage::Submit,
            failed: 0,
            waits: 0,
            polls: 0,
            created: false,
            deadline: None,
            told: false,
            ending: None,
        };
        Window {
            rules,
            slots: (0..jobs).map(|_| slot()).collect(),
            begun: 0,
            active: 0,
            at_work: 0,
            failures: 0,
            ended: 0,
            stop: None,
            began_last: false,
            ready: VecDeque::new(),
            sleeping: BinaryHeap::new(),
            limits: BinaryHeap::new(),
        }
    }

    /// Takes in what has happened by `now`, and appends to `actions` what the caller has to do.
    pub(super) fn step(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        self.interrupt_late(now, actions);
        match input {
            Input::Woken => {}
            Input::Stepped { job, end } => {
                if matches!(end, StepEnd::NotDone(_) | StepEnd::Panicked) {
                    // The step may have failed because of the time limit.
                    self.stop_if_late(now, actions);
                }
                self.stepped(now, job, end, actions);
            }
            Input::Stop(reason) => self.stop(reason, actions),
        }
        // After `stepped`: if the batch's last step ended in time, the time limit stopped nothing.
        self.stop_if_late(now, actions);
        self.wake_due(now);
        self.end_what_never_began(actions);
        self.run_ready(now, actions);
    }

    fn stop_if_late(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.rules.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop(StopReason::TimeLimit, actions);
        }
    }

    /// Interrupts the steps at work whose job's or batch's time limit has passed by `now`; `step`
    /// does so, too. It is for a thread that can't do what the other actions ask for.
    pub(super) fn interrupt_late(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while let Some(&Reverse((at, job))) = self.limits.peek() {
            if at > now && !self.is_limit_out_of_date(job) {
                break;
            }
            self.limits.pop();
            if at <= now {
                self.interrupt(job, actions);
            }
        }
        if self.rules.deadline.is_some_and(|deadline| now >= deadline) && !self.cuts_short() {
            self.interrupt_all(actions);
        }
    }

    fn interrupt_all(&mut self, actions: &mut Vec<Action>) {
        (0..self.begun).for_each(|job| self.interrupt(job, actions));
    }

    /// Interrupts the job's step, if one is at work; but not its cancellation, and none at all if
    /// no thread is left for that: a job whose state isn't known couldn't be cancelled then.
    fn interrupt(&mut self, job: usize, actions: &mut Vec<Action>) {
        if self.has_no_threads() {
            return;
        }
        let slot = &mut self.slots[job];
        if slot.state == SlotState::AtWork && slot.ending.is_none() && !slot.told {
            slot.told = true;
            actions.push(Action::Interrupt { job });
        }
    }

    fn is_limit_out_of_date(&self, job: usize) -> bool {
        let slot = &self.slots[job];
        slot.state == SlotState::Ended || slot.ending.is_some() || slot.told
    }

    /// When to call [`step`](Window::step) again, even if nothing happens before.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, job))) = self.sleeping.peek() {
            if self.slots[*job].state == SlotState::Sleeping(*at) {
                break;
            }
            self.sleeping.pop();
        }
        while self.limits.peek().is_some_and(|Reverse((_, job))| self.is_limit_out_of_date(*job)) {
            self.limits.pop();
        }
        let next = self.sleeping.peek().map(|Reverse((at, _))| *at);
        let limit = self.limits.peek().map(|Reverse((at, _))| *at);
        let deadline = self.rules.deadline.filter(|_| !self.cuts_short() && !self.is_over());
        [next, limit, deadline].into_iter().flatten().min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended == self.slots.len()
    }

    /// Whether the batch was stopped so that jobs in flight end, too. A limit on failures lets them
    /// finish.
    pub(super) fn cuts_short(&self) -> bool {
        self.stop.is_some_and(|reason| reason != StopReason::TooManyFailures)
    }

    /// Whether a step that is about to run should not: since the window asked for it, the batch was
    /// stopped or a time limit has passed. A step of a job that is being cancelled always runs.
    pub(super) fn is_too_late(&self, now: Instant, job: usize) -> bool {
        let slot = &self.slots[job];
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        slot.ending.is_none() && (self.cuts_short() || is_past(slot.deadline) || is_past(self.rules.deadline))
    }

    /// Whether the job may run at the service: the service has confirmed it, and hasn't said that
    /// it is ready.
    pub(super) fn may_still_run(&self, job: usize) -> bool {
        let slot = &self.slots[job];
        slot.created && slot.stage != Stage::Fetch
    }

    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    pub(super) fn waiting(&self) -> usize {
        self.slots.len() - self.active - self.ended
    }

    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Moves a job on after its step has ended.
    fn stepped(&mut self, now: Instant, job: usize, end: StepEnd, actions: &mut Vec<Action>) {
        let slot = &mut self.slots[job];
        debug_assert_eq!(slot.state, SlotState::AtWork, "job {job} steps only when told to");
        self.at_work -= 1;
        let (stage, was_told) = (slot.stage, std::mem::take(&mut slot.told));
        // The service has answered, so the next failure is the first in a row.
        if !matches!(end, StepEnd::NotDone(_) | StepEnd::NotRun) {
            (slot.failed, slot.waits) = (0, 0);
        }
        match end {
            StepEnd::Accepted => {
                slot.created = true;
                self.sleep_until_poll(now, job, None);
            }
            StepEnd::Ready => {
                slot.created = true;
                slot.stage = Stage::Fetch;
                self.make_ready(job);
            }
            StepEnd::Pending { retry_after } => self.sleep_until_poll(now, job, retry_after),
            StepEnd::Complete => {
                let ending = slot.ending.unwrap_or(Ending::Done);
                self.end(job, ending, actions);
            }
            // We interrupted this step to cancel the job. So its error says nothing about the job,
            // which may run on. At its next turn `run` cancels it, or ends it if it was never
            // created.
            StepEnd::NotDone(_) | StepEnd::Panicked if was_told => self.make_ready(job),
            StepEnd::Panicked => {
                let ending = slot.ending.unwrap_or(Ending::Panicked { stage });
                self.end(job, ending, actions);
            }
            StepEnd::NotDone(then) => self.not_done(now, job, then, actions),
            // No thread took the step. At its next turn `run` cancels the job, or ends it because
            // no threads are left.
            StepEnd::NotRun => self.make_ready(job),
        }
    }

    /// After a step that failed: ends the job, or has it sleep until the next attempt.
    fn not_done(&mut self, now: Instant, job: usize, then: Then, actions: &mut Vec<Action>) {
        let delay = self.delay_after(job, then);
        let slot = &mut self.slots[job];
        match delay {
            None => {
                let failed = Ending::Failed { stage: slot.stage, attempt: slot.failed + 1 };
                let ending = slot.ending.unwrap_or(failed);
                self.end(job, ending, actions);
            }
            Some(delay) => {
                match then {
                    // A wait for its turn isn't an attempt, unless it keeps a cancelled batch from
                    // its end.
                    Then::Wait { .. } if slot.stage != Stage::Cancel => slot.waits = slot.waits.saturating_add(1),
                    _ => slot.failed += 1,
                }
                self.sleep(now, job, delay);
            }
        }
    }

    /// How long to wait before the job's step is called again after it failed like this; `None` if
    /// it isn't called again.
    fn delay_after(&self, job: usize, then: Then) -> Option<Duration> {
        let (rules, slot) = (&self.rules, &self.slots[job]);
        let seed = rules.seed ^ job as u64;
        let (is_cancel, is_last) = (slot.stage == Stage::Cancel, slot.failed + 1 >= rules.attempts);
        let delay = match then {
            Then::Fail => return None,
            Then::Retry { .. } if is_last => return None,
            // A job that is being cancelled may wait for its turn only a few times, so that the
            // batch ends.
            Then::Wait { .. } if is_last && is_cancel => return None,
            Then::Retry { after } => {
                let delay = rules.backoff.delay_with(slot.failed, seed);
                after.map_or(delay, |after| after.min(LONGEST_WAIT).max(delay))
            }
            Then::Wait { at_least } => {
                // Many jobs may wait for the same moment. The more often a job has waited, the
                // wider its delay is spread at random, so that they don't all come at once again.
                let at_least = at_least.clamp(SHORTEST_WAIT, LONGEST_WAIT);
                let spread = slot.waits.min(4) + 1;
                let spread =
                    Backoff::new(at_least * spread).cap(at_least * spread).jitter(1.0 - 1.0 / f64::from(spread));
                spread.delay_with(slot.waits, seed)
            }
        };
        Some(if is_cancel { delay.min(LONGEST_WAIT_TO_CANCEL) } else { delay })
    }

    /// How long it is until the retry, for the event that reports it; `None` if there is no retry,
    /// or if a stop or a time limit comes first.
    pub(super) fn retry_after(&self, now: Instant, job: usize, then: Then) -> Option<Duration> {
        let Then::Retry { .. } = then else { return None };
        let slot = &self.slots[job];
        let is_cut = slot.ending.is_none() && self.cuts_short();
        self.delay_after(job, then).filter(|&delay| {
            let deadline =
                [slot.deadline, self.rules.deadline.filter(|_| slot.ending.is_none())].into_iter().flatten().min();
            !is_cut && deadline.is_none_or(|deadline| now.checked_add(delay).is_some_and(|at| at < deadline))
        })
    }

    /// Has a job sleep until its next poll: when the service said so, otherwise by the schedule.
    fn sleep_until_poll(&mut self, now: Instant, job: usize, retry_after: Option<Duration>) {
        let rules = self.rules;
        let slot = &mut self.slots[job];
        slot.stage = Stage::Poll;
        let delay = match retry_after {
            // At least our own first delay: otherwise a service that always says "now" would be
            // polled without a pause.
            Some(after) => after.min(LONGEST_WAIT).max(rules.poll.delay(0)),
            None => rules.poll.delay_with(slot.polls, rules.seed ^ job as u64),
        };
        slot.polls = slot.polls.saturating_add(1);
        self.sleep(now, job, delay);
    }

    /// Puts the job into the heap for `delay`, or until its time limit passes, if that is sooner.
    fn sleep(&mut self, now: Instant, job: usize, delay: Duration) {
        let cuts_short = self.cuts_short();
        let slot = &mut self.slots[job];
        let at = now.checked_add(delay).unwrap_or(now + LONGEST_WAIT);
        let at = slot.deadline.map_or(at, |deadline| at.min(deadline));
        // A stop doesn't hurry a job that is being cancelled already: it waits for its next
        // attempt.
        if at <= now || (cuts_short && slot.ending.is_none()) {
            return self.make_ready(job);
        }
        slot.state = SlotState::Sleeping(at);
        self.sleeping.push(Reverse((at, job)));
    }

    /// Puts the job into the queue of those that run as soon as fewer than `max_concurrent` steps
    /// do.
    fn make_ready(&mut self, job: usize) {
        self.slots[job].state = SlotState::Ready;
        self.ready.push_back(job);
    }

    /// Moves the jobs whose time has come from the heap to the queue.
    fn wake_due(&mut self, now: Instant) {
        while let Some(&Reverse((at, job))) = self.sleeping.peek() {
            if at > now {
                break;
            }
            self.sleeping.pop();
            if self.slots[job].state == SlotState::Sleeping(at) {
                self.make_ready(job);
            }
        }
    }

    /// Stops the batch: starts no more jobs, and unless the reason is a limit on failures, makes
    /// the sleeping ones ready to be cancelled.
    fn stop(&mut self, reason: StopReason, actions: &mut Vec<Action>) {
        // A more severe reason replaces an earlier one: jobs that a limit on failures left in
        // flight can still be cancelled, and without threads nothing goes on.
        let severity = |reason| match reason {
            StopReason::TooManyFailures => 1,
            StopReason::Cancelled | StopReason::TimeLimit => 2,
            StopReason::ShutDown | StopReason::NoThread => 3,
        };
        if self.is_over() || self.stop.is_some_and(|before| severity(before) >= severity(reason)) {
            return;
        }
        self.stop = Some(reason);
        if !self.cuts_short() {
            return;
        }
        let no_threads = self.has_no_threads();
        self.interrupt_all(actions);
        for job in 0..self.begun {
            let slot = &self.slots[job];
            // A job that is being cancelled sleeps on until its next attempt, unless no thread is
            // left for that.
            if matches!(slot.state, SlotState::Sleeping(_)) && (slot.ending.is_none() || no_threads) {
                self.make_ready(job);
            }
        }
    }

    fn has_no_threads(&self) -> bool {
        matches!(self.stop, Some(StopReason::ShutDown | StopReason::NoThread))
    }

    /// After a stop: ends the jobs that haven't started.
    fn end_what_never_began(&mut self, actions: &mut Vec<Action>) {
        let Some(reason) = self.stop else { return };
        while self.begun < self.slots.len() {
            let job = self.begun;
            self.begun += 1;
            self.slots[job].state = SlotState::Ended;
            self.ended += 1;
            actions.push(Action::End { job, ending: Ending::Stopped(reason) });
        }
    }

    /// Starts new jobs and runs the next steps of ready ones, as far as `window` and
    /// `max_concurrent` allow.
    fn run_ready(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while self.at_work < self.rules.max_concurrent {
            let may_begin = self.stop.is_none() && self.begun < self.slots.len() && self.active < self.rules.window;
            // Take turns: otherwise polls could keep the window from filling, or new jobs could
            // keep those in flight from ending.
            if may_begin && (!self.began_last || self.ready.is_empty()) {
                let job = self.begun;
                self.begun += 1;
                self.active += 1;
                self.began_last = true;
                let deadline = self.rules.job_time_limit.and_then(|limit| now.checked_add(limit));
                self.slots[job].deadline = deadline;
                self.limits.extend(deadline.map(|at| Reverse((at, job))));
                self.run(now, job, actions);
            } else if let Some(job) = self.ready.pop_front() {
                self.began_last = false;
                self.run(now, job, actions);
            } else {
                break;
            }
        }
        // One of the jobs that ended here may have reached the limit on failures.
        self.end_what_never_began(actions);
    }

    /// Asks the caller to run the job's next step. A job that is to be cancelled ends at once
    /// instead if the service has none of it yet, or if no thread is left to cancel it.
    fn run(&mut self, now: Instant, job: usize, actions: &mut Vec<Action>) {
        self.overtake(now, job);
        let no_threads = self.has_no_threads();
        let slot = &mut self.slots[job];
        if let Some(ending) = slot.ending {
            // `cancel` would be a request to the service about a job that it doesn't have, or that
            // no thread can send.
            if !slot.created || no_threads {
                return self.end(job, ending, actions);
            }
        }
        let first = slot.state == SlotState::Waiting;
        slot.state = SlotState::AtWork;
        self.at_work += 1;
        let deadline = [slot.deadline, self.rules.deadline].into_iter().flatten().min();
        // Without a deadline while the job is being cancelled: the deadline that made us cancel it
        // has passed, and would cut `cancel` short as well.
        let deadline = deadline.filter(|_| slot.ending.is_none());
        actions.push(Action::Run { job, stage: slot.stage, attempt: slot.failed + 1, first, deadline });
    }

    /// If the batch was stopped, or the job's time limit has passed, makes `cancel` the job's next
    /// step.
    fn overtake(&mut self, now: Instant, job: usize) {
        let stopped = self.stop.filter(|_| self.cuts_short());
        let limit = self.rules.job_time_limit;
        let slot = &mut self.slots[job];
        if slot.ending.is_some() {
            return;
        }
        slot.ending = match (stopped, slot.deadline, limit) {
            (Some(reason), _, _) => Some(Ending::Stopped(reason)),
            (None, Some(deadline), Some(limit)) if now >= deadline => Some(Ending::TimedOut { limit }),
            _ => return,
        };
        (slot.stage, slot.failed, slot.waits, slot.deadline) = (Stage::Cancel, 0, 0, None);
    }

    /// Ends a job that is in the window, and stops the batch if it was one failure too many.
    fn end(&mut self, job: usize, ending: Ending, actions: &mut Vec<Action>) {
        self.slots[job].state = SlotState::Ended;
        self.active -= 1;
        self.ended += 1;
        actions.push(Action::End { job, ending });
        if matches!(ending, Ending::Failed { .. } | Ending::Panicked { .. } | Ending::TimedOut { .. }) {
            self.failures += 1;
            let has_more = self.begun < self.slots.len();
            if has_more && self.rules.max_failures.is_some_and(|limit| self.failures >= limit) {
                self.stop(StopReason::TooManyFailures, actions);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(window: usize, max_concurrent: usize) -> Rules {
        Rules {
            window,
            max_concurrent,
            poll: Backoff::new(SECOND).factor(1.25).cap(SECOND * 60),
            attempts: 3,
            backoff: Backoff::new(SECOND).cap(SECOND * 10),
            job_time_limit: None,
            max_failures: None,
            deadline: None,
            seed: 7,
        }
    }

    fn step(window: &mut Window, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        window.step(now, input, &mut actions);
        actions
    }

    fn run(job: usize, stage: Stage, attempt: u32) -> Action {
        Action::Run { job, stage, attempt, first: false, deadline: None }
    }

    fn begin(job: usize) -> Action {
        Action::Run { job, stage: Stage::Submit, attempt: 1, first: true, deadline: None }
    }

    fn stepped(job: usize, end: StepEnd) -> Input {
        Input::Stepped { job, end }
    }

    const PENDING: StepEnd = StepEnd::Pending { retry_after: None };
    const RETRY: StepEnd = StepEnd::NotDone(Then::Retry { after: None });

    #[test]
    fn a_job_goes_through_its_stages_and_makes_room_for_the_next() {
        let start = Instant::now();
        let mut window = Window::new(3, rules(2, 8));
        assert_eq!(step(&mut window, start, Input::Woken), [begin(0), begin(1)], "two fit in");
        assert_eq!(step(&mut window, start, stepped(0, StepEnd::Accepted)), []);
        assert_eq!(window.next_due(), Some(start + SECOND));
        let now = start + SECOND;
        assert_eq!(step(&mut window, now, Input::Woken), [run(0, Stage::Poll, 1)]);
        assert_eq!(step(&mut window, now, stepped(0, PENDING)), []);
        assert_eq!(window.next_due(), Some(now + SECOND * 5 / 4), "polls grow by a quarter");
        let now = now + SECOND * 5 / 4;
        assert_eq!(step(&mut window, now, Input::Woken), [run(0, Stage::Poll, 1)]);
        assert_eq!(step(&mut window, now, stepped(0, StepEnd::Ready)), [run(0, Stage::Fetch, 1)]);
        let actions = step(&mut window, now, stepped(0, StepEnd::Complete));
        assert_eq!(actions, [Action::End { job: 0, ending: Ending::Done }, begin(2)], "the next in the same step");
        let actions = step(&mut window, now, stepped(1, StepEnd::Ready));
        assert_eq!(actions, [run(1, Stage::Fetch, 1)], "answered at once: no poll");
    }

    #[test]
    fn no_more_steps_are_at_work_than_may_be_and_the_longest_ready_goes_first() {
        let now = Instant::now();
        let mut window = Window::new(4, rules(4, 1));
        assert_eq!(step(&mut window, now, Input::Woken), [begin(0)]);
        assert_eq!(step(&mut window, now, Input::Woken), []);
        assert_eq!(step(&mut window, now, stepped(0, StepEnd::Ready)), [run(0, Stage::Fetch, 1)]);
        let actions = step(&mut window, now, stepped(0, StepEnd::Complete));
        assert_eq!(actions, [Action::End { job: 0, ending: Ending::Done }, begin(1)]);
    }

    #[test]
    fn soft_errors_are_retried_with_backoff_and_only_so_often() {
        let mut now = Instant::now();
        let mut window = Window::new(1, rules(1, 1));
        step(&mut window, now, Input::Woken);
        for (attempt, delay) in [(1, SECOND), (2, SECOND * 2)] {
            assert_eq!(window.delay_after(0, Then::Retry { after: None }), Some(delay));
            assert_eq!(step(&mut window, now, stepped(0, RETRY)), []);
            assert_eq!(window.next_due(), Some(now + delay));
            now += delay;
            assert_eq!(step(&mut window, now, Input::Woken), [run(0, Stage::Submit, attempt + 1)]);
        }
        let ending = Ending::Failed { stage: Stage::Submit, attempt: 3 };
        assert_eq!(step(&mut window, now, stepped(0, RETRY)), [Action::End { job: 0, ending }]);
        assert!(window.is_over());
    }

    #[test]
    fn what_the_service_says_about_time_is_heard_within_reason() {
        let now = Instant::now();
        let after = |retry_after: Duration| {
            let mut window = Window::new(1, rules(1, 1));
            step(&mut window, now, Input::Woken);
            step(&mut window, now, stepped(0, StepEnd::Pending { retry_after: Some(retry_after) }));
            window.next_due().expect("it sleeps") - now
        };
        assert_eq!(after(SECOND * 9), SECOND * 9);
        assert_eq!(after(Duration::ZERO), SECOND, "never faster than our own fastest");
        assert_eq!(after(Duration::MAX), LONGEST_WAIT, "nor for ever");
        let mut window = Window::new(1, rules(1, 1));
        step(&mut window, now, Input::Woken);
        for _ in 0..20 {
            let turn = StepEnd::NotDone(Then::Wait { at_least: SECOND });
            assert_eq!(step(&mut window, now, stepped(0, turn)), [], "not its turn");
            let due = window.next_due().expect("it sleeps");
            assert_eq!(step(&mut window, due, Input::Woken), [run(0, Stage::Submit, 1)]);
        }
    }

    #[test]
    fn a_stop_ends_what_waits_at_once_and_cancels_what_was_created() {
        let now = Instant::now();
        let mut window = Window::new(4, rules(3, 8));
        step(&mut window, now, Input::Woken);
        step(&mut window, now, stepped(0, StepEnd::Accepted));
        let stopped = |job| Action::End { job, ending: Ending::Stopped(StopReason::Cancelled) };
        let actions = step(&mut window, now, Input::Stop(StopReason::Cancelled));
        let interrupt = |job| Action::Interrupt { job };
        let expected = [interrupt(1), interrupt(2), stopped(3), run(0, Stage::Cancel, 1)];
        assert_eq!(actions, expected, "the sleeper is called off, the last never begins");
        assert_eq!(step(&mut window, now, stepped(0, StepEnd::Complete)), [stopped(0)]);
        assert_eq!(step(&mut window, now, stepped(1, RETRY)), [stopped(1)], "never created");
        assert_eq!(step(&mut window, now, stepped(2, StepEnd::Accepted)), [run(2, Stage::Cancel, 1)]);
        assert_eq!(step(&mut window, now, stepped(2, StepEnd::NotDone(Then::Fail))), [stopped(2)]);
        assert!(window.is_over());
        assert_eq!(window.next_due(), None);
    }

    #[test]
    fn a_result_that_came_in_spite_of_a_stop_counts() {
        let now = Instant::now();
        let mut window = Window::new(1, rules(1, 1));
        step(&mut window, now, Input::Woken);
        step(&mut window, now, stepped(0, StepEnd::Ready));
        let told = step(&mut window, now, Input::Stop(StopReason::Cancelled));
        assert_eq!(told, [Action::Interrupt { job: 0 }]);
        let done = Action::End { job: 0, ending: Ending::Done };
        assert_eq!(step(&mut window, now, stepped(0, StepEnd::Complete)), [done]);
    }

    #[test]
    fn a_limit_on_failures_lets_what_is_in_flight_finish() {
        let now = Instant::now();
        let mut window = Window::new(4, Rules { max_failures: Some(1), ..rules(2, 8) });
        step(&mut window, now, Input::Woken);
        let failed = Ending::Failed { stage: Stage::Submit, attempt: 1 };
        let never = |job| Action::End { job, ending: Ending::Stopped(StopReason::TooManyFailures) };
        let actions = step(&mut window, now, stepped(0, StepEnd::NotDone(Then::Fail)));
        assert_eq!(actions, [Action::End { job: 0, ending: failed }, never(2), never(3)]);
        step(&mut window, now, stepped(1, StepEnd::Ready));
        let done = Action::End { job: 1, ending: Ending::Done };
        assert_eq!(step(&mut window, now, stepped(1, StepEnd::Complete)), [done]);
        assert!(window.is_over());
    }

    #[test]
    fn time_limits_of_a_job_and_of_the_whole() {
        let now = Instant::now();
        let mut window = Window::new(1, Rules { job_time_limit: Some(SECOND / 2), ..rules(1, 1) });
        step(&mut window, now, Input::Woken);
        step(&mut window, now, stepped(0, StepEnd::Accepted));
        assert_eq!(window.next_due(), Some(now + SECOND / 2), "before its next poll");
        assert_eq!(step(&mut window, now + SECOND / 2, Input::Woken), [run(0, Stage::Cancel, 1)]);
        let ending = Ending::TimedOut { limit: SECOND / 2 };
        assert_eq!(step(&mut window, now, stepped(0, StepEnd::Complete)), [Action::End { job: 0, ending }]);

        let mut window = Window::new(2, Rules { deadline: Some(now + SECOND / 2), ..rules(1, 1) });
        step(&mut window, now, Input::Woken);
        assert_eq!(window.next_due(), Some(now + SECOND / 2), "also while a step is at work");
        let ending = Ending::Stopped(StopReason::TimeLimit);
        let actions = step(&mut window, now + SECOND / 2, Input::Woken);
        assert_eq!(actions, [Action::Interrupt { job: 0 }, Action::End { job: 1, ending }]);
        assert_eq!(window.next_due(), None);
    }

    #[test]
    fn an_interrupted_step_s_failure_is_not_the_job_s() {
        let now = Instant::now();
        let interrupted = |rules: Rules, at: Instant, input: Input| {
            let mut window = Window::new(1, rules);
            step(&mut window, now, Input::Woken);
            step(&mut window, now, stepped(0, StepEnd::Ready));
            assert_eq!(step(&mut window, at, input), [Action::Interrupt { job: 0 }]);
            assert_eq!(step(&mut window, at, input), [], "once");
            window
        };
        let late = now + SECOND;
        for end in [StepEnd::NotDone(Then::Fail), RETRY, StepEnd::Panicked] {
            let mut window = interrupted(rules(1, 1), now, Input::Stop(StopReason::Cancelled));
            assert_eq!(step(&mut window, now, stepped(0, end)), [run(0, Stage::Cancel, 1)]);
            assert_eq!(step(&mut window, now, Input::Stop(StopReason::Cancelled)), [], "a cancellation goes on");
            let ending = Ending::Stopped(StopReason::Cancelled);
            assert_eq!(step(&mut window, now, stepped(0, StepEnd::Complete)), [Action::End { job: 0, ending }]);

            let rules = |limit, deadline| Rules { job_time_limit: limit, deadline, ..rules(1, 1) };
            for rules in [rules(Some(SECOND), None), rules(None, Some(late))] {
                let mut window = interrupted(rules, late, Input::Woken);
                assert_eq!(step(&mut window, late, stepped(0, end)), [run(0, Stage::Cancel, 1)]);
            }
        }
    }

    #[test]
    fn a_step_that_fails_when_its_time_is_over_has_not_failed_the_job() {
        let now = Instant::now();
        for deadline in [None, Some(now + SECOND)] {
            let limit = if deadline.is_none() { Some(SECOND) } else { None };
            let mut window = Window::new(1, Rules { job_time_limit: limit, deadline, ..rules(1, 1) });
            step(&mut window, now, Input::Woken);
            step(&mut window, now, stepped(0, StepEnd::Ready));
            // Before the alarm.
            let actions = step(&mut window, now + SECOND, stepped(0, StepEnd::NotDone(Then::Fail)));
            assert_eq!(actions.last(), Some(&run(0, Stage::Cancel, 1)));
        }
    }

    #[test]
    fn a_shutdown_interrupts_no_step() {
        let now = Instant::now();
        let mut window = Window::new(1, Rules { job_time_limit: Some(SECOND), ..rules(1, 1) });
        step(&mut window, now, Input::Woken);
        assert_eq!(step(&mut window, now, Input::Stop(StopReason::ShutDown)), []);
        assert_eq!(step(&mut window, now + SECOND, Input::Woken), []);
    }

    /// Random histories: whatever happens, bounds are kept, and every job ends once.
    #[test]
    fn every_job_ends_exactly_once_whatever_happens() {
        for seed in 0..2_000 {
            let mut random = Random(seed);
            let jobs = random.below(12);
            let mut rules = rules(1 + random.below(5), 1 + random.below(4));
            rules.job_time_limit = (random.below(2) == 0).then_some(SECOND * 3);
            rules.max_failures = (random.below(3) == 0).then_some(1 + random.below(4));
            let start = Instant::now();
            rules.deadline = (random.below(4) == 0).then_some(start + SECOND * 9);
            let mut window = Window::new(jobs, rules);
            let (mut now, mut at_work, mut endings) = (start, Vec::new(), vec![0; jobs]);
            let mut input = Input::Woken;
            for turn in 0.. {
                assert!(turn < 10_000, "seed {seed} goes on for ever");
                let mut actions = Vec::new();
                window.step(now, input, &mut actions);
                let ended = if let Input::Stepped { job, .. } = input { Some(job) } else { None };
                for action in actions {
                    match action {
                        Action::Run { job, .. } => {
                            assert!(!at_work.contains(&job), "seed {seed}: two steps of job {job} at once");
                            at_work.push(job);
                        }
                        Action::Interrupt { job } => {
                            assert!(
                                at_work.contains(&job) || ended == Some(job),
                                "seed {seed}: job {job} is at no step"
                            );
                        }
                        Action::End { job, .. } => {
                            assert!(!at_work.contains(&job), "seed {seed}: job {job} ends in the middle of a step");
                            endings[job] += 1;
                        }
                    }
                }
                assert!(at_work.len() <= rules.max_concurrent, "seed {seed}: {} steps at once", at_work.len());
                assert!(window.active() <= rules.window, "seed {seed}: {} jobs in the window", window.active());
                let ended = endings.iter().sum::<usize>();
                assert_eq!(jobs, window.waiting() + window.active() + ended, "seed {seed}: the account");
                if window.is_over() {
                    break;
                }
                let next = window.next_due();
                assert!(next.is_some() || !at_work.is_empty(), "seed {seed}: no thread will ever call again");
                input = if random.below(40) == 0 {
                    Input::Stop(random.pick(&[StopReason::Cancelled, StopReason::ShutDown]))
                } else if !at_work.is_empty() && (next.is_none() || random.below(3) > 0) {
                    let job = at_work.swap_remove(random.below(at_work.len()));
                    Input::Stepped { job, end: window.random_end(job, &mut random) }
                } else {
                    now = next.expect("a step sleeps").max(now);
                    Input::Woken
                };
            }
            assert!(endings.iter().all(|&times| times == 1), "seed {seed}: {endings:?}");
        }
    }

    impl Window {
        /// What a step of this job could return now.
        fn random_end(&self, job: usize, random: &mut Random) -> StepEnd {
            let well = match self.slots[job].stage {
                Stage::Submit => random.pick(&[StepEnd::Accepted, StepEnd::Ready]),
                Stage::Poll => random.pick(&[StepEnd::Ready, PENDING, StepEnd::Pending { retry_after: Some(SECOND) }]),
                Stage::Fetch | Stage::Cancel => StepEnd::Complete,
            };
            let turn = StepEnd::NotDone(Then::Wait { at_least: Duration::ZERO });
            random.pick(&[well, well, well, RETRY, turn, StepEnd::NotDone(Then::Fail), StepEnd::Panicked])
        }
    }

    /// Knuth's MMIX generator, of which only the upper half is used.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }

        fn pick<T: Copy>(&mut self, of: &[T]) -> T {
            of[self.below(of.len())]
        }
    }
}
