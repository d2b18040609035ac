//! Limits: no more at once than was said, no thread for those that wait, and a turn that always
//! goes on.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar::{AsyncRequest, Error, Executor, GroupStats, OnFull, Policy, Status};

use crate::support::{Gate, HANG, assert_adds_up, ends, eventually, executor, occupy, until_cancelled};

struct Server {
    at_work: AtomicUsize,
    most: AtomicUsize,
}

impl Server {
    fn new() -> Arc<Server> {
        Arc::new(Server { at_work: AtomicUsize::new(0), most: AtomicUsize::new(0) })
    }

    fn ask(&self, _key: &str, n: u64) -> Result<u64, String> {
        self.most.fetch_max(self.at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        match n % 10 {
            7 => Err("on purpose".into()),
            9 => panic!("in a test, on purpose"),
            _ => Ok(n),
        }
    }
}

#[test]
fn no_more_run_at_once_than_the_limit_says_whatever_becomes_of_them() {
    let executor = executor(6);
    let (server, limit) = (Server::new(), executor.limit(2).expect("sound"));
    let keys = ["A", "B", "C", "D"];
    let requests: Vec<_> = (0..1_000)
        .map(|n| limit.submit(&server, Server::ask, n % 5 == 0, (keys[n as usize % 4], n)).expect("accepted"))
        .collect();
    let cancelled = requests.iter().skip(500).step_by(3).filter(|request| request.cancel()).count();
    executor.wait_idle(HANG).expect("all end");
    assert!(server.most.load(Ordering::SeqCst) <= 2, "{} at once", server.most.load(Ordering::SeqCst));
    let stats = executor.stats();
    assert_eq!((stats.submitted, stats.cancelled), (1_000, cancelled as u64), "{stats}");
    assert!(requests.iter().all(fulmar::AsyncRequest::is_done));
    assert_adds_up(&stats);
    assert!(format!("{limit:?}").contains("running: 0, waiting: 0"), "{limit:?}");
}

#[test]
fn those_that_were_cancelled_before_they_asked_are_not_counted_off_the_line() {
    let executor = executor(2);
    let (limit, gate) = (executor.limit(1).expect("sound"), Gate::new());
    let pass = gate.clone();
    let first = limit.spawn(move || pass.pass()).expect("accepted");
    gate.await_arrivals(1);
    let waiting = [0, 1, 2].map(|n| limit.spawn(move || n).expect("accepted"));
    let (store, hold) = (Arc::new(()), gate.clone());
    let key = executor.submit_write(&store, move |_: &(), _: &str| hold.pass(), "A").expect("accepted");
    gate.await_arrivals(2);
    let cancelled = [0, 1, 2].map(|_| limit.submit_write(&store, |_: &(), _: &str| (), "A").expect("accepted"));
    assert!(cancelled.iter().all(fulmar::AsyncRequest::cancel));
    assert!(format!("{limit:?}").contains("running: 1, waiting: 3"), "{limit:?}");
    gate.open();
    executor.wait_requests(&waiting, HANG).expect("each has its turn");
    executor.wait_requests(&[first, key], HANG).expect("both end");
}

#[test]
fn those_that_wait_hold_no_thread_and_count_as_deferred() {
    let executor = executor(2);
    let limit = executor.limit(1).expect("sound");
    let gate = Gate::new();
    let pass = gate.clone();
    let first = limit.spawn(move || pass.pass()).expect("accepted");
    gate.await_arrivals(1);
    let second = limit.clone().spawn(|| 2).expect("accepted");
    assert_eq!(executor.spawn(|| 3).expect("accepted").wait(HANG).expect("the other thread is free"), 3);
    assert_eq!((second.status(), executor.stats().deferred), (Status::Deferred, 1));
    assert!(second.wait(Duration::from_millis(1)).expect_err("not its turn").is_timeout());
    gate.open();
    assert_eq!(second.wait(HANG).expect("ends"), 2);
    first.wait(HANG).expect("ends");
}

#[test]
fn order_on_a_key_is_that_of_submission_with_and_without_a_limit() {
    let executor = executor(4);
    let limits = [executor.limit(1).expect("sound"), executor.limit(2).expect("sound")];
    let log = Arc::new(Mutex::new(Vec::new()));
    let add = |log: &Mutex<Vec<usize>>, _: &str, n: usize| log.lock().expect("no panic").push(n);
    for n in 0..600 {
        drop(match n % 3 {
            0 => executor.submit(&log, add, true, ("A", n)).expect("accepted"),
            which => limits[which - 1].submit_write(&log, add, ("A", n)).expect("accepted"),
        });
    }
    executor.wait_idle(HANG).expect("all end");
    assert_eq!(*log.lock().expect("no panic"), (0..600).collect::<Vec<_>>());
}

#[test]
fn a_wait_for_the_own_turn_is_told_and_one_of_two_is_not_stuck() {
    let executor = executor(1);
    let limit = executor.limit(1).expect("sound");
    let inner = limit.clone();
    let outer = limit.spawn(move || inner.spawn(|| 1)?.wait(None)).expect("accepted");
    let told = ends("a wait for its own turn", move || outer.wait(None)).expect("ends");
    assert!(matches!(told, Err(Error::WouldDeadlock)), "{told:?}");
    executor.wait_idle(HANG).expect("and the inner one gets its turn then");

    let limit = executor.limit(2).expect("sound");
    let inner = limit.clone();
    let outer = limit.spawn(move || inner.spawn(|| 1)?.wait(None)).expect("accepted");
    assert_eq!(outer.wait(HANG).expect("ends").expect("there is a second turn"), 1);
}

#[test]
fn a_cancel_and_a_shutdown_now_reach_those_that_wait_for_their_turn() {
    let executor = executor(3);
    let limit = executor.limit(1).expect("sound");
    let gate = Gate::new();
    let pass = gate.clone();
    let first = limit.spawn(move || pass.pass()).expect("accepted");
    gate.await_arrivals(1);
    let store = Arc::new(());
    let waiting: Vec<_> =
        (0..200).map(|_| limit.submit_write(&store, |_: &(), _: &str| (), "A").expect("accepted")).collect();
    assert!(waiting[0].cancel(), "in the line");
    assert!(waiting[199].cancel(), "on its key, behind the line");
    assert_eq!(executor.shutdown_now(), 198);
    assert!(waiting.iter().all(|request| request.status() == Status::Cancelled));
    assert!(matches!(limit.spawn(|| 1), Err(Error::ShutDown)));
    gate.open();
    executor.await_termination(HANG).expect("ends");
    first.wait(HANG).expect("it ran");
    assert_adds_up(&executor.stats());
    executor.reset(None, HANG).expect("opens again");
    assert_eq!(limit.spawn(|| 1).expect("the turn was given on").wait(HANG).expect("ends"), 1);
}

#[test]
fn a_full_queue_refuses_nothing_that_has_a_limit() {
    let builder = Executor::builder().threads(1).queue_capacity(1).on_full(OnFull::Reject);
    let executor = builder.build().expect("sound");
    let limit = executor.limit(1).expect("sound");
    let gate = Gate::new();
    let busy = occupy(&executor, &gate);
    let requests: Vec<_> = (0..100).map(|n| limit.spawn(move || n).expect("accepted")).collect();
    gate.open();
    busy.wait(HANG).expect("ends");
    assert_eq!(executor.wait_requests(&requests, HANG).expect("all end").len(), 100);
    let refused = executor.limit(0).expect_err("lets nothing start");
    assert!(matches!(refused, Error::Invalid(why) if why.contains("limit of 0")));
}

#[test]
fn a_group_ends_what_waits_for_its_turn_in_a_limit_and_others_go_on() {
    let executor = executor(3);
    let limit = executor.limit(1).expect("sound");
    let (ended, other) = (executor.group(Policy::Each), executor.group(Policy::Each));
    let store = Arc::new(());
    let gate = Gate::new();
    let pass = gate.clone();
    let first = ended.through(&limit).spawn(move || pass.pass()).expect("accepted");
    gate.await_arrivals(1);
    let waiting: Vec<AsyncRequest<()>> = (0..100)
        .map(|_| ended.through(&limit).submit_write(&store, |_: &(), _: &str| (), "A").expect("accepted"))
        .collect();
    let theirs: Vec<_> = (0..100).map(|n| other.through(&limit).spawn(move || n).expect("accepted")).collect();
    assert_eq!(executor.stats().deferred, 200);
    assert_eq!(executor.spawn(|| 3).expect("accepted").wait(HANG).expect("no thread is held by them"), 3);
    assert!(ended.cancel(), "it had not ended");
    assert!(waiting.iter().all(|request| request.status() == Status::Cancelled));
    assert_eq!(first.status(), Status::Running, "it decides by itself");
    let late = ended.through(&limit).spawn(|| ()).expect("accepted");
    assert!(matches!(late.wait(None), Err(Error::Cancelled)), "after the group's end");
    gate.open();
    assert!(matches!(ended.wait(HANG), Err(Error::Cancelled)));
    assert_eq!(account(ended.stats()), [102, 1, 0, 101]);
    assert_eq!(other.wait(HANG).expect("it goes on").succeeded, 100);
    assert_eq!(executor.wait_requests(&theirs, HANG).expect("all end"), (0..100).collect::<Vec<_>>());
    executor.wait_idle(HANG).expect("all end");
    let stats = executor.stats();
    assert_eq!((stats.submitted, stats.cancelled, stats.completed), (202, 100, 102), "one was born cancelled: {stats}");
    assert_adds_up(&stats);
    assert!(format!("{limit:?}").contains("running: 0, waiting: 0"), "{limit:?}");
}

#[test]
fn a_failure_in_a_limit_is_the_group_s_and_cancels_those_that_wait_for_their_turn() {
    let executor = executor(4);
    let limit = executor.limit(2).expect("sound");
    let group = executor.group(Policy::All);
    let through = group.through(&limit);
    let blocked = through.spawn(|| Err::<(), _>(until_cancelled())).expect("accepted");
    let failing = through.spawn(|| Err::<(), _>("on purpose")).expect("accepted");
    let waiting: Vec<_> = (0..50).map(|_| through.spawn(told_in_its_turn).expect("accepted")).collect();
    let error = group.wait(HANG).expect_err("one has failed");
    assert!(matches!(&error, Error::Operation(why) if why.to_string() == "on purpose"), "{error:?}");
    assert!(blocked.wait(None).is_err() && failing.is_done() && waiting.iter().all(AsyncRequest::is_done));
    let [submitted, succeeded, failed, cancelled] = account(group.stats());
    assert_eq!((submitted, succeeded, failed + cancelled), (52, 0, 52));
    assert_adds_up(&executor.stats());
}

/// What was submitted, and how much of it succeeded, failed, and was cancelled.
fn account(stats: GroupStats) -> [u64; 4] {
    [stats.submitted, stats.succeeded, stats.failed, stats.cancelled]
}

/// Has its turn until it is told to stop.
fn told_in_its_turn() -> Result<(), Error> {
    Err(until_cancelled())
}

#[test]
fn groups_that_share_a_limit_keep_to_it_together() {
    let executor = executor(6);
    let (server, limit) = (Server::new(), executor.limit(2).expect("sound"));
    let groups = [Policy::Each, Policy::Each, Policy::Each].map(|policy| executor.group(policy));
    let keys = ["A", "B", "C", "D"];
    let requests: Vec<_> = (0..900)
        .map(|n| {
            let through = groups[n as usize % 3].through(&limit);
            through.submit(&server, Server::ask, n % 5 == 0, (keys[n as usize % 4], n)).expect("accepted")
        })
        .collect();
    assert!(groups[2].cancel(), "it had not ended");
    assert!(matches!(groups[2].wait(HANG), Err(Error::Cancelled)));
    let [one, two, three] = groups.map(|group| {
        let _ = group.wait(HANG);
        group.stats()
    });
    for stats in [one, two] {
        // Of 300 numbers each tenth fails, and each tenth panics.
        assert_eq!(account(stats), [300, 240, 60, 0]);
    }
    assert_eq!(three.succeeded + three.failed + three.cancelled, 300, "{three:?}");
    assert!(server.most.load(Ordering::SeqCst) <= 2, "{} at once", server.most.load(Ordering::SeqCst));
    assert!(requests.iter().all(AsyncRequest::is_done));
    assert_adds_up(&executor.stats());
    assert!(format!("{limit:?}").contains("running: 0, waiting: 0"), "{limit:?}");
}

#[test]
fn time_limits_hold_in_the_turn_and_before_it() {
    let executor = executor(2);
    let limit = executor.limit(1).expect("sound");
    let gate = Gate::new();
    let pass = gate.clone();
    let first = limit.spawn(move || pass.pass()).expect("accepted");
    gate.await_arrivals(1);
    let short = Duration::from_millis(10);
    let unstarted = executor.start_within(short).through(&limit).spawn(|| ()).expect("accepted");
    let late = executor.within(short).through(&limit).spawn(|| ()).expect("accepted");
    let group = executor.within(short).group(Policy::Each);
    let in_group = group.through(&limit).spawn(|| ()).expect("accepted");
    for request in [unstarted, late, in_group] {
        assert!(matches!(request.wait(HANG), Err(Error::Expired)));
    }
    gate.open();
    first.wait(HANG).expect("ends");
    let given_up = crate::support::started_in_time(|time| {
        let request = executor.within(time).through(&limit).spawn(told_in_its_turn).expect("accepted");
        match request.wait(HANG) {
            Err(Error::Operation(why)) => Ok(why.downcast::<Error>().map(|error| *error)),
            Err(error) => Err(error),
            Ok(()) => unreachable!("it never returns a value"),
        }
    });
    assert!(matches!(given_up, Ok(Error::Interrupted)), "{given_up:?}");
    assert_eq!(limit.spawn(|| 1).expect("accepted").wait(HANG).expect("the turn was given on"), 1);
}

#[test]
fn a_reader_that_waits_for_another_ones_turn_beside_its_caller_on_the_key_is_not_stuck() {
    for _ in 0..20 {
        let executor = executor(3);
        let (limit, gate, store) = (executor.limit(1).expect("sound"), Gate::new(), Arc::new(()));
        let pass = gate.clone();
        let holder = limit.spawn(move || pass.pass()).expect("accepted");
        gate.await_arrivals(1);
        let (inner, same) = (limit.clone(), store.clone());
        let reads = |_: &(), _: &str| 5;
        let outer = move |_: &(), _: &str| inner.submit_read(&same, reads, "A")?.wait(None);
        let outer = executor.submit_read(&store, outer, "A").expect("accepted");
        eventually("the reader is in the line", || format!("{limit:?}").contains("waiting: 1"));
        gate.open();
        assert_eq!(outer.wait(HANG).expect("ends"), 5);
        holder.wait(HANG).expect("ends");
    }
}

#[test]
fn a_wait_behind_one_that_waits_for_the_callers_turn_is_told() {
    let executor = executor(2);
    let (limit, store) = (executor.limit(1).expect("sound"), Arc::new(()));
    let inner = limit.clone();
    let outer = limit.spawn(move || {
        let write = |_: &(), _: &str| ();
        let first = inner.submit_write(&store, write, "A")?;
        let second = inner.submit_write(&store, write, "A")?;
        assert_eq!((first.status(), second.status()), (Status::Deferred, Status::Deferred));
        second.wait(None)
    });
    let outer = outer.expect("accepted");
    let told = ends("a wait behind one that needs the caller's turn", move || outer.wait(None)).expect("ends");
    assert!(matches!(told, Err(Error::WouldDeadlock)), "{told:?}");
    executor.wait_idle(HANG).expect("both get their turn then");
}

/// What it waits for comes to need its turn only while it waits.
#[test]
fn a_wait_is_told_when_what_it_is_for_comes_to_need_the_callers_turn() {
    for _ in 0..20 {
        let executor = executor(3);
        let (limit, gate, store) = (executor.limit(1).expect("sound"), Gate::new(), Arc::new(()));
        let pass = gate.clone();
        let write = |_: &(), _: &str| ();
        let first = executor.submit_write(&store, move |_: &(), _: &str| pass.pass(), "A").expect("accepted");
        gate.await_arrivals(1);
        let (inner, outside) = (limit.clone(), executor.clone());
        let (about_to_wait, starts) = std::sync::mpsc::channel();
        let outer = limit.spawn(move || {
            let limited = inner.submit_write(&store, write, "A")?;
            let behind = outside.submit_write(&store, write, "A")?;
            about_to_wait.send(limited).expect("the test waits for it");
            behind.wait(None)
        });
        let outer = outer.expect("accepted");
        let limited = starts.recv().expect("it starts");
        std::thread::yield_now();
        gate.open();
        first.wait(HANG).expect("ends");
        let told = ends("a wait that comes to need the caller's turn", move || outer.wait(None)).expect("ends");
        assert!(matches!(told, Err(Error::WouldDeadlock)), "{told:?}");
        limited.wait(HANG).expect("it gets its turn then");
    }
}

#[test]
fn what_an_operation_of_a_group_submits_through_a_limit_doesn_t_decide_for_the_group() {
    let executor = executor(3);
    let limit = executor.limit(1).expect("sound");
    let group = executor.group(Policy::All);
    let inner = limit.clone();
    let outer = group.spawn(move || inner.spawn(|| 7)?.wait(HANG)).expect("accepted");
    assert_eq!(group.wait(HANG).expect("all well").succeeded, 2, "it belongs to it");
    assert_eq!(outer.wait(HANG).expect("ends"), 7);
    // A wait for one's own turn is told, as without a group.
    let group = Arc::new(executor.group(Policy::Each));
    let (inner, within) = (limit.clone(), group.clone());
    let outer = group.through(&limit).spawn(move || within.through(&inner).spawn(|| 1)?.wait(None)).expect("accepted");
    let told = ends("a wait for its own turn", move || outer.wait(None)).expect_err("it can't end");
    assert!(
        matches!(&told, Error::Operation(why) if matches!(why.downcast_ref(), Some(Error::WouldDeadlock))),
        "{told:?}"
    );
    group.wait(HANG).expect("all end");
}
