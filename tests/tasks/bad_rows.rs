//! One row that makes no sense, whatever its column and its value: it concerns its own task, and
//! all others go their way.

use std::time::Duration;

use fulmar::tasks::{
    Limits, NewTask, TaskContext, TaskError, TaskFilter, TaskQueue, TaskStatus, TaskType, Worker, WorkerId,
};

use crate::support::{Bed, HANG, LEASE, claim, claims, eventually, put, task};

/// The columns of a task's row, each with values that no version of the program writes there.
fn senseless(bed: &dyn Bed) -> Vec<(&'static str, Vec<String>)> {
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let (least, most) = (i64::MIN.to_string(), i64::MAX.to_string());
    let numbers = [&*least, "-1", &*most];
    if bed.address().starts_with("postgres://") {
        let large = [
            "run_at", "created", "ended", "starts", "failures", "lost", "entries", "token", "lease", "deadline",
            "parent",
        ];
        let small =
            [("status", "99"), ("status", "-1"), ("gate", "9"), ("rank", "-2147483648"), ("rank", "2147483647")];
        let others = [("progress", "'NaN'"), ("worker", "''"), ("trail", "'\\x00'"), ("lane", "''"), ("lease", "NULL")];
        let columns = large.map(|column| (column, texts(&numbers)));
        return columns
            .into_iter()
            .chain(small.into_iter().chain(others).map(|(column, value)| (column, texts(&[value]))))
            .collect();
    }
    // A column takes a value of any type.
    let any = texts(&["'x'", "x'ff'", "0.5", numbers[0], numbers[1], numbers[2]]);
    let columns = [
        "status",
        "gate",
        "priority",
        "run_at",
        "created",
        "ended",
        "lane",
        "is_modifier",
        "starts",
        "failures",
        "lost",
        "entries",
        "progress",
        "cancel_requested",
        "token",
        "worker",
        "lease",
        "deadline",
        "parent",
        "woken",
        "identifier",
    ];
    columns.map(|column| (column, any.clone())).into_iter().collect()
}

fn named(name: &str, has_limits: bool) -> NewTask {
    if has_limits { task(name).ordered(name, false) } else { task(name) }
}

fn told<T>(what: &str, result: Result<T, TaskError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error:?}"))
}

/// What becomes of the tasks beside a bad one, in every statement that reads or changes many.
fn others_go_their_way(queue: &TaskQueue, has_limits: bool, is_held: bool, spoil: &dyn Fn()) -> Result<(), String> {
    let named = |name: &str| named(name, has_limits);
    let take = |name: &str| {
        let claims = told("claim", queue.dequeue(&WorkerId::new(), &["t"], 99, LEASE))?;
        Ok::<_, String>(claims.into_iter().find(|claim| claim.task().identifier() == name))
    };
    let worker = WorkerId::new();
    told("enqueue", queue.enqueue_many(["a", "bad", "z"].map(named)))?;
    let mut ours = if is_held { claims(queue, &worker, 9) } else { Vec::new() };
    for claim in &ours {
        told("start", claim.start())?;
    }
    spoil();
    told("stats", queue.stats())?;
    told("depth", queue.depth())?;
    told("types", queue.task_types())?;
    told("count", queue.count(&TaskFilter::new()))?;
    let listed = told("list", queue.list(&TaskFilter::new(), 99))?.tasks;
    let is_listed = |name: &str| listed.iter().any(|info| info.identifier == name);
    if !is_listed("a") || !is_listed("z") {
        return Err("one is missing from the list".into());
    }
    if !is_held {
        ours = told("claim", queue.dequeue(&worker, &["t"], 9, LEASE))?;
        ours.retain(|claim| claim.task().identifier() != "bad");
        for claim in &ours {
            told("start", claim.start())?;
        }
    }
    ours.retain(|claim| ["a", "z"].contains(&claim.task().identifier()));
    if ours.len() != 2 {
        return Err(format!("of two, {} were claimed", ours.len()));
    }
    for claim in &ours {
        told("renew", claim.renew(LEASE))?;
    }
    for claim in &ours {
        let ended = told("finish", claim.finish())?;
        if ended != TaskStatus::Finished {
            return Err(format!("it has {ended}"));
        }
    }
    told("enqueue", queue.enqueue(named("lost")))?;
    told("claim", queue.dequeue(&WorkerId::new(), &["t"], 99, Duration::from_millis(1)))?;
    let mut failure = None;
    eventually("what was lost comes back", || {
        let taken = told("tidy", queue.tidy()).and_then(|_| take("lost"));
        let is_over = !matches!(taken, Ok(None));
        failure = taken.err();
        is_over
    });
    failure.map_or(Ok(()), Err)?;
    told("enqueue", queue.enqueue(named("later").run_after(Duration::from_millis(1))))?;
    let mut failure = None;
    eventually("what was to run later is taken", || {
        let taken = take("later");
        let is_over = !matches!(taken, Ok(None));
        failure = taken.err();
        is_over
    });
    failure.map_or(Ok(()), Err)?;
    let kept = told("enqueue", queue.enqueue(named("kept")))?;
    told("set the priority of all", queue.set_priority_all(&TaskFilter::new(), 3))?;
    told("reschedule all", queue.reschedule_all(&TaskFilter::new(), Duration::ZERO))?;
    told("cancel all", queue.cancel_all(&TaskFilter::new(), "x"))?;
    told("retry all", queue.retry_all(&TaskFilter::new()))?;
    let info = told("look", kept.info())?;
    if (info.status, info.priority) != (TaskStatus::Accepted, 3) {
        return Err(format!("it was steered to {info:?}"));
    }
    told("delete all", queue.delete_all(&TaskFilter::new()))?;
    if kept.info().is_ok() {
        return Err("it was not deleted".into());
    }
    Ok(())
}

