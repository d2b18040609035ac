//! What users of other libraries have reported of groups, scopes, limits and maps, and small
//! programs as they write them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fulmar::queue::bounded;
use fulmar::{Error, Executor, Group, OnFull, Policy, Status, is_cancelled, remaining};

use crate::support::{Gate, HANG, assert_adds_up, ends, executor, occupy};

const POLICIES: [Policy; 3] = [Policy::All, Policy::Any, Policy::Each];
const HOUR: Duration = Duration::from_secs(3_600);

fn shut_down(executor: &Executor) {
    let own = executor.clone();
    ends("a shutdown", move || own.shutdown(None)).expect("nothing is left");
    let stats = executor.stats();
    assert_adds_up(&stats);
    assert_eq!(stats.unfinished(), 0, "{stats}");
}

/// `neilotoole/errgroup` 6: `Wait` held the lock that `Go` takes.
#[test]
fn an_operation_submits_to_its_group_while_another_thread_waits_for_it() {
    let executor = executor(1);
    let (group, gate) = (Arc::new(executor.group(Policy::All)), Gate::new());
    let (inner, hold, ran) = (group.clone(), gate.clone(), Arc::new(AtomicUsize::new(0)));
    let count = ran.clone();
    let more = group.spawn(move || {
        hold.pass();
        for _ in 0..100 {
            let count = count.clone();
            drop(inner.spawn(move || count.fetch_add(1, Ordering::Relaxed))?);
        }
        Ok::<_, Error>(())
    });
    drop(more.expect("accepted"));
    gate.await_arrivals(1);
    let waiting = std::thread::spawn(move || group.wait(None));
    gate.open();
    let stats = ends("the wait", move || waiting.join()).expect("no panic").expect("all succeed");
    assert_eq!((stats.succeeded, ran.load(Ordering::Relaxed)), (101, 100));
    shut_down(&executor);
}

/// `neilotoole/errgroup` 11: with a limit of 1, a failure left no worker for the rest.
#[test]
fn a_failure_among_many_that_wait_for_one_turn_ends_all_of_them() {
    let executor = executor(2);
    let group = executor.group(Policy::All);
    let (inner, one) = (executor.clone(), executor.limit(1).expect("sound"));
    let outer = group.spawn(move || {
        let turns: Vec<_> = (0..20)
            .map(|n| {
                one.submit(&Arc::new(()), move |_: &(), ()| if n == 3 { Err("on purpose") } else { Ok(n) }, false, ())
            })
            .collect::<Result<_, _>>()?;
        inner.wait_requests(&turns, None).map(drop)
    });
    let outer = outer.expect("accepted");
    let error = ends("the group", move || group.wait(None)).expect_err("one has failed");
    assert!(error.to_string().contains("on purpose"), "{error}");
    assert!(matches!(outer.wait(HANG), Err(Error::ResultTaken)), "the group told it");
    shut_down(&executor);
}

/// `python/cpython` 155418: a child that cancelled its group before its first pause hung it.
#[test]
fn an_operation_that_cancels_its_own_group_first_of_all_hangs_nothing() {
    for policy in POLICIES {
        let executor = executor(1);
        let (group, own) = (Arc::new(executor.group(policy)), Arc::new(OnceLock::<std::sync::Weak<Group>>::new()));
        own.set(Arc::downgrade(&group)).expect("once");
        let cancel = move || {
            let group = own.get().expect("set").upgrade().expect("the test keeps it");
            (group.cancel(), is_cancelled())
        };
        let request = group.spawn(cancel).expect("accepted");
        let waited = ends("the group", {
            let group = group.clone();
            move || group.wait(None)
        });
        assert!(matches!(waited, Err(Error::Cancelled)), "{policy:?}: {waited:?}");
        assert_eq!(request.wait(HANG).expect("it decides"), (true, true));
        drop(group);
        shut_down(&executor);
    }
}

