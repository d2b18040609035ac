//! Batches of remote jobs, against a service whose every answer the test decides.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::batch::{
    BatchRunner, BatchRunnerBuilder, BatchStats, Context, EventKind, JobError, JobFailure, Poll, RemoteJob, Stage,
    StopReason, Submitted,
};
use fulmar::{Error, Executor};

use crate::support::{Gate, HANG, executor, occupy};

const TICK: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3_600);

/// What a step is to do.
#[derive(Clone)]
enum Say {
    /// The step succeeds: created, ready, fetched.
    Well,
    /// Created and ready at once.
    AtOnce,
    Pending(&'static str),
    /// Ask again so much later.
    Later(Duration),
    Soft,
    Fatal,
    NotOurTurn,
    Panic,
    /// Waits at the gate, then as `Well`.
    Wait(Gate),
    /// Waits at the gate, then says how it saw `is_cancelled`.
    Look(Gate, mpsc::Sender<bool>),
}

#[derive(Default)]
struct Service {
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    calls: Mutex<Vec<(usize, Stage)>>,
}

impl Service {
    fn calls(&self, stage: Stage) -> Vec<usize> {
        self.calls.lock().expect("sound").iter().filter(|call| call.1 == stage).map(|call| call.0).collect()
    }
}

/// Goes through its script, call after call, and after that all is well.
struct Job {
    number: usize,
    script: VecDeque<Say>,
    service: Arc<Service>,
}

impl Job {
    fn step(&mut self, stage: Stage, cx: &mut Context<'_>) -> Result<Say, JobError> {
        self.service.calls.lock().expect("sound").push((self.number, stage));
        let say = self.script.pop_front().unwrap_or(Say::Well);
        match &say {
            Say::Soft => return Err(JobError::retry("busy")),
            Say::Fatal => return Err(JobError::fatal("no such layer")),
            Say::NotOurTurn => return Err(JobError::wait("limit", TICK)),
            Say::Panic => panic!("on purpose"),
            Say::Wait(gate) => gate.pass(),
            Say::Look(gate, seen) => {
                gate.pass();
                seen.send(cx.is_cancelled()).expect("the test listens");
            }
            _ => {}
        }
        Ok(say)
    }
}

impl RemoteJob for Job {
    type Output = usize;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        let say = self.step(Stage::Submit, cx)?;
        let now = self.service.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.service.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let id = format!("j-{}", self.number);
        Ok(if let Say::AtOnce = say { Submitted::Ready { id } } else { Submitted::Accepted { id } })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        Ok(match self.step(Stage::Poll, cx)? {
            Say::Pending(state) => Poll::pending(state),
            Say::Later(delay) => Poll::Pending { state: "later".into(), progress: Some(0.5), retry_after: Some(delay) },
            _ => Poll::Ready,
        })
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<usize, JobError> {
        self.step(Stage::Fetch, cx)?;
        cx.bytes(10, Some(10));
        self.service.in_flight.fetch_sub(1, Ordering::SeqCst);
        Ok(self.number * 10)
    }

    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        self.step(Stage::Cancel, cx)?;
        self.service.in_flight.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A job for each script.
fn jobs(service: &Arc<Service>, scripts: impl IntoIterator<Item = Vec<Say>>) -> Vec<Job> {
    let job = |(number, script): (usize, Vec<Say>)| Job { number, script: script.into(), service: service.clone() };
    scripts.into_iter().enumerate().map(job).collect()
}

/// Quick polls and retries, on two threads.
fn runner(executor: &Executor) -> BatchRunnerBuilder {
    BatchRunner::builder().executor(executor).poll_every(TICK).backoff(Backoff::new(TICK).cap(TICK)).attempts(3)
}

fn outcomes<T: Copy>(report: &fulmar::batch::BatchReport<T>) -> Vec<Option<T>> {
    report.jobs.iter().map(|job| job.outcome.as_ref().ok().copied()).collect()
}

fn assert_adds_up(stats: &BatchStats) {
    let BatchStats { total, waiting, active, succeeded, failed, cancelled, .. } = *stats;
    assert_eq!(total, waiting + active + succeeded + failed + cancelled, "{stats}");
}

#[test]
fn the_report_has_every_job_in_input_order_and_one_failure_touches_no_other() {
    let service = Arc::default();
    let scripts = [
        vec![Say::Well, Say::Pending("queued"), Say::Pending("running")],
        vec![Say::Fatal],
        vec![Say::Well, Say::Panic],
        vec![Say::AtOnce],
        vec![Say::Well, Say::Soft, Say::Soft, Say::Soft],
        vec![Say::Soft, Say::Soft, Say::Well, Say::Soft, Say::Soft, Say::Well, Say::Soft],
        vec![Say::NotOurTurn, Say::NotOurTurn, Say::NotOurTurn, Say::NotOurTurn],
    ];
    let report = runner(&executor(2)).build().expect("sound").run(jobs(&service, scripts)).expect("runs");
    assert_eq!(outcomes(&report), [Some(0), None, None, Some(30), None, Some(50), Some(60)]);
    let failure = |job: usize| report.jobs[job].outcome.as_ref().expect_err("it failed");
    assert!(matches!(failure(1), JobFailure::Failed { stage: Stage::Submit, attempt: 1, .. }), "{:?}", failure(1));
    assert_eq!(std::error::Error::source(failure(1)).expect("kept").to_string(), "no such layer");
    assert!(matches!(failure(2), JobFailure::Panicked { stage: Stage::Poll, .. }), "{:?}", failure(2));
    assert!(matches!(failure(4), JobFailure::Failed { stage: Stage::Poll, attempt: 3, .. }), "{:?}", failure(4));
    let attempts = report.jobs[5].attempts;
    assert_eq!((attempts.submit, attempts.poll, attempts.fetch, attempts.cancel), (3, 3, 2, 0));
    assert_eq!(report.jobs[3].attempts.poll, 0, "answered at once");
    assert_eq!(report.jobs[1].id, None);
    assert_eq!(report.jobs[4].id.as_deref(), Some("j-4"));
    let numbers: Vec<usize> = report.jobs.iter().map(|job| job.index).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    for job in &report.jobs {
        let started = job.started.expect("it began");
        assert!(job.submitted.is_none_or(|submitted| started <= submitted && submitted <= job.ended), "{job:?}");
        assert!(started <= job.ended && job.ended <= report.elapsed, "{job:?}");
    }
    assert_adds_up(&report.stats);
    assert_eq!((report.stats.succeeded, report.stats.failed, report.stats.retries), (4, 3, 7));
    assert_eq!((report.stats.bytes, report.stopped, report.is_success()), (40, None, false));
    assert_eq!(report.failures().map(|job| job.index).collect::<Vec<_>>(), [1, 2, 4]);
}

#[test]
fn the_window_bounds_what_is_in_flight_and_at_once_what_is_at_work() {
    let service: Arc<Service> = Arc::default();
    let scripts = (0..200).map(|_| vec![Say::Well, Say::Pending("running")]);
    let report = runner(&executor(4)).window(5).build().expect("sound").run(jobs(&service, scripts)).expect("runs");
    assert!(report.is_success(), "{report}");
    assert_eq!(service.most_in_flight.load(Ordering::SeqCst), 5);

    let (executor, gate) = (executor(4), Gate::new());
    let scripts = (0..4).map(|_| vec![Say::Wait(gate.clone())]);
    let batch = runner(&executor).max_concurrent(2).build().expect("sound").start(jobs(&service, scripts));
    gate.await_arrivals(2);
    assert_eq!(executor.stats().submitted, 2, "the other two are not even queued");
    gate.open();
    assert!(batch.wait(HANG).expect("ends").is_success());
}

#[test]
fn between_two_polls_a_job_holds_no_thread() {
    let service = Arc::default();
    let executor = executor(1);
    let scripts = (0..1_000).map(|_| vec![Say::Well]);
    let (submitted, all_submitted) = mpsc::channel();
    let runner = runner(&executor).window(1_000).poll_every(NEVER).on_event(move |event| {
        if let EventKind::Submitted = event.kind {
            submitted.send(()).expect("the test listens");
        }
    });
    let batch = runner.build().expect("sound").start(jobs(&service, scripts));
    assert_eq!(all_submitted.iter().take(1_000).count(), 1_000);
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(HANG).expect("the one thread is free"), 7);
    let stats = batch.stats();
    assert_eq!((stats.active, stats.submitted, stats.polls), (1_000, 1_000, 0), "{stats}");
    batch.cancel();
    assert_eq!(batch.wait(HANG).expect("ends").stats.cancelled, 1_000);
}

#[test]
fn cancel_starts_no_more_and_stops_what_was_created() {
    let (service, executor) = (Arc::default(), executor(4));
    let (created, gate) = (Gate::new(), Gate::new());
    let (seen, sees) = mpsc::channel();
    let scripts = [
        vec![Say::Well, Say::Later(NEVER)],
        vec![Say::Well, Say::Later(NEVER), Say::Fatal],
        vec![Say::Wait(gate.clone())],
        vec![Say::AtOnce, Say::Look(gate.clone(), seen)],
        vec![Say::Well],
    ];
    let news = created.clone();
    let runner = runner(&executor).window(4).on_event(move |event| {
        if let EventKind::Progress { share } = event.kind {
            assert_eq!(share, 0.5);
            news.open();
        }
    });
    let batch = runner.build().expect("sound").start(jobs(&service, scripts));
    gate.await_arrivals(2);
    created.pass();
    crate::support::eventually("both sleep", || service.calls(Stage::Poll).len() == 2 && batch.stats().active == 4);
    batch.cancel();
    assert!(batch.wait(Duration::ZERO).expect_err("two steps are held").is_timeout());
    gate.open();
    let report = batch.wait(HANG).expect("ends");
    assert!(sees.recv().expect("it looked"), "a step at work is told");
    assert_eq!(outcomes(&report), [None, None, None, Some(30), None], "a result that is there counts");
    for job in [0, 1, 2, 4] {
        let failure = report.jobs[job].outcome.as_ref().expect_err("stopped");
        assert!(matches!(failure, JobFailure::Stopped(StopReason::Cancelled)), "{failure:?}");
    }
    let mut cancelled = service.calls(Stage::Cancel);
    cancelled.sort_unstable();
    assert_eq!(cancelled, [0, 1, 2]);
    let notes = &report.jobs[1].notes;
    assert_eq!(notes.len(), 1, "what could not be cancelled is said");
    assert!(notes[0].contains("could not be cancelled: no such layer"), "{notes:?}");
    assert!(report.jobs[4].started.is_none());
    assert_eq!(report.stopped, Some(StopReason::Cancelled));
    assert_adds_up(&report.stats);
    batch.cancel();
    assert!(matches!(batch.wait(HANG), Err(Error::ResultTaken)), "the report is taken once");
    assert!(batch.is_done());
}

#[test]
fn time_limits_of_a_job_and_of_the_batch() {
    let (service, executor) = (Arc::default(), executor(2));
    let scripts = [vec![Say::Well, Say::Later(NEVER)], vec![Say::AtOnce]];
    let limited = runner(&executor).job_time_limit(Duration::from_millis(30)).build().expect("sound");
    let report = limited.run(jobs(&service, scripts.clone())).expect("runs");
    let failure = report.jobs[0].outcome.as_ref().expect_err("too long");
    assert!(matches!(failure, JobFailure::TimedOut { .. }), "{failure:?}");
    assert_eq!((service.calls(Stage::Cancel), outcomes(&report)[1]), (vec![0], Some(10)));

    let limited = runner(&executor).window(1).time_limit(Duration::from_millis(30)).build().expect("sound");
    let report = limited.run(jobs(&service, scripts)).expect("runs");
    assert_eq!(report.stopped, Some(StopReason::TimeLimit));
    assert_eq!((report.stats.cancelled, service.calls(Stage::Cancel)), (2, vec![0, 0]));
}

#[test]
fn a_limit_on_failures_stops_early_and_lets_finish_what_is_in_flight() {
    let (service, executor, gate) = (Arc::default(), executor(2), Gate::new());
    let scripts = [vec![Say::Wait(gate.clone())], vec![Say::Fatal], vec![Say::Panic], vec![Say::Well], vec![Say::Well]];
    let (told, failed) = mpsc::channel();
    let runner = runner(&executor).window(2).stop_after_failures(2).on_event(move |event| {
        if let EventKind::Failed { failure: JobFailure::Stopped(_) } = event.kind {
            let _ = told.send(event.index);
        }
    });
    let batch = runner.build().expect("sound").start(jobs(&service, scripts));
    assert_eq!([failed.recv(), failed.recv()], [Ok(3), Ok(4)]);
    gate.open();
    let report = batch.wait(HANG).expect("ends");
    assert_eq!(outcomes(&report), [Some(0), None, None, None, None]);
    assert_eq!((report.stopped, report.stats.cancelled), (Some(StopReason::TooManyFailures), 2));
}

#[test]
fn events_of_a_job_come_in_their_order() {
    let (service, executor) = (Arc::default(), executor(2));
    let scripts = [
        vec![Say::Soft, Say::Well, Say::Pending("queued"), Say::Pending("queued"), Say::Later(TICK)],
        vec![Say::Fatal],
    ];
    let told = Arc::new(Mutex::new([String::new(), String::new()]));
    let tell = told.clone();
    let runner = runner(&executor).on_event(move |event| {
        let word = match &event.kind {
            EventKind::Started => "started".into(),
            EventKind::Submitted => format!("submitted as {}", event.id.expect("it has one")),
            EventKind::StateChanged { state } => (*state).into(),
            EventKind::Progress { share } => format!("{share}"),
            EventKind::Downloading { bytes, total } => format!("{bytes} of {total:?}"),
            EventKind::Retrying { stage, attempt, error, .. } => format!("{stage} {attempt} {error}"),
            EventKind::Done => "done".into(),
            EventKind::Failed { failure } => failure.to_string(),
            other => format!("{other:?}"),
        };
        let mut told = told.lock().expect("sound");
        told[event.index] += &format!("{word}, ");
        drop(told);
        panic!("a callback's panic is its own affair");
    });
    runner.build().expect("sound").run(jobs(&service, scripts)).expect("runs");
    let told = tell.lock().expect("sound");
    let first = "started, submit 1 busy, submitted as j-0, queued, later, 0.5, 10 of Some(10), done, ";
    assert_eq!(*told, [first, "started, submit failed at attempt 1, "]);
}

#[test]
fn any_number_of_batches_share_one_executor() {
    let (service, executor) = (Arc::default(), executor(2));
    let runner = runner(&executor).window(3).build().expect("sound");
    let scripts = || (0..50).map(|n| vec![Say::Well, if n % 7 == 0 { Say::Fatal } else { Say::Pending("running") }]);
    let batches: Vec<_> = (0..20).map(|_| runner.start(jobs(&service, scripts()))).collect();
    for batch in batches {
        let report = batch.wait(HANG).expect("ends");
        assert_eq!((report.stats.succeeded, report.stats.failed), (42, 8), "{report}");
    }
}

#[test]
fn a_wait_inside_an_operation_lends_its_thread() {
    let (service, executor) = (Arc::<Service>::default(), executor(1));
    let runner = runner(&executor).build().expect("sound");
    let scripts = (0..20).map(|_| vec![Say::Well, Say::Pending("running"), Say::Soft]);
    let jobs = jobs(&service, scripts);
    let outer = executor.spawn(move || runner.run(jobs).map(|report| report.is_success())).expect("accepted");
    assert!(outer.wait(HANG).expect("no deadlock").expect("runs"));
}

#[test]
fn a_callback_that_waits_for_its_own_batch_is_told() {
    let (service, executor) = (Arc::default(), executor(1));
    let (give, given) = mpsc::channel::<Arc<fulmar::batch::Batch<usize>>>();
    let (told, tells) = mpsc::channel();
    let given = Mutex::new(given);
    let runner = runner(&executor).on_event(move |event| {
        if let EventKind::Done = event.kind {
            let batch = given.lock().expect("sound").recv().expect("given");
            told.send(batch.wait(None).map(drop)).expect("the test listens");
        }
    });
    let batch = Arc::new(runner.build().expect("sound").start(jobs(&service, [vec![Say::AtOnce]])));
    give.send(batch.clone()).expect("it waits");
    assert!(matches!(tells.recv_timeout(HANG), Ok(Err(Error::WouldDeadlock))));
    assert!(batch.wait(HANG).expect("ends").is_success());
}

#[test]
fn a_shutdown_ends_a_batch_with_every_job_accounted_for() {
    let (service, executor, gate) = (Arc::default(), executor(2), Gate::new());
    let scripts = [vec![Say::Wait(gate.clone())], vec![Say::Well], vec![Say::Well], vec![Say::Well]];
    let runner = runner(&executor).window(1).build().expect("sound");
    let batch = runner.start(jobs(&service, scripts.clone()));
    gate.await_arrivals(1);
    assert!(executor.shutdown(Duration::ZERO).expect_err("a step is held").is_timeout());
    gate.open();
    let report = batch.wait(HANG).expect("ends");
    assert_eq!((report.stopped, report.stats.cancelled), (Some(StopReason::ShutDown), 4), "{report}");
    assert_adds_up(&report.stats);
    executor.await_termination(HANG).expect("nothing is left");
    let report = runner.run(jobs(&service, scripts)).expect("a report all the same");
    assert_eq!((report.stats.cancelled, report.stats.submitted), (4, 0));
}

#[test]
fn a_full_queue_refuses_no_step_and_a_dropped_handle_stops_no_batch() {
    let small = Executor::builder().threads(1).queue_capacity(1).on_full(fulmar::OnFull::Reject);
    let (small, service, gate) = (small.build().expect("sound"), Arc::default(), Gate::new());
    let held = occupy(&small, &gate);
    let (ended, ends) = mpsc::channel();
    let runner = runner(&small).on_event(move |event| {
        if let EventKind::Done = event.kind {
            ended.send(event.index).expect("the test listens");
        }
    });
    drop(runner.build().expect("sound").start(jobs(&service, (0..8).map(|_| vec![Say::Well]))));
    gate.open();
    held.wait(HANG).expect("ends");
    assert_eq!(ends.iter().take(8).count(), 8);
}

#[test]
fn an_empty_batch_is_done_and_settings_without_sense_are_refused_by_name() {
    let report = BatchRunner::builder().build().expect("sound").run(Vec::<Job>::new()).expect("runs");
    assert!(report.is_success() && report.jobs.is_empty(), "{report}");
    let refused = |builder: BatchRunnerBuilder| builder.build().expect_err("no sense").to_string();
    assert!(refused(BatchRunner::builder().window(0)).contains("window(0)"));
    assert!(refused(BatchRunner::builder().max_concurrent(0)).contains("max_concurrent(0)"));
    assert!(refused(BatchRunner::builder().attempts(0)).contains("attempts(0)"));
    assert!(refused(BatchRunner::builder().stop_after_failures(0)).contains("stop_after_failures(0)"));
}
