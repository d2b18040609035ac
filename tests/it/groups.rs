//! Groups: what is submitted in one ends with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use fulmar::{Error, Executor, Group, OnFull, Policy, Status, detached, is_cancelled, on_cancel};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy};

type Failing = Result<u32, std::num::ParseIntError>;

fn fail() -> Failing {
    "x".parse()
}

fn never() {
    unreachable!("it is cancelled before it starts")
}

fn until_cancelled() -> Failing {
    while !is_cancelled() {
        std::thread::yield_now();
    }
    Ok(7)
}

fn counts(group: &Group) -> (u64, u64, u64, u64) {
    let stats = group.stats();
    (stats.submitted, stats.succeeded, stats.failed, stats.cancelled)
}

#[test]
fn all_succeed_or_the_first_failure_cancels_the_rest_and_is_told() {
    let executor = executor(1);
    let group = executor.group(Policy::All);
    let requests: Vec<_> = (0..3).map(|n| group.spawn(move || n).expect("accepted")).collect();
    let stats = group.wait(HANG).expect("all succeed");
    assert_eq!((stats.submitted, stats.succeeded, stats.unfinished()), (3, 3, 0));
    assert_eq!(requests.iter().filter_map(|request| request.try_take()?.ok()).sum::<i32>(), 3);

    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    // The failure is told although its handle is gone.
    drop(group.spawn(fail).expect("accepted"));
    let rest = group.spawn(never).expect("accepted");
    gate.open();
    let error = group.wait(HANG).expect_err("one failed");
    assert!(error.operation::<std::num::ParseIntError>().is_some(), "{error}");
    assert_eq!(rest.status(), Status::Cancelled);
    assert!(matches!(rest.wait(HANG), Err::<(), _>(Error::Cancelled)));
    assert_eq!(counts(&group), (5, 3, 1, 1));
    assert!(matches!(group.wait(HANG), Err(Error::Cancelled)), "a failure is told once");
    busy.wait(HANG).expect("it is not in the group");
}

#[test]
fn a_failure_tells_what_runs_and_a_panic_is_one() {
    let executor = executor(2);
    let group = executor.group(Policy::All);
    let running = group.spawn(until_cancelled).expect("accepted");
    eventually("it runs", || running.status() == Status::Running);
    drop(group.spawn(|| -> u32 { panic!("on purpose") }).expect("accepted"));
    let error = group.wait(HANG).expect_err("one panicked");
    assert!(matches!(&error, Error::Panicked(message) if message == "on purpose"), "{error:?}");
    assert_eq!(running.wait(HANG).expect("it decides by itself"), 7);
}

#[test]
fn any_returns_with_the_first_success_and_fails_if_none_succeeds() {
    let executor = executor(2);
    let group = executor.group(Policy::Any);
    let requests = [
        group.spawn(fail).expect("accepted"),
        group.spawn(until_cancelled).expect("accepted"),
        group.spawn(|| Failing::Ok(1)).expect("accepted"),
    ];
    let stats = group.wait(HANG).expect("one succeeds");
    assert_eq!((stats.failed, stats.unfinished()), (1, 0));
    assert_eq!(requests[2].try_take().expect("it has ended").expect("a success"), 1);
    // The loop that submits may come too late.
    let late = group.spawn(fail).expect("born cancelled");
    assert_eq!(late.status(), Status::Cancelled);
    assert!(group.wait(HANG).is_ok(), "it has still succeeded");

    let none = executor.group(Policy::Any);
    assert!(matches!(none.wait(HANG), Err(Error::Invalid(_))));
    let requests = [none.spawn(fail).expect("accepted"), none.spawn(fail).expect("accepted")];
    let error = none.wait(HANG).expect_err("none succeeds");
    assert!(error.operation::<std::num::ParseIntError>().is_some(), "{error}");
    let left = requests.iter().filter(|request| !matches!(request.try_take(), Some(Err(Error::ResultTaken)))).count();
    assert_eq!(left, 1, "the first failure was taken, and the other one is still in its handle");
}