/// `python/cpython` 94398: tasks made after the abort were not cancelled.
#[test]
fn what_is_submitted_after_a_failure_never_starts() {
    let executor = executor(2);
    let (group, gate) = (executor.group(Policy::All), Gate::new());
    let (inner, hold) = (executor.clone(), gate.clone());
    let tidy = group.spawn(move || {
        hold.pass();
        while !is_cancelled() {
            std::thread::yield_now();
        }
        let late = [inner.spawn(|| true)?, inner.spawn(|| panic!("it must not start"))?];
        Ok::<_, Error>(late.map(|late| late.status()))
    });
    let tidy = tidy.expect("accepted");
    gate.await_arrivals(1);
    drop(group.spawn(|| Err::<(), _>("on purpose")).expect("accepted"));
    gate.open();
    let error = group.wait(HANG).expect_err("one has failed");
    assert!(error.to_string().contains("on purpose"), "{error}");
    assert_eq!(tidy.wait(HANG).expect("it decides"), [Status::Cancelled; 2]);
    shut_down(&executor);
}

/// `python/cpython` 155433, `python-trio/trio` 3291: a cancel of the inner group swallowed that of
/// the outer one.
#[test]
fn the_cancel_of_an_inner_group_swallows_nothing_of_the_outer_one() {
    let executor = executor(2);
    let outer = executor.within(Duration::from_millis(500)).group(Policy::All);
    let inner = outer.group(Policy::Each);
    let until_told = || {
        while !is_cancelled() {
            std::thread::yield_now();
        }
    };
    drop(inner.spawn(until_told).expect("accepted"));
    assert!(inner.cancel());
    assert!(matches!(inner.wait(HANG), Err(Error::Cancelled)));
    drop(outer.spawn(until_told).expect("accepted, or late"));
    assert!(matches!(outer.wait(HANG), Err(Error::Expired)));
    assert!(matches!(inner.wait(HANG), Err(Error::Cancelled)), "what ended it first");
    drop((inner, outer));
    shut_down(&executor);
}

/// `tokio-rs/tokio` 6759: what was spawned after the close went on unseen.
#[test]
fn a_group_that_was_cancelled_starts_nothing_whichever_thread_submits() {
    let executor = executor(2);
    let (group, ran) = (Arc::new(executor.group(Policy::Each)), Arc::new(AtomicU64::new(0)));
    let submitters: Vec<_> = (0..4)
        .map(|_| {
            let (group, ran) = (group.clone(), ran.clone());
            let submit = move || {
                while group.stats().submitted < 1_000 {
                    let ran = ran.clone();
                    drop(group.spawn(move || ran.fetch_add(1, Ordering::Relaxed)).expect("accepted, or cancelled"));
                }
            };
            std::thread::spawn(submit)
        })
        .collect();
    group.cancel();
    let late = group.spawn(|| "too late").expect("born cancelled");
    assert_eq!(late.status(), Status::Cancelled);
    submitters.into_iter().for_each(|submitter| submitter.join().expect("no panic"));
    let waited = group.wait(HANG);
    assert!(matches!(waited, Err(Error::Cancelled)), "{waited:?}");
    let stats = group.stats();
    assert_eq!((stats.unfinished(), stats.failed, stats.succeeded), (0, 0, ran.load(Ordering::Relaxed)), "{stats:?}");
    shut_down(&executor);
}

/// `reem/rust-scoped-pool` 5: scopes in all threads of a pool waited for one another.
#[test]
fn scopes_in_all_threads_of_an_executor_end() {
    let executor = executor(2);
    let own = executor.clone();
    let count = ends("scopes in scopes", move || {
        let scoped = |n: usize| {
            fulmar::scope(1, |s| {
                let inside = s.spawn(move || fulmar::scope(1, |s| s.spawn(move || n)?.wait(None))?)?;
                inside.wait(None)?
            })?
        };
        let requests: Vec<_> = (0..16).map(|n| own.spawn(move || scoped(n)).expect("accepted")).collect();
        requests.into_iter().map(|request| request.wait(None).expect("ends").expect("ends")).sum::<usize>()
    });
    assert_eq!(count, 120);
    shut_down(&executor);
}

