//! Steps of batches that are blocked when their batch is cancelled or its time is over.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fulmar::batch::{
    BatchReport, BatchRunner, BatchRunnerBuilder, Context, EventKind, JobError, JobFailure, Poll, RemoteJob, Stage,
    StopReason, Submitted,
};
use fulmar::{Error, Executor, is_cancelled, on_cancel};

use crate::support::{Gate, HANG, executor, until_cancelled};

const TICK: Duration = Duration::from_millis(1);

/// What a step makes of its interruption.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Fatal,
    Retry,
    Wait,
    Panic,
}

/// Blocks in one of its steps, and says so.
struct Blocked {
    at: Stage,
    then: Then,
    at_it: Sender<()>,
    /// Whether the cancellation was cancelled itself, and could have a hook that waits for that.
    cancelled: Sender<(bool, bool)>,
}

impl Blocked {
    fn step(&self, stage: Stage) -> Result<(), JobError> {
        if stage != self.at {
            return Ok(());
        }
        self.at_it.send(()).expect("the test listens");
        let error = until_cancelled();
        assert!(is_cancelled(), "its hook was called");
        Err(match self.then {
            Then::Fatal => JobError::fatal(error),
            Then::Retry => JobError::retry(error),
            Then::Wait => JobError::wait(error, TICK),
            Then::Panic => panic!("on purpose: {error}"),
        })
    }
}

impl RemoteJob for Blocked {
    type Output = ();

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        self.step(Stage::Submit)?;
        Ok(Submitted::Accepted { id: "j-1".into() })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        self.step(Stage::Poll)?;
        Ok(Poll::Ready)
    }

    fn fetch(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
        self.step(Stage::Fetch)
    }

    fn cancel(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
        let is_armed = on_cancel(|| ()).take_back();
        self.cancelled.send((is_cancelled(), is_armed)).expect("the test listens");
        Ok(())
    }
}

struct Heard {
    at_it: Receiver<()>,
    cancelled: Receiver<(bool, bool)>,
}

fn blocked(at: Stage, then: Then) -> (Blocked, Heard) {
    let ((at_it, is_at_it), (cancelled, cancels)) = (channel(), channel());
    (Blocked { at, then, at_it, cancelled }, Heard { at_it: is_at_it, cancelled: cancels })
}

fn runner(executor: &Executor) -> BatchRunnerBuilder {
    BatchRunner::builder().executor(executor).poll_every(TICK)
}

/// The notes of the only job, which was cancelled on the service if it was known to exist there.
fn notes_of_stopped(report: BatchReport<()>, reason: StopReason, heard: &Heard, at: Stage) -> Vec<String> {
    assert_eq!((report.stopped, report.stats.cancelled), (Some(reason), 1), "{report}");
    let job = report.jobs.into_iter().next().expect("one");
    assert!(matches!(job.outcome, Err(JobFailure::Stopped(why)) if why == reason), "{:?}", job.outcome);
    let cancels: Vec<_> = heard.cancelled.try_iter().collect();
    if at == Stage::Submit {
        assert_eq!((job.id, cancels), (None, vec![]), "no id to cancel is known");
    } else {
        assert_eq!(cancels, [(false, true)], "{at:?}: the cancellation isn't cancelled itself");
    }
    job.notes
}

#[test]
fn a_cancel_interrupts_each_step_and_the_job_is_cancelled_and_has_not_failed() {
    let executor = executor(1);
    for then in [Then::Fatal, Then::Retry, Then::Wait, Then::Panic] {
        for at in [Stage::Submit, Stage::Poll, Stage::Fetch] {
            let (job, heard) = blocked(at, then);
            let (told, tells) = channel();
            let runner = runner(&executor).attempts(1).on_event(move |event| {
                // It has nothing to do with the step.
                told.send((matches!(event.kind, EventKind::Failed { .. }), is_cancelled())).expect("the test listens");
            });
            let batch = runner.build().expect("sound").start([job]);
            heard.at_it.recv_timeout(HANG).expect("it gets there");
            batch.cancel();
            let report = batch.wait(HANG).expect("ends");
            let notes = notes_of_stopped(report, StopReason::Cancelled, &heard, at);
            let in_doubt = at == Stage::Submit && then != Then::Wait;
            assert_eq!(notes.iter().any(|note| note.contains("may exist")), in_doubt, "{then:?} at {at:?}: {notes:?}");
            let told: Vec<_> = tells.try_iter().collect();
            assert_eq!(told.last(), Some(&(true, false)), "the end is told, {then:?} at {at:?}");
            assert!(told.iter().all(|(_, is_cancelled)| !is_cancelled), "{told:?}");
        }
    }
}

#[test]
fn a_time_limit_interrupts_a_step_that_holds_the_only_thread() {
    let executor = executor(1);
    // On a busy machine the time may be over before the step begins: then it gets more.
    let limited = |run: &dyn Fn(Blocked, Duration) -> BatchReport<()>, at| {
        for limit in (0..).map(|doubled| Duration::from_millis(20 << doubled)) {
            let (job, heard) = blocked(at, Then::Fatal);
            let report = run(job, limit);
            if heard.at_it.try_recv().is_ok() {
                return (report, heard);
            }
            assert!(limit < HANG, "it doesn't get to {at:?}");
        }
        unreachable!("the numbers have no end")
    };
    for at in [Stage::Submit, Stage::Poll, Stage::Fetch] {
        let of_batch =
            |job, limit| runner(&executor).time_limit(limit).build().expect("sound").run([job]).expect("runs");
        let (report, heard) = limited(&of_batch, at);
        notes_of_stopped(report, StopReason::TimeLimit, &heard, at);

        let of_job =
            |job, limit| runner(&executor).job_time_limit(limit).build().expect("sound").run([job]).expect("runs");
        let (report, heard) = limited(&of_job, at);
        assert_eq!((report.stopped, report.stats.failed), (None, 1), "{report}");
        assert!(matches!(report.jobs[0].outcome, Err(JobFailure::TimedOut { .. })), "{:?}", report.jobs[0].outcome);
        assert_eq!(heard.cancelled.try_iter().count(), usize::from(at != Stage::Submit), "{at:?}");
    }
}

