//! Steps, sleeps and the pauses that they end a run with.

use std::time::{Duration, Instant};

use fulmar::tasks::TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
use fulmar::tasks::durable::{Durable, StepOptions, function};
use fulmar::tasks::{LARGEST_PAYLOAD, RetryPolicy, TaskError, TaskQueue, TaskType};

use super::{Did, HOUR, last, no, ok, queue, result, run, start, worker};
use crate::support::{Bed, Gate, HANG, LEASE, claim, transaction_at};

pub(crate) fn a_step_runs_once_and_a_sleep_holds_nothing(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        let mut sum = 0;
        for n in 0..3 {
            sum += cx.step("add", || {
                notes.note(format!("add {n}"));
                ok(n + 1)
            })?;
        }
        cx.sleep("settle", HOUR)?;
        cx.sleep("settle", HOUR)?;
        cx.step("end", || {
            notes.note("end");
            ok(sum * 10)
        })
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    assert_eq!(last(&task), "sleeps: `settle`");
    assert!(run(&worker).is_empty(), "it sleeps");
    queue.pass_time(HOUR / 2).expect("passed");
    assert!(run(&worker).is_empty(), "it sleeps on");
    queue.pass_time(HOUR / 2).expect("passed");
    assert_eq!(run(&worker), [Paused], "the second sleep begins after the first");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["add 0", "add 1", "add 2", "end"]);
    assert_eq!(result::<i64>(&task), 60);
    task.delete().expect("deleted");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 0, "its steps went with it");
}

pub(crate) fn a_sleep_is_stored_with_its_pause_or_not_at_all(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let (inside, notes) = (queue.clone(), did.clone());
    let worker = worker(&queue, move |cx| {
        if cx.task().attempt() == 1 {
            // Its lease ends, and the task goes back while its function is at work.
            inside.pass_time(HOUR).expect("passed");
            inside.tidy().expect("tidied");
        }
        let rest = cx.sleep("rest", HOUR);
        notes.note(format!("{} stored", inside.tree("t", "a", 0).expect("there").steps.len()));
        rest
    });
    start(&queue, "a");
    assert!(matches!(worker.run_due(), Err(TaskError::Stale { .. })));
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 0, "of a worker that lost its task");
    assert_eq!(run(&worker), [Paused]);
    let ends_with_it =
        "SELECT count(*) FROM fulmar_task_step s JOIN fulmar_task t ON t.id = s.task_id WHERE s.until = t.run_at";
    assert_eq!(bed.count(ends_with_it), 1);
    did.assert(&["0 stored", "0 stored"]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
}

pub(crate) fn a_function_that_was_cancelled_at_work_stores_no_sleep(bed: &dyn Bed) {
    let queue = queue(bed);
    let inside = queue.clone();
    let worker = worker(&queue, move |cx| {
        if cx.task().attempt() == 1 {
            inside.cancel("t", "a").expect("told");
        }
        cx.sleep("rest", HOUR)
    });
    start(&queue, "a");
    assert_eq!(run(&worker), [Cancelled]);
    // So a retry sleeps for the whole time.
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 0);
    queue.retry("t", "a").expect("it waits again");
    assert_eq!(run(&worker), [Paused]);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 1);
}

/// An operator ends the pause, and not the sleep.
pub(crate) fn a_function_that_wakes_too_soon_sleeps_on_until_its_time(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| cx.sleep("rest", HOUR));
    start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    bed.sql("UPDATE fulmar_task SET run_at = run_at - 1000000000");
    assert_eq!(run(&worker), [Paused]);
    let ends_with_it =
        "SELECT count(*) FROM fulmar_task_step s JOIN fulmar_task t ON t.id = s.task_id WHERE s.until = t.run_at";
    assert_eq!(bed.count(ends_with_it), 1);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
}

pub(crate) fn a_swallowed_pause_is_still_a_pause(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        let _ = cx.sleep("settle", HOUR);
        let after: Result<i32, _> = cx.step("after", || {
            notes.note("after");
            ok(1)
        });
        match after {
            Ok(_) => ok(true),
            Err(error) => {
                assert!(matches!(error, TaskError::Paused), "{error:?}");
                ok(false)
            }
        }
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    did.assert(&[]);
    assert!(last(&task).contains("swallowed"), "{}", last(&task));
    assert!(task.response().expect("read").is_none(), "what it returned comes to nothing");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["after"]);
}

