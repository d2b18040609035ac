//! Time limits of requests and groups: inherited, kept without a thread, and told by an error of
//! their own.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fulmar::{Error, Executor, Policy, Status, is_cancelled, on_cancel, remaining};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy, started_in_time};

const SOON: Duration = Duration::from_millis(5);
const HOUR: Duration = Duration::from_secs(3_600);

fn never() {
    unreachable!("its time limit passes before it starts")
}

fn until_cancelled() -> Duration {
    while !is_cancelled() {
        std::thread::yield_now();
    }
    remaining().expect("it has a limit")
}

#[test]
fn a_limit_takes_out_what_waits_and_tells_what_runs() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let queued = executor.within(SOON).spawn(never).expect("accepted");
    let error = queued.wait(HANG).expect_err("it never runs");
    assert!(matches!(error, Error::Expired), "{error:?}");
    assert_eq!(queued.status(), Status::Cancelled);
    gate.open();
    busy.wait(HANG).expect("it ends");
    let left = started_in_time(|limit| executor.within(limit).spawn(until_cancelled).expect("accepted").wait(HANG));
    assert_eq!(left, Duration::ZERO);
    executor.shutdown(HANG).expect("nothing is left");
    assert_adds_up(&executor.stats());
}

#[test]
fn a_limit_ends_a_blocked_read_by_its_hook() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let executor = executor(1);
    let read = move || {
        let mut socket = TcpStream::connect(address)?;
        let other = socket.try_clone()?;
        on_cancel(move || drop(other.shutdown(Shutdown::Both)));
        socket.read(&mut [0])
    };
    let read = started_in_time(|limit| executor.within(limit).spawn(read).expect("accepted").wait(HANG));
    assert_eq!(read, 0, "the end of the stream");
    assert_eq!(executor.spawn(|| 1).expect("accepted").wait(HANG).expect("the thread is back"), 1);
}

#[test]
fn a_limit_is_inherited_and_the_earliest_holds() {
    let executor = executor(2);
    assert_eq!(remaining(), None, "outside of an operation");
    let inner = executor.clone();
    let outer = executor.within(HOUR).spawn(move || {
        let mine = remaining().expect("its own");
        let longer = inner.within(HOUR * 2).spawn(remaining)?.wait(HANG)?.expect("inherited");
        let group = inner.group(Policy::All);
        let grouped = group.within(HOUR / 2).spawn(remaining)?.wait(HANG)?.expect("its own");
        assert!(group.remaining().expect("inherited") <= mine);
        let detached = fulmar::detached(|| inner.spawn(remaining))?.wait(HANG)?;
        Ok::<_, Error>((mine, longer, grouped, detached))
    });
    let (mine, longer, grouped, detached) = outer.expect("accepted").wait(HANG).expect("a success");
    assert!(mine <= HOUR && longer <= mine && grouped <= HOUR / 2, "{mine:?} {longer:?} {grouped:?}");
    assert_eq!(detached, None);
    assert_eq!(executor.spawn(remaining).expect("accepted").wait(HANG).expect("a success"), None);
    let no_limit = executor.within(Duration::MAX).spawn(remaining).expect("accepted");
    assert_eq!(no_limit.wait(HANG).expect("a success"), None, "past the clock's range");
}

#[test]
fn what_a_limited_operation_left_behind_is_cancelled_at_its_limit() {
    let executor = executor(1);
    let left = started_in_time(|limit| {
        let inner = executor.clone();
        let leave = move || inner.submit_after(HOUR, &Arc::new(()), |_: &(), ()| never(), false, ());
        executor.within(limit).spawn(leave).expect("accepted").wait(HANG)
    });
    assert!(matches!(left.wait(HANG), Err(Error::Expired)));
}