#[test]
fn each_ends_by_itself() {
    let executor = executor(1);
    let group = executor.group(Policy::Each);
    let failed = group.spawn(fail).expect("accepted");
    let succeeded = group.spawn(|| Failing::Ok(1)).expect("accepted");
    let stats = group.wait(HANG).expect("whatever comes of them");
    assert_eq!((stats.succeeded, stats.failed), (1, 1));
    assert!(failed.wait(HANG).is_err());
    assert_eq!(succeeded.wait(HANG).expect("a success"), 1);
    assert!(group.cancel());
    assert!(!group.cancel(), "once");
    assert!(matches!(group.wait(HANG), Err(Error::Cancelled)));
}

#[test]
fn a_drop_cancels_and_waits_for_what_runs() {
    let executor = executor(2);
    let (ended, starts) = (Arc::new(AtomicBool::new(false)), Gate::new());
    let requests = {
        let group = executor.group(Policy::All);
        let (mine, start) = (ended.clone(), starts.clone());
        starts.open();
        let running = group.spawn(move || {
            start.pass();
            let result = until_cancelled();
            mine.store(true, Ordering::Relaxed);
            result
        });
        starts.await_arrivals(1);
        let gate = Gate::new();
        let busy = occupy(&executor, &gate);
        let queued = group.spawn(never);
        let requests = (running.expect("accepted"), queued.expect("accepted"));
        drop(group);
        gate.open();
        busy.wait(HANG).expect("it is not in the group");
        requests
    };
    assert!(ended.load(Ordering::Relaxed), "none outlives the group");
    assert!(requests.0.is_done() && requests.1.is_done());
    assert!(matches!(requests.1.wait(HANG), Err::<(), _>(Error::Cancelled)));
}

#[test]
fn an_early_return_and_a_panic_end_the_group() {
    let executor = executor(2);
    let ended = Arc::new(AtomicUsize::new(0));
    let begin = |group: &Group| {
        let (ended, (told, tell)) = (ended.clone(), channel());
        let request = group.spawn(move || {
            told.send(()).expect("the test listens");
            let result = until_cancelled();
            ended.fetch_add(1, Ordering::Relaxed);
            result
        });
        drop(request.expect("accepted"));
        tell.recv_timeout(HANG).expect("it starts");
    };
    let early = || -> Result<(), std::fmt::Error> {
        let group = executor.group(Policy::All);
        begin(&group);
        Err(std::fmt::Error)
    };
    assert!(early().is_err());
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let group = executor.group(Policy::All);
        begin(&group);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(ended.load(Ordering::Relaxed), 2);
}

#[test]
fn what_an_operation_submits_belongs_to_its_group_but_not_to_the_policy() {
    let (executor, other) = (executor(2), executor(1));
    let group = executor.group(Policy::All);
    let (gate, inner_executor) = (Gate::new(), executor.clone());
    let hold = gate.clone();
    let outer = group.spawn(move || {
        let failed = inner_executor.spawn(|| ())?.then(|()| fail())?;
        assert!(failed.wait(HANG).is_err(), "the operation's own affair");
        // On another executor, and left behind.
        let after = Duration::from_millis(1);
        let left = other.submit_after(after, &Arc::new(()), move |_: &(), ()| hold.pass(), false, ())?;
        drop(left);
        Ok::<_, Error>(other)
    });
    let outer = outer.expect("accepted");
    gate.await_arrivals(1);
    assert!(matches!(group.wait(Duration::ZERO), Err(Error::Timeout { left: 1, .. })));
    gate.open();
    let stats = group.wait(HANG).expect("the failure inside was handled");
    assert_eq!((stats.submitted, stats.succeeded, stats.failed), (4, 3, 1));
    outer.wait(HANG).expect("a success");
}

