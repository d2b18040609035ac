//! The sliding window as plain data: `(now, what happened) -> what to do`, without threads, clock or jobs.
//!
//! Promises: each job is in one place at a time, at most `window` are begun and not ended, at most `at_once` steps are at
//! work, and new jobs and those in flight take turns; a job waits for its time in a heap, so that a thousand of them cost
//! one look. Whatever happens in whatever order,
//! every job ends exactly once. `tests` below goes through random histories.
//!
//! Left to others: what a step does, on which thread, and who wakes us at [`next_due`](Window::next_due).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::job::{Stage, Then};
use super::report::StopReason;
use crate::backoff::Backoff;

/// What a service may ask for at most, when it says how long to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// The same where a job is to be cancelled: a caller waits for the end.
const LONGEST_WAIT_TO_CANCEL: Duration = Duration::from_secs(10);

/// Who waits for one's own turn never looks more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Jobs begun and not ended.
    pub(super) window: usize,
    /// Steps at work.
    pub(super) at_once: usize,
    pub(super) poll: Backoff,
    /// Attempts at each step.
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) job_time_limit: Option<Duration>,
    pub(super) max_failures: Option<usize>,
    /// Of the whole.
    pub(super) deadline: Option<Instant>,
    pub(super) seed: u64,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// Nothing, but time has passed.
    Woken,
    /// The step of this job, told by [`Action::Run`], has ended.
    Stepped {
        job: usize,
        end: StepEnd,
    },
    Stop(StopReason),
}

/// How a step has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepEnd {
    /// Created.
    Accepted,
    /// The result can be fetched.
    Ready,
    /// Ask again.
    Pending {
        retry_after: Option<Duration>,
    },
    /// Fetched, or cancelled.
    Complete,
    NotDone(Then),
    Panicked,
    /// The step was not called: it came too late, or no thread could call it.
    NotRun,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Call this step. If it has a deadline, the step may look at it.
    Run { job: usize, stage: Stage, attempt: u32, first: bool, deadline: Option<Instant> },
    /// It has ended, as told.
    End { job: usize, ending: Ending },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// By what this attempt at this step returned.
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
    /// Jobs before this one have begun.
    begun: usize,
    active: usize,
    at_work: usize,
    failures: usize,
    ended: usize,
    stop: Option<StopReason>,
    /// Whether a new job began last, and those in flight are next.
    began_last: bool,
    /// Their time has come.
    ready: VecDeque<usize>,
    /// Their time will come. What has moved on since is passed over: its slot has another time.
    sleeping: BinaryHeap<Reverse<(Instant, usize)>>,
}

struct Slot {
    place: Place,
    /// What comes next, or is at work.
    stage: Stage,
    /// Attempts at it that have failed one after another.
    failed: u32,
    /// Times it was not our turn, one after another.
    waits: u32,
    polls: u32,
    created: bool,
    deadline: Option<Instant>,
    /// How it will end once it is cancelled.
    ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Ready,
    AtWork,
    Sleeping(Instant),
    Ended,
}

impl Window {
    pub(super) fn new(jobs: usize, rules: Rules) -> Window {
        let slot = || Slot {
            place: Place::Waiting,
            stage: Stage::Submit,
            failed: 0,
            waits: 0,
            polls: 0,
            created: false,
            deadline: None,
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
        }
    }