#[test]
fn a_request_that_has_not_started_by_its_time_never_runs() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let late = executor.start_within(SOON).spawn(never).expect("accepted");
    let keyed = executor.start_within(SOON).submit(&Arc::new(()), |_: &(), _| never(), true, "AAPL").expect("accepted");
    let early = executor.start_within(HOUR).spawn(is_cancelled).expect("accepted");
    for request in [late, keyed] {
        assert!(matches!(request.wait(HANG), Err(Error::Expired)));
        assert_eq!(request.status(), Status::Cancelled);
    }
    gate.open();
    busy.wait(HANG).expect("it ends");
    assert!(!early.wait(HANG).expect("it has started in time"));
    executor.shutdown(HANG).expect("no alarm is left");
    assert_adds_up(&executor.stats());
}

#[test]
fn a_time_to_start_means_nothing_once_it_has_started() {
    let executor = executor(1);
    let (gate, alarms) = (Gate::new(), channel());
    let hold = gate.clone();
    let request = executor.start_within(Duration::from_millis(500)).spawn(move || {
        hold.pass();
        is_cancelled()
    });
    let request = request.expect("accepted");
    eventually("it runs or is too late", || request.status() == Status::Running || request.is_done());
    // Rings after the time to start has passed.
    let told = alarms.0;
    let ring = executor.within(Duration::from_millis(600)).spawn(never).expect("accepted");
    ring.on_complete(move |_| told.send(()).expect("the test listens"));
    alarms.1.recv_timeout(HANG).expect("it expires");
    gate.open();
    match request.wait(HANG) {
        Ok(was_cancelled) => assert!(!was_cancelled),
        Err(error) => assert!(matches!(error, Error::Expired), "a machine that slow: {error:?}"),
    }
}

#[test]
fn a_group_returns_what_there_is_at_its_limit_or_says_that_it_passed() {
    let executor = executor(2);
    for policy in [Policy::Each, Policy::All, Policy::Any] {
        let group = executor.within(Duration::from_millis(100)).group(policy);
        let inside = group.group(Policy::Each);
        let fast = (policy != Policy::Any).then(|| group.spawn(|| 1_i32).expect("accepted"));
        let slow = group.spawn(until_cancelled).expect("accepted");
        drop(inside.spawn(until_cancelled).expect("accepted"));
        match group.wait(HANG) {
            Ok(stats) if policy == Policy::Each => assert_eq!(stats.unfinished(), 0),
            Err(Error::Expired) if policy == Policy::All => {}
            // Who is told to stop may still come to a value, which is too late for a group that has
            // ended.
            Err(Error::Expired) if policy == Policy::Any => {}
            other => panic!("{policy:?}: {other:?}"),
        }
        assert!(slow.is_done() && fast.is_none_or(|fast| fast.is_done()));
        assert_eq!(inside.stats().unfinished(), 0);
        let late = group.spawn(never).expect("born cancelled");
        assert!(matches!(late.wait(HANG), Err(Error::Expired)));
    }
}

#[test]
fn a_request_that_misses_its_own_limit_fails_its_group() {
    let executor = executor(1);
    let group = executor.group(Policy::All);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let late = group.within(SOON).spawn(never).expect("accepted");
    let rest = group.spawn(never).expect("accepted");
    let error = group.wait(HANG).expect_err("one was late");
    assert!(matches!(error, Error::Expired), "{error:?}");
    assert!(matches!((late.wait(HANG), rest.wait(HANG)), (Err(Error::Expired), Err(Error::Cancelled))));
    assert_eq!((group.stats().submitted, group.stats().cancelled), (2, 2));
    gate.open();
    busy.wait(HANG).expect("it ends");
    let each = executor.start_within(Duration::ZERO).group(Policy::Each);
    assert!(matches!(each.spawn(never).expect("accepted").wait(HANG), Err(Error::Expired)));
    assert_eq!(each.wait(HANG).expect("whatever came of them").cancelled, 1);
}

