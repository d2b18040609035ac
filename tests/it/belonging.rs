//! What an operation submits, in whatever way, belongs to its group and its time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use fulmar::{Error, Executor, OnFull, Policy, Status, detached, is_cancelled, remaining};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy, started_in_time};

const SOON: Duration = Duration::from_millis(5);
const HOUR: Duration = Duration::from_secs(3_600);

fn never() {
    unreachable!("it is cancelled before it starts")
}

/// Says that it has started, and ends when it is told to.
fn until_cancelled(started: &std::sync::mpsc::Sender<()>) {
    started.send(()).expect("the test listens");
    while !is_cancelled() {
        std::thread::yield_now();
    }
}

#[test]
fn what_waits_for_its_turn_ends_with_the_group_of_the_operation_that_submitted_it() {
    let executor = executor(2);
    let (group, (started, starts)) = (executor.group(Policy::Each), channel());
    let limit = executor.limit(1).expect("sound");
    let inner = limit.clone();
    let outer =
        group.spawn(move || Ok::<_, Error>((inner.spawn(move || until_cancelled(&started))?, inner.spawn(never)?)));
    let (running, waiting) = outer.expect("accepted").wait(HANG).expect("ends");
    starts.recv_timeout(HANG).expect("it has its turn");
    assert_eq!((waiting.status(), group.stats().unfinished()), (Status::Deferred, 2));
    group.cancel();
    assert!(matches!(group.wait(HANG), Err(Error::Cancelled)));
    assert!(matches!(waiting.wait(HANG), Err(Error::Cancelled)));
    running.wait(HANG).expect("it was told");
    assert_eq!((group.stats().submitted, group.stats().cancelled), (3, 1));
    assert_eq!(limit.spawn(|| 1).expect("accepted").wait(HANG).expect("the turn was given on"), 1);
    drop(group);
    executor.shutdown(HANG).expect("nothing is left");
    assert_adds_up(&executor.stats());
}

#[test]
fn a_map_ends_with_the_group_of_the_operation_that_iterates() {
    for as_completed in [false, true] {
        let executor = executor(2);
        let (group, (started, starts)) = (executor.group(Policy::Each), channel());
        let inner = executor.clone();
        let outer = group.spawn(move || {
            let map = inner.map(0_u64.., 2, move |_| until_cancelled(&started))?;
            let results: Vec<_> =
                if as_completed { map.as_completed().map(|(_, result)| result).collect() } else { map.collect() };
            Ok::<_, Error>(results)
        });
        let outer = outer.expect("accepted");
        starts.recv_timeout(HANG).expect("the first item is at work");
        group.cancel();
        assert!(matches!(group.wait(HANG), Err(Error::Cancelled)));
        let results = outer.try_take().expect("it has ended").expect("the iteration has ended");
        assert!((1..=4).contains(&results.len()), "at most two windows: {results:?}");
        let stats = group.stats();
        assert!(stats.submitted > 1 && stats.unfinished() == 0, "the items belong to it: {stats:?}");
        drop(group);
        executor.shutdown(HANG).expect("nothing is left");
        assert_adds_up(&executor.stats());
    }
}

#[test]
fn a_map_over_endless_input_ends_where_its_group_has_ended_before() {
    let executor = executor(1);
    let (group, gate, inner) = (executor.group(Policy::Each), Gate::new(), executor.clone());
    let hold = gate.clone();
    let outer = group.spawn(move || {
        hold.pass();
        let results: Vec<_> = inner.map(0_u64.., 2, |_| never())?.collect();
        let completed: Vec<_> = inner.map(0_u64.., 2, |_| never())?.as_completed().collect();
        Ok::<_, Error>((results, completed))
    });
    gate.await_arrivals(1);
    group.cancel();
    gate.open();
    let (results, completed) = outer.expect("accepted").wait(HANG).expect("ends");
    assert!(matches!(results[..], [Err(Error::Cancelled)]), "{results:?}");
    assert!(matches!(completed[..], [(0, Err(Error::Cancelled))]), "{completed:?}");
}

#[test]
fn a_scope_ends_with_the_group_of_the_operation_that_it_is_in() {
    let executor = executor(1);
    let (group, (started, starts)) = (executor.group(Policy::Each), channel());
    let outer = group.spawn(move || {
        let mut told = false;
        let queued = fulmar::scope(1, |s| {
            drop(s.spawn(|| {
                until_cancelled(&started);
                told = true;
            })?);
            s.spawn(never)?.wait(None)
        });
        (queued.map(|waited| waited.map_err(|error| error.to_string())).map_err(|error| error.to_string()), told)
    });
    let outer = outer.expect("accepted");
    starts.recv_timeout(HANG).expect("the scope is at work");
    eventually("the second one waits for the scope's thread", || group.stats().submitted == 3);
    group.cancel();
    assert!(matches!(group.wait(HANG), Err(Error::Cancelled)));
    let (queued, told) = outer.try_take().expect("it has ended").expect("ends");
    assert!(told, "the operation that borrows was told, and has ended");
    assert_eq!(queued, Ok(Err(Error::Cancelled.to_string())));
    assert_eq!((group.stats().succeeded, group.stats().cancelled), (2, 1));
}

