//! What an operator does: retry, cancel, delete, rearrange, pause.

use std::time::{Duration, Instant};

use fulmar::tasks::TaskStatus::{Accepted, Cancelled, Failed, Finished, Running, Scheduled};
use fulmar::tasks::{
    Claim, NewTask, RetryPolicy, TaskContext, TaskError, TaskFilter, TaskQueue, TaskType, Worker, WorkerId,
};

use crate::support::{Bed, HANG, claim, claims, eventually, history, last_message, names, put, task};

fn fail(claim: &Claim) {
    claim.start().expect("ours");
    assert_eq!(claim.fail("no luck").expect("ours"), Failed);
}

fn finish(claim: &Claim) {
    claim.start().expect("ours");
    assert_eq!(claim.finish().expect("ours"), Finished);
}

pub(crate) fn a_failed_task_is_retried_with_its_history(bed: &dyn Bed) {
    let queue = bed.queue();
    queue
        .register(TaskType::new("t").retry(RetryPolicy::times(1).first(Duration::ZERO)).restart_limit(0))
        .expect("registered");
    let handle = queue.enqueue(task("a").input(&7)).expect("accepted");
    for outcome in [Accepted, Failed] {
        let claim = claim(&queue);
        claim.start().expect("ours");
        claim.task().store_response("half", "text/plain").expect("small");
        assert_eq!(claim.fail("no luck").expect("ours"), outcome);
        assert!(claim.finish().expect_err("ended").is_stale());
    }
    let before = handle.log().expect("a log");
    handle.retry().expect("retried");
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.failures, info.lost, info.ended), (Accepted, 2, 0, 0, None));
    assert_eq!(Some(info.id), handle.id(), "without a key it keeps its number");
    assert_eq!(handle.log().expect("a log")[..before.len()], before[..], "its history stays");
    assert_eq!(last_message(&queue, "a"), "retried by hand");
    assert_eq!(handle.response().expect("known"), None, "that was of the attempt that failed");

    // It has all of its retries again, and then ends for good.
    let second = claim(&queue);
    assert_eq!((second.task().input::<u8>().expect("a number"), second.task().attempt()), (7, 3));
    second.start().expect("ours");
    assert_eq!(second.fail("again").expect("ours"), Accepted);
    finish(&claim(&queue));
    let refused = handle.retry().expect_err("it is well");
    assert!(matches!(&refused, TaskError::WrongStatus { status: Finished, .. }), "{refused}");
    assert!(matches!(queue.retry("t", "nobody"), Err(TaskError::NotFound { .. })));

    let handle = put(&queue, "b");
    handle.cancel().expect("cancelled");
    handle.retry().expect("retried");
    assert_eq!(history(&queue, "b"), [Accepted, Cancelled, Accepted]);
    finish(&claim(&queue));
}

pub(crate) fn a_cancelled_task_that_ran_is_not_cancelled_again(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let first = claim(&queue);
    first.start().expect("ours");
    assert_eq!(handle.cancel().expect("told"), Running);
    assert_eq!(first.fail("told to stop").expect("ours"), Cancelled);
    handle.retry().expect("retried");
    let second = claim(&queue);
    second.start().expect("ours");
    assert!(!handle.info().expect("known").cancel_requested);
    assert!(first.finish().expect_err("a successor has it").is_stale());
    assert_eq!(second.finish().expect("ours"), Finished);
}

pub(crate) fn a_retried_task_is_last_in_its_order(bed: &dyn Bed) {
    let queue = bed.queue();
    let keyed = |identifier: &str, is_modifier| task(identifier).ordered("k", is_modifier).input(identifier);
    let first = queue.enqueue(keyed("m1", true)).expect("accepted");
    fail(&claim(&queue));
    queue.enqueue_many([keyed("a1", false), keyed("a2", false), keyed("m2", true)]).expect("accepted");
    let accessors = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&accessors), ["a1", "a2"]);
    let log = first.log().expect("a log");
    first.retry().expect("retried");
    assert_eq!(first.log().expect("a log")[..log.len()], log[..]);
    assert!(first.info().expect("known").id > queue.info("t", "m2").expect("known").id);
    // One accessor ends: a modifier runs alone, so nobody follows yet.
    finish(&accessors[0]);
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "a modifier beside an accessor");
    finish(&accessors[1]);
    let second = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&second), ["m2"]);
    finish(&second[0]);
    let last = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&last), ["m1"]);
    assert_eq!(last[0].task().input::<String>().expect("its input"), "m1");
    finish(&last[0]);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task WHERE gate IS NOT NULL"), 0);

    // Where nobody is, it begins at once, and numbers go on.
    let third = queue.enqueue(keyed("m3", true)).expect("accepted");
    third.cancel().expect("cancelled");
    third.retry().expect("retried");
    let next = put(&queue, "next");
    assert!(next.id() > Some(third.info().expect("known").id), "no number comes twice");
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["m3", "next"]);
}