pub(crate) fn a_panic_after_a_pause_is_still_a_pause(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        cx.sleep("settle", HOUR).expect("it is over");
        ok(())
    });
    start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
}

pub(crate) fn a_step_has_its_own_policy(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        let policy = StepOptions::new().retry(RetryPolicy::times(2).first(HOUR).factor(1.0).jitter(0.0));
        let failed = cx.step_with("try", policy, || {
            notes.note("try");
            Err::<(), _>(no())
        });
        let error = match failed {
            Err(error @ TaskError::Step { .. }) => error.to_string(),
            other => return other.map(|()| String::new()),
        };
        cx.step("undo", || {
            notes.note("undo");
            ok(())
        })?;
        cx.sleep("rest", HOUR)?;
        ok(error)
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    assert!(
        last(&task).contains("attempt 1 of the step `try` failed") && last(&task).ends_with("no"),
        "{}",
        last(&task)
    );
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Paused], "its last failure is an outcome, and it sleeps");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["try", "try", "try", "undo"]);
    assert_eq!(result::<String>(&task), "the step `try` failed");
    assert_eq!(task.info().expect("there").failures, 0, "no attempt of the task has failed");
}

pub(crate) fn without_a_policy_a_failure_is_the_tasks(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1))).expect("registered");
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        cx.step("one", || {
            notes.note("one");
            ok(())
        })?;
        cx.step("two", || {
            notes.note("two");
            if notes.all().len() < 3 { Err(no()) } else { Ok(()) }
        })
    });
    start(&queue, "a");
    assert_eq!(run(&worker), [Accepted]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["one", "two", "two"]);
}

pub(crate) fn a_step_that_takes_too_long_has_failed(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let options = StepOptions::new().time_limit(Duration::ZERO);
        cx.step_with("slow", options, || {
            let start = std::time::Instant::now();
            while start.elapsed().is_zero() {
                std::hint::spin_loop();
            }
            ok(1)
        })
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Failed]);
    assert!(last(&task).contains("took longer than its limit"), "{}", last(&task));
}

pub(crate) fn a_panic_of_a_step_names_it(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| cx.step("boom", || -> Result<(), TaskError> { panic!("ouch") }));
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Failed]);
    assert_eq!(last(&task), "the step `boom` failed: panicked: ouch");
}

pub(crate) fn who_has_lost_the_task_stores_no_step(bed: &dyn Bed) {
    let queue = queue(bed);
    start(&queue, "a");
    let first = claim(&queue);
    let (other, seen) = (queue.clone(), Did::default());
    let notes = seen.clone();
    let handler = function(move |cx: &Durable<'_>, ()| {
        let stored = cx.step("one", || {
            other.pass_time(2 * LEASE).expect("passed");
            other.tidy().expect("tidied");
            ok(1)
        });
        notes.note(format!("{:?}", stored.as_ref().err().is_some_and(TaskError::is_stale)));
        let next: Result<i32, _> = cx.step("two", || {
            notes.note("two");
            ok(2)
        });
        notes.note(format!("{:?}", next.as_ref().err().is_some_and(TaskError::is_stale)));
        next
    });
    assert!(first.run(&handler).is_err_and(|error| error.is_stale()));
    seen.assert(&["true", "true"]);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 0);
}

pub(crate) fn a_cancelled_function_gets_no_further(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let (other, notes) = (queue.clone(), did.clone());
    start(&queue, "a");
    let claim = claim(&queue);
    claim.start().expect("ours");
    other.cancel("t", "a").expect("told");
    claim.renew(LEASE).expect("ours");
    let handler = function(move |cx: &Durable<'_>, ()| {
        cx.step("one", || {
            notes.note("one");
            ok(1)
        })
    });
    let error = fulmar::tasks::Handler::run(&handler, claim.task()).expect_err("cancelled");
    assert!(matches!(error.downcast_ref::<TaskError>(), Some(TaskError::Cancelled)), "{error:?}");
    assert_eq!(claim.fail("cancelled").expect("ours"), Cancelled);
    did.assert(&[]);
}

