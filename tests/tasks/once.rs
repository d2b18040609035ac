//! A task that ends in its handler's own transaction: the effects and the end are one commit.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Failed, Finished, Running, Scheduled};
use fulmar::tasks::{RetryPolicy, TaskContext, TaskError, TaskQueue, TaskType, Worker, WorkerId};

use crate::support::{Bed, HANG, LEASE, claim, claims, history, last_message, names, put, task, transaction_at};

fn effects(bed: &dyn Bed) -> i64 {
    bed.count("SELECT count(*) FROM effects")
}

fn with_effects(bed: &dyn Bed) -> TaskQueue {
    bed.sql("CREATE TABLE effects (n INTEGER)");
    bed.queue()
}

/// Writes one effect and finishes the task, in one transaction that ends as `end` says.
fn act(bed: &dyn Bed, queue: &TaskQueue, task: &TaskContext, commit: bool) -> Result<(), TaskError> {
    act_at(&bed.address(), queue, task, commit)
}

fn act_at(address: &str, queue: &TaskQueue, task: &TaskContext, commit: bool) -> Result<(), TaskError> {
    transaction_at(address, queue, &|tx, sql| {
        sql("INSERT INTO effects VALUES (1)")?;
        task.finish_in(tx)?;
        if commit { Ok(()) } else { Err(no()) }
    })
}

fn no() -> TaskError {
    TaskError::Invalid("changed its mind".into())
}

pub(crate) fn the_end_of_a_task_is_in_its_handlers_commit(bed: &dyn Bed) {
    let queue = with_effects(bed);
    let handle = put(&queue, "a");
    let claim = claim(&queue);
    claim.start().expect("ours");
    claim.task().store_response("15", "text/plain").expect("small");
    claim.task().last_message("all paid");
    transaction_at(&bed.address(), &queue, &|tx, sql| {
        sql("INSERT INTO effects VALUES (1)")?;
        claim.task().finish_in(tx)?;
        assert_eq!(bed.open().status("t", "a").expect("known"), Running, "not committed yet");
        Ok(())
    })
    .expect("committed");
    assert_eq!((handle.status().expect("known"), effects(bed)), (Finished, 1));
    assert_eq!(handle.response().expect("known").expect("stored").text().expect("text"), "15");
    assert_eq!(
        (history(&queue, "a"), last_message(&queue, "a")),
        (vec![Accepted, Scheduled, Running, Finished], "all paid".into())
    );
    // What its worker says then is known already, and changes nothing.
    assert_eq!(claim.finish().expect("it has finished"), Finished);
    assert_eq!(claim.fail("too late").expect("it has finished"), Finished);
    assert_eq!(history(&queue, "a").len(), 4);
}

pub(crate) fn a_transaction_that_is_rolled_back_finishes_nothing(bed: &dyn Bed) {
    let queue = with_effects(bed);
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1).first(Duration::ZERO))).expect("registered");
    put(&queue, "a");
    let first = claim(&queue);
    first.start().expect("ours");
    act(bed, &queue, first.task(), false).expect_err("rolled back");
    assert_eq!((queue.status("t", "a").expect("known"), effects(bed)), (Running, 0));
    // A handler that returns well all the same has lost its effects: that isn't an end.
    assert_eq!(first.finish().expect("ours"), Accepted);
    assert!(
        last_message(&queue, "a").contains("a transaction that was not committed"),
        "{}",
        last_message(&queue, "a")
    );
    let second = claim(&queue);
    second.start().expect("ours");
    act(bed, &queue, second.task(), false).expect_err("rolled back");
    act(bed, &queue, second.task(), true).expect("the second time");
    assert_eq!(second.finish().expect("it has finished"), Finished);
    assert_eq!(effects(bed), 1);
}

pub(crate) fn who_has_lost_the_task_finishes_nothing_in_a_transaction(bed: &dyn Bed) {
    let queue = with_effects(bed);
    put(&queue, "a");
    let first = claim(&queue);
    let refused = act(bed, &queue, first.task(), true).expect_err("it was not started");
    assert!(refused.is_stale(), "{refused}");
    put(&queue, "b");
    let first = claim(&queue);
    first.start().expect("ours");
    bed.pass(LEASE);
    queue.tidy().expect("tidied");
    let second = claims(&queue, &WorkerId::new(), 9).pop().expect("it is back");
    second.start().expect("ours");
    let refused = act(bed, &queue, first.task(), true).expect_err("a successor has it");
    assert!(refused.is_stale() && first.task().is_lost(), "{refused}");
    assert_eq!(effects(bed), 0, "the handler rolled back");
    act(bed, &queue, second.task(), true).expect("ours");
    assert!(first.finish().expect_err("not by this one").is_stale());
    assert_eq!((second.finish().expect("it has finished"), effects(bed)), (Finished, 1));
    // Retried since: what the worker of before says has no meaning any more.
    assert!(matches!(queue.retry("t", "b"), Err(TaskError::WrongStatus { status: Finished, .. })));
    second.task().pause(Duration::ZERO);
    let refused = act(bed, &queue, second.task(), true).expect_err("it is to pause");
    assert!(matches!(&refused, TaskError::Invalid(text) if text.contains("pause")), "{refused}");
}

pub(crate) fn an_end_in_a_transaction_opens_the_lane(bed: &dyn Bed) {
    let queue = with_effects(bed);
    queue.enqueue_many(["a", "b"].map(|name| task(name).ordered("k", true))).expect("accepted");
    let first = claim(&queue);
    first.start().expect("ours");
    act(bed, &queue, first.task(), false).expect_err("rolled back");
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "the first is at work still");
    act(bed, &queue, first.task(), true).expect("committed");
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["b"]);
}

pub(crate) fn a_worker_takes_the_handlers_commit_for_the_end(bed: &dyn Bed) {
    let queue = with_effects(bed);
    queue.register(TaskType::new("t").retry(RetryPolicy::times(3).first(Duration::ZERO))).expect("registered");
    let tasks = queue.enqueue_many(["well", "error", "panic", "again", "never"].map(task)).expect("accepted");
    let (address, own) = (bed.address(), queue.clone());
    let run = move |task: &TaskContext| -> Result<(), TaskError> {
        let commit = |end| act_at(&address, &own, task, end);
        match task.identifier() {
            "well" => commit(true),
            "error" => commit(true).and(Err(no())),
            "panic" => commit(true).map(|()| panic!("behind the commit")),
            // The first attempts come to nothing.
            "again" => commit(task.attempt() == 3),
            _ => commit(false).or(Ok(())),
        }
    };
    let worker = Worker::builder(&queue).handle("t", run).start().expect("a worker");
    for task in &tasks {
        let expected = if task.identifier() == "never" { Failed } else { Finished };
        assert_eq!(task.wait(HANG).expect("in time"), expected, "{}", task.identifier());
    }
    let stats = worker.drain(HANG).expect("drained");
    assert_eq!((stats.finished, stats.failed, stats.stale), (4, 1, 0));
    assert_eq!(effects(bed), 4, "each of those that finished has its one effect");
    assert_eq!(queue.info("t", "again").expect("known").starts, 3);
}
