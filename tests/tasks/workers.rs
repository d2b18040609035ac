//! Workers: handlers on threads, leases, drains.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fulmar::tasks::{
    NewTask, RetryPolicy, TaskContext, TaskError, TaskEvent, TaskHandle, TaskQueue, TaskStatus, TaskType, Worker,
    WorkerId,
};
use fulmar::{BoxError, Store};
use serde_json::{Value, json};

use crate::support::{
    Bed, Gate, HANG, claim, claims, eventually, history, in_time, last_message, put, task, unless_held_up,
};

/// Short, so that heartbeats are seen; long enough for a machine that is busy.
const SHORT: Duration = Duration::from_millis(900);

pub(crate) fn handlers_end_tasks_in_every_way(bed: &dyn Bed) {
    let queue = bed.queue();
    let retry = RetryPolicy::times(1).first(Duration::from_millis(1));
    queue.register(TaskType::new("t").retry(retry)).expect("registered");
    let worker = Worker::builder(&queue)
        .max_concurrent(3)
        .handle("t", |task: &TaskContext| -> Result<(), BoxError> {
            match task.identifier().split('-').next() {
                Some("sum") => task.store_json(&task.input::<Vec<u64>>()?.iter().sum::<u64>())?,
                Some("error") => return Err("on purpose".into()),
                Some("panic") => panic!("on purpose"),
                Some("fail") => task.fail("for good"),
                Some("pause") if task.attempt() < 3 => task.pause_with(Duration::from_millis(1), &task.attempt())?,
                Some("pause") => task.store_json(&task.checkpoint::<u32>()?)?,
                Some("flaky") if task.failures() == 0 => return Err("the first time".into()),
                _ => {}
            }
            Ok(())
        })
        .start()
        .expect("started");
    let tasks: Vec<NewTask> = ["sum", "error", "panic", "fail", "pause", "flaky"]
        .iter()
        .flat_map(|kind| (0..5).map(move |n| task(format!("{kind}-{n}")).input(&[1, 2, 3])))
        .collect();
    for handle in queue.enqueue_many(tasks).expect("accepted") {
        let status = handle.wait(HANG).expect("it ends");
        let kind = handle.identifier().split('-').next().expect("a kind");
        let (expected, starts) = match kind {
            "sum" => (TaskStatus::Finished, 1),
            "error" | "panic" => (TaskStatus::Failed, 2),
            "fail" => (TaskStatus::Failed, 1),
            "pause" => (TaskStatus::Finished, 3),
            _ => (TaskStatus::Finished, 2),
        };
        assert_eq!((status, handle.info().expect("known").starts), (expected, starts), "{}", handle.identifier());
        match kind {
            "sum" => assert_eq!(handle.response().expect("known").expect("stored").json::<u64>().expect("a sum"), 6),
            "pause" => assert_eq!(handle.response().expect("known").expect("stored").json::<u32>().expect("two"), 2),
            "error" | "panic" => assert!(last_message(&queue, handle.identifier()).contains("on purpose")),
            _ => {}
        }
    }
    let stats = worker.drain(HANG).expect("idle");
    assert_eq!((stats.started, stats.finished, stats.failed), (5 * 11, 15, 15), "{stats}");
    assert_eq!((stats.retried, stats.paused, stats.stale, stats.running), (15, 10, 0, 0), "{stats}");
    assert_eq!(stats.errors, 0);
}