    /// Takes in what has happened, and adds to `actions` what is to be done.
    pub(super) fn step(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Woken => {}
            Input::Stepped { job, end } => self.stepped(now, job, end, actions),
            Input::Stop(reason) => self.stop(reason),
        }
        if self.rules.deadline.is_some_and(|deadline| now >= deadline) {
            // After the step that ended in time: if it was the last, nothing was cut short.
            self.stop(StopReason::TimeLimit);
        }
        self.wake_due(now);
        self.end_what_never_began(actions);
        self.run_ready(now, actions);
    }

    /// When to step again even if nothing happens.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, job))) = self.sleeping.peek() {
            if self.slots[*job].place == Place::Sleeping(*at) {
                break;
            }
            self.sleeping.pop();
        }
        let next = self.sleeping.peek().map(|Reverse((at, _))| *at);
        let deadline = self.rules.deadline.filter(|_| !self.cuts_short() && !self.is_over());
        [next, deadline].into_iter().flatten().min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended == self.slots.len()
    }

    /// Whether jobs in the window are not to go on.
    pub(super) fn cuts_short(&self) -> bool {
        self.stop.is_some_and(|reason| reason != StopReason::TooManyFailures)
    }

    /// Whether a step that is about to be called had better not be.
    pub(super) fn is_too_late(&self, now: Instant, job: usize) -> bool {
        let slot = &self.slots[job];
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        slot.ending.is_none() && (self.cuts_short() || is_past(slot.deadline) || is_past(self.rules.deadline))
    }

    /// Whether the service has created the job, as far as it said so, and has not said that it is ready.
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

    fn stepped(&mut self, now: Instant, job: usize, end: StepEnd, actions: &mut Vec<Action>) {
        let slot = &mut self.slots[job];
        debug_assert_eq!(slot.place, Place::AtWork, "job {job} steps only when told to");
        self.at_work -= 1;
        let stage = slot.stage;
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
            StepEnd::Panicked => {
                let ending = slot.ending.unwrap_or(Ending::Panicked { stage });
                self.end(job, ending, actions);
            }
            StepEnd::NotDone(then) => self.not_done(now, job, then, actions),
            StepEnd::NotRun => self.make_ready(job),
        }
    }

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
                    Then::Wait { .. } if slot.stage != Stage::Cancel => slot.waits = slot.waits.saturating_add(1),
                    _ => slot.failed += 1,
                }
                self.sleep(now, job, delay);
            }
        }
    }

    /// When the step at work is called again if it ends like this, if it is.
    fn delay_after(&self, job: usize, then: Then) -> Option<Duration> {
        let (rules, slot) = (&self.rules, &self.slots[job]);
        let seed = rules.seed ^ job as u64;
        let (is_cancel, is_last) = (slot.stage == Stage::Cancel, slot.failed + 1 >= rules.attempts);
        let delay = match then {
            Then::Fail => return None,
            Then::Retry { .. } if is_last => return None,
            // To wait for one's turn again and again would keep a cancelled batch from its end.
            Then::Wait { .. } if is_last && is_cancel => return None,
            Then::Retry { after } => {
                let delay = rules.backoff.delay_with(slot.failed, seed);
                after.map_or(delay, |after| after.min(LONGEST_WAIT).max(delay))
            }
            Then::Wait { at_least } => {
                // The longer it takes, the wider those who wait are spread: all were told of the same moment.
                let at_least = at_least.clamp(SHORTEST_WAIT, LONGEST_WAIT);
                let spread = slot.waits.min(4) + 1;
                let spread =
                    Backoff::new(at_least * spread).cap(at_least * spread).jitter(1.0 - 1.0 / f64::from(spread));
                spread.delay_with(slot.waits, seed)
            }
        };
        Some(if is_cancel { delay.min(LONGEST_WAIT_TO_CANCEL) } else { delay })
    }

    /// The same for those who are told of it: a retry that a stop or a limit comes before is none.
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

    fn sleep_until_poll(&mut self, now: Instant, job: usize, retry_after: Option<Duration>) {
        let rules = self.rules;
        let slot = &mut self.slots[job];
        slot.stage = Stage::Poll;
        let delay = match retry_after {
            // Never faster than our own fastest: a service that says "now" again and again would be polled without rest.
            Some(after) => after.min(LONGEST_WAIT).max(rules.poll.delay(0)),
            None => rules.poll.delay_with(slot.polls, rules.seed ^ job as u64),
        };
        slot.polls = slot.polls.saturating_add(1);
        self.sleep(now, job, delay);
    }

    /// The job holds no thread until its time has come, or its limit has passed.
    fn sleep(&mut self, now: Instant, job: usize, delay: Duration) {
        let cuts_short = self.cuts_short();
        let slot = &mut self.slots[job];
        let at = now.checked_add(delay).unwrap_or(now + LONGEST_WAIT);
        let at = slot.deadline.map_or(at, |deadline| at.min(deadline));
        // What is being cancelled has its own time.
        if at <= now || (cuts_short && slot.ending.is_none()) {
            return self.make_ready(job);
        }
        slot.place = Place::Sleeping(at);
        self.sleeping.push(Reverse((at, job)));
    }

    fn make_ready(&mut self, job: usize) {
        self.slots[job].place = Place::Ready;
        self.ready.push_back(job);
    }

    fn wake_due(&mut self, now: Instant) {
        while let Some(&Reverse((at, job))) = self.sleeping.peek() {
            if at > now {
                break;
            }
            self.sleeping.pop();
            if self.slots[job].place == Place::Sleeping(at) {
                self.make_ready(job);
            }
        }
    }

    fn stop(&mut self, reason: StopReason) {
        // What a limit on failures has left in flight can still be cancelled, and nothing goes on without threads.
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
        for job in 0..self.begun {
            let slot = &self.slots[job];
            // What is being cancelled already goes on with that, as long as there is a thread to do it.
            if matches!(slot.place, Place::Sleeping(_)) && (slot.ending.is_none() || no_threads) {
                self.make_ready(job);
            }
        }
    }

    fn has_no_threads(&self) -> bool {
        matches!(self.stop, Some(StopReason::ShutDown | StopReason::NoThread))
    }

    fn end_what_never_began(&mut self, actions: &mut Vec<Action>) {
        let Some(reason) = self.stop else { return };
        while self.begun < self.slots.len() {
            let job = self.begun;
            self.begun += 1;
            self.slots[job].place = Place::Ended;
            self.ended += 1;
            actions.push(Action::End { job, ending: Ending::Stopped(reason) });
        }
    }

    fn run_ready(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while self.at_work < self.rules.at_once {
            let may_begin = self.stop.is_none() && self.begun < self.slots.len() && self.active < self.rules.window;
            // In turns: neither do polls keep the window from filling, nor new jobs those in flight from their ends.
            if may_begin && (!self.began_last || self.ready.is_empty()) {
                let job = self.begun;
                self.begun += 1;
                self.active += 1;
                self.began_last = true;
                let limit = self.rules.job_time_limit;
                self.slots[job].deadline = limit.and_then(|limit| now.checked_add(limit));
                self.run(now, job, actions);
            } else if let Some(job) = self.ready.pop_front() {
                self.began_last = false;
                self.run(now, job, actions);
            } else {
                break;
            }
        }
        // A failure in here may have been one too many.
        self.end_what_never_began(actions);
    }

    fn run(&mut self, now: Instant, job: usize, actions: &mut Vec<Action>) {
        self.overtake(now, job);
        let no_threads = self.has_no_threads();
        let slot = &mut self.slots[job];
        if let Some(ending) = slot.ending {
            // Nothing to cancel, or no thread to do it on.
            if !slot.created || no_threads {
                return self.end(job, ending, actions);
            }
        }
        let first = slot.place == Place::Waiting;
        slot.place = Place::AtWork;
        self.at_work += 1;
        let deadline = [slot.deadline, self.rules.deadline].into_iter().flatten().min();
        let deadline = deadline.filter(|_| slot.ending.is_none());
        actions.push(Action::Run { job, stage: slot.stage, attempt: slot.failed + 1, first, deadline });
    }

    /// A stop or a limit that has passed comes before whatever was next.
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

    fn end(&mut self, job: usize, ending: Ending, actions: &mut Vec<Action>) {
        self.slots[job].place = Place::Ended;
        self.active -= 1;
        self.ended += 1;
        actions.push(Action::End { job, ending });
        if matches!(ending, Ending::Failed { .. } | Ending::Panicked { .. } | Ending::TimedOut { .. }) {
            self.failures += 1;
            let has_more = self.begun < self.slots.len();
            if has_more && self.rules.max_failures.is_some_and(|limit| self.failures >= limit) {
                self.stop(StopReason::TooManyFailures);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(window: usize, at_once: usize) -> Rules {
        Rules {
            window,
            at_once,
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
        assert_eq!(actions, [stopped(3), run(0, Stage::Cancel, 1)], "the sleeper is called off, the last never begins");
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
        assert_eq!(step(&mut window, now, Input::Stop(StopReason::Cancelled)), []);
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
        assert_eq!(step(&mut window, now + SECOND / 2, Input::Woken), [Action::End { job: 1, ending }]);
        assert_eq!(window.next_due(), None);
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
                for action in actions {
                    match action {
                        Action::Run { job, .. } => {
                            assert!(!at_work.contains(&job), "seed {seed}: two steps of job {job} at once");
                            at_work.push(job);
                        }
                        Action::End { job, .. } => {
                            assert!(!at_work.contains(&job), "seed {seed}: job {job} ends in the middle of a step");
                            endings[job] += 1;
                        }
                    }
                }
                assert!(at_work.len() <= rules.at_once, "seed {seed}: {} steps at once", at_work.len());
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
