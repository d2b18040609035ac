//! Batches among hostile jobs, callbacks and moments: what a search for faults has found, each
//! mended.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::batch::{
    Batch, BatchRunner, BatchRunnerBuilder, Context, EventKind, JobError, JobFailure, Poll, RemoteJob, StopReason,
    Submitted,
};
use fulmar::{Error, Executor};

use crate::support::{Gate, HANG, eventually, executor, occupy};

const TICK: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3_600);

type Step<T> = Box<dyn FnMut(&mut Context<'_>) -> Result<T, JobError> + Send>;

/// A job of closures: accepted, ready, fetched and cancelled without fault unless told otherwise.
struct Job<T: Send + 'static = ()> {
    submit: Step<Submitted>,
    poll: Step<Poll>,
    fetch: Step<T>,
    cancel: Step<()>,
}

impl<T: Default + Send + 'static> Job<T> {
    fn new() -> Job<T> {
        Job {
            submit: Box::new(|_| Ok(Submitted::Accepted { id: "j-1".into() })),
            poll: Box::new(|_| Ok(Poll::Ready)),
            fetch: Box::new(|_| Ok(T::default())),
            cancel: Box::new(|_| Ok(())),
        }
    }
}

impl<T: Send + 'static> Job<T> {
    fn submit(mut self, f: impl FnMut(&mut Context<'_>) -> Result<Submitted, JobError> + Send + 'static) -> Job<T> {
        self.submit = Box::new(f);
        self
    }

    fn poll(mut self, f: impl FnMut(&mut Context<'_>) -> Result<Poll, JobError> + Send + 'static) -> Job<T> {
        self.poll = Box::new(f);
        self
    }

    fn fetch(mut self, f: impl FnMut(&mut Context<'_>) -> Result<T, JobError> + Send + 'static) -> Job<T> {
        self.fetch = Box::new(f);
        self
    }

    fn cancel(mut self, f: impl FnMut(&mut Context<'_>) -> Result<(), JobError> + Send + 'static) -> Job<T> {
        self.cancel = Box::new(f);
        self
    }
}

impl<T: Send + 'static> RemoteJob for Job<T> {
    type Output = T;

    fn submit(&mut self, cx: &mut Context<'_>) -> Result<Submitted, JobError> {
        (self.submit)(cx)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll, JobError> {
        (self.poll)(cx)
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Result<T, JobError> {
        (self.fetch)(cx)
    }

    fn cancel(&mut self, cx: &mut Context<'_>) -> Result<(), JobError> {
        (self.cancel)(cx)
    }
}

fn quick(executor: &Executor) -> BatchRunnerBuilder {
    BatchRunner::builder().executor(executor).poll_every(TICK).backoff(Backoff::new(TICK).cap(TICK)).attempts(3)
}

/// An error, and a result, that do as they like.
#[derive(Default)]
struct Nasty {
    when_shown: Option<&'static str>,
    when_dropped: Option<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Nasty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nasty")
    }
}

impl fmt::Display for Nasty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.when_shown.map_or_else(|| f.write_str("nasty"), |words| panic!("{words}"))
    }
}

impl std::error::Error for Nasty {}

impl Drop for Nasty {
    fn drop(&mut self) {
        if let Some(act) = self.when_dropped.take() {
            act();
        }
    }
}

/// Submitted, and then asleep.
fn asleep(batch: &Batch<()>) {
    eventually("it sleeps between two polls", || batch.stats().submitted == 1);
}

#[test]
fn an_error_that_panics_when_printed_loses_no_job() {
    let executor = executor(1);
    let evil = || JobError::retry(Nasty { when_shown: Some("on purpose"), when_dropped: None });
    let report = quick(&executor).build().expect("sound").run([Job::<()>::new().poll(move |_| Err(evil()))]);
    assert_eq!(report.expect("runs").stats.failed, 1);
    let fatal = || JobError::fatal(Nasty { when_shown: Some("on purpose"), when_dropped: None });
    let runner = quick(&executor).poll_every(NEVER).build().expect("sound");
    let batch = runner.start([Job::new().cancel(move |_| Err(fatal()))]);
    asleep(&batch);
    batch.cancel();
    assert_eq!(batch.wait(HANG).expect("ends").stats.cancelled, 1);
}

#[test]
fn an_errors_destructor_may_panic_and_may_ask_the_batch() {
    for panics in [true, false] {
        let (executor, gate) = (executor(1), Gate::new());
        let slot: Arc<OnceLock<Arc<Batch<()>>>> = Arc::default();
        let (inside, asked) = (gate.clone(), slot.clone());
        let submit = move |_: &mut Context<'_>| {
            inside.pass();
            let asked = asked.clone();
            let act = move || {
                let total = asked.get().expect("given").stats().total;
                assert!(!panics, "on purpose, of {total}");
            };
            Err(JobError::retry(Nasty { when_dropped: Some(Box::new(act)), when_shown: None }))
        };
        let batch = Arc::new(quick(&executor).build().expect("sound").start([Job::new().submit(submit)]));
        assert!(slot.set(batch.clone()).is_ok());
        gate.await_arrivals(1);
        batch.cancel();
        gate.open();
        assert_eq!(batch.wait(HANG).expect("ends").stats.cancelled, 1);
    }
}