pub(crate) fn a_drain_gives_back_and_waits(bed: &dyn Bed) {
    let queue = bed.queue();
    let gate = Gate::default();
    let inside = gate.clone();
    let worker = Worker::builder(&queue)
        .max_concurrent(2)
        .batch(10)
        .handle("t", move |task: &TaskContext| {
            inside.pass();
            assert!(task.is_stopping(), "it is told");
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    queue.enqueue_many((0..8).map(|n| task(n.to_string()))).expect("accepted");
    gate.await_arrivals(2);
    eventually("the worker takes the others, too", || worker.stats().claimed == 8);
    let timeout = worker.drain(Duration::ZERO).expect_err("two are at work");
    assert!(matches!(timeout, TaskError::Timeout { left: 2, .. }), "{timeout}");
    let stats = queue.stats().expect("read");
    assert_eq!((stats.count(TaskStatus::Accepted), stats.count(TaskStatus::Running)), (6, 2), "given back at once");
    for n in 0..8 {
        let info = queue.info("t", &n.to_string()).expect("known");
        assert!(info.lost == 0 && (info.starts == 0) == (info.status == TaskStatus::Accepted), "{info:?}");
    }
    gate.open();
    let stats = worker.drain(HANG).expect("the two return");
    assert_eq!((stats.claimed, stats.given_back, stats.finished), (8, 6, 2), "{stats}");
    put(&queue, "later");
    assert_eq!(worker.drain(HANG).expect("drained before").claimed, 8, "it takes no more");
}

/// A worker with the one task `a` at work, whose handler obeys: once the gate is open and it is
/// told to stop, it returns an error.
fn obedient(queue: &TaskQueue, lease: Duration) -> (Worker, Gate, TaskHandle) {
    let gate = Gate::default();
    let inside = gate.clone();
    let worker = Worker::builder(queue)
        .lease(lease)
        // Only the handler's own end puts the task back.
        .maintenance_interval(HANG * 10)
        .max_concurrent(1)
        .handle("t", move |task: &TaskContext| -> Result<(), BoxError> {
            eventually("the handler is told", || task.is_cancelled());
            inside.pass();
            Err("told to stop".into())
        })
        .start()
        .expect("started");
    let handle = put(queue, "a");
    eventually("it starts", || worker.stats().running == 1);
    (worker, gate, handle)
}

/// It stands where it stood, with one restart used, and another worker can end it well.
pub(crate) fn assert_put_back(queue: &TaskQueue, handle: &TaskHandle, why: &str) {
    eventually("the attempt ends", || handle.status().expect("known") != TaskStatus::Running);
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.lost, info.failures), (TaskStatus::Accepted, 1, 1, 0), "{info:?}");
    assert_eq!(last_message(queue, "a"), format!("{why}; restart 1 of 3"));
    let next = claim(queue);
    next.start().expect("ours");
    assert_eq!(next.finish().expect("ours"), TaskStatus::Finished);
}

pub(crate) fn a_drain_that_takes_too_long_puts_back_what_obeys(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, gate, handle) = obedient(&queue, HANG * 10);
    let left = worker.drain(Duration::from_millis(10)).expect_err("it goes on");
    assert!(matches!(left, TaskError::Timeout { left: 1, .. }), "{left}");
    gate.open();
    let stats = worker.drain(HANG).expect("it has been told");
    assert_eq!((stats.started, stats.retried, stats.failed, stats.stale), (1, 1, 0, 0), "{stats}");
    assert_put_back(&queue, &handle, "its worker stopped: told to stop");
}

pub(crate) fn a_dropped_worker_puts_back_what_obeys(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, gate, handle) = obedient(&queue, HANG * 10);
    drop(worker);
    gate.open();
    assert_put_back(&queue, &handle, "its worker stopped: told to stop");
}

pub(crate) fn an_outage_longer_than_the_lease_fails_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, gate, handle) = obedient(&queue, SHORT);
    assert_eq!(bed.sql("ALTER TABLE fulmar_task RENAME TO away"), 0);
    gate.await_arrivals(1);
    assert_eq!(bed.sql("ALTER TABLE away RENAME TO fulmar_task"), 0);
    // The worker would take it anew.
    queue.pause_type("t").expect("registered");
    gate.open();
    eventually("the attempt ends", || worker.stats().running == 0);
    worker.drain(HANG).expect("idle");
    queue.resume_type("t").expect("registered");
    assert_put_back(&queue, &handle, "its lease was lost: told to stop");
}

pub(crate) fn a_stop_of_the_worker_fails_only_what_has_no_restart_left(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(0).retry(RetryPolicy::times(9))).expect("registered");
    let (worker, gate, handle) = obedient(&queue, HANG * 10);
    drop(worker);
    gate.open();
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Failed);
    let expected = "its worker stopped: told to stop, and its restart limit of 0 is reached";
    assert_eq!(last_message(&queue, "a"), expected);
}

pub(crate) fn a_cancel_holds_though_the_worker_stops_as_well(bed: &dyn Bed) {
    let queue = bed.queue();
    let (worker, gate, handle) = obedient(&queue, HANG * 10);
    assert_eq!(handle.cancel().expect("known"), TaskStatus::Running);
    drop(worker);
    gate.open();
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Cancelled);
}

