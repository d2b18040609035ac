//! A full queue: who comes first is let in first, one is woken at a time, and a slow key fills no
//! other's room.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, OnFull};

use crate::support::{Gate, HANG, ends, eventually, executor, occupy};

/// One held thread, and a full queue behind it.
fn full(capacity: usize, on_full: OnFull, gate: &Gate) -> (Executor, AsyncRequest<()>, Vec<AsyncRequest<()>>) {
    let executor = Executor::builder().threads(1).queue_capacity(capacity).on_full(on_full).build().expect("sound");
    let held = occupy(&executor, gate);
    let queued = (0..capacity).map(|_| executor.spawn(|| ()).expect("there is room")).collect();
    (executor, held, queued)
}

/// A thread that submits, once it sleeps in that.
#[cfg(target_os = "linux")]
fn sleeper<T: Send + 'static>(
    submit: impl FnOnce() -> T + Send + 'static,
) -> (thread::JoinHandle<T>, std::path::PathBuf) {
    let (told, tell) = channel();
    let submitter = thread::spawn(move || {
        told.send(std::fs::read_link("/proc/thread-self").expect("a thread on linux")).expect("the receiver lives");
        submit()
    });
    let path = std::path::Path::new("/proc").join(tell.recv().expect("it tells"));
    let stat = path.join("stat");
    eventually("the submitter sleeps", || {
        let stat = std::fs::read_to_string(&stat).expect("it waits for room");
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    });
    (submitter, path)
}

#[test]
#[cfg(target_os = "linux")]
fn who_waits_for_room_first_is_let_in_first() {
    ends("first come, first let in", || {
        let (gate, order) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
        let (executor, held, _queued) = full(4, OnFull::Wait(HANG), &gate);
        let note = |number: u8| {
            let order = order.clone();
            move || order.lock().expect("no panic").push(number)
        };
        let mut submitters = Vec::new();
        for number in 0..8 {
            let (executor, note) = (executor.clone(), note(number));
            // The fourth brings four at once, which fit in as a whole or not at all.
            let submit = move || match number {
                3 => {
                    let operation = move |_: &(), _number: usize| {
                        note();
                        Ok::<_, Error>(())
                    };
                    executor.submit_many(&Arc::new(()), operation, false, 0..4).map(|requests| requests.len())
                }
                _ => executor.spawn(note).map(|_| 1),
            };
            submitters.push(sleeper(submit).0);
        }
        gate.open();
        let accepted: usize = submitters.into_iter().map(|s| s.join().expect("no panic").expect("let in")).sum();
        assert_eq!(accepted, 11);
        held.wait(None).expect("it was let go");
        executor.shutdown(None).expect("ends");
        assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7]);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn one_who_waits_for_room_is_woken_at_a_time() {
    ends("one is woken at a time", || {
        const WAITING: usize = 64;
        let gate = Gate::new();
        let (executor, held, queued) = full(1, OnFull::Wait(HANG), &gate);
        let mut submitters = Vec::new();
        for _ in 0..WAITING {
            let executor = executor.clone();
            let submit = move || {
                let status = || std::fs::read_to_string("/proc/thread-self/status").expect("linux");
                let sleeps = || {
                    let status = status();
                    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
                    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).expect("a count")
                };
                let before = sleeps();
                drop(executor.spawn(|| ()).expect("let in"));
                sleeps() - before
            };
            submitters.push(sleeper(submit).0);
        }
        gate.open();
        let sleeps: u64 = submitters.into_iter().map(|submitter| submitter.join().expect("no panic")).sum();
        // One each, and some where two meet at a lock. If each end woke all, it would be two
        // thousand.
        assert!(sleeps <= 8 * WAITING as u64, "{WAITING} submitters slept {sleeps} times");
        held.wait(None).expect("it was let go");
        executor.wait_requests(&queued, None).expect("they end");
        executor.shutdown(None).expect("ends");
    });
}

/// Two at once, the first of which is held back while there is no room for the second, and free to
/// run when there is.
#[test]
#[cfg(target_os = "linux")]
fn what_was_held_back_when_it_found_no_room_runs_later() {
    ends("held back at first", || {
        for is_modifier in [true, false] {
            let (gate, ahead, store) = (Gate::new(), Gate::new(), Arc::new(()));
            let executor = Executor::builder().threads(2).queue_capacity(2).on_full(OnFull::Wait(HANG)).build();
            let executor = executor.expect("sound");
            let held = occupy(&executor, &gate);
            let pass = ahead.clone();
            let first = move |_: &(), _key: &'static str| {
                pass.pass();
                Ok::<_, Error>(())
            };
            let first = executor.submit(&store, first, true, "slow").expect("accepted");
            ahead.await_arrivals(1);
            let queued: Vec<_> = (0..2).map(|_| executor.spawn(|| ()).expect("there is room")).collect();
            let theirs = executor.clone();
            let submit = move || {
                let operation = |_: &(), _key: &'static str| Ok::<_, Error>(());
                theirs.submit_many(&store, operation, is_modifier, ["slow", "another"])
            };
            let (submitter, _) = sleeper(submit);
            ahead.open();
            let both = submitter.join().expect("no panic").expect("let in");
            executor.wait_requests(&both, HANG).expect("a thread is free");
            gate.open();
            held.wait(None).expect("it was let go");
            first.wait(None).expect("it was let go");
            executor.wait_requests(&queued, None).expect("they end");
            executor.shutdown(None).expect("ends");
        }
    });
}