#[test]
fn results_nobody_takes_may_panic_when_they_are_dropped() {
    let executor = executor(1);
    let bomb = || Nasty { when_dropped: Some(Box::new(|| panic!("on purpose"))), when_shown: None };
    let jobs = [0, 1].map(|_| Job::<Nasty>::new().fetch(move |_| Ok(bomb())));
    let batch = quick(&executor).build().expect("sound").start(jobs);
    eventually("both have ended", || batch.is_done());
    drop(batch);
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(HANG).expect("the thread lives"), 7);
}

#[test]
fn the_longest_of_all_schedules_is_one() {
    let longest = Backoff::new(Duration::MAX).cap(Duration::MAX).jitter(0.5);
    let executor = executor(1);
    let batch = quick(&executor).poll(longest).backoff(longest).build().expect("sound").start([Job::new()]);
    asleep(&batch);
    batch.cancel();
    assert_eq!(batch.wait(HANG).expect("ends").stats.cancelled, 1);
}

#[test]
fn a_step_that_holds_the_only_thread_sees_the_time_limit_of_the_batch() {
    let executor = executor(1);
    let fetch = |cx: &mut Context<'_>| {
        eventually("the limit passes", || cx.is_cancelled());
        Err(JobError::fatal("gave up"))
    };
    let runner = quick(&executor).time_limit(TICK * 20).build().expect("sound");
    let report = runner.run([Job::<()>::new().fetch(fetch)]).expect("ends");
    assert_eq!(report.stats.succeeded, 0, "{report}");
}

#[test]
fn whoever_waits_in_a_callback_is_told_wherever_it_is_called() {
    // On the thread of a step, of the batch's own alarm, and of the thread that tells what a cancel
    // has ended.
    for cancels in [false, true] {
        let (executor, gate) = (executor(1), Gate::new());
        let slot: Arc<OnceLock<Arc<Batch<()>>>> = Arc::default();
        let (told, tells) = mpsc::channel();
        let (given, inside) = (slot.clone(), gate.clone());
        let runner = quick(&executor).window(1).poll_every(NEVER).on_event(move |event| {
            if let EventKind::Failed { .. } = event.kind {
                let _ = told.send(given.get().expect("given").wait(None).map(drop));
            }
        });
        let runner = if cancels { runner } else { runner.time_limit(TICK * 20) };
        let first = Job::new().submit(move |_| {
            inside.pass();
            Ok(Submitted::Accepted { id: "j-1".into() })
        });
        let batch = Arc::new(runner.build().expect("sound").start([first, Job::new()]));
        assert!(slot.set(batch.clone()).is_ok());
        gate.await_arrivals(1);
        if cancels {
            batch.cancel();
        }
        gate.open();
        for _ in 0..2 {
            assert!(matches!(tells.recv_timeout(HANG), Ok(Err(Error::WouldDeadlock))));
        }
        assert_eq!(batch.wait(HANG).expect("ends").stats.cancelled, 2);
    }
}