#[test]
fn a_time_limit_is_inherited_by_every_way_to_submit() {
    let executor = executor(2);
    let (inner, (told, tell)) = (executor.clone(), channel());
    let lefts = executor.within(HOUR).spawn(move || {
        let limited = inner.limit(1)?.spawn(remaining)?.wait(HANG)?;
        let mapped = inner.map([()], 1, |()| remaining())?.next().expect("an item")?;
        let scoped = fulmar::scope(1, |s| s.spawn(remaining)?.wait(HANG))??;
        let nested =
            fulmar::scope(1, |s| s.spawn(|| fulmar::scope(1, |s| s.spawn(remaining)?.wait(HANG))?)?.wait(HANG)?)??;
        let tick = move |_: &(), ()| told.send(remaining()).ok();
        let series = inner.submit_every(Duration::from_millis(1), &Arc::new(()), tick, false, ())?;
        let ticked = tell.recv().expect("it runs");
        series.cancel();
        let outside = detached(|| fulmar::scope(1, |s| s.spawn(remaining)?.wait(HANG)))??;
        Ok::<_, Error>(([limited, mapped, scoped, nested, ticked], outside))
    });
    let (lefts, outside) = lefts.expect("accepted").wait(HANG).expect("ends");
    assert!(lefts.iter().all(|left| left.is_some_and(|left| left <= HOUR)), "{lefts:?}");
    assert_eq!(outside, None, "detached");
}

#[test]
fn periodic_work_ends_with_its_group_and_is_not_waited_for_between_its_runs() {
    let executor = executor(2);
    let (group, held) = (executor.group(Policy::All), Arc::new(()));
    let (inner, kept, ran) = (executor.clone(), held.clone(), Arc::new(AtomicUsize::new(0)));
    let count = ran.clone();
    let tick = move |_: &(), ()| {
        let _kept = &kept;
        count.fetch_add(1, Ordering::Relaxed)
    };
    let start = move || inner.submit_every(HOUR, &Arc::new(()), tick, false, ());
    let series = group.spawn(start).expect("accepted");
    group.wait(HANG).expect("an hour is not waited for");
    let series = series.wait(HANG).expect("ends");
    assert!(!series.is_done());
    drop(group);
    assert!(series.is_done() && !series.cancel());
    assert_eq!((Arc::strong_count(&held), ran.load(Ordering::Relaxed)), (1, 0), "what it captured is gone");

    // A run that is on is waited for, and told.
    let (group, (started, starts)) = (executor.group(Policy::All), channel());
    let inner = executor.clone();
    let tick = move |_: &(), ()| until_cancelled(&started);
    let start = move || inner.submit_every(Duration::from_millis(1), &Arc::new(()), tick, false, ());
    let series = group.spawn(start).expect("accepted").wait(HANG).expect("ends");
    starts.recv_timeout(HANG).expect("a run is on");
    let waited = group.wait(Duration::from_millis(1)).expect_err("the run is on");
    assert!(waited.is_timeout(), "{waited:?}");
    group.cancel();
    assert!(series.is_done());
    assert!(matches!(group.wait(HANG), Err(Error::Cancelled)));
    eventually("the run is counted", || series.runs() == 1);
    executor.wait_idle(HANG).expect("nothing is left");
    assert_adds_up(&executor.stats());
}

#[test]
fn periodic_work_ends_at_its_time_limit_and_never_begins_after_it() {
    struct Told(std::sync::mpsc::Sender<String>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(std::thread::current().name().unwrap_or_default().to_owned()).expect("the test listens");
        }
    }
    let executor = executor(1);
    let (series, tell) = started_in_time(|limit| {
        let ((told, tell), inner) = (channel(), executor.clone());
        let held = Arc::new(Told(told));
        let tick = move |_: &(), ()| drop(held.clone());
        let start = move || inner.submit_every(HOUR, &Arc::new(()), tick, false, ());
        let series = executor.within(limit).spawn(start).expect("accepted").wait(HANG)?;
        Ok((series, tell))
    });
    let name = tell.recv_timeout(HANG).expect("what it captured is gone an hour before the first run");
    assert!(!name.contains("timer"), "{name}");
    assert!(series.is_done());
    assert_eq!(series.runs(), 0);

    let (inner, gate, group) = (executor.clone(), Gate::new(), executor.group(Policy::Each));
    let hold = gate.clone();
    let late = group.spawn(move || {
        hold.pass();
        inner.submit_every(Duration::from_millis(1), &Arc::new(()), |_: &(), ()| never(), false, ())
    });
    gate.await_arrivals(1);
    group.cancel();
    gate.open();
    let late = late.expect("accepted").wait(HANG).expect("it isn't refused");
    assert!(late.is_done(), "its group has ended before");
}