pub(crate) fn many_are_retried_cancelled_and_deleted_by_filter(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    queue.enqueue_many((0..700).map(|n| task(n.to_string()))).expect("accepted");
    queue.enqueue_many((0..3).map(|n| NewTask::new("u", n.to_string()).ordered("k", true))).expect("accepted");
    let t = TaskFilter::new().of_type("t");
    assert_eq!(queue.cancel_all(&t.clone().saying("nothing says this"), "why").expect("done"), 0);
    assert_eq!(queue.cancel_all(&t, "a\0 bad day").expect("done"), 700);
    assert_eq!(last_message(&queue, "699"), "a\u{fffd} bad day");
    assert_eq!(queue.cancel_all(&t, "again").expect("done"), 0, "they have ended");
    assert_eq!(queue.count(&TaskFilter::new().status([Cancelled])).expect("counted"), 700);
    assert_eq!(queue.retry_all(&t.clone().status([Failed])).expect("done"), 0, "none of them failed");
    assert_eq!(queue.retry_all(&t.clone().newest_first()).expect("done"), 700);
    assert_eq!(queue.retry_all(&t).expect("done"), 0);
    assert_eq!(claims(&queue, &WorkerId::new(), 1_000).len(), 700);
    assert_eq!(queue.delete_all(&t).expect("done"), 0, "a worker holds them");

    // The first is at work and is told, the others wait for it and go.
    let held = queue.dequeue(&WorkerId::new(), &["u"], 1, crate::support::LEASE).expect("claimed");
    held[0].start().expect("ours");
    let u = TaskFilter::new().of_type("u");
    assert_eq!(queue.delete_all(&u).expect("done"), 2);
    assert_eq!(queue.cancel_all(&u, "enough").expect("done"), 1);
    assert!(queue.info("u", "0").expect("known").cancel_requested);
    assert_eq!(held[0].fail("told").expect("ours"), Cancelled);
    assert_eq!(queue.delete_all(&u).expect("done"), 1);
    queue.unregister("u").expect("it is empty");
}

pub(crate) fn a_retried_lane_keeps_its_order(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..6).map(|n| task(n.to_string()).ordered("k", n % 3 == 0))).expect("accepted");
    assert_eq!(queue.cancel_all(&TaskFilter::new(), "all").expect("done"), 6);
    assert_eq!(queue.retry_all(&TaskFilter::new()).expect("done"), 6);
    for expected in [vec!["0"], vec!["1", "2"], vec!["3"], vec!["4", "5"]] {
        let run = claims(&queue, &WorkerId::new(), 9);
        assert_eq!(names(&run), expected);
        run.iter().for_each(finish);
    }
}

pub(crate) fn what_waits_is_rearranged(bed: &dyn Bed) {
    let queue = bed.queue();
    for identifier in ["a", "b", "c"] {
        put(&queue, identifier);
    }
    queue.set_priority("t", "c", 5).expect("it waits");
    queue.reschedule("t", "a", Duration::from_secs(3_600)).expect("it waits");
    assert_eq!(last_message(&queue, "c"), "its priority is 5 now");
    let taken = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&taken), ["c", "b"]);
    let refused = queue.set_priority("t", "c", 1).expect_err("held");
    assert!(matches!(refused, TaskError::WrongStatus { status: Scheduled, .. }), "{refused}");
    assert_eq!(queue.reschedule_all(&TaskFilter::new(), Duration::ZERO).expect("done"), 1);
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["a"]);
    assert!(matches!(queue.reschedule("t", "z", Duration::ZERO), Err(TaskError::NotFound { .. })));

    // An order stays an order.
    queue.enqueue_many(["m", "n"].map(|name| task(name).ordered("k", true))).expect("accepted");
    assert_eq!(queue.set_priority_all(&TaskFilter::new().key("k"), 9).expect("done"), 2);
    queue.reschedule("t", "n", Duration::ZERO).expect("it waits");
    let first = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&first), ["m"]);
    finish(&first[0]);
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["n"]);
}