/// `crossbeam-rs/crossbeam` 196: if the producer of a scope panicked, its consumer waited for ever.
#[test]
fn a_panic_of_one_operation_of_a_scope_does_not_leave_its_partner_waiting() {
    let got = ends("the consumer", || {
        fulmar::scope(2, |s| {
            let (producer, consumer) = bounded(1).expect("sound");
            let made = s.spawn(move || {
                producer.put(1).expect("there is room");
                panic!("in a test, on purpose")
            })?;
            let got = s.spawn(move || std::iter::from_fn(|| consumer.get().ok()).sum::<i32>())?;
            let made: Result<(), Error> = made.wait(None);
            assert!(matches!(made, Err(Error::Panicked(_))), "{made:?}");
            got.wait(None)
        })
    });
    assert_eq!(got.expect("starts").expect("ends"), 1);
}

/// `rayon-rs/rayon` 638 and 1016: after a panic, millions of items panicked before the end was
/// told.
#[test]
fn a_map_stops_at_the_first_panic_that_is_asked_for() {
    let executor = executor(2);
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    let map = executor.map(0_u64.., 4, move |n| {
        count.fetch_add(1, Ordering::Relaxed);
        assert!(n < 10, "in a test, on purpose");
        n
    });
    let collected = map.expect("sound").collect::<Result<Vec<_>, _>>();
    assert!(matches!(collected, Err(Error::Panicked(_))), "{collected:?}");
    shut_down(&executor);
    let called = called.load(Ordering::Relaxed);
    assert!((11..=15).contains(&called), "no more than a window beyond it: {called}");
}

#[test]
fn an_input_that_panics_loses_nothing_that_was_read_and_goes_on() {
    let executor = executor(1);
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let items = (0..5_u32).inspect(|n| assert!(*n != 2, "in a test, on purpose"));
    let mut map = executor.map(items, 3, |n| n).expect("sound");
    assert!(catch_unwind(AssertUnwindSafe(|| map.next())).is_err(), "the third item");
    gate.open();
    // What was read before is there, and the input goes on behind the panic, as iterators do.
    let rest = map.collect::<Result<Vec<_>, _>>().expect("no failure");
    assert_eq!(rest, [0, 1, 3, 4]);
    busy.wait(HANG).expect("ends");
    shut_down(&executor);
}

#[test]
fn groups_of_every_policy_end_on_one_thread_and_a_full_queue() {
    for on_full in [OnFull::Reject, OnFull::Wait(HANG), OnFull::CallerRuns] {
        for policy in POLICIES {
            let builder = Executor::builder().threads(1).queue_capacity(1).on_full(on_full);
            let executor = builder.build().expect("sound");
            let own = executor.clone();
            let (refused, stats) = ends("a group", move || {
                let group = own.group(policy);
                let mut refused = 0;
                for n in 0..50_u32 {
                    // Each submits one more, and some fail and panic.
                    let inner = own.clone();
                    let submitted = group.spawn(move || {
                        drop(inner.spawn(|| ()));
                        match n % 10 {
                            7 => Err("on purpose"),
                            8 => std::panic::resume_unwind(Box::new("on purpose")),
                            _ => Ok(n),
                        }
                    });
                    refused += u64::from(submitted.is_err_and(|error| matches!(error, Error::QueueFull)));
                }
                drop(group.wait(None));
                (refused, group.stats())
            });
            assert_eq!(stats.unfinished(), 0, "{policy:?} {on_full:?}: {stats:?}");
            assert!(stats.submitted + refused >= 50, "{policy:?} {on_full:?}: {stats:?}, {refused} refused");
            assert!(refused == 0 || on_full == OnFull::Reject, "{policy:?} {on_full:?}: {refused}");
            shut_down(&executor);
        }
    }
}

#[test]
fn a_group_outlives_a_shutdown_and_works_again_after_a_reset() {
    let executor = executor(1);
    let (group, gate) = (executor.group(Policy::Each), Gate::new());
    let hold = gate.clone();
    let running = group.spawn(move || hold.pass()).expect("accepted");
    gate.await_arrivals(1);
    let queued = group.spawn(|| ()).expect("accepted");
    assert_eq!(executor.shutdown_now(), 1);
    assert!(matches!(group.spawn(|| ()), Err(Error::ShutDown)));
    gate.open();
    let stats = group.wait(HANG).expect("each has ended");
    assert_eq!((stats.submitted, stats.succeeded, stats.cancelled), (2, 1, 1));
    assert!(running.wait(HANG).is_ok() && matches!(queued.wait(HANG), Err(Error::Cancelled)));
    executor.await_termination(HANG).expect("ends");
    executor.reset(None, HANG).expect("opens");
    group.spawn(|| ()).expect("accepted").wait(HANG).expect("ends");
    assert_eq!(group.wait(HANG).expect("each has ended").succeeded, 2);
    drop(group);
    shut_down(&executor);
}