#[test]
fn a_cancel_reaches_what_operations_submitted_and_groups_in_groups() {
    let executor = executor(3);
    let group = executor.group(Policy::Each);
    let inside = group.group(Policy::All);
    let innermost = Arc::new(inside.within(Duration::from_secs(3_600)).group(Policy::Any));
    let (hooks, busy, gate) = (Arc::new(AtomicUsize::new(0)), Gate::new(), Gate::new());
    for group in [&group, &inside, &innermost] {
        let (hooks, busy, arrived, executor) = (hooks.clone(), busy.clone(), gate.clone(), executor.clone());
        let operation = move || {
            busy.pass();
            let submitted = executor.spawn(never).expect("accepted");
            let count = hooks.clone();
            on_cancel(move || assert!(count.fetch_add(1, Ordering::Relaxed) < 3, "once each"));
            arrived.pass();
            let result = until_cancelled();
            assert!(matches!(submitted.wait(HANG), Err::<(), _>(Error::Cancelled)));
            result
        };
        drop(group.spawn(operation).expect("accepted"));
    }
    busy.await_arrivals(3);
    busy.open();
    gate.await_arrivals(3);
    assert!(group.cancel());
    assert_eq!(hooks.load(Ordering::Relaxed), 3, "once each, by the thread that cancels");
    gate.open();
    assert!(matches!(group.wait(HANG), Err(Error::Cancelled)));
    for group in [&group, &inside, &innermost] {
        assert_eq!(counts(group), (2, 1, 0, 1), "what is inside has ended before, each in its own account");
        assert!(matches!(group.wait(Duration::ZERO), Err(Error::Cancelled)));
        assert_eq!(group.spawn(fail).expect("born cancelled").status(), Status::Cancelled);
    }
    // A group in one that has ended has ended as well.
    assert!(matches!(innermost.group(Policy::Each).wait(None), Err(Error::Cancelled)));
    assert_adds_up(&executor.stats());
}

#[test]
fn the_wait_for_a_group_waits_for_groups_in_it() {
    let executor = executor(2);
    let outer = executor.group(Policy::All);
    let gate = Gate::new();
    let hold = gate.clone();
    let between = outer.group(Policy::All);
    let inside = between.group(Policy::All);
    drop(inside.spawn(move || hold.pass()).expect("accepted"));
    gate.await_arrivals(1);
    assert!(matches!(outer.wait(Duration::from_millis(1)), Err(Error::Timeout { left: 1, .. })));
    gate.open();
    assert_eq!(outer.wait(HANG).expect("nothing failed").submitted, 0);
    assert_eq!(inside.stats().succeeded, 1);
}

#[test]
fn groups_nest_ten_thousand_deep() {
    const DEPTH: usize = 10_000;
    let executor = executor(1);
    let nest = || {
        let mut groups = vec![executor.group(Policy::All)];
        while groups.len() < DEPTH {
            groups.push(groups[groups.len() - 1].group(Policy::All));
        }
        groups
    };
    let mut groups = nest();
    let innermost = groups.pop().expect("the last");
    let request = innermost.spawn(until_cancelled).expect("accepted");
    eventually("it runs", || request.status() == Status::Running);
    assert!(groups[0].cancel());
    assert_eq!(request.wait(HANG).expect("it was told"), 7);
    // The innermost last: it alone holds all others then.
    drop(groups);
    drop(innermost);
    let mut groups = nest();
    drop(groups.pop().expect("the last").spawn(|| ()).expect("accepted"));
    groups.into_iter().rev().for_each(drop);
}

#[test]
fn operations_that_own_groups_whose_operations_own_groups_end_on_a_small_stack() {
    let small = move || {
        let executor = executor(1);
        let gate = Gate::new();
        let busy = occupy(&executor, &gate);
        let outermost = executor.group(Policy::All);
        let mut owned = executor.group(Policy::All);
        for _ in 0..2_000 {
            let next = executor.group(Policy::All);
            drop(next.spawn(move || drop(owned)).expect("accepted"));
            owned = next;
        }
        drop(outermost.spawn(move || drop(owned)).expect("accepted"));
        assert!(outermost.cancel());
        drop(outermost);
        gate.open();
        busy.wait(HANG).expect("it is in no group");
        executor.shutdown(HANG).expect("nothing is left");
        assert_adds_up(&executor.stats());
    };
    let thread = std::thread::Builder::new().stack_size(512 * 1024).spawn(small).expect("a thread");
    ends("drops of groups", move || thread.join().expect("no overflow"));
}