pub(crate) fn a_long_task_with_a_short_lease_starts_once(bed: &dyn Bed) {
    // A third of it passes between two heartbeats: by the rest they may be late on a slow machine.
    let lease = Duration::from_secs(5);
    let queue = bed.queue();
    for round in 0.. {
        let gate = Gate::default();
        // The rival would take it if the lease were over once, and would look for that all the
        // time.
        let start = |queue: &TaskQueue| {
            let inside = gate.clone();
            Worker::builder(queue)
                .lease(lease)
                .maintenance_interval(Duration::from_millis(10))
                .handle("t", move |_: &TaskContext| {
                    inside.pass();
                    Ok::<_, TaskError>(())
                })
                .start()
                .expect("started")
        };
        let (first, second) = (start(&queue), start(&bed.open()));
        let handle = put(&queue, &round.to_string());
        gate.await_arrivals(1);
        let lease_ends = || bed.count("SELECT coalesce(max(lease), 0) FROM fulmar_task WHERE worker IS NOT NULL");
        let (begin, mut looked, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        // Until it was renewed when the first lease, by the database's clock, was over.
        let beyond = lease_ends() + i64::try_from(lease.as_millis()).expect("a sound time");
        while (lease_ends() < beyond || begin.elapsed() < lease) && handle.info().expect("known").lost == 0 {
            longest = longest.max(looked.elapsed());
            looked = Instant::now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        longest = longest.max(looked.elapsed());
        gate.open();
        assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
        first.drain(HANG).expect("idle");
        second.drain(HANG).expect("idle");
        let info = handle.info().expect("known");
        if (info.starts, info.lost) == (1, 0) {
            return;
        }
        // Whoever is frozen for that long, or whose server is, loses the lease, and rightly so.
        assert!(longest > lease / 3 && round < 5, "{info:?}, {longest:?} without a look: {:?}", handle.log());
    }
}

pub(crate) fn handlers_run_on_the_executor_that_was_given(bed: &dyn Bed) {
    let queue = bed.queue();
    let executor = fulmar::Executor::builder().threads(2).thread_name("given").build().expect("sound");
    let worker = Worker::builder(&queue)
        .executor(&executor)
        .handle("t", |task: &TaskContext| task.store_json(std::thread::current().name().unwrap_or_default()))
        .start()
        .expect("started");
    let handle = put(&queue, "a");
    handle.wait(HANG).expect("it ends");
    let name: String = handle.response().expect("known").expect("stored").json().expect("a name");
    assert!(name.starts_with("given-"), "{name}");
    worker.drain(HANG).expect("idle");
    executor.shutdown(HANG).expect("it outlives its workers");
    // One that is shut down runs nothing: the task goes back, for others.
    let worker = Worker::builder(&queue).executor(&executor).handle("t", |_: &TaskContext| Ok::<_, TaskError>(()));
    let worker = worker.start().expect("started");
    let handle = put(&queue, "b");
    eventually("the worker notices", || worker.stats().errors > 0);
    let stats = worker.drain(HANG).expect("idle");
    assert_eq!((stats.claimed, stats.given_back), (1, 1), "once, and not again and again");
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts), (TaskStatus::Accepted, 0), "{info:?}");
}

/// The answer to a claim was lost: the task is the worker's, and the worker does not know.
pub(crate) fn a_stray_task_is_found_and_put_back(bed: &dyn Bed) {
    unless_held_up(SHORT, |lease| {
        let queue = bed.queue();
        let (gate, name) = (Gate::default(), format!("holds for {lease:?}"));
        let (inside, holder) = (gate.clone(), name.clone());
        let worker = Worker::builder(&queue)
            .lease(lease)
            // Nobody else rescues: not the stray, nor what this worker is late to renew.
            .maintenance_interval(HANG * 10)
            .max_concurrent(2)
            .handle("t", move |task: &TaskContext| {
                if task.identifier() == holder {
                    inside.pass();
                }
                Ok::<_, TaskError>(())
            })
            .start()
            .expect("started");
        let holds = put(&queue, &name);
        if !in_time(&queue, "it starts", || gate.arrivals() == 1) {
            gate.open();
            return false;
        }
        let stray = format!("stray for {lease:?}");
        queue.enqueue(task(&stray).run_after(HANG * 100)).expect("accepted");
        let id = worker.id();
        let taken = format!(
            "UPDATE fulmar_task SET status = 1, gate = NULL, token = token + 1, worker = '{id}', lease = run_at
             WHERE identifier = '{stray}'"
        );
        assert_eq!(bed.sql(&taken), 1);
        let has_ended = |name: &str| queue.status("t", name).expect("known").is_ended();
        let found = in_time(&queue, "the stray ends", || has_ended(&stray));
        gate.open();
        if !found || !in_time(&queue, "the other ends", || has_ended(&name)) {
            return false;
        }
        assert_eq!(queue.status("t", &stray).expect("known"), TaskStatus::Finished);
        assert_eq!(holds.status().expect("known"), TaskStatus::Finished);
        assert_eq!((holds.info().expect("known").starts, worker.drain(HANG).expect("idle").stale), (1, 0));
        true
    });
}