#[test]
fn limits_hold_while_the_executor_shuts_down_and_leave_no_alarm_behind() {
    let executor = executor(1);
    let done = executor.within(HOUR).spawn(|| 1).expect("accepted");
    assert_eq!(done.wait(HANG).expect("in time"), 1);
    drop(executor.start_within(HOUR).spawn(|| 1_i32).expect("accepted"));
    let running = executor.within(Duration::from_millis(50)).spawn(until_cancelled).expect("accepted");
    let queued = executor.within(Duration::from_millis(50)).spawn(until_cancelled).expect("accepted");
    let shut_down = executor.clone();
    ends("a shutdown", move || shut_down.shutdown(None)).expect("the limits end what runs");
    for ended in [running, queued] {
        let result = ended.try_take().expect("it has ended");
        assert!(matches!(result, Ok(Duration::ZERO) | Err(Error::Expired)), "{result:?}");
    }
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!((stats.unfinished(), stats.threads), (0, 0));
    assert!(matches!(executor.within(HOUR).spawn(never), Err(Error::ShutDown)));
    executor.shutdown(HANG).expect("and no alarm keeps the timer");
}

#[test]
fn destructors_of_what_expired_do_not_run_on_the_timer() {
    /// Tells which thread drops it, and keeps that one until it may go on.
    struct Told(std::sync::mpsc::Sender<Option<String>>, Gate);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(std::thread::current().name().map(str::to_owned)).expect("the test listens");
            self.1.pass();
        }
    }
    let executor = executor(2);
    let (gate, hold, (told, tell)) = (Gate::new(), Gate::new(), channel());
    let busy = [occupy(&executor, &gate), occupy(&executor, &gate)];
    let held = Told(told, hold.clone());
    let request = executor.within(SOON).spawn(move || drop(held)).expect("accepted");
    assert!(matches!(request.wait(HANG), Err(Error::Expired)));
    gate.open();
    let name = tell.recv_timeout(HANG).expect("it is dropped").expect("a name");
    assert!(!name.contains("timer"), "{name}");
    // The timer goes on meanwhile.
    executor.submit_after(SOON, &Arc::new(()), |_: &(), ()| (), false, ()).expect("accepted").wait(HANG).expect("ends");
    hold.open();
    for busy in busy {
        busy.wait(HANG).expect("it ends");
    }
    executor.shutdown(HANG).expect("nothing is left");
    assert_adds_up(&executor.stats());
    assert_eq!(executor.stats().submitted, 4, "what drops it is no request: {}", executor.stats());
}

#[test]
fn a_thousand_limits_pass_at_once_and_all_are_accounted_for() {
    let executor = executor(2);
    let (ran, at) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let group = executor.group(Policy::Each);
    let requests: Vec<_> = (0..1_000_u64)
        .map(|n| {
            let ran = ran.clone();
            let count = move || ran.fetch_add(1, Ordering::Relaxed);
            group.within(Duration::from_micros(n * 7919 % 3_000)).spawn(count).expect("accepted")
        })
        .collect();
    let stats = group.wait(HANG).expect("whatever came of them");
    assert_eq!(stats.submitted, 1_000);
    assert_eq!(stats.succeeded, ran.load(Ordering::Relaxed) as u64, "after {:?}", at.elapsed());
    assert_eq!(stats.succeeded + stats.cancelled, 1_000, "{stats:?}");
    let expired = requests.iter().filter(|request| matches!(request.try_take(), Some(Err(Error::Expired)))).count();
    assert_eq!(expired as u64, stats.cancelled);
    executor.shutdown(HANG).expect("nothing is left");
    let own = executor.stats();
    assert_adds_up(&own);
    assert_eq!((own.completed, own.failed), (stats.succeeded, 0), "one truth: {own}");
}

#[test]
fn a_limit_of_another_executors_group_holds_here() {
    let (executor, other) = (executor(1), Executor::builder().threads(1).build().expect("sound"));
    let group = executor.within(Duration::from_millis(50)).group(Policy::Each);
    let there = other.clone();
    let outer = group.spawn(move || there.spawn(until_cancelled)?.wait(HANG)).expect("accepted");
    group.wait(HANG).expect("whatever came of it");
    assert!(outer.is_done());
    other.shutdown(HANG).expect("nothing is left there");
    executor.shutdown(HANG).expect("nor here");
}