#[test]
fn a_batch_that_an_operation_runs_is_cancelled_with_the_operation() {
    let (steps, outside) = (executor(1), executor(1));
    let (job, heard) = blocked(Stage::Poll, Then::Fatal);
    let runner = runner(&steps).build().expect("sound");
    let outer = outside.spawn(move || runner.run([job])).expect("accepted");
    heard.at_it.recv_timeout(HANG).expect("it gets there");
    assert!(!outer.cancel(), "it runs");
    let report = outer.wait(HANG).expect("ends").expect("a report all the same");
    notes_of_stopped(report, StopReason::Cancelled, &heard, Stage::Poll);
}

#[test]
fn a_wait_for_a_batch_ends_with_the_cancel_of_who_waits_and_the_batch_goes_on() {
    let (steps, outside) = (executor(1), executor(1));
    let (job, heard) = blocked(Stage::Poll, Then::Fatal);
    let batch = Arc::new(runner(&steps).build().expect("sound").start([job]));
    heard.at_it.recv_timeout(HANG).expect("it gets there");
    let (awaited, gate) = (batch.clone(), Gate::new());
    let waits = gate.clone();
    let waiting = outside.spawn(move || {
        waits.pass();
        awaited.wait(None).map(drop)
    });
    let waiting = waiting.expect("accepted");
    gate.await_arrivals(1);
    gate.open();
    assert!(!waiting.cancel(), "it runs");
    assert!(matches!(waiting.wait(HANG).expect("ends"), Err(Error::Interrupted)));
    assert!(!batch.is_done());
    batch.cancel();
    notes_of_stopped(batch.wait(HANG).expect("ends"), StopReason::Cancelled, &heard, Stage::Poll);
}

#[test]
fn a_shutdown_lets_a_step_finish() {
    struct Slow(Sender<()>, Receiver<()>);
    impl RemoteJob for Slow {
        type Output = bool;
        fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
            self.0.send(()).expect("the test listens");
            self.1.recv_timeout(HANG).expect("the test lets it go on");
            let id = format!("is_cancelled: {}", is_cancelled());
            Ok(Submitted::Accepted { id })
        }
        fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
            Ok(Poll::Ready)
        }
        fn fetch(&mut self, _: &mut Context<'_>) -> Result<bool, JobError> {
            Ok(true)
        }
    }
    let executor = executor(1);
    let ((arrived, arrives), (go, goes)) = (channel(), channel());
    let batch = runner(&executor).build().expect("sound").start([Slow(arrived, goes)]);
    arrives.recv_timeout(HANG).expect("it begins");
    assert!(executor.shutdown(Duration::ZERO).expect_err("a step is on").is_timeout());
    go.send(()).expect("it waits");
    let report = batch.wait(HANG).expect("ends");
    assert_eq!(report.stopped, Some(StopReason::ShutDown));
    assert_eq!(report.jobs[0].id.as_deref(), Some("is_cancelled: false"), "without a thread it couldn't be cancelled");
}

#[test]
fn a_step_s_own_hook_ends_its_call_and_is_not_called_later() {
    /// Reads from a server that says nothing, in each of its polls.
    struct Reader {
        address: std::net::SocketAddr,
        reads: Sender<()>,
        polls: u32,
        late: Sender<()>,
    }
    impl RemoteJob for Reader {
        type Output = ();
        fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
            // Left behind by a step that ends well.
            let late = self.late.clone();
            on_cancel(move || late.send(()).expect("the test listens"));
            Ok(Submitted::Accepted { id: "j-1".into() })
        }
        fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
            self.polls += 1;
            if self.polls == 1 {
                return Ok(Poll::pending("running"));
            }
            let mut socket = TcpStream::connect(self.address).map_err(JobError::fatal)?;
            let other = socket.try_clone().map_err(JobError::fatal)?;
            on_cancel(move || other.shutdown(Shutdown::Both).expect("it is connected"));
            self.reads.send(()).expect("the test listens");
            match socket.read(&mut [0]) {
                Ok(0) => Err(JobError::fatal("it hung up")),
                _ => Ok(Poll::Ready),
            }
        }
        fn fetch(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
            Ok(())
        }
    }
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address");
    let ((reads, reading), (late, lates)) = (channel(), channel());
    let batch = runner(&executor(1)).build().expect("sound").start([Reader { address, reads, polls: 0, late }]);
    reading.recv_timeout(HANG).expect("it gets there");
    batch.cancel();
    let report = batch.wait(HANG).expect("ends");
    assert_eq!((report.stats.cancelled, report.jobs[0].attempts.cancel), (1, 1), "{report}");
    assert!(lates.try_recv().is_err(), "the hook of a step that was over was called");
}