#[test]
fn a_wait_for_a_group_inside_an_operation_lends_its_place() {
    let executor = executor(1);
    let inner = executor.clone();
    let request = executor.spawn(move || {
        let group = inner.group(Policy::All);
        let parts: Vec<_> = (0..10).map(|n| group.spawn(move || n)).collect::<Result<_, _>>()?;
        let innermost = group.group(Policy::All);
        let (own, last) = (inner.clone(), innermost.spawn(|| 1_i32)?);
        drop(group.spawn(move || own.group(Policy::All).spawn(|| 5_i32)?.wait(HANG))?);
        group.wait(HANG)?;
        let sum: i32 = parts.iter().filter_map(|part| part.try_take()?.ok()).sum();
        Ok::<_, Error>(sum + last.wait(None)?)
    });
    let waited = ends("a group on a pool of one thread", move || request.expect("accepted").wait(None));
    assert_eq!(waited.expect("it ends").expect("no failure"), 46);
}

#[test]
fn a_wait_for_its_own_group_would_deadlock_and_its_drop_only_cancels() {
    let executor = executor(2);
    let group = Arc::new(executor.group(Policy::All));
    let outer = executor.group(Policy::Each);
    let inside = Arc::new(outer.group(Policy::Each));
    for (waiter, waited) in [(&group, &group), (&inside, &inside)] {
        let (own, gate) = (waited.clone(), Gate::new());
        let hold = gate.clone();
        let request = waiter.spawn(move || {
            hold.pass();
            matches!(own.wait(None), Err(Error::WouldDeadlock))
            // The last reference may go here.
        });
        let request = request.expect("accepted");
        gate.await_arrivals(1);
        gate.open();
        assert!(ends("its own group", move || request.wait(None)).expect("it ends"));
    }
    drop((group, inside));
    ends("the outer group", move || drop(outer));
}

#[test]
fn operations_that_wait_for_each_other_by_way_of_a_group_are_told() {
    let executor = executor(2);
    let group = Arc::new(executor.group(Policy::Each));
    let (give, given) = channel::<fulmar::AsyncRequest<bool>>();
    let (waiting, waited) = (group.clone(), Gate::new());
    let hold = waited.clone();
    let outside = executor.spawn(move || {
        hold.pass();
        matches!(waiting.wait(None), Err(Error::WouldDeadlock))
    });
    let inside = group.spawn(move || {
        let outside = given.recv_timeout(HANG).expect("the test gives it");
        matches!(outside.wait(None), Err(Error::WouldDeadlock))
    });
    waited.await_arrivals(1);
    waited.open();
    give.send(outside.expect("accepted")).expect("it runs");
    let inside = inside.expect("accepted");
    // At least the later of the two is told, and then the other one can go on.
    ends("a circle", move || inside.wait(None)).expect("it ends");
    ends("a circle", move || group.wait(None)).expect("it ends");
}

#[test]
fn a_request_that_is_not_accepted_is_in_no_account() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Reject).build().expect("sound");
    let group = executor.group(Policy::All);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let queued = group.spawn(|| 1_i32).expect("accepted");
    assert!(matches!(group.spawn(|| 2_i32), Err(Error::QueueFull)));
    let squares = |_: &(), n: u64| n * n;
    assert!(group.submit_many(&Arc::new(()), squares, false, [1, 2]).is_err());
    assert_eq!(counts(&group), (1, 0, 0, 0));
    gate.open();
    busy.wait(HANG).expect("it ends");
    assert_eq!(group.wait(HANG).expect("no failure").succeeded, 1);
    assert_eq!(queued.wait(HANG).expect("a success"), 1);
    executor.shutdown(HANG).expect("it ends");
    assert!(matches!(group.spawn(|| 3_i32), Err(Error::ShutDown)));
    assert_eq!(group.wait(HANG).expect("no failure").submitted, 1);
}