/// Whoever gives up or is refused leaves the line to the others.
#[test]
#[cfg(target_os = "linux")]
fn who_gives_up_waiting_for_room_holds_nobody_up() {
    ends("who gives up", || {
        let gate = Gate::new();
        let (executor, held, queued) = full(2, OnFull::Wait(Duration::from_millis(30)), &gate);
        let operation = |_: &(), _number: usize| Ok::<_, Error>(());
        let refused = executor.submit_many(&Arc::new(()), operation, false, 0..2).expect_err("no room in time");
        assert!(matches!(refused, Error::QueueFull), "{refused:?}");
        gate.open();
        executor.wait_requests(&queued, None).expect("they end");
        held.wait(None).expect("it was let go");
        executor.spawn(|| ()).expect("there is room").wait(None).expect("it ends");
    });
}

#[test]
fn a_slow_key_shuts_no_other_key_out() {
    for on_full in [OnFull::Reject, OnFull::Wait(Duration::from_millis(1)), OnFull::CallerRuns] {
        let (gate, store) = (Gate::new(), Arc::new(()));
        let executor = Executor::builder().threads(4).queue_capacity(10).on_full(on_full).build().expect("sound");
        let pass = gate.clone();
        let hold = move |_: &(), _key: &'static str| {
            pass.pass();
            Ok::<_, Error>(())
        };
        let slow = executor.submit(&store, hold, true, "slow").expect("accepted");
        gate.await_arrivals(1);
        let nothing = |_: &(), _key: &'static str| Ok::<_, Error>(());
        let behind: Vec<_> =
            (0..10).map(|_| executor.submit(&store, nothing, true, "slow").expect("there is room")).collect();
        for key in ["one", "another"] {
            let other = executor.submit(&store, nothing, true, key);
            other.unwrap_or_else(|error| panic!("{on_full:?}: {error}")).wait(HANG).expect("a thread is free");
        }
        executor.spawn(|| ()).expect("without a key").wait(HANG).expect("a thread is free");
        let many = executor.submit_many(&store, nothing, true, ["a", "b", "c"]).expect("other keys");
        executor.wait_requests(&many, HANG).expect("a thread is free");
        gate.open();
        executor.wait_requests(&behind, None).expect("they end");
        slow.wait(None).expect("it was let go");
    }
}

#[test]
fn what_is_due_in_an_hour_shuts_nobody_out() {
    let executor = Executor::builder().threads(1).queue_capacity(10).build().expect("sound");
    let (store, hour) = (Arc::new(()), Duration::from_secs(3_600));
    let nothing = |_: &(), ()| Ok::<_, Error>(());
    let later: Vec<_> =
        (0..20).map(|_| executor.submit_after(hour, &store, nothing, false, ()).expect("accepted")).collect();
    executor.spawn(|| ()).expect("there is room").wait(HANG).expect("a thread is free");
    later.iter().for_each(|request| assert!(request.cancel()));
    executor.shutdown(None).expect("ends");
}

/// Memory is bounded all the same: what waits for a thread, and what each key holds back.
#[test]
fn what_waits_for_a_thread_is_bounded_and_each_key_is() {
    let (gate, store) = (Gate::new(), Arc::new(()));
    let (executor, _held, _queued) = full(3, OnFull::Reject, &gate);
    assert!(matches!(executor.spawn(|| ()), Err(Error::QueueFull)));
    gate.open();

    let gate = Gate::new();
    let executor = Executor::builder().threads(2).queue_capacity(3).build().expect("sound");
    let pass = gate.clone();
    let hold = move |_: &(), _key: &'static str| {
        pass.pass();
        Ok::<_, Error>(())
    };
    let _slow = executor.submit(&store, hold, true, "slow").expect("accepted");
    gate.await_arrivals(1);
    let nothing = |_: &(), _key: &'static str| Ok::<_, Error>(());
    let behind: Vec<_> = (0..3).map(|_| executor.submit(&store, nothing, true, "slow").expect("room")).collect();
    assert!(matches!(executor.submit(&store, nothing, true, "slow"), Err(Error::QueueFull)));
    assert!(behind[1].cancel());
    drop(executor.submit(&store, nothing, true, "slow").expect("a cancelled one leaves its room"));
    gate.open();
}

#[test]
fn an_executor_without_a_limit_is_never_full() {
    let (gate, executor) = (Gate::new(), executor(1));
    let held = occupy(&executor, &gate);
    let many = executor.submit_many(&Arc::new(()), |_: &(), n: u32| Ok::<_, Error>(n), false, 0..100_000);
    assert_eq!(many.expect("accepted").len(), 100_000);
    gate.open();
    held.wait(None).expect("it was let go");
}
