//! The list by which a durable queue is accepted: each promise by its usual name, once, on each
//! engine.

use std::time::Duration;

use fulmar::BoxError;
use fulmar::tasks::TaskStatus::{Accepted, Failed, Finished, Running};
use fulmar::tasks::{RetryPolicy, TaskContext, TaskError, TaskType, Worker, WorkerId};

use crate::support::{Bed, HANG, LEASE, claim, claims, eventually, history, put, task, transaction_at};

pub(crate) fn enqueue_in_the_callers_transaction(bed: &dyn Bed) {
    let queue = bed.queue();
    bed.sql("CREATE TABLE orders (n INTEGER)");
    let order = |name: &str, commits: bool| {
        transaction_at(&bed.address(), &queue, &|tx, sql| {
            sql("INSERT INTO orders VALUES (1)")?;
            queue.enqueue_in(tx, [task(name)])?;
            assert!(matches!(bed.open().status("t", name), Err(TaskError::NotFound { .. })), "seen before the commit");
            if commits { Ok(()) } else { Err(TaskError::Invalid("changed its mind".into())) }
        })
    };
    order("rolled back", false).expect_err("the caller's own error");
    assert!(matches!(queue.status("t", "rolled back"), Err(TaskError::NotFound { .. })));
    assert_eq!(bed.count("SELECT count(*) FROM orders"), 0);
    order("committed", true).expect("committed");
    assert_eq!(queue.status("t", "committed").expect("known"), Accepted);
    assert_eq!(bed.count("SELECT count(*) FROM orders"), 1);
}

pub(crate) fn a_late_acknowledgement_never_overwrites_a_successor(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let late = claim(&queue);
    late.start().expect("ours");
    late.task().store_response("late", "text/plain").expect("small");
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    let successor = claim(&queue);
    for stage in ["taken", "running", "finished"] {
        match stage {
            "running" => successor.start().expect("ours"),
            "finished" => {
                successor.task().store_response("successor", "text/plain").expect("small");
                assert_eq!(successor.finish().expect("ours"), Finished);
            }
            _ => {}
        }
        let before = (handle.info().expect("known"), history(&queue, "a"));
        for refused in [late.finish().map(drop), late.fail("late").map(drop), late.lose("late").map(drop), late.start()]
        {
            assert!(refused.expect_err("stale").is_stale(), "{stage}");
        }
        assert_eq!((handle.info().expect("known"), history(&queue, "a")), before, "{stage}");
    }
    assert_eq!(handle.response().expect("known").expect("stored").text().expect("text"), "successor");
}

pub(crate) fn reused_worker_names_finish_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    // A process that died, and one that goes by its name.
    let name = WorkerId::new();
    let before = claims(&queue, &name, 1).pop().expect("ready");
    before.start().expect("ours");
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    let after = claims(&bed.open(), &name, 1).pop().expect("ready");
    after.start().expect("ours");
    assert!(after.task().fence() > before.task().fence());
    for refused in [before.finish().map(drop), before.fail("late").map(drop), before.renew(LEASE)] {
        assert!(refused.expect_err("stale").is_stale());
    }
    assert_eq!(handle.status().expect("known"), Running);
    assert_eq!(after.finish().expect("ours"), Finished);
}

pub(crate) fn a_failure_strands_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    queue
        .register(TaskType::new("t").retry(RetryPolicy::times(1).first(Duration::from_millis(1))))
        .expect("registered");
    let worker = Worker::builder(&queue)
        .max_concurrent(2)
        .batch(8)
        .start_together(4)
        .handle("t", |task: &TaskContext| -> Result<(), BoxError> {
            match task.identifier().split('-').next() {
                Some("error") => Err("on purpose".into()),
                Some("panic") => panic!("on purpose"),
                Some("fail") => {
                    task.fail("on purpose");
                    Ok(())
                }
                _ => Ok(()),
            }
        })
        .start()
        .expect("started");
    // Each failure has somebody behind it in its order, and somebody in its batch.
    let kinds = ["error", "panic", "fail", "fine"];
    let all = (0..24).map(|n| task(format!("{}-{n}", kinds[n % 4])).ordered(format!("k{}", n % 3), true));
    for handle in queue.enqueue_many(all).expect("accepted") {
        let expected = if handle.identifier().starts_with("fine") { Finished } else { Failed };
        assert_eq!(handle.wait(HANG).expect("it ends"), expected, "{}", handle.identifier());
    }
    // One of many that is refused takes the others back, and the queue goes on.
    assert!(matches!(queue.enqueue_many([task("new"), task("fine-3")]), Err(TaskError::Duplicate { .. })));
    assert!(matches!(queue.status("t", "new"), Err(TaskError::NotFound { .. })));
    assert_eq!(put(&queue, "new").wait(HANG).expect("it ends"), Finished);
    let stats = worker.drain(HANG).expect("idle");
    assert_eq!((stats.finished, stats.failed, stats.running, stats.stale), (7, 18, 0, 0), "{stats}");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task WHERE ended IS NULL OR worker IS NOT NULL"), 0);
}