#[test]
fn what_starts_too_late_is_cancelled_in_every_account() {
    let builder = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::CallerRuns);
    let executor = builder.build().expect("sound");
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let full = executor.spawn(|| ()).expect("the queue has a place");
    let group = Arc::new(executor.group(Policy::Each));
    // The submitter runs them itself, one by one: the first ends the group, and the others are born
    // cancelled, of which the executor never hears.
    let weak = Arc::downgrade(&group);
    let cancel = move |_: &(), n: usize| {
        assert_eq!(n, 0, "the group has ended");
        weak.upgrade().expect("the test keeps it").cancel()
    };
    let requests = group.submit_many(&Arc::new(()), cancel, false, 0..3).expect("accepted");
    let statuses: Vec<_> = requests.iter().map(fulmar::AsyncRequest::status).collect();
    assert_eq!(statuses, [Status::Completed, Status::Cancelled, Status::Cancelled]);
    assert!(matches!(requests[1].wait(HANG), Err(Error::Cancelled)));
    assert!(requests[1].total_time().is_some() && requests[1].execution_duration().is_none());
    gate.open();
    busy.wait(HANG).and(full.wait(HANG)).expect("they end");
    let (stats, own) = (group.stats(), executor.stats());
    assert_eq!((stats.succeeded, stats.failed, stats.cancelled), (1, 0, 2), "{stats:?}");
    assert_eq!((own.completed, own.failed, own.cancelled), (3, 0, 0), "{own}");
    assert_adds_up(&own);
}

#[test]
fn a_slow_hook_or_callback_at_a_limit_delays_no_other_limit() {
    let executor = executor(1);
    let (gate, (started, starts)) = (Gate::new(), channel());
    let hold = gate.clone();
    let blocked = executor.within(Duration::from_millis(50)).spawn(move || {
        let (called, call) = channel();
        let hook = fulmar::on_cancel(move || {
            called.send(()).ok();
            hold.pass();
        });
        started.send(()).ok();
        call.recv().expect("the hook is called");
        hook.take_back()
    });
    let blocked = blocked.expect("accepted");
    if starts.recv_timeout(HANG).is_ok() {
        gate.await_arrivals(1);
    }
    let hold = gate.clone();
    let slow = executor.within(SOON).spawn(never).expect("accepted");
    slow.on_complete(move |_| hold.pass());
    assert!(matches!(slow.wait(HANG), Err(Error::Expired)));
    let other = executor.within(SOON).spawn(never).expect("accepted");
    assert!(matches!(other.wait(HANG), Err(Error::Expired)), "the only thread waits for the hook");
    let early = executor.shutdown(Duration::from_millis(1)).expect_err("callbacks are on");
    assert!(early.is_timeout(), "{early:?}");
    gate.open();
    match blocked.wait(HANG) {
        Ok(was_armed) => assert!(!was_armed, "the hook was called"),
        Err(error) => assert!(matches!(error, Error::Expired), "a machine that slow: {error:?}"),
    }
    let shut_down = executor.clone();
    ends("a shutdown", move || shut_down.shutdown(None)).expect("nothing is left");
    let stats = executor.stats();
    assert_eq!((stats.submitted, stats.unfinished()), (3, 0), "no request that no user submitted: {stats}");
    // And again, once it is open.
    executor.reset(None, HANG).expect("opens");
    let (told, tell) = channel();
    let again = executor.start_within(Duration::ZERO).spawn(never).expect("accepted");
    again.on_complete(move |status| told.send(status).expect("the test listens"));
    assert_eq!(tell.recv_timeout(HANG).expect("it is called"), Status::Cancelled);
}

#[test]
fn what_is_submitted_in_a_shield_belongs_to_no_group() {
    let executor = executor(2);
    let group = executor.group(Policy::All);
    let (inner, gate) = (executor.clone(), Gate::new());
    let arrives = gate.clone();
    let request = group.spawn(move || {
        arrives.pass();
        let bound = inner.spawn(|| 1).expect("accepted, and cancelled from the start");
        (bound.status(), fulmar::shield(|| inner.spawn(|| 2)).expect("accepted"))
    });
    let request = request.expect("accepted");
    gate.await_arrivals(1);
    group.cancel();
    gate.open();
    let (bound, free) = request.wait(HANG).expect("it was at work");
    assert_eq!(bound, Status::Cancelled);
    assert_eq!(free.wait(HANG).expect("it runs"), 2);
}
