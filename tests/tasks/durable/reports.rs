//! What users of other engines of durable functions have reported, as tests of this one. Each names
//! the report.

use fulmar::tasks::RetryPolicy;
use fulmar::tasks::TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
use fulmar::tasks::durable::{Durable, StepOptions, function};
use fulmar::tasks::{TaskContext, TaskError, TaskType, Worker};

use super::{Did, HOUR, last, no, ok, queue, result, run, start, worker};
use crate::support::{Bed, LEASE};

/// Azure/azure-functions-durable-extension#802: children that are purged before their parent has
/// read what they gave.
pub(crate) fn a_result_that_is_waited_for_outlives_its_retention(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("c").retention(HOUR)).expect("registered");
    let child = |cx: &Durable<'_>, hours: u32| {
        cx.sleep("rest", hours * HOUR)?;
        ok(hours)
    };
    let worker = Worker::builder(&queue).handle("c", function(child)).handle(
        "t",
        function(|cx: &Durable<'_>, ()| {
            let slept: Vec<u32> = cx.all("c", [0, 9].map(|n| cx.child("c", &n.to_string(), &n)))?;
            cx.sleep("rest", HOUR)?;
            ok(slept)
        }),
    );
    let task = start(&queue, "a");
    run(&worker);
    queue.pass_time(8 * HOUR).expect("passed");
    queue.tidy().expect("tidied");
    assert_eq!(queue.status("c", "a/0").expect("its parent waits"), Finished);
    queue.pass_time(HOUR).expect("passed");
    run(&worker);
    queue.pass_time(2 * HOUR).expect("passed");
    queue.tidy().expect("tidied");
    assert!(queue.status("c", "a/0").is_err(), "its parent has it, though it has not ended");
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<Vec<u32>>(&task), [0, 9]);
}

/// dbos-inc/dbos-transact-py#744: a result that the serializer refuses left the function pending
/// for ever.
pub(crate) fn a_result_that_can_not_be_read_back_is_a_failure_and_not_stored(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| cx.step("mean", || ok(0.0 / f64::from(u8::MIN))));
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Failed]);
    assert!(last(&task).contains("step `mean`") && last(&task).contains("can't be read back"), "{}", last(&task));
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_step"), 0);
}

/// dbos-inc/dbos-transact-py#679: a transaction that the database refused was stored as the step's
/// outcome.
pub(crate) fn a_transaction_that_failed_is_run_again(bed: &dyn Bed) {
    bed.sql("CREATE TABLE once (n INTEGER PRIMARY KEY)");
    let queue = queue(bed);
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1))).expect("registered");
    let worker = worker(&queue, |cx| cx.step_in("book", |tx| tx.execute("INSERT INTO once VALUES (1)", &[])));
    bed.sql("INSERT INTO once VALUES (1)");
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Accepted]);
    bed.sql("DELETE FROM once");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<u64>(&task), 1);
}

/// earendil-works/absurd#96: a time limit that ran out was not stored, so that a loop of them never
/// got further.
pub(crate) fn each_time_limit_of_a_loop_is_remembered(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let mut missed = 0;
        for _ in 0..3 {
            match cx.event::<()>("wake", HOUR) {
                Err(TaskError::Timeout { .. }) => missed += 1,
                other => other?,
            }
        }
        ok(missed)
    });
    let task = start(&queue, "a");
    for _ in 0..3 {
        assert_eq!(run(&worker), [Paused]);
        queue.pass_time(HOUR).expect("passed");
    }
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<i32>(&task), 3);
}

/// earendil-works/absurd#116: an event whose value is null was taken for none.
pub(crate) fn an_event_of_nothing_is_an_event(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| cx.event::<Option<i32>>("word", HOUR));
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    queue.send_event("t", "a", "word", &None::<i32>).expect("kept");
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<Option<i32>>(&task), None);
}

/// hatchet-dev/hatchet#4554: a child's failure came back as a success when the parent ran again.
pub(crate) fn a_childs_failure_is_the_same_in_every_run(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    queue.register(TaskType::new("c")).expect("registered");
    let notes = did.clone();
    let parent = move |cx: &Durable<'_>, ()| {
        let all = cx.all::<i32>("c", [cx.child("c", "x", &())]);
        if let Err(error @ TaskError::Child { .. }) = &all {
            notes.note(error.to_string());
        } else {
            all?;
        }
        cx.sleep("rest", HOUR)
    };
    let worker = Worker::builder(&queue)
        .handle("t", function(parent))
        .handle("c", |_: &TaskContext| Err::<(), _>(TaskError::Invalid("no luck".into())));
    start(&queue, "a");
    run(&worker);
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    let said = did.all();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0] == said[1] && said[0].contains("no luck"), "{said:?}");
}