pub(crate) fn results_are_bytes_or_json_and_not_endless(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let bytes = cx.step_bytes("bytes", StepOptions::new(), || ok(vec![0, 255, 10]))?;
        assert_eq!(bytes, [0, 255, 10]);
        cx.sleep("settle", HOUR)?;
        let nested: Result<i32, _> = cx.step("outer", || cx.step("inner", || ok(1)));
        assert!(nested.is_err(), "a step has no steps");
        let huge = cx.step_bytes("huge", StepOptions::new(), || ok(vec![0; LARGEST_PAYLOAD + 1]));
        assert!(matches!(huge, Err(TaskError::TooLarge { .. })), "{:?}", huge.map(drop));
        let unnamed: Result<i32, _> = cx.step("", || ok(1));
        assert!(matches!(unnamed, Err(TaskError::Invalid(_))));
        ok(())
    });
    start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
}

pub(crate) fn a_step_in_a_transaction_happens_exactly_once(bed: &dyn Bed) {
    bed.sql("CREATE TABLE effects (n INTEGER)");
    let (queue, did) = (queue(bed), Did::default());
    queue.register(TaskType::new("t").retry(RetryPolicy::times(3))).expect("registered");
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        let count: i64 = cx.step_in("book", |tx| {
            notes.note("book");
            tx.execute("INSERT INTO effects VALUES (7)", &[])?;
            if notes.all().len() == 1 {
                return Err(no());
            }
            let rows = tx.query("SELECT count(*) FROM effects", &[])?;
            ok(rows[0][0].as_deref().and_then(|count| count.parse().ok()).unwrap_or(-1))
        })?;
        cx.sleep("settle", HOUR)?;
        ok(count)
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Accepted], "what it wrote was rolled back with its error");
    assert_eq!(bed.count("SELECT count(*) FROM effects"), 0);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Paused]);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["book", "book"]);
    assert_eq!((bed.count("SELECT count(*) FROM effects"), result::<i64>(&task)), (1, 1));
}

pub(crate) fn who_has_lost_the_task_writes_nothing_in_a_transaction(bed: &dyn Bed) {
    bed.sql("CREATE TABLE effects (n INTEGER)");
    let queue = queue(bed);
    start(&queue, "a");
    let claim = claim(&queue);
    let other = queue.clone();
    let handler = function(move |cx: &Durable<'_>, ()| {
        cx.step("one", || ok(()))?;
        other.pass_time(2 * LEASE).expect("passed");
        let lost = cx.step_in("book", |tx| tx.execute("INSERT INTO effects VALUES (7)", &[]));
        assert!(lost.as_ref().err().is_some_and(TaskError::is_stale), "{lost:?}");
        lost.map(drop)
    });
    assert_eq!(claim.run(&handler).expect("it may give it up"), Accepted);
    assert_eq!(bed.count("SELECT count(*) FROM effects"), 0);
}

pub(crate) fn an_older_database_gets_its_steps(bed: &dyn Bed) {
    let queue = queue(bed);
    start(&queue, "a");
    drop(queue);
    let is_postgres = bed.address().starts_with("postgres");
    let triggers: &[&str] = if is_postgres { &["ended", "deleted"] } else { &["ended", "back", "deleted"] };
    let on = if is_postgres { " ON fulmar_task" } else { "" };
    for name in triggers {
        bed.sql(&format!("DROP TRIGGER fulmar_child_{name}{on}"));
    }
    if is_postgres {
        bed.sql("DROP FUNCTION fulmar_child()");
    }
    for sql in [
        "DROP INDEX fulmar_task_children",
        "ALTER TABLE fulmar_task DROP COLUMN parent",
        "ALTER TABLE fulmar_task DROP COLUMN woken",
        "DROP TABLE fulmar_task_step",
        "DROP TABLE fulmar_task_event",
        "DROP TABLE fulmar_task_family",
    ] {
        bed.sql(sql);
    }
    let before = if is_postgres { "'10'" } else { "7" };
    bed.sql(&format!("UPDATE fulmar_setting SET value = {before} WHERE name = 'schema'"));
    let queue = bed.open();
    let worker = worker(&queue, |cx| cx.step("one", || ok(1)));
    assert_eq!(run(&worker), [Finished]);
}