/// By the database's clock, and before anything has taken the task away.
pub(crate) fn completion_or_renewal_after_expiry_is_refused(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let late = claim(&queue);
    late.start().expect("ours");
    put(&queue, "b");
    let waiting = claim(&queue);
    bed.pass(2 * LEASE);
    for stage in ["expired", "taken away"] {
        if stage == "taken away" {
            assert_eq!(queue.tidy().expect("rescued").returned, 2);
        }
        let seen = || (handle.info().expect("known"), history(&queue, "a"), history(&queue, "b"));
        let before = seen();
        for refused in [
            // First, because a claim that is known to be lost is only given up by this.
            late.fail("late").map(drop),
            late.renew(LEASE),
            late.finish().map(drop),
            late.task().progress(0.5, "late"),
            transaction_at(&bed.address(), &queue, &|tx, _| late.task().finish_in(tx)),
            waiting.renew(LEASE),
            waiting.start(),
        ] {
            assert!(refused.expect_err("stale").is_stale(), "{stage}");
        }
        assert_eq!(seen(), before, "{stage}");
    }
    assert!(late.task().is_lost());
    assert_eq!(handle.status().expect("known"), Accepted);
}

/// To give up what is lost takes nothing from any other worker, and the task need not wait for a
/// rescue.
pub(crate) fn an_expired_task_may_be_given_up_until_it_is_taken_away(bed: &dyn Bed) {
    let queue = bed.queue();
    for (name, starts) in [("started", true), ("waiting", false)] {
        for is_taken_away in [false, true] {
            let handle = put(&queue, &format!("{name}-{is_taken_away}"));
            let late = claim(&queue);
            if starts {
                late.start().expect("ours");
            }
            bed.pass(2 * LEASE);
            if is_taken_away {
                assert_eq!(queue.tidy().expect("rescued").returned, 1);
            }
            let given_up = if starts { late.lose("late").map(drop) } else { late.give_back("late") };
            assert_eq!(given_up.is_err_and(|error| error.is_stale()), is_taken_away, "{name}");
            let info = handle.info().expect("known");
            assert_eq!((info.status, info.lost), (Accepted, u32::from(starts)), "{name}: charged once");
            assert_eq!(queue.tidy().expect("nothing to do").returned, 0);
            let next = claim(&queue);
            next.start().expect("ours");
            assert_eq!(next.finish().expect("ours"), Finished);
        }
    }
}

/// Connections of their own, as processes have them, all writing at once.
pub(crate) fn no_database_is_locked(bed: &dyn Bed) {
    let queue = bed.queue();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            scope.spawn(move || {
                let (queue, worker) = (bed.open(), WorkerId::new());
                for n in 0..20 {
                    put(&queue, &format!("{writer}-{n}"));
                    // One that another thread is just taking is passed over, so that there may be
                    // none at that moment.
                    let mut taken = None;
                    eventually("a task is ready", || {
                        taken = claims(&queue, &worker, 1).pop();
                        taken.is_some()
                    });
                    let claim = taken.expect("it was awaited");
                    claim.start().expect("no lock");
                    claim.task().progress(0.5, "half").expect("no lock");
                    queue.stats().expect("no lock");
                    assert_eq!(claim.finish().expect("no lock"), Finished);
                }
            });
        }
    });
    assert_eq!(queue.stats().expect("read").count(Finished), 160);
}