/// Azure/azure-functions-durable-extension#938: a child's large result was another one's.
pub(crate) fn large_results_are_each_their_own_childs(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("c")).expect("registered");
    let size = |n: i64| 60_000 + 1_000 * n as usize;
    let child = move |task: &TaskContext| {
        let n: i64 = task.input()?;
        task.store_json(&n.to_string().repeat(size(n)))
    };
    let parent = |cx: &Durable<'_>, ()| cx.all::<String>("c", (0..9).rev().map(|n| cx.child("c", &n.to_string(), &n)));
    let worker = Worker::builder(&queue).handle("t", function(parent)).handle("c", child);
    let task = start(&queue, "a");
    run(&worker);
    let all: Vec<String> = result(&task);
    let expected: Vec<String> = (0..9).rev().map(|n: i64| n.to_string().repeat(size(n))).collect();
    assert!(all == expected, "of {} results", all.len());
}

/// Azure/azure-functions-durable-extension#1410: events that came while the function slept were
/// lost.
pub(crate) fn events_that_come_in_its_sleep_are_each_taken_once(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        let mut sum = 0;
        for _ in 0..3 {
            sum = 10 * sum + cx.event::<i32>("word", HOUR)?;
            cx.sleep("rest", HOUR)?;
        }
        ok(sum)
    });
    let task = start(&queue, "a");
    queue.send_event("t", "a", "word", &1).expect("kept");
    assert_eq!(run(&worker), [Paused]);
    queue.send_event("t", "a", "word", &2).expect("kept");
    queue.send_event("t", "a", "word", &3).expect("kept");
    assert!(run(&worker).is_empty(), "it sleeps");
    for end in [Paused, Paused, Finished] {
        queue.pass_time(HOUR).expect("passed");
        assert_eq!(run(&worker), [end]);
    }
    assert_eq!(result::<i32>(&task), 123);
}

/// restatedev/restate#3656 and #1029: a function that waited for its next attempt could not be
/// cancelled, and a timer went off after a cancel.
pub(crate) fn what_waits_for_an_attempt_or_a_time_is_cancelled_for_good(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| {
        if cx.task().identifier() == "sleeper" {
            cx.sleep("rest", HOUR)?;
        }
        let policy = StepOptions::new().retry(RetryPolicy::times(9).first(HOUR));
        cx.step_with("try", policy, || Err::<(), _>(no()))
    });
    for name in ["sleeper", "tries"] {
        let task = start(&queue, name);
        assert_eq!(run(&worker), [Paused]);
        assert_eq!(task.cancel().expect("told"), Cancelled);
        queue.pass_time(24 * HOUR).expect("passed");
        assert!(run(&worker).is_empty());
        assert_eq!(task.status().expect("there"), Cancelled);
    }
}

/// temporalio/temporal#3437: a parent took a child that an operator ran again for one that had
/// failed.
pub(crate) fn a_child_that_is_retried_is_waited_for_again(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    queue.register(TaskType::new("c")).expect("registered");
    let notes = did.clone();
    let child = function(move |cx: &Durable<'_>, hours: u32| {
        if hours == 0 {
            // The first run fails, and the one after the retry doesn't.
            notes.note("0");
            return if notes.all().len() == 1 { Err(no()) } else { Ok(0) };
        }
        cx.sleep("rest", hours * HOUR)?;
        Ok(hours)
    });
    let parent = |cx: &Durable<'_>, ()| {
        let ended = cx.all_ended::<u32>("c", [0, 1].map(|n| cx.child("c", &n.to_string(), &n)))?;
        ended.into_iter().collect::<Result<Vec<u32>, _>>()
    };
    let worker = Worker::builder(&queue).handle("t", function(parent)).handle("c", child);
    let task = start(&queue, "a");
    run(&worker);
    assert_eq!(queue.status("c", "a/0").expect("there"), Failed);
    queue.retry("c", "a/0").expect("it waits again");
    run(&worker);
    queue.pass_time(HOUR).expect("passed");
    run(&worker);
    assert_eq!(result::<Vec<u32>>(&task), [0, 1]);
}

/// Durations that no database holds as a sum: none of the reports, but the kind.
pub(crate) fn the_longest_sleep_is_a_sleep(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = worker(&queue, |cx| match cx.task().identifier() {
        "sleeps" => cx.sleep("rest", std::time::Duration::MAX),
        _ => cx.event("word", std::time::Duration::MAX),
    });
    for name in ["sleeps", "waits"] {
        start(&queue, name);
        assert_eq!(run(&worker), [Paused], "{name}");
    }
}