pub(crate) fn a_step_in_a_transaction_has_its_own_policy_and_time_limit(bed: &dyn Bed) {
    bed.sql("CREATE TABLE tries (n INTEGER)");
    let (queue, did) = (queue(bed), Did::default());
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        let policy = StepOptions::new().retry(RetryPolicy::times(2).first(HOUR).factor(1.0).jitter(0.0));
        let booked: u64 = cx.step_in_with("book", policy, |tx| {
            notes.note("book");
            let rows = tx.execute("INSERT INTO tries VALUES (1)", &[])?;
            if notes.all().len() < 3 { Err(no()) } else { Ok(rows) }
        })?;
        let options = StepOptions::new().time_limit(Duration::ZERO).retry(RetryPolicy::never());
        let slow: Result<u64, _> =
            cx.step_in_with("slow", options, |tx| tx.execute("INSERT INTO tries VALUES (2)", &[]));
        let error = slow.expect_err("it takes some time");
        ok((booked, error.to_string()))
    });
    let task = start(&queue, "a");
    for end in [Paused, Paused, Finished] {
        assert_eq!(run(&worker), [end]);
        queue.pass_time(HOUR).expect("passed");
    }
    did.assert(&["book", "book", "book"]);
    assert_eq!(result::<(u64, String)>(&task), (1, "the step `slow` failed".to_owned()));
    assert_eq!(bed.count("SELECT count(*) FROM tries"), 1, "what failed was rolled back");
    assert_eq!(task.info().expect("there").failures, 0);
}

/// A queue on the bed that gives up soon where the database is held.
fn impatient(bed: &dyn Bed) -> TaskQueue {
    let builder = TaskQueue::builder().poll_interval(Duration::from_millis(5));
    bed.open_with(builder.busy_timeout(Duration::from_millis(10)))
}

/// Does something while no other connection can store a step.
fn cut_off(bed: &dyn Bed, during: &dyn Fn()) {
    let around = bed.open();
    let work = transaction_at(&bed.address(), &around, &|_, sql| {
        if bed.address().starts_with("postgres") {
            sql("LOCK TABLE fulmar_task_step IN EXCLUSIVE MODE")?;
        }
        during();
        Ok(())
    });
    work.expect("committed");
}

pub(crate) fn an_outage_between_two_steps_is_waited_out(bed: &dyn Bed) {
    let (queue, did, gate) = (queue(bed), Did::default(), Gate::default());
    let (notes, inside) = (did.clone(), gate.clone());
    let worker = worker(&impatient(bed), move |cx| {
        let mut sum = cx.step("one", || {
            notes.note("one");
            inside.pass();
            ok(1)
        })?;
        sum += cx.step_in("two", |_| {
            notes.note("two");
            ok(2)
        })?;
        ok(sum)
    });
    let worker = worker.lease(HOUR).max_concurrent(1).start().expect("started");
    let task = start(&queue, "a");
    gate.await_arrivals(1);
    cut_off(bed, &|| {
        gate.open();
        // Many times as long as a call is patient.
        let over = Instant::now() + Duration::from_millis(200);
        while Instant::now() < over {
            std::thread::yield_now();
        }
    });
    assert_eq!(task.wait(HANG).expect("it ends"), Finished, "{}", last(&task));
    did.assert(&["one", "two"]);
    let info = task.info().expect("there");
    assert_eq!((result::<i64>(&task), info.starts, info.failures, info.lost), (3, 1, 0, 0));
    worker.drain(HANG).expect("idle");
}

pub(crate) fn an_outage_of_a_claim_without_a_worker_is_no_failure(bed: &dyn Bed) {
    let queue = queue(bed);
    let task = start(&queue, "a");
    let claim = claim(&impatient(bed));
    let (begun, found) = (Gate::default(), Gate::default());
    let (at_work, at_end) = (begun.clone(), found.clone());
    let handler = function(move |cx: &Durable<'_>, ()| {
        at_work.pass();
        let stored = cx.step("one", || ok(1));
        // The outage ends here, so that the attempt's end can be written.
        at_end.pass();
        stored
    });
    let status = std::thread::scope(|scope| {
        let run = scope.spawn(|| claim.run(&handler));
        begun.await_arrivals(1);
        cut_off(bed, &|| {
            begun.open();
            found.await_arrivals(1);
        });
        found.open();
        run.join().expect("no panic")
    });
    assert_eq!(status.expect("written"), Accepted, "{}", last(&task));
    let info = task.info().expect("there");
    assert_eq!((info.failures, info.lost), (0, 1), "{}", last(&task));
    assert!(last(&task).starts_with("the database was out of reach: "), "{}", last(&task));
}