/// The handler ends well, again and again, and its response has nowhere to go.
pub(crate) fn an_outcome_that_can_not_be_written_is_a_lost_attempt(bed: &dyn Bed) {
    unless_held_up(SHORT, |lease| {
        let queue = bed.queue();
        queue.register(TaskType::new("t").restart_limit(1)).expect("registered");
        let (gate, again, name) = (Gate::default(), Gate::default(), format!("for {lease:?}"));
        let (inside, second, written) = (gate.clone(), again.clone(), name.clone());
        let worker = Worker::builder(&queue)
            .lease(lease)
            // Nobody else rescues what this worker is late to renew.
            .maintenance_interval(HANG * 10)
            .max_concurrent(1)
            .handle("t", move |task: &TaskContext| {
                if task.identifier() == written {
                    if task.attempt() == 1 {
                        inside.pass()
                    } else {
                        second.pass()
                    }
                    task.store_json(&1)?;
                }
                Ok::<_, TaskError>(())
            })
            .start()
            .expect("started");
        let handle = put(&queue, &name);
        if !in_time(&queue, "it starts", || gate.arrivals() == 1) {
            gate.open();
            again.open();
            return false;
        }
        assert_eq!(bed.sql("ALTER TABLE fulmar_task_response RENAME TO away"), 0);
        gate.open();
        eventually("the outcome can't be written", || worker.stats().stale == 1);
        assert!(!handle.status().expect("known").is_ended(), "it was not written");
        assert_eq!(bed.sql("ALTER TABLE away RENAME TO fulmar_task_response"), 0);
        again.open();
        if !in_time(&queue, "it ends", || handle.status().expect("known").is_ended()) {
            return false;
        }
        assert_eq!(handle.status().expect("known"), TaskStatus::Finished);
        let info = handle.info().expect("known");
        assert_eq!((info.starts, info.lost, info.failures), (2, 1, 0), "{info:?}");
        let log = handle.log().expect("a log");
        let why = "what it came to could not be written";
        let lost = log.iter().find(|entry| entry.message.contains(why)).unwrap_or_else(|| panic!("{log:?}"));
        assert!(lost.message.contains("fulmar_task_response") && lost.message.ends_with("restart 1 of 1"), "{lost:?}");
        worker.drain(HANG).expect("idle");
        true
    });
}

pub(crate) fn a_cancelled_handler_is_told(bed: &dyn Bed) {
    let queue = bed.queue();
    let gate = Gate::default();
    let inside = gate.clone();
    let worker = Worker::builder(&queue)
        .handle("t", move |task: &TaskContext| -> Result<(), BoxError> {
            inside.pass();
            while !task.is_cancelled() {
                std::thread::yield_now();
            }
            assert!(!task.is_lost());
            Err("stopped early".into())
        })
        .start()
        .expect("started");
    let handle = put(&queue, "a");
    gate.await_arrivals(1);
    gate.open();
    assert_eq!(bed.open().cancel("t", "a").expect("known"), TaskStatus::Running, "by another process");
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Cancelled);
    assert_eq!(last_message(&queue, "a"), "stopped early");
    assert_eq!(worker.drain(HANG).expect("idle").cancelled, 1);
}

pub(crate) fn a_lost_handler_is_told(bed: &dyn Bed) {
    let queue = bed.queue();
    let gate = Gate::default();
    let inside = gate.clone();
    let worker = Worker::builder(&queue)
        .lease(SHORT)
        .max_concurrent(1)
        .handle("t", move |task: &TaskContext| -> Result<(), BoxError> {
            inside.pass();
            while !task.is_cancelled() {
                std::thread::yield_now();
            }
            Ok(())
        })
        .start()
        .expect("started");
    let handle = put(&queue, "a");
    gate.await_arrivals(1);
    queue.force_unregister("t").expect("forced");
    gate.open();
    eventually("the outcome is discarded", || worker.stats().stale == 1);
    assert!(matches!(handle.status(), Err(TaskError::NotFound { .. })));
    queue.register(TaskType::new("t")).expect("registered");
    worker.drain(HANG).expect("idle");
}