fn no_value_keeps_others(bed: &dyn Bed, has_limits: bool, is_held: bool) {
    let queue = bed.queue();
    let mut failures = Vec::new();
    for (column, values) in senseless(bed) {
        for value in values {
            queue.force_unregister("t").expect("registered");
            queue.register(TaskType::new("t")).expect("registered");
            if has_limits {
                let limits = Limits::new().max_concurrent_by_key(9).turns(true).ageing(LEASE);
                queue.set_limits("t", limits).expect("set");
            }
            let spoil = || {
                bed.sql(&format!("UPDATE fulmar_task SET {column} = {value} WHERE identifier = 'bad'"));
            };
            if let Err(failure) = others_go_their_way(&queue, has_limits, is_held, &spoil) {
                failures.push(format!("{column} = {value}: {failure}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of them: {failures:#?}", failures.len());
}

pub(crate) fn no_value_in_a_row_that_waits_keeps_other_tasks_from_their_way(bed: &dyn Bed) {
    no_value_keeps_others(bed, false, false);
}

pub(crate) fn no_value_in_a_row_that_waits_below_limits_keeps_other_tasks_from_their_way(bed: &dyn Bed) {
    no_value_keeps_others(bed, true, false);
}

pub(crate) fn no_value_in_a_row_that_a_worker_holds_keeps_other_tasks_from_their_way(bed: &dyn Bed) {
    no_value_keeps_others(bed, false, true);
}

/// The next time of all is no whole number, so that a look at it failed, and no worker woke for the
/// times behind it.
pub(crate) fn a_time_that_makes_no_sense_keeps_no_worker_from_waking(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue(task("bad").run_after(LEASE)).expect("accepted");
    let worker =
        Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(())).start().expect("started");
    assert_eq!(put(&queue, "first").wait(HANG).expect("it ends"), TaskStatus::Finished);
    assert_eq!(bed.sql("UPDATE fulmar_task SET run_at = 0.5 WHERE identifier = 'bad'"), 1);
    let later = queue.enqueue(task("later").run_after(Duration::from_millis(20))).expect("accepted");
    assert_eq!(later.wait(HANG).expect("it ends"), TaskStatus::Finished);
    worker.drain(HANG).expect("idle");
}

/// The end of a good task was taken for that of a bad one, because the next of its order could not
/// be read.
pub(crate) fn a_bad_row_behind_it_in_its_order_spoils_no_end(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many(["first", "bad"].map(|name| task(name).ordered("k", true))).expect("accepted");
    let first = claim(&queue);
    first.start().expect("ours");
    let value = if bed.address().starts_with("postgres://") { "9" } else { "'x'" };
    assert_eq!(bed.sql(&format!("UPDATE fulmar_task SET gate = {value} WHERE identifier = 'bad'")), 1);
    assert_eq!(first.finish().expect("ours"), TaskStatus::Finished);
}

/// A capacity that can't be read is no reason to take more than it may have said, nor to hide the
/// counts.
pub(crate) fn a_capacity_that_makes_no_sense_is_called_that(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_capacity(5).expect("set");
    for value in ["'many'", "'-1'", "''"] {
        assert_eq!(bed.sql(&format!("UPDATE fulmar_setting SET value = {value} WHERE name = 'capacity'")), 1);
        let error = queue.enqueue(task("a")).expect_err("how many may wait isn't known");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(source.contains("the queue's capacity makes no sense") && source.contains("set_capacity"), "{error:?}");
        let stats = queue.stats().expect("counted");
        assert_eq!(stats.capacity, None);
        assert!(stats.warnings.contains(&source), "{:?}", stats.warnings);
        #[cfg(feature = "postgres")]
        if bed.address().starts_with("postgres://") {
            let by_function = queue.postgres_transaction(|tx| tx.query("SELECT fulmar_enqueue('t', 'b', 'null')", &[]));
            let error = by_function.expect_err("by the function, too");
            assert!(format!("{error:?}").contains(&source), "{error:?}");
        }
    }
    queue.set_capacity(u64::MAX).expect("set");
    put(&queue, "a");
    #[cfg(feature = "postgres")]
    if bed.address().starts_with("postgres://") {
        let by_function = queue.postgres_transaction(|tx| tx.query("SELECT fulmar_enqueue('t', 'b', 'null')", &[]));
        by_function.expect("there is room");
    }
    queue.set_capacity(None).expect("set");
    put(&queue, "c");
}