/// dbos-inc/dbos-transact-ts#1205: two processes recovered one function, and each took a message.
pub(crate) fn who_has_lost_the_task_takes_no_event(bed: &dyn Bed) {
    let queue = queue(bed);
    let task = start(&queue, "a");
    for word in [1, 2] {
        queue.send_event("t", "a", "word", &word).expect("kept");
    }
    let first = crate::support::claim(&queue);
    let other = queue.clone();
    let takes_two = |cx: &Durable<'_>| {
        let one: i32 = cx.event("word", None)?;
        let two: i32 = cx.event("word", None)?;
        ok(10 * one + two)
    };
    let handler = function(move |cx: &Durable<'_>, ()| {
        // Before it asks for an event, its lease ends, and another worker runs the function.
        other.pass_time(2 * LEASE).expect("passed");
        other.tidy().expect("tidied");
        assert_eq!(run(&worker(&other, takes_two)), [Finished]);
        cx.event::<i32>("word", None)
    });
    assert!(first.run(&handler).is_err_and(|error| error.is_stale()));
    assert_eq!(result::<i32>(&task), 12);
}

/// dbos-inc/dbos-transact-ts#451: a crash began the time limit of a wait anew.
pub(crate) fn a_crash_begins_no_time_limit_anew(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let waits = |cx: &Durable<'_>| cx.event::<i32>("word", HOUR);
    start(&queue, "a");
    let claim = crate::support::claim(&queue);
    let (other, notes) = (queue.clone(), did.clone());
    let dies = function(move |cx: &Durable<'_>, ()| {
        let word = waits(cx);
        notes.note(format!("{word:?}"));
        // Its worker is lost before it can pause.
        other.pass_time(2 * LEASE).expect("passed");
        other.tidy().expect("tidied");
        word
    });
    assert!(claim.run(&dies).is_err_and(|error| error.is_stale()));
    did.assert(&["Err(Paused)"]);
    let worker = worker(&queue, waits);
    assert_eq!(run(&worker), [Paused]);
    queue.pass_time(HOUR - 2 * LEASE).expect("passed");
    assert_eq!(run(&worker), [Failed], "an hour after the first wait, and not after the second");
}

/// temporalio/temporal#10639: a parent that was run again waited for ever for a child that had
/// ended while the parent was closed.
pub(crate) fn a_child_that_ends_while_its_parent_is_over_is_seen_by_its_retry(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("c")).expect("registered");
    let parent = function(|cx: &Durable<'_>, ()| cx.all::<i32>("c", [cx.child("c", "x", &())]));
    let worker = Worker::builder(&queue).handle("t", parent);
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    let child = queue.dequeue(&fulmar::tasks::WorkerId::new(), &["c"], 1, LEASE).expect("read").remove(0);
    child.start().expect("ours");
    task.cancel().expect("cancelled");
    queue.retry("t", "a").expect("it waits again");
    assert_eq!(run(&worker), [Paused], "the child is at work");
    task.cancel().expect("cancelled");
    // It was told to stop, and had done its work.
    child.task().store_json(&7).expect("ours");
    child.finish().expect("ours");
    queue.retry("t", "a").expect("it waits again");
    assert_eq!(run(&worker), [Finished]);
    assert_eq!(result::<Vec<i32>>(&task), [7]);
}

/// PrefectHQ/prefect#10620: a parent failed though its child, whose worker had crashed, was run
/// again and did well.
pub(crate) fn a_child_that_is_restarted_has_not_failed(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("c").restart_limit(1)).expect("registered");
    let parent =
        function(|cx: &Durable<'_>, ()| cx.all::<i32>("c", [cx.child("c", "x", &()), cx.child("c", "y", &())]));
    let worker = Worker::builder(&queue).handle("t", parent);
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    let lost = queue.dequeue(&fulmar::tasks::WorkerId::new(), &["c"], 1, LEASE).expect("read").remove(0);
    lost.start().expect("ours");
    queue.pass_time(2 * LEASE).expect("passed");
    queue.tidy().expect("tidied");
    assert!(run(&worker).is_empty(), "its children haven't ended");
    run(&worker.handle("c", |task: &TaskContext| task.store_json(&1)));
    assert_eq!(result::<Vec<i32>>(&task), [1, 1]);
}

/// smithersai/smithers#1408: to retry what had failed ran nothing, and gave the old failure again.
/// So it is here with a failure that is stored: a fork from that step is what runs it anew.
pub(crate) fn a_stored_failure_is_run_anew_by_a_fork(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        cx.step("one", || {
            notes.note("one");
            ok(1)
        })?;
        let once = StepOptions::new().retry(RetryPolicy::times(0));
        cx.step_with("two", once, || {
            notes.note("two");
            if notes.all().len() == 2 { Err(no()) } else { Ok(2) }
        })
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Failed]);
    queue.retry("t", "a").expect("retried");
    assert_eq!(run(&worker), [Failed]);
    assert!(last(&task).contains("step `two`"), "{}", last(&task));
    did.assert(&["one", "two"]);
    let fork = queue.fork("t", "a", "two", 1, "b").expect("forked");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["one", "two", "two"]);
    assert_eq!(result::<i32>(&fork), 2);
}