/// Remembers in which order it was called, and lets nobody in beside a modifier.
#[derive(Default)]
struct Ledger {
    calls: Mutex<BTreeMap<String, Vec<u64>>>,
}

impl Store for Ledger {
    fn name(&self) -> &str {
        "ledger"
    }

    fn call(&self, op: &str, args: Value) -> Result<Value, BoxError> {
        let key = args["key"].as_str().unwrap_or("").to_owned();
        let mut calls = self.calls.lock().map_err(|error| error.to_string())?;
        let calls = calls.entry(key).or_default();
        match op {
            "write" => {
                calls.push(args["n"].as_u64().ok_or("`n` is not a number")?);
                Ok(json!(calls.len()))
            }
            "read" => Ok(json!(calls.len())),
            _ => Err(format!("the store `ledger` has no operation `{op}`").into()),
        }
    }
}

pub(crate) fn stores_keep_their_order(bed: &dyn Bed) {
    let queue = bed.open();
    let ledger = Arc::new(Ledger::default());
    let mut requests = Vec::new();
    for n in 0..20 {
        for key in ["a", "b"] {
            let args = json!({"key": key, "n": n});
            queue.submit("ledger", "write", true, args.clone()).expect("accepted");
            requests.push((n + 1, queue.submit("ledger", "read", false, args.clone()).expect("accepted")));
            requests.push((n + 1, queue.submit("ledger", "read", false, args).expect("accepted")));
        }
    }
    let start =
        |queue: &TaskQueue| Worker::builder(queue).max_concurrent(4).store(ledger.clone()).start().expect("started");
    let workers = [start(&queue), start(&bed.open())];
    for (expected, request) in &requests {
        assert_eq!(request.wait(HANG).expect("a result"), json!(expected), "{request:?}");
    }
    assert_eq!(requests[0].1.wait(HANG).expect("the result stays"), json!(1));
    for worker in workers {
        worker.drain(HANG).expect("idle");
    }
    let calls = ledger.calls.lock().expect("no thread panicked");
    assert!(calls.values().all(|calls| calls.iter().copied().eq(0..20)), "{calls:?}");
}

pub(crate) fn requests_of_stores_fail_and_are_cancelled(bed: &dyn Bed) {
    let queue = bed.open();
    let failing = queue.submit("ledger", "burn", true, json!({"key": "a"})).expect("accepted");
    let cancelled = queue.submit("ledger", "read", false, json!({"key": "a"})).expect("accepted");
    let keyless = queue.submit("ledger", "read", false, json!(null)).expect("accepted");
    assert_eq!(cancelled.cancel().expect("known"), TaskStatus::Cancelled);
    assert!(matches!(failing.wait(Duration::ZERO), Err(TaskError::Timeout { .. })));
    let worker = Worker::builder(&queue).store(Arc::new(Ledger::default())).start().expect("started");
    let error = failing.wait(HANG).expect_err("no such operation");
    assert!(matches!(&error, TaskError::Failed { reason } if reason.contains("no operation `burn`")), "{error}");
    assert!(matches!(cancelled.wait(HANG), Err(TaskError::Cancelled)));
    assert_eq!(keyless.wait(HANG).expect("a result"), json!(0));
    assert_eq!(failing.status().expect("known"), TaskStatus::Failed);
    assert_eq!(failing.log().expect("a log").first().expect("an entry").message, "burn");
    let as_crate_error: fulmar::Error = error.into();
    assert!(as_crate_error.operation::<TaskError>().is_some());
    worker.drain(HANG).expect("idle");
}

pub(crate) fn many_workers_share_the_work(bed: &dyn Bed) {
    share(bed, 1);
}

pub(crate) fn tasks_started_together_end_as_those_started_alone(bed: &dyn Bed) {
    share(bed, 20);
}