#[test]
fn a_callback_may_cancel_under_a_lock_of_its_own() {
    let executor = executor(2);
    let slot: Arc<Mutex<Option<Arc<Batch<()>>>>> = Arc::default();
    let (held, gate) = (slot.clone(), Gate::new());
    let runner = quick(&executor).window(1).on_event(move |event| {
        let held = held.lock().expect("sound");
        if let (EventKind::Done, Some(batch)) = (&event.kind, &*held) {
            batch.cancel();
        }
    });
    let inside = gate.clone();
    let first = Job::new().submit(move |_| {
        inside.pass();
        Ok(Submitted::Ready { id: "j-1".into() })
    });
    let batch = Arc::new(runner.build().expect("sound").start([first, Job::new(), Job::new()]));
    gate.await_arrivals(1);
    *slot.lock().expect("sound") = Some(batch.clone());
    gate.open();
    let report = batch.wait(HANG).expect("ends");
    assert_eq!((report.stats.succeeded, report.stats.cancelled), (1, 2), "{report}");
}

#[test]
fn after_a_cancel_nothing_is_submitted_and_nobody_waits_for_strangers() {
    let (executor, gate, calls) = (executor(1), Gate::new(), Arc::new(AtomicUsize::new(0)));
    let held = occupy(&executor, &gate);
    let job = |_| {
        let calls = calls.clone();
        Job::<()>::new().submit(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            Ok(Submitted::Accepted { id: "j-1".into() })
        })
    };
    let batch = quick(&executor).build().expect("sound").start((0..100).map(job));
    batch.cancel();
    let report = batch.wait(HANG).expect("ends while the only thread is held");
    assert_eq!((report.stats.cancelled, calls.load(Ordering::SeqCst)), (100, 0), "{report}");
    gate.open();
    held.wait(HANG).expect("ends");
}

#[test]
fn a_job_whose_limit_passes_in_the_queue_is_not_submitted() {
    let (executor, gate, submitted) = (executor(1), Gate::new(), Arc::new(AtomicBool::new(false)));
    let held = occupy(&executor, &gate);
    let note = submitted.clone();
    let job = Job::<()>::new().submit(move |_| {
        note.store(true, Ordering::SeqCst);
        Ok(Submitted::Accepted { id: "j-1".into() })
    });
    let batch = quick(&executor).job_time_limit(Duration::ZERO).build().expect("sound").start([job]);
    gate.open();
    held.wait(HANG).expect("ends");
    let report = batch.wait(HANG).expect("ends");
    assert!(matches!(report.jobs[0].outcome, Err(JobFailure::TimedOut { .. })), "{report:?}");
    assert!(!submitted.load(Ordering::SeqCst), "it was created after its limit");
}

#[test]
fn a_step_that_cancels_is_not_told_to_stop_and_is_called_only_so_often() {
    let (executor, calls) = (executor(1), Arc::new(AtomicUsize::new(0)));
    let (count, (seen, sees)) = (calls.clone(), mpsc::channel());
    let job = Job::new().cancel(move |cx| {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = seen.send(cx.is_cancelled());
        Err(JobError::wait("my own limit", TICK))
    });
    let batch = quick(&executor).poll_every(NEVER).build().expect("sound").start([job]);
    asleep(&batch);
    batch.cancel();
    let report = batch.wait(HANG).expect("ends, though it never was its turn");
    assert!(!sees.recv().expect("called"), "it is what was asked for");
    assert_eq!((calls.load(Ordering::SeqCst), report.jobs[0].attempts.cancel), (3, 3));
    assert!(report.jobs[0].notes[0].contains("may still run"), "{:?}", report.jobs[0].notes);
}