pub(crate) fn a_paused_type_is_taken_by_nobody(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    put(&queue, "a");
    let held = claim(&queue);
    queue.pause_type("t").expect("known");
    finish(&held);
    let other = bed.open();
    put(&other, "b");
    other.enqueue(NewTask::new("u", "c")).expect("accepted");
    let both =
        |queue: &TaskQueue| queue.dequeue(&WorkerId::new(), &["t", "u"], 9, crate::support::LEASE).expect("claimed");
    assert_eq!(names(&both(&other)), ["c"], "the other type goes on");
    assert!(claims(&other, &WorkerId::new(), 9).is_empty());
    // Registering anew, as every start of a program does, doesn't end it; nor does a limit at once
    // get around it.
    other.register(TaskType::new("t").max_concurrent(5)).expect("registered");
    assert!(both(&other).is_empty());
    let paused = |queue: &TaskQueue| {
        let stats = queue.stats().expect("counted");
        (stats.paused, stats.types.iter().map(|of_type| of_type.paused).collect::<Vec<_>>())
    };
    assert_eq!(paused(&queue), (false, vec![true, false]));
    assert!(matches!(queue.pause_type("x"), Err(TaskError::UnknownType(_))));
    assert!(matches!(queue.resume_type("x"), Err(TaskError::UnknownType(_))));

    queue.pause().expect("paused");
    queue.register(TaskType::new("v")).expect("registered");
    queue.enqueue(NewTask::new("v", "d")).expect("accepted");
    assert!(
        queue.dequeue(&WorkerId::new(), &["v"], 9, crate::support::LEASE).expect("claimed").is_empty(),
        "a later type, too"
    );
    queue.resume_type("t").expect("known");
    assert_eq!(paused(&other), (true, vec![true, true, true]));
    assert!(both(&other).is_empty(), "the whole queue is paused still");
    queue.pause_type("v").expect("known");
    queue.resume().expect("resumed");
    assert_eq!(paused(&other), (false, vec![false, false, true]));
    assert_eq!(names(&both(&other)), ["b"]);
    assert!(
        queue.dequeue(&WorkerId::new(), &["v"], 9, crate::support::LEASE).expect("claimed").is_empty(),
        "by itself"
    );
}

pub(crate) fn workers_wait_for_a_paused_type(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.pause_type("t").expect("known");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(())).start().expect("a worker");
    let waiting = put(&queue, "a");
    let timeout = waiting.wait(Duration::from_millis(100)).expect_err("it is paused");
    assert!(matches!(timeout, TaskError::Timeout { .. }), "{timeout}");
    assert_eq!(waiting.status().expect("known"), Accepted);
    bed.open().resume_type("t").expect("known");
    assert_eq!(waiting.wait(HANG).expect("in time"), Finished);
    worker.drain(HANG).expect("drained");
}

/// Retries by filter beside workers: nothing is lost, ended twice, or left.
pub(crate) fn a_retry_of_many_goes_beside_workers(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..2_000).map(|n| task(n.to_string()))).expect("accepted");
    queue.cancel_all(&TaskFilter::new(), "later").expect("done");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(())).start().expect("a worker");
    assert_eq!(queue.retry_all(&TaskFilter::new().status([Cancelled])).expect("done"), 2_000);
    let start = Instant::now();
    eventually("all have finished", || {
        assert!(start.elapsed() < HANG);
        queue.count(&TaskFilter::new().status([Finished])).expect("counted") == 2_000
    });
    worker.drain(HANG).expect("drained");
    let of_each = "SELECT count(*) FROM fulmar_task WHERE starts <> 1";
    assert_eq!(bed.count(of_each), 0);
}