fn share(bed: &dyn Bed, together: usize) {
    let queue = bed.queue();
    let effects = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let start = |queue: &TaskQueue| {
        let effects = effects.clone();
        Worker::builder(queue)
            .max_concurrent(2)
            .batch(7 * together)
            .start_together(together)
            .handle("t", move |task: &TaskContext| {
                *effects.lock().expect("no thread panics").entry(task.identifier().to_owned()).or_default() += 1;
                Ok::<_, TaskError>(())
            })
            .start()
            .expect("started")
    };
    let workers: Vec<Worker> = (0..4).map(|_| start(&bed.open())).collect();
    let handles = queue.enqueue_many((0..300).map(|n| task(n.to_string()))).expect("accepted");
    for handle in &handles {
        assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
    }
    let started: u64 = workers.iter().map(|worker| worker.drain(HANG).expect("idle").started).sum();
    let effects = effects.lock().expect("no thread panicked");
    assert_eq!((started, effects.len()), (300, 300));
    assert!(effects.values().all(|&times| times == 1), "{effects:?}");
    let expected = [TaskStatus::Accepted, TaskStatus::Scheduled, TaskStatus::Running, TaskStatus::Finished];
    assert_eq!(history(&queue, "123"), expected);
}

pub(crate) fn a_task_that_is_lost_before_its_turn_is_not_run(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many([task("a"), task("b")]).expect("accepted");
    let (gate, ran) = (Gate::default(), Arc::new(Mutex::new(Vec::new())));
    let (inside, runs) = (gate.clone(), ran.clone());
    let worker = Worker::builder(&queue)
        .lease(HANG * 10)
        .max_concurrent(1)
        .batch(2)
        .start_together(2)
        .handle("t", move |task: &TaskContext| {
            runs.lock().expect("no thread panics").push(format!("{} {}", task.identifier(), task.attempt()));
            if task.identifier() == "a" {
                inside.pass();
            }
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    gate.await_arrivals(1);
    assert_eq!(queue.status("t", "b").expect("known"), TaskStatus::Running, "it waits for its turn");
    bed.sql("UPDATE fulmar_task SET lease = 1 WHERE identifier = 'b'");
    queue.tidy().expect("rescued");
    // The worker takes it anew.
    eventually("the worker knows", || worker.stats().stuck == 1);
    gate.open();
    assert_eq!(queue.wait("t", "b", HANG).expect("it ends"), TaskStatus::Finished);
    assert_eq!(queue.wait("t", "a", HANG).expect("it ends"), TaskStatus::Finished);
    assert_eq!(worker.drain(HANG).expect("idle").stale, 1);
    assert_eq!(*ran.lock().expect("no thread panicked"), ["a 1", "b 2"]);
}

/// An error that can't be shown.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("on purpose")
    }
}

impl std::error::Error for Unspeakable {}

/// An error without end.
#[derive(Debug)]
struct Endless;

impl std::fmt::Display for Endless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("on and on")
    }
}

impl std::error::Error for Endless {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self)
    }
}

pub(crate) fn an_error_that_panics_when_it_is_shown_is_a_failure(bed: &dyn Bed) {
    let queue = bed.queue();
    let worker = Worker::builder(&queue)
        .max_concurrent(1)
        .handle("t", |task: &TaskContext| -> Result<(), BoxError> {
            match task.identifier() {
                "unspeakable" => Err(Unspeakable.into()),
                "endless" => Err(Endless.into()),
                _ => Ok(()),
            }
        })
        .start()
        .expect("started");
    let handles = ["unspeakable", "endless", "fine"].map(|name| put(&queue, name));
    let ends = handles.each_ref().map(|handle| handle.wait(HANG).expect("it ends"));
    assert_eq!(ends, [TaskStatus::Failed, TaskStatus::Failed, TaskStatus::Finished]);
    assert!(last_message(&queue, "unspeakable").contains("on purpose"));
    assert_eq!(last_message(&queue, "endless"), "on and on", "it ends, and repeats nothing");
    worker.drain(HANG).expect("no runner was lost");
}

pub(crate) fn a_handler_of_a_type_that_nobody_registered_is_told_of(bed: &dyn Bed) {
    let queue = bed.queue();
    let worker = Worker::builder(&queue)
        .maintenance_interval(Duration::from_millis(5))
        .handle("t", |_: &TaskContext| Ok::<_, TaskError>(()))
        .handle("misspelt", |_: &TaskContext| Ok::<_, TaskError>(()))
        .start()
        .expect("started");
    eventually("it is seen", || worker.stats().unregistered == 1);
    queue.register(TaskType::new("misspelt")).expect("registered");
    eventually("it is mended", || worker.stats().unregistered == 0);
    worker.drain(HANG).expect("idle");
}