#[test]
fn a_shutdown_does_not_wait_for_the_next_poll_and_says_what_may_go_on() {
    let executor = executor(1);
    let batch = quick(&executor).poll_every(NEVER).build().expect("sound").start([Job::new()]);
    asleep(&batch);
    executor.shutdown(HANG).expect("no poll in an hour is waited for");
    let report = batch.wait(HANG).expect("ends");
    assert_eq!(report.stopped, Some(StopReason::ShutDown));
    assert_eq!(report.jobs[0].notes, ["the remote job may still run: it was not cancelled"]);
}

#[test]
fn what_a_limit_cuts_short_still_tells_its_last_trouble() {
    let executor = executor(1);
    let poll = |_: &mut Context<'_>| Err(JobError::retry("connection refused"));
    let runner = quick(&executor).attempts(u32::MAX).job_time_limit(TICK * 20).build().expect("sound");
    let job = Job::<()>::new().poll(poll).cancel(|_| Err(JobError::fatal("refused, too")));
    let report = runner.run([job, Job::new().submit(|_| Err(JobError::retry("connection refused")))]).expect("ends");
    assert!(report.jobs[0].notes[0].contains("may still run"), "{:?}", report.jobs[0].notes);
    assert_eq!(report.jobs[1].notes, ["the last trouble before that: connection refused"]);
    let runner = quick(&executor).build().expect("sound");
    let report = runner.run([Job::<()>::new().poll(poll)]).expect("ends");
    assert_eq!(report.jobs[0].notes, ["the remote job may still run: it was not cancelled"], "it gave up");
}

#[test]
fn a_resumed_download_is_counted_once_and_its_end_is_told() {
    let (executor, told) = (executor(1), Arc::new(Mutex::new(Vec::new())));
    let tell = told.clone();
    let runner = quick(&executor).on_event(move |event| {
        if let EventKind::Downloading { bytes, .. } = event.kind {
            tell.lock().expect("sound").push(bytes);
        }
    });
    let mut is_cut = true;
    let job = Job::<()>::new().fetch(move |cx| {
        cx.bytes(100, None);
        if std::mem::take(&mut is_cut) {
            return Err(JobError::retry("cut"));
        }
        cx.bytes(200, None);
        Ok(())
    });
    let report = runner.build().expect("sound").run([job]).expect("runs");
    assert_eq!(report.stats.bytes, 200);
    assert_eq!(*told.lock().expect("sound"), [100, 100, 200]);
}

#[test]
fn nothing_was_stopped_where_all_had_their_turn() {
    let executor = executor(1);
    let runner = quick(&executor).stop_after_failures(1).build().expect("sound");
    let report = runner.run([Job::<()>::new().poll(|_| Err(JobError::fatal("no")))]).expect("runs");
    assert_eq!((report.stopped, report.stats.failed), (None, 1));
    let fetch = |cx: &mut Context<'_>| {
        eventually("the limit passes", || cx.is_cancelled());
        Ok(())
    };
    let runner = quick(&executor).time_limit(TICK * 5).build().expect("sound");
    let job = Job::new().submit(|_| Ok(Submitted::Ready { id: "j-1".into() })).fetch(fetch);
    let report = runner.run([job]).expect("runs");
    assert!(report.is_success() || report.stopped == Some(StopReason::TimeLimit), "{report:?}");
}

#[test]
fn a_window_fills_while_polls_come_due_all_the_time() {
    let executor = executor(1);
    let started = Arc::new(AtomicUsize::new(0));
    let jobs = (0..50).map(|_| {
        let (count, all) = (started.clone(), started.clone());
        Job::<()>::new()
            .submit(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Submitted::Accepted { id: "j-1".into() })
            })
            .poll(move |_| Ok(if all.load(Ordering::SeqCst) == 50 { Poll::Ready } else { Poll::pending("running") }))
    });
    let runner = quick(&executor).window(50).max_concurrent(1).poll_every(Duration::ZERO).build().expect("sound");
    let batch = runner.start(jobs);
    assert!(batch.wait(HANG).expect("polls don't keep new jobs from their turn").is_success());
}