#[test]
fn a_submitter_that_runs_the_operation_itself_is_known_to_the_group() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build().expect("sound");
    let group = Arc::new(executor.group(Policy::All));
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    drop(group.spawn(|| 1_i32).expect("queued"));
    let own = group.clone();
    let here = ends("its own group", move || {
        let submitter = std::thread::current().id();
        let ran = own.clone().spawn(move || {
            assert_eq!(std::thread::current().id(), submitter);
            matches!(own.wait(None), Err(Error::WouldDeadlock))
        });
        ran.expect("accepted").wait(None)
    });
    assert!(here.expect("it ends"));
    gate.open();
    busy.wait(HANG).expect("it ends");
    assert_eq!(group.wait(HANG).expect("no failure").succeeded, 2);
}

#[test]
fn many_at_once_keyed_and_plain_share_a_group_and_its_cancel() {
    let executor = executor(1);
    let group = executor.group(Policy::All);
    let store = Arc::new(AtomicUsize::new(0));
    let add = |store: &AtomicUsize, _: &str| store.fetch_add(1, Ordering::Relaxed);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let keys = ["AAPL", "AAPL", "IBM"].map(String::from);
    let many = group.submit_many(&store, add, true, keys).expect("accepted");
    let write = group.submit_write(&store, add, "AAPL").expect("accepted");
    let read = group.submit_read(&store, add, "AAPL").expect("accepted");
    assert_eq!((write.status(), read.status()), (Status::Deferred, Status::Deferred));
    assert!(group.cancel());
    assert!(many.iter().chain([&write, &read]).all(|request| request.status() == Status::Cancelled));
    assert!(group.submit_many(&store, add, true, [String::new()]).expect("born cancelled")[0].is_done());
    gate.open();
    busy.wait(HANG).expect("it ends");
    assert_eq!(counts(&group), (6, 0, 0, 6));
    assert_eq!(store.load(Ordering::Relaxed), 0, "none has run");
    executor.shutdown(HANG).expect("it ends");
    assert_adds_up(&executor.stats());
}

#[test]
fn a_request_cancelled_by_its_handle_is_no_failure() {
    let executor = executor(1);
    let group = executor.group(Policy::All);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let cancelled = group.spawn(|| 1_i32).expect("accepted");
    let other = group.spawn(|| 2_i32).expect("accepted");
    assert!(cancelled.cancel());
    gate.open();
    let stats = group.wait(HANG).expect("nothing failed");
    assert_eq!((stats.succeeded, stats.cancelled), (1, 1));
    assert_eq!((other.wait(HANG).expect("a success"), busy.wait(HANG).is_ok()), (2, true));
}

#[test]
fn what_is_detached_outlives_the_group() {
    let executor = executor(2);
    let (gate, inner) = (Gate::new(), executor.clone());
    let hold = gate.clone();
    let kept = {
        let group = executor.group(Policy::All);
        let request = group.spawn(move || {
            let kept = detached(|| inner.spawn(move || hold.pass()));
            assert!(inner.spawn(|| 1)?.wait(HANG).is_ok(), "and this one is in the group again");
            kept
        });
        let request = request.expect("accepted");
        assert_eq!(group.wait(HANG).expect("no failure").submitted, 2);
        request.wait(HANG).expect("a success")
    };
    assert!(!kept.is_done());
    gate.open();
    kept.wait(HANG).expect("it was not cancelled");
}

#[test]
fn what_was_accepted_one_by_one_before_a_refusal_stays_in_its_group() {
    let executor = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns).build().expect("sound");
    let (group, gate) = (executor.group(Policy::Each), Gate::new());
    let first = occupy(&executor, &gate);
    let closes = executor.clone();
    let operation = move |_: &(), n: u32| {
        if n == 1 {
            _ = closes.shutdown(Duration::ZERO);
        }
    };
    let refused = group.submit_many(&Arc::new(()), operation, false, 0..3);
    assert!(matches!(refused, Err(Error::ShutDown)), "{refused:?}");
    assert_eq!(group.stats().submitted, 2, "the queued one, and the one that this thread ran");
    assert_eq!(group.stats().unfinished(), 1);
    gate.open();
    first.wait(HANG).expect("ends");
    assert_eq!(group.wait(HANG).expect("each ends").succeeded, 2);
}