#[test]
fn a_group_that_another_thread_drops_ends_there() {
    let executor = executor(2);
    let (group, (started, starts)) = (executor.within(HOUR).group(Policy::All), channel());
    let request = group.spawn(move || {
        started.send(remaining()).expect("the test listens");
        while !is_cancelled() {
            std::thread::yield_now();
        }
    });
    let request = request.expect("accepted");
    assert!(starts.recv_timeout(HANG).expect("it starts").is_some_and(|left| left <= HOUR));
    ends("the drop", || drop(group));
    assert!(request.is_done(), "it has ended with its group");
    shut_down(&executor);
}

#[test]
fn the_last_handle_of_an_executor_and_a_limit_go_while_requests_wait_for_their_turn() {
    let executor = executor(2);
    let (limit, gate) = (executor.limit(1).expect("sound"), Gate::new());
    let hold = gate.clone();
    let first = limit.spawn(move || hold.pass()).expect("accepted");
    gate.await_arrivals(1);
    let waiting: Vec<_> = (0..10).map(|n| limit.spawn(move || n).expect("accepted")).collect();
    drop((limit, executor));
    gate.open();
    first.wait(HANG).expect("ends");
    let sum: i32 = waiting.into_iter().map(|request| request.wait(HANG).expect("it was accepted")).sum();
    assert_eq!(sum, 45);
}

#[test]
fn an_operation_that_waits_until_all_is_idle_is_told_and_a_group_as_well() {
    let executor = executor(1);
    let own = executor.clone();
    let told = executor.spawn(move || own.wait_idle(None)).expect("accepted").wait(HANG).expect("ends");
    assert!(matches!(told, Err(Error::WouldDeadlock)), "{told:?}");
    let group = Arc::new(executor.group(Policy::Each));
    let inner = Arc::downgrade(&group);
    let wait = move || inner.upgrade().expect("the test keeps it").wait(None).map(drop);
    let told = ends("a wait for its own group", {
        let group = group.clone();
        move || group.spawn(wait).expect("accepted").wait(None)
    });
    assert!(
        matches!(&told, Err(Error::Operation(why)) if why.to_string() == Error::WouldDeadlock.to_string()),
        "{told:?}"
    );
    drop(group);
    shut_down(&executor);
}

#[test]
fn bursts_with_idle_threads_that_end_lose_nothing_and_a_group_waits_for_each() {
    let builder = Executor::builder().threads(4).idle_timeout(Duration::from_micros(50));
    let executor = builder.build().expect("sound");
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..200 {
        let group = executor.group(Policy::All);
        for _ in 0..5 {
            let ran = ran.clone();
            drop(group.spawn(move || ran.fetch_add(1, Ordering::Relaxed)).expect("accepted"));
        }
        group.wait(HANG).expect("all succeed");
    }
    assert_eq!(ran.load(Ordering::Relaxed), 1_000);
    shut_down(&executor);
}

#[test]
fn a_time_limit_reaches_the_hook_of_a_scope_in_a_scope() {
    let executor = executor(1);
    let request = executor.within(Duration::from_millis(100)).spawn(|| {
        fulmar::scope(1, |s| {
            let inside = s.spawn(|| {
                fulmar::scope(1, |s| {
                    let (called, call) = channel();
                    let blocked = s.spawn(move || {
                        fulmar::on_cancel(move || called.send(()).expect("it waits for this"));
                        call.recv()
                    })?;
                    // The wait of an operation that is cancelled ends, but not before its scope.
                    blocked.wait(None)
                })
            })?;
            inside.wait(None)
        })
    });
    let waited = ends("the scopes", move || request.expect("accepted").wait(None));
    assert!(waited.is_ok() || matches!(waited, Err(Error::Expired)), "a machine that slow: {waited:?}");
    shut_down(&executor);
}