/// The lease ends, another worker puts the task back, and the same worker takes it, all between two
/// heartbeats.
pub(crate) fn a_handler_whose_task_was_taken_anew_is_told(bed: &dyn Bed) {
    let queue = bed.queue();
    let (gate, told) = (Gate::default(), Gate::default());
    let (inside, tell) = (gate.clone(), told.clone());
    let worker = Worker::builder(&queue)
        .lease(HANG * 10)
        .max_concurrent(2)
        .handle("t", move |task: &TaskContext| {
            if task.attempt() == 1 {
                inside.pass();
                eventually("the handler is told", || task.is_lost());
                tell.open();
            }
            Ok::<_, TaskError>(())
        })
        .start()
        .expect("started");
    let handle = put(&queue, "a");
    gate.await_arrivals(1);
    assert_eq!(worker.stats().stuck, 0);
    bed.pass(HANG * 20);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    assert_eq!(handle.wait(HANG).expect("it ends"), TaskStatus::Finished);
    assert_eq!(worker.stats().stuck, 1, "the first handler has not returned");
    gate.open();
    told.pass();
    let stats = worker.drain(HANG).expect("idle");
    assert_eq!((stats.started, stats.finished, stats.stale, stats.stuck), (2, 1, 1, 0), "{stats}");
}

/// Handlers that neither return nor ask keep their threads, and other threads take their place, up
/// to a bound: other types go on. Beyond it the worker takes nothing, and goes on when a handler
/// returns.
pub(crate) fn handlers_that_hang_starve_no_other_type(bed: &dyn Bed) {
    unless_held_up(SHORT, |lease| {
        let queue = bed.queue();
        queue
            .register(TaskType::new("poison").time_limit(Duration::from_millis(1)).restart_limit(0))
            .expect("registered");
        let (gate, told) = (Gate::default(), Arc::new(Mutex::new(Vec::new())));
        let (inside, tell) = (gate.clone(), told.clone());
        let worker = Worker::builder(&queue)
            .max_concurrent(1)
            .lease(lease)
            .maintenance_interval(Duration::from_millis(10))
            .handle("t", |_: &TaskContext| Ok::<_, TaskError>(()))
            .handle("poison", move |_: &TaskContext| {
                inside.pass();
                Ok::<_, TaskError>(())
            })
            .on_event(move |event| {
                if let TaskEvent::Stuck(task) = event {
                    tell.lock().expect("nobody panics under it").push(task.identifier().to_owned());
                }
            })
            .start()
            .expect("started");
        let poison = |name: &str| queue.enqueue(NewTask::new("poison", format!("{name} {lease:?}"))).expect("accepted");
        let first = poison("first");
        gate.await_arrivals(1);
        let beside = put(&queue, &format!("beside one {lease:?}"));
        let end = beside.wait(HANG).expect("another thread runs it");
        if beside.info().expect("known").lost > 0 {
            gate.open();
            return false;
        }
        assert_eq!(end, TaskStatus::Finished);
        eventually("it is counted", || {
            let stats = worker.stats();
            (stats.running, stats.stuck, stats.replaced) == (1, 1, 1)
        });
        assert_eq!(first.wait(HANG).expect("it ends"), TaskStatus::Failed);

        poison("second");
        gate.await_arrivals(2);
        eventually("the second is stuck, too", || told.lock().expect("nobody panics under it").len() == 2);
        assert_eq!(
            *told.lock().expect("nobody panics under it"),
            ["first", "second"].map(|name| format!("{name} {lease:?}"))
        );
        let none = put(&queue, &format!("beside none {lease:?}"));
        let other = bed.open();
        eventually("it is left to other workers", || !claims(&other, &WorkerId::new(), 1).is_empty());
        assert_eq!(worker.stats().replaced, 1, "no more than run at once");
        assert!(queue.open_metrics().expect("read").contains("fulmar_stuck_total{type=\"poison\"} 2\n"));
        none.cancel().expect("known");

        let next = put(&queue, &format!("after {lease:?}"));
        gate.open();
        let end = next.wait(HANG).expect("the threads are free again");
        if next.info().expect("known").lost > 0 {
            return false;
        }
        assert_eq!(end, TaskStatus::Finished);
        eventually("no thread is replaced", || worker.stats().replaced == 0);
        let stats = worker.drain(HANG).expect("it ends");
        assert_eq!((stats.stuck, stats.stale), (0, 2), "{stats}");
        true
    });
}
