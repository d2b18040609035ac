//! What a queue promises, without workers: tasks are taken by hand, so that every step is the
//! test's.

use std::time::{Duration, Instant, SystemTime};

use fulmar::tasks::TaskStatus::{self, Accepted, Cancelled, Failed, Finished, Paused, Running, Scheduled};
use fulmar::tasks::{
    LARGEST_PAYLOAD, NewTask, QueueDepth, RetryPolicy, TaskContext, TaskError, TaskHandle, TaskType, WorkerId,
};
use serde_json::json;

use crate::support::{Bed, HANG, LEASE, claim, claims, history, last_message, names, put, task};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn accepted_tasks_are_told_of(bed: &dyn Bed) {
    let queue = bed.queue();
    let before = SystemTime::now() - Duration::from_secs(5);
    let handle = queue.enqueue(task("a").input(&json!({"x": [1, 2]})).message("hello").priority(-3)).expect("accepted");
    let info = handle.info().expect("known");
    assert_eq!((info.task_type.as_str(), info.identifier.as_str(), info.status), ("t", "a", Accepted));
    assert_eq!((info.priority, info.starts, info.failures, info.lost, info.progress), (-3, 0, 0, 0, 0.0));
    assert_eq!((info.key.as_deref(), info.is_modifier, info.cancel_requested, info.ended), (None, false, false, None));
    assert_eq!(Some(info.id), handle.id());
    assert!(info.created > before && info.run_at == info.created, "{info:?}");
    let log = handle.log().expect("a log");
    assert_eq!(log.len(), 1);
    assert_eq!((log[0].status, log[0].message.as_str(), log[0].time), (Accepted, "hello", info.created));
    assert_eq!(handle.response().expect("known"), None);
    assert_eq!(claim(&queue).task().input::<serde_json::Value>().expect("read"), json!({"x": [1, 2]}));
}

pub(crate) fn identifiers_are_unique_within_their_type(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    put(&queue, "a");
    queue.enqueue(NewTask::new("u", "a")).expect("another type");
    let again = queue.enqueue(task("a")).expect_err("a duplicate");
    assert!(
        matches!(&again, TaskError::Duplicate { task_type, identifier } if task_type == "t" && identifier == "a"),
        "{again}"
    );
    claim(&queue).run(&|_: &TaskContext| Ok::<_, TaskError>(())).expect("ours");
    assert!(matches!(queue.enqueue(task("a")), Err(TaskError::Duplicate { .. })), "it has ended, but is there");
    queue.delete("t", "a").expect("deleted");
    put(&queue, "a");
}

pub(crate) fn unknown_types_are_refused(bed: &dyn Bed) {
    let queue = bed.queue();
    let refused = queue.enqueue(NewTask::new("nobody's", "a")).expect_err("unknown");
    assert!(matches!(&refused, TaskError::UnknownType(name) if name == "nobody's"), "{refused}");
    assert!(matches!(queue.status("nobody's", "a"), Err(TaskError::NotFound { .. })));
    assert!(matches!(queue.status("t", "nothing"), Err(TaskError::NotFound { .. })));
    assert!(matches!(queue.unregister("nobody's"), Err(TaskError::UnknownType(_))));
    assert!(queue.dequeue(&WorkerId::new(), &["nobody's"], 1, LEASE).expect("no error").is_empty());
    assert!(matches!(queue.register(TaskType::new("")), Err(TaskError::Invalid(_))));
    assert!(matches!(queue.register(TaskType::new("x").max_concurrent(0)), Err(TaskError::Invalid(_))));
}

pub(crate) fn registering_again_updates(bed: &dyn Bed) {
    let queue = bed.queue();
    let settings = TaskType::new("t")
        .time_limit(MINUTE)
        .retention(Duration::from_millis(1_500))
        .restart_limit(7)
        .retry(RetryPolicy::times(2).first(MINUTE).factor(3.0).cap(10 * MINUTE).jitter(0.5))
        .max_concurrent(9);
    put(&queue, "a");
    queue.register(settings.clone()).expect("updated");
    assert_eq!(queue.task_types().expect("read"), [settings]);
    assert_eq!(queue.status("t", "a").expect("kept"), Accepted);
    queue.register(TaskType::new("t")).expect("updated");
    assert_eq!(bed.open().task_types().expect("read"), [TaskType::new("t")]);
}

pub(crate) fn types_with_tasks_stay_unless_forced(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    put(&queue, "b");
    let refused = queue.unregister("t").expect_err("in use");
    assert!(matches!(&refused, TaskError::InUse { task_type, tasks: 2 } if task_type == "t"), "{refused}");
    let claim = claim(&queue);
    claim.start().expect("ours");
    queue.force_unregister("t").expect("forced");
    assert!(claim.finish().expect_err("gone").is_stale());
    assert!(claim.task().is_lost());
    assert!(queue.task_types().expect("read").is_empty());
    queue.register(TaskType::new("t")).expect("registered");
    assert!(matches!(queue.status("t", "a"), Err(TaskError::NotFound { .. })));
    queue.unregister("t").expect("it has no tasks");
}

pub(crate) fn a_task_goes_its_way_with_its_log(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = queue.enqueue(task("a").input(&(1..=5).collect::<Vec<u8>>())).expect("accepted");
    let claim = claim(&queue);
    assert_eq!(handle.status().expect("known"), Scheduled);
    claim.start().expect("ours");
    assert_eq!(handle.status().expect("known"), Running);
    assert!(claim.start().expect_err("once").is_stale());
    let sum: u64 = claim.task().input::<Vec<u64>>().expect("numbers").iter().sum();
    claim.task().store_response(sum.to_string(), "text/plain").expect("small");
    assert_eq!(handle.response().expect("known"), None, "it comes with the end");
    assert_eq!(claim.finish().expect("ours"), Finished);
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.progress), (Finished, 1, 1.0));
    assert!(info.ended.is_some_and(|ended| ended >= info.created));
    assert_eq!(handle.response().expect("known").expect("stored").text().expect("text"), "15");
    assert_eq!(history(&queue, "a"), [Accepted, Scheduled, Running, Finished]);
    assert!(handle.log().expect("a log").is_sorted_by_key(|entry| entry.time));
    assert!(claim.finish().expect_err("once").is_stale());
    assert!(claim.fail("late").expect_err("once").is_stale());
}

pub(crate) fn nobody_gets_what_another_has(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..40).map(|n| task(n.to_string()))).expect("accepted");
    let taken: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = bed.open();
                scope.spawn(move || {
                    let (worker, mut taken) = (WorkerId::new(), Vec::new());
                    loop {
                        let claims = claims(&queue, &worker, 3);
                        assert!(claims.len() <= 3, "more than asked for");
                        if claims.is_empty() {
                            return taken;
                        }
                        taken.extend(claims.iter().map(|claim| claim.task().identifier().to_owned()));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    let distinct: std::collections::BTreeSet<&String> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (40, 40));
}

pub(crate) fn higher_priorities_go_first_then_older_ones(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5), ("f", i16::MAX), ("g", i16::MIN)] {
        queue.enqueue(task(name).priority(priority)).expect("accepted");
    }
    queue.enqueue(NewTask::new("u", "h").priority(5)).expect("accepted");
    let worker = WorkerId::new();
    let first = queue.dequeue(&worker, &["t", "u"], 4, LEASE).expect("claimed");
    assert_eq!(names(&first), ["f", "b", "e", "h"], "of both types");
    assert_eq!(names(&claims(&queue, &worker, 9)), ["a", "c", "d", "g"]);
}

pub(crate) fn tasks_wait_for_their_time(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue(task("late").run_after(2 * MINUTE).priority(9)).expect("accepted");
    queue.enqueue(task("at").run_at(SystemTime::now() + MINUTE)).expect("accepted");
    queue.enqueue(task("past").run_at(SystemTime::UNIX_EPOCH)).expect("accepted");
    queue.enqueue(task("never").run_after(Duration::MAX)).expect("accepted");
    let worker = WorkerId::new();
    assert_eq!(names(&claims(&queue, &worker, 9)), ["past"]);
    bed.pass(MINUTE + Duration::from_secs(10));
    assert_eq!(names(&claims(&queue, &worker, 9)), ["at"]);
    bed.pass(MINUTE);
    assert_eq!(names(&claims(&queue, &worker, 9)), ["late"]);
    assert_eq!(queue.status("t", "never").expect("kept"), Accepted);
}

pub(crate) fn a_full_queue_says_so(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_capacity(3).expect("set");
    put(&queue, "a");
    queue.enqueue(task("b").run_after(MINUTE)).expect("one that waits for its time counts");
    queue.enqueue(task("c").ordered("k", true)).expect("room");
    let full = queue.enqueue(task("d")).expect_err("full");
    assert!(matches!(full, TaskError::QueueFull { capacity: 3 }) && full.is_retryable(), "{full}");
    let claim = claim(&queue);
    assert!(matches!(bed.open().enqueue(task("d")), Err(TaskError::QueueFull { .. })), "taken is not started");
    claim.start().expect("ours");
    let two = queue.enqueue_many([task("d"), task("e")]).expect_err("one too many");
    assert!(matches!(two, TaskError::QueueFull { .. }), "{two}");
    put(&queue, "d");
    assert_eq!(queue.stats().expect("read").capacity, Some(3));
    queue.set_capacity(None).expect("set");
    put(&queue, "e");
}

pub(crate) fn many_are_accepted_or_none(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "b");
    let refused = queue.enqueue_many([task("a"), task("b"), task("c")]).expect_err("one exists");
    assert!(matches!(&refused, TaskError::Duplicate { identifier, .. } if identifier == "b"), "{refused}");
    assert!(matches!(queue.enqueue_many([task("a"), task("a")]), Err(TaskError::Duplicate { .. })), "twice the same");
    assert!(matches!(queue.enqueue_many([task("a"), NewTask::new("u", "a")]), Err(TaskError::UnknownType(_))));
    assert!(matches!(queue.status("t", "a"), Err(TaskError::NotFound { .. })), "none of them");
    assert!(queue.enqueue_many([]).expect("nothing to do").is_empty());
    let handles = queue.enqueue_many((0..500).map(|n| task(format!("n{n}")))).expect("accepted");
    assert!(handles.iter().map(|handle| handle.id()).is_sorted(), "in their order");
    assert_eq!(queue.stats().expect("read").count(Accepted), 501);
}

pub(crate) fn cancel_takes_out_what_has_not_started(bed: &dyn Bed) {
    let queue = bed.queue();
    let handles = ["waits", "scheduled", "paused"].map(|name| put(&queue, name));
    let worker = WorkerId::new();
    let [_, scheduled, paused] = <[_; 3]>::try_from(claims(&queue, &worker, 3)).expect("three");
    // The first goes back, so that one is in each state.
    bed.pass(2 * LEASE);
    queue.tidy().expect("rescued");
    let ours = claims(&queue, &worker, 3);
    ours[0].give_back("not now").expect("ours");
    ours[2].run(&|task: &TaskContext| -> Result<(), TaskError> { task.pause_with(MINUTE, "state") }).expect("ours");
    assert_eq!(handles.each_ref().map(|handle| handle.status().expect("known")), [Accepted, Scheduled, Paused]);
    for handle in &handles {
        assert_eq!(handle.cancel_because("not wanted").expect("known"), Cancelled);
        assert_eq!(handle.cancel().expect("known"), Cancelled, "it stays");
        assert_eq!(last_message(&queue, handle.identifier()), "not wanted");
    }
    assert!(ours[1].start().expect_err("cancelled").is_stale());
    assert!(scheduled.start().is_err() && paused.start().is_err());
    bed.pass(2 * MINUTE);
    assert!(claims(&queue, &worker, 9).is_empty());
    assert!(matches!(queue.cancel("t", "nothing"), Err(TaskError::NotFound { .. })));
}

pub(crate) fn cancel_tells_what_runs(bed: &dyn Bed) {
    let queue = bed.queue();
    let retry = RetryPolicy::times(9);
    queue.register(TaskType::new("t").retry(retry)).expect("registered");
    for (name, end, expected) in [
        ("finishes", (|task: &TaskContext| task.message("done")) as fn(&TaskContext) -> _, Finished),
        ("fails", |_| Err(TaskError::Cancelled), Cancelled),
        ("pauses", |task| task.pause_with(MINUTE, &1), Cancelled),
    ] {
        let handle = put(&queue, name);
        let claim = claim(&queue);
        claim.start().expect("ours");
        assert_eq!(handle.cancel().expect("known"), Running, "it is told");
        assert!(handle.info().expect("known").cancel_requested);
        assert!(!claim.task().is_cancelled(), "not yet");
        claim.renew(LEASE).expect("ours");
        assert!(claim.task().is_cancelled() && !claim.task().is_lost());
        let ended = match end(claim.task()) {
            Ok(()) => claim.finish(),
            Err(error) => claim.fail(&error.to_string()),
        };
        assert_eq!(ended.expect("ours"), expected, "{name}");
        assert_eq!(handle.cancel().expect("known"), expected, "it stays");
    }
    // One whose worker is lost is not restarted.
    let handle = put(&queue, "lost");
    claim(&queue).start().expect("ours");
    handle.cancel().expect("known");
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").cancelled, 1);
    assert_eq!(handle.status().expect("known"), Cancelled);
}

pub(crate) fn deletion_leaves_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let claim = claim(&queue);
    assert!(matches!(handle.delete(), Err(TaskError::Held { .. })), "scheduled");
    claim.start().expect("ours");
    assert!(matches!(handle.delete(), Err(TaskError::Held { .. })), "running");
    claim.task().store_json(&1).expect("small");
    claim.task().pause_with(Duration::ZERO, &2).expect("small");
    assert_eq!(claim.finish().expect("ours"), Paused);
    handle.delete().expect("paused");
    assert!(matches!(handle.delete(), Err(TaskError::NotFound { .. })));
    assert!(matches!(handle.log(), Err(TaskError::NotFound { .. })));
    assert!(matches!(handle.response(), Err(TaskError::NotFound { .. })));
    for table in
        ["fulmar_task", "fulmar_task_input", "fulmar_task_checkpoint", "fulmar_task_response", "fulmar_task_log"]
    {
        assert_eq!(bed.sql(&format!("DELETE FROM {table}")), 0, "{table}");
    }
    let fresh = put(&queue, "a");
    assert!(fresh.id() > handle.id(), "numbers are not used again");
}

pub(crate) fn a_lost_lease_is_lost_for_everything(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    let late = claim(&queue);
    late.start().expect("ours");
    for _ in 0..3 {
        bed.pass(LEASE / 2);
        late.renew(LEASE).expect("in time");
    }
    assert_eq!(queue.tidy().expect("nothing to do").returned, 0);
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    assert!(last_message(&queue, "a").contains("worker was lost"));
    let entries = history(&queue, "a").len();
    let everything_is_stale = || {
        late.task().store_response("late", "text/plain").expect("kept for the end");
        assert!(late.finish().expect_err("stale").is_stale());
        assert!(late.fail("late").expect_err("stale").is_stale());
        assert!(late.task().message("late").expect_err("stale").is_stale());
        assert!(late.task().progress(0.5, "late").expect_err("stale").is_stale());
        assert!(late.give_back("late").expect_err("stale").is_stale());
        assert!(late.renew(LEASE).expect_err("stale").is_stale());
        assert!(late.task().is_lost() && late.task().is_cancelled());
    };
    everything_is_stale();
    // The same worker may have it again, and still the old claim is worth nothing.
    let second = claim(&queue);
    assert!(second.task().fence() > late.task().fence());
    everything_is_stale();
    second.start().expect("ours");
    everything_is_stale();
    assert_eq!(history(&queue, "a").len(), entries + 2, "no entry of a stale worker");
    second.task().store_response("second", "text/plain").expect("small");
    assert_eq!(second.finish().expect("ours"), Finished);
    everything_is_stale();
    assert_eq!(queue.response("t", "a").expect("known").expect("stored").text().expect("text"), "second");
    assert_eq!(history(&queue, "a").iter().filter(|&&status| status == Finished).count(), 1);
}

pub(crate) fn only_starts_are_charged(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    let handle = put(&queue, "a");
    for _ in 0..3 {
        let claim = claim(&queue);
        bed.pass(2 * LEASE);
        assert_eq!(queue.tidy().expect("rescued").returned, 1, "restart limit or not: it never started");
        assert!(claim.start().expect_err("stale").is_stale());
    }
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.lost), (Accepted, 0, 0));
}

pub(crate) fn the_restart_limit_ends_a_poison_task(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(2)).expect("registered");
    let handle = put(&queue, "a");
    for restart in 1..=3 {
        claim(&queue).start().expect("ours");
        bed.pass(2 * LEASE);
        let tidied = queue.tidy().expect("rescued");
        assert_eq!((tidied.returned, tidied.failed), if restart < 3 { (1, 0) } else { (0, 1) });
    }
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.lost), (Failed, 3, 3));
    assert!(info.ended.is_some());
    assert!(last_message(&queue, "a").contains("restart limit of 2"), "{}", last_message(&queue, "a"));
    assert!(claims(&queue, &WorkerId::new(), 1).is_empty());
}

pub(crate) fn an_attempt_given_up_is_charged_as_lost(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(1).retry(RetryPolicy::never())).expect("registered");
    let handle = put(&queue, "a");
    let first = claim(&queue);
    assert!(first.lose("too early").expect_err("it has not started").is_stale());
    let first = {
        drop(first);
        bed.pass(2 * LEASE);
        queue.tidy().expect("rescued");
        claim(&queue)
    };
    first.start().expect("ours");
    assert_eq!(first.lose("its disk broke").expect("ours"), Accepted, "though failures are never retried");
    assert_eq!(last_message(&queue, "a"), "its disk broke; restart 1 of 1");
    let everything_is_stale = |claim: &fulmar::tasks::Claim| {
        assert!(claim.lose("late").expect_err("stale").is_stale());
        assert!(claim.finish().expect_err("stale").is_stale());
    };
    everything_is_stale(&first);
    let second = claim(&queue);
    second.start().expect("ready at once");
    assert_eq!(second.lose("its disk broke").expect("ours"), Failed);
    everything_is_stale(&second);
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.lost, info.failures), (Failed, 2, 2, 0));
    assert!(info.ended.is_some());
    let reason = "its disk broke, and its restart limit of 1 is reached";
    assert_eq!(last_message(&queue, "a"), reason);

    // One whose cancellation was asked for is not restarted, and each opens the way for who waits
    // behind it.
    queue.enqueue(task("b").ordered("k", true)).expect("accepted");
    queue.enqueue(task("c").ordered("k", true)).expect("accepted");
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    let first = claim(&queue);
    first.start().expect("ours");
    queue.cancel("t", "b").expect("known");
    assert_eq!(first.lose("its disk broke").expect("ours"), Cancelled);
    assert_eq!(last_message(&queue, "b"), "its disk broke");
    let second = claim(&queue);
    second.start().expect("ours");
    queue.enqueue(task("d").ordered("k", true)).expect("accepted");
    assert_eq!(second.lose("").expect("ours"), Failed);
    assert!(last_message(&queue, "c").contains("restart limit of 0"), "{}", last_message(&queue, "c"));
    assert_eq!(claim(&queue).task().identifier(), "d");
    assert_eq!(queue.info("t", "c").expect("known").lost, 1);
}

pub(crate) fn the_time_limit_holds_though_the_lease_is_kept(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").time_limit(MINUTE).restart_limit(0)).expect("registered");
    put(&queue, "a");
    let slow = claim(&queue);
    bed.pass(2 * MINUTE);
    slow.renew(LEASE).expect("it has not started");
    slow.start().expect("ours");
    bed.pass(MINUTE / 2);
    slow.renew(LEASE).expect("in time");
    bed.pass(MINUTE);
    assert!(slow.renew(LEASE).expect_err("too late").is_stale());
    assert_eq!(queue.tidy().expect("rescued").failed, 1);
    assert!(last_message(&queue, "a").contains("time limit"), "{}", last_message(&queue, "a"));
    assert!(slow.finish().expect_err("too late").is_stale());
}

pub(crate) fn failures_are_retried_with_their_cause_in_the_log(bed: &dyn Bed) {
    let queue = bed.queue();
    let retry = RetryPolicy::times(2).first(MINUTE).factor(10.0).cap(HANG * 100).jitter(0.0);
    queue.register(TaskType::new("t").retry(retry).restart_limit(0)).expect("registered");
    let handle = put(&queue, "a");
    let fails = |_: &TaskContext| "x".parse::<u8>().map(drop);
    let worker = WorkerId::new();
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Accepted);
    assert!(last_message(&queue, "a").contains("invalid digit"), "{}", last_message(&queue, "a"));
    assert!(claims(&queue, &worker, 1).is_empty(), "not yet");
    bed.pass(MINUTE);
    let second = claim(&queue);
    assert_eq!((second.task().attempt(), second.task().failures()), (2, 1));
    assert_eq!(
        second.run(&|_: &TaskContext| -> Result<(), TaskError> { panic!("on purpose") }).expect("ours"),
        Accepted
    );
    assert!(last_message(&queue, "a").contains("on purpose"));
    bed.pass(9 * MINUTE);
    assert!(claims(&queue, &worker, 1).is_empty(), "the second pause is ten times as long");
    bed.pass(MINUTE);
    let last = claim(&queue);
    last.start().expect("ours");
    last.task().store_response("as far as I came", "text/plain").expect("small");
    assert_eq!(last.fail("no more").expect("ours"), Failed);
    let info = handle.info().expect("known");
    assert_eq!((info.status, info.starts, info.failures, info.lost), (Failed, 3, 3, 0));
    assert_eq!(last_message(&queue, "a"), "no more");
    assert!(handle.response().expect("known").is_some());
    let expected = [Accepted, Scheduled, Running, Accepted, Scheduled, Running, Accepted, Scheduled, Running, Failed];
    assert_eq!(history(&queue, "a"), expected);
}

pub(crate) fn a_failure_for_good_is_not_retried(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(9))).expect("registered");
    put(&queue, "a");
    let fails = |task: &TaskContext| {
        task.fail("input must be a sequence of numbers");
        task.pause(MINUTE); // Too late: the first counts.
        task.store_response("so far", "text/plain")
    };
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Failed);
    assert_eq!(last_message(&queue, "a"), "input must be a sequence of numbers");
}

pub(crate) fn workers_have_their_say_in_the_log(bed: &dyn Bed) {
    let queue = bed.queue();
    let (a, b) = (put(&queue, "a"), put(&queue, "b"));
    let worker = WorkerId::new();
    let said = |handle: &TaskHandle| handle.log().expect("a log").pop().map(|entry| (entry.status, entry.message));
    let taken = format!("taken by worker {}", &worker.to_string()[..8]);
    let claims = queue.dequeue_with_message(&worker, &["t"], 2, LEASE, "by hand").expect("claimed");
    for handle in [&a, &b] {
        assert_eq!(said(handle), Some((Scheduled, format!("{taken}: by hand"))));
    }
    for claim in &claims {
        claim.start().expect("ours");
        claim.task().last_message("this will do");
        claim.task().last_message("waits for a job");
    }
    claims[0].task().pause(Duration::ZERO);
    claims[0].finish().expect("ours");
    assert_eq!(said(&a), Some((Paused, "waits for a job".into())));
    claims[1].fail("for a reason").expect("ours");
    assert_eq!(said(&b), Some((Failed, "for a reason".into())));
    let claim = claim(&queue);
    claim.start().expect("ours");
    claim.task().last_message("all is there");
    claim.finish().expect("ours");
    assert_eq!(said(&a), Some((Finished, "all is there".into())));
    assert_eq!(history(&queue, "a"), [Accepted, Scheduled, Running, Paused, Scheduled, Running, Finished]);
}

pub(crate) fn a_pause_begins_the_counts_anew(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(1).retry(RetryPolicy::times(1).first(MINUTE))).expect("registered");
    let handle = put(&queue, "a");
    let counts = || handle.info().map(|info| (info.status, info.failures, info.lost)).expect("known");
    let attempt = || {
        queue.pass_time(MINUTE).expect("it passes");
        let claim = claim(&queue);
        claim.start().expect("ours");
        claim
    };
    // However often it has got on, each stretch of its way has its own restart and its own retry.
    for _ in 0..3 {
        assert_eq!(attempt().lose("gone").expect("ours"), Accepted);
        assert_eq!(attempt().fail("no").expect("ours"), Accepted);
        assert_eq!(counts(), (Accepted, 1, 1));
        let last = attempt();
        last.task().pause(MINUTE);
        assert_eq!(last.finish().expect("ours"), Paused);
        assert_eq!(counts(), (Paused, 0, 0));
    }
    assert_eq!(attempt().lose("gone").expect("ours"), Accepted);
    assert_eq!(attempt().lose("gone").expect("ours"), Failed);
    assert_eq!(counts(), (Failed, 0, 2));
}

pub(crate) fn a_long_log_keeps_its_order(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = queue.enqueue(task("a").message("begun")).expect("accepted");
    let mut expected = vec![(Accepted, "begun".to_owned())];
    for round in 0..100 {
        let worker = WorkerId::new();
        let claim = claims(&queue, &worker, 1).pop().expect("ready");
        claim.start().expect("ours");
        expected.push((Scheduled, format!("taken by worker {}", &worker.to_string()[..8])));
        expected.push((Running, format!("attempt {}", round + 1)));
        if round % 7 == 0 {
            claim.task().message(&format!("round {round}")).expect("ours");
            expected.push((Running, format!("round {round}")));
        }
        claim.task().pause(Duration::ZERO);
        assert_eq!(claim.finish().expect("ours"), Paused);
        expected.push((Paused, String::new()));
    }
    let log = handle.log().expect("a log");
    let said: Vec<_> = log.iter().map(|entry| (entry.status, entry.message.clone())).collect();
    assert_eq!(said, expected);
    assert!(log.is_sorted_by_key(|entry| entry.time));
    queue.delete("t", "a").expect("nobody holds it");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_log"), 0);
}

pub(crate) fn a_pause_keeps_its_state(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let step = |task: &TaskContext| -> Result<(), TaskError> {
        let state: Option<Vec<u32>> = task.checkpoint()?;
        let mut state = state.unwrap_or_default();
        assert_eq!(task.attempt() as usize, state.len() + 1);
        state.push(task.attempt());
        if state.len() < 3 { task.pause_with(MINUTE, &state) } else { task.store_json(&state) }
    };
    let worker = WorkerId::new();
    for _ in 0..2 {
        assert_eq!(claim(&queue).run(&step).expect("ours"), Paused);
        assert!(claims(&queue, &worker, 1).is_empty(), "not yet");
        bed.pass(MINUTE);
    }
    // One that is lost with its worker, or given back, goes on from the same state.
    claim(&queue).start().expect("ours");
    bed.pass(2 * LEASE);
    queue.tidy().expect("rescued");
    let info = handle.info().expect("known");
    assert_eq!((info.starts, info.lost, info.failures), (3, 1, 0));
    let keeps = |task: &TaskContext| {
        assert_eq!(task.checkpoint::<Vec<u32>>()?, Some(vec![1, 2]));
        task.pause(Duration::ZERO); // Without a new state the old one stays.
        Ok::<_, TaskError>(())
    };
    assert_eq!(claim(&queue).run(&keeps).expect("ours"), Paused);
    let last = claim(&queue);
    assert_eq!(last.task().checkpoint::<Vec<u32>>().expect("read"), Some(vec![1, 2]));
    assert_eq!(last.task().attempt(), 5);
}

pub(crate) fn types_have_their_limit_at_once(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").max_concurrent(2)).expect("registered");
    queue.register(TaskType::new("u")).expect("registered");
    queue.enqueue_many((0..5).map(|n| task(n.to_string()))).expect("accepted");
    queue.enqueue_many((5..8).map(|n| NewTask::new("u", n.to_string()))).expect("accepted");
    let worker = WorkerId::new();
    let both = |queue: &fulmar::tasks::TaskQueue| queue.dequeue(&worker, &["t", "u"], 9, LEASE).expect("claimed");
    let first = both(&queue);
    assert_eq!(names(&first), ["0", "1", "5", "6", "7"], "the other type has no limit");
    assert!(both(&bed.open()).is_empty(), "on all machines together");
    first[0].start().expect("ours");
    assert!(both(&queue).is_empty(), "running counts, too");
    first[0].finish().expect("ours");
    assert_eq!(names(&both(&queue)), ["2"]);
    bed.pass(2 * LEASE);
    queue.tidy().expect("rescued");
    assert_eq!(names(&claims(&queue, &worker, 9)), ["1", "2"], "what was lost makes room, and is the oldest");
}

pub(crate) fn payloads_may_have_64_mib(bed: &dyn Bed) {
    let queue = bed.queue();
    let large = vec![b'x'; LARGEST_PAYLOAD];
    let mut too_large = large.clone();
    too_large.push(b'x');
    let refused = queue.enqueue(task("a").input_bytes(too_large.clone())).expect_err("too large");
    assert!(matches!(refused, TaskError::TooLarge { what: "input", .. }), "{refused}");
    queue.enqueue(task("a").input_bytes(large.clone())).expect("accepted");
    let claim = claim(&queue);
    claim.start().expect("ours");
    assert!(claim.task().input_bytes().expect("read") == large);
    assert!(matches!(claim.task().store_response(too_large, "x/y"), Err(TaskError::TooLarge { .. })));
    claim.task().store_response(large.clone(), "application/octet-stream").expect("as large as may be");
    claim.finish().expect("ours");
    assert!(queue.response("t", "a").expect("known").expect("stored").body == large);
}

pub(crate) fn names_are_text_of_any_kind(bed: &dyn Bed) {
    let queue = bed.queue();
    for name in ["'; DROP TABLE fulmar_task; --", "ü😀", "%_\\", "a b", "\"", "A", "a", "null"] {
        queue.register(TaskType::new(name)).expect("registered");
        let handle = queue.enqueue(NewTask::new(name, name).message("a\0b").ordered(name, true)).expect("accepted");
        assert_eq!(handle.info().expect("known").key.as_deref(), Some(name));
        assert_eq!(handle.log().expect("a log")[0].message, "a\u{fffd}b");
        let claims = queue.dequeue(&WorkerId::new(), &[name], 9, LEASE).expect("claimed");
        assert_eq!(names(&claims), [name]);
    }
}

pub(crate) fn retired_tasks_are_deleted(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retention(10 * MINUTE)).expect("registered");
    queue.register(TaskType::new("kept")).expect("registered");
    queue.enqueue_many((0..250).map(|n| task(n.to_string()))).expect("accepted");
    queue.enqueue(NewTask::new("kept", "a")).expect("accepted");
    for n in 0..250 {
        queue.cancel("t", &n.to_string()).expect("known");
    }
    queue.cancel("kept", "a").expect("known");
    put(&queue, "waits");
    bed.pass(9 * MINUTE);
    assert_eq!(queue.tidy().expect("tidied").deleted, 0);
    bed.pass(2 * MINUTE);
    assert_eq!(queue.tidy().expect("tidied").deleted, 250, "more than one batch");
    let stats = queue.stats().expect("read");
    assert_eq!((stats.total(), stats.count(Accepted), stats.count(Cancelled)), (2, 1, 1));
    let left = "DELETE FROM fulmar_task_log WHERE task_id NOT IN (SELECT id FROM fulmar_task)";
    assert_eq!(bed.sql(left), 0, "what was deleted has no log any more");
}

/// A type's row as another program may have left it: what it says of its own tasks must neither
/// delete them at once, nor keep those of other types.
pub(crate) fn a_retention_that_makes_no_sense_deletes_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    for name in ["t", "u"] {
        queue.register(TaskType::new(name).retention(Duration::ZERO)).expect("registered");
    }
    for senseless in ["-1", "-9223372036854775808"] {
        bed.sql(&format!("UPDATE fulmar_task_type SET retention = {senseless} WHERE name = 't'"));
        for name in ["t", "u"] {
            queue.enqueue(NewTask::new(name, senseless)).expect("accepted").cancel().expect("it waits");
        }
        assert_eq!(queue.tidy().expect("tidied").deleted, 1, "{senseless}");
        assert_eq!(queue.status("t", senseless).expect("kept"), Cancelled);
    }
    queue.register(TaskType::new("t").retention(Duration::ZERO)).expect("registered anew");
    assert_eq!(queue.tidy().expect("tidied").deleted, 2);
}

/// A lease that ends while a great many are deleted.
pub(crate) fn what_has_retired_keeps_no_lost_task_from_rescue(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u").retention(Duration::ZERO)).expect("registered");
    put(&queue, "held");
    claim(&queue).start().expect("ours");
    let retired = (0..250).map(|n| NewTask::new("u", n.to_string()));
    for task in queue.enqueue_many(retired).expect("accepted") {
        task.cancel().expect("it waits");
    }
    let lose = "UPDATE fulmar_task SET lease = 1 WHERE identifier = 'held'";
    if bed.address().starts_with("postgres://") {
        bed.sql(&format!(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {lose}; RETURN NULL; END $$"
        ));
        bed.sql("CREATE TRIGGER lose AFTER DELETE ON fulmar_task FOR EACH STATEMENT EXECUTE FUNCTION lose()");
    } else {
        bed.sql(&format!("CREATE TRIGGER lose AFTER DELETE ON fulmar_task BEGIN {lose}; END"));
    }
    let tidied = queue.tidy().expect("tidied");
    assert_eq!((tidied.deleted, tidied.returned), (250, 1), "in one go");
}

/// Nothing of a deleted task stays, and its room is used again.
pub(crate) fn with_retention_the_disk_does_not_fill(bed: &dyn Bed) {
    const TASKS: usize = 50;
    let queue = bed.queue();
    queue.register(TaskType::new("t").retention(MINUTE)).expect("registered");
    let handler = |task: &TaskContext| -> Result<(), TaskError> {
        task.store_response(vec![b'x'; 2_000], "x/y")?;
        match task.attempt() {
            1 => task.pause_with(Duration::ZERO, &vec![7; 500]),
            _ => task.message("a word of it"),
        }
    };
    let (mut sizes, start) = (Vec::new(), Instant::now());
    // Until five rounds in a row found room enough in what those before them had left. A server
    // cleans up when it gets to it, and while another test holds a snapshot it can't.
    while sizes.len() < 6 || sizes[sizes.len() - 5..].iter().max() > sizes[..sizes.len() - 5].iter().max() {
        let round = sizes.len();
        assert!(start.elapsed() < HANG, "it grows and grows: {sizes:?}");
        let new = |n| task(format!("{round}-{n}")).input_bytes(vec![b'x'; 2_000]).message("in words");
        queue.enqueue_many((0..TASKS).map(new)).expect("accepted");
        for expected in [Paused, Finished] {
            for claim in claims(&queue, &WorkerId::new(), TASKS) {
                assert_eq!(claim.run(&handler).expect("ours"), expected);
            }
        }
        bed.pass(2 * MINUTE);
        assert_eq!(queue.tidy().expect("tidied").deleted, TASKS as u64);
        for table in ["task", "task_input", "task_checkpoint", "task_response", "task_log"] {
            assert_eq!(bed.count(&format!("SELECT count(*) FROM fulmar_{table}")), 0, "fulmar_{table}");
        }
        sizes.push(bed.size());
    }
    println!("sizes: {sizes:?}");
}

pub(crate) fn counters_add_up(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("idle")).expect("registered");
    queue.enqueue_many((0..10).map(|n| task(n.to_string()))).expect("accepted");
    queue.enqueue(task("late").run_after(HANG)).expect("accepted");
    bed.pass(Duration::from_secs(30));
    let worker = WorkerId::new();
    let claims = claims(&queue, &worker, 6);
    let ok = |_: &TaskContext| Ok::<_, TaskError>(());
    let fail = |task: &TaskContext| {
        task.fail("on purpose");
        Ok::<_, TaskError>(())
    };
    let pause = |task: &TaskContext| {
        task.pause(HANG);
        Ok::<_, TaskError>(())
    };
    claims[0].run(&ok).expect("ours");
    claims[1].run(&ok).expect("ours");
    claims[2].run(&fail).expect("ours");
    claims[3].run(&pause).expect("ours");
    claims[4].start().expect("ours");
    queue.cancel("t", "9").expect("known");
    let stats = queue.stats().expect("read");
    let counts = [Accepted, Scheduled, Running, Paused, Finished, Failed, Cancelled].map(|status| stats.count(status));
    assert_eq!(counts, [4, 1, 1, 1, 2, 1, 1]);
    assert_eq!((stats.total(), stats.depth()), (11, 7));
    assert_eq!(stats.types.iter().map(|of_type| of_type.name.as_str()).collect::<Vec<_>>(), ["idle", "t"]);
    assert_eq!((stats.types[0].oldest_ready, stats.types[0].ended_last_minute), (None, 0));
    assert_eq!(stats.types[1].ended_last_minute, 4);
    let oldest = stats.oldest_ready().expect("some are ready");
    assert!((30..60).contains(&oldest.as_secs()), "{oldest:?}");
    assert!(stats.warnings.is_empty(), "{:?}", stats.warnings);
}

pub(crate) fn the_depth_says_what_waits_and_runs(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("idle")).expect("registered");
    let oldest = put(&queue, "cancelled before anything else");
    bed.pass(Duration::from_secs(30));
    let ordered = |identifier: &str| task(identifier).ordered("k", true);
    queue.enqueue_many((0..4).map(|n| task(n.to_string()))).expect("accepted");
    queue.enqueue_many([ordered("first"), ordered("second"), ordered("third")]).expect("accepted");
    queue.enqueue(task("late").run_after(HANG)).expect("accepted");
    oldest.cancel().expect("known");
    let depth_of = |depth: &QueueDepth| {
        let of = depth.types.iter().find(|of_type| of_type.name == "t").expect("registered").clone();
        [of.ready, of.delayed, of.blocked, of.claimed, of.running]
    };
    let depth = queue.depth().expect("counted");
    assert_eq!(depth_of(&depth), [5, 1, 2, 0, 0]);
    assert!(depth.oldest_ready().expect("some are ready") < Duration::from_secs(30), "one that was cancelled counts");

    bed.pass(Duration::from_secs(30));
    let claims = claims(&queue, &WorkerId::new(), 3);
    assert_eq!(claims[0].run(&|_: &TaskContext| Ok::<_, TaskError>(())).expect("ours"), Finished);
    claims[1].start().expect("ours");
    let depth = queue.depth().expect("counted");
    assert_eq!(depth_of(&depth), [2, 1, 2, 1, 1]);
    assert_eq!((depth.waiting(), depth.held()), (5, 2));
    let age = depth.oldest_ready().expect("some are ready");
    assert!((30..60).contains(&age.as_secs()), "{age:?}");
    let names: Vec<_> = depth.types.iter().map(|of_type| (of_type.name.as_str(), of_type.paused)).collect();
    assert_eq!(names, [("idle", false), ("t", false)]);
    assert_eq!((depth.types[0].waiting(), depth.types[0].oldest_ready), (0, None));

    // What is due counts as ready, whether a claim has come by since or not.
    bed.pass(HANG);
    queue.pause_type("t").expect("known");
    let depth = queue.depth().expect("counted");
    assert_eq!(depth_of(&depth), [3, 0, 2, 1, 1]);
    assert!(depth.types[1].paused);
}

pub(crate) fn progress_and_messages_are_seen_at_once(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let claim = claim(&queue);
    assert!(claim.task().message("too early").expect_err("not started").is_stale());
    claim.start().expect("ours");
    claim.task().progress(0.25, "a quarter").expect("ours");
    claim.task().message("still there").expect("ours");
    assert_eq!(handle.info().expect("known").progress, 0.25);
    claim.task().progress(f32::NAN, "odd").expect("ours");
    claim.task().progress(7.0, "all").expect("ours");
    assert_eq!(handle.info().expect("known").progress, 1.0);
    let log = handle.log().expect("a log");
    let messages: Vec<&str> = log[3..].iter().map(|entry| entry.message.as_str()).collect();
    assert_eq!(messages, ["a quarter", "still there", "odd", "all"]);
    assert!(log[3..].iter().all(|entry| entry.status == Running));
}

pub(crate) fn what_is_given_back_is_as_before(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    put(&queue, "b");
    let run_at = queue.info("t", "a").expect("known").run_at;
    let first = claim(&queue);
    first.give_back("not now").expect("ours");
    assert_eq!(queue.info("t", "a").expect("known").run_at, run_at);
    assert!(first.start().expect_err("given back").is_stale());
    let info = queue.info("t", "a").expect("known");
    assert_eq!((info.status, info.starts, info.lost, info.failures), (Accepted, 0, 0, 0));
    assert_eq!(last_message(&queue, "a"), "not now");
    let again = claim(&queue);
    assert_eq!(again.task().identifier(), "a", "it is the oldest still");
    again.start().expect("ours");
    assert!(again.give_back("too late").expect_err("started").is_stale());
}

pub(crate) fn a_response_keeps_its_media_type(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    let claim = claim(&queue);
    claim.start().expect("ours");
    assert!(matches!(claim.task().store_response("x", ""), Err(TaskError::Invalid(_))));
    claim.task().store_response("first", "text/plain").expect("small");
    claim.task().store_response([0xff, 0, 1], "image/x; q=1").expect("small");
    claim.task().pause(Duration::ZERO);
    claim.finish().expect("ours");
    let response = queue.response("t", "a").expect("known").expect("stored with the pause");
    assert_eq!((response.media_type.as_str(), response.body.as_slice()), ("image/x; q=1", &[0xff, 0, 1][..]));
    assert!(response.text().is_err() && response.json::<u8>().is_err());
    let second = crate::support::claim(&queue);
    second.run(&|task: &TaskContext| task.store_json(&json!({"a": 1}))).expect("ours");
    let response = queue.response("t", "a").expect("known").expect("stored");
    assert_eq!((response.media_type.as_str(), response.text().expect("text")), ("application/json", "{\"a\":1}"));
}

pub(crate) fn waits_end_in_time_and_see_other_handles(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = put(&queue, "a");
    let timeout = handle.wait(Duration::ZERO).expect_err("it has not started");
    assert!(matches!(timeout, TaskError::Timeout { left: 1, .. }) && timeout.is_retryable(), "{timeout}");
    assert!(matches!(handle.wait(Duration::from_millis(20)), Err(TaskError::Timeout { .. })));
    let other = bed.open();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| handle.wait(HANG));
        claim(&other).run(&|_: &TaskContext| Ok::<_, TaskError>(())).expect("ours");
        let status: TaskStatus = waiter.join().expect("no panic").expect("it ended");
        assert_eq!(status, Finished);
    });
    assert_eq!(handle.wait(Duration::ZERO).expect("ended"), Finished);
    assert!(matches!(queue.wait("t", "nothing", None), Err(TaskError::NotFound { .. })));
}

pub(crate) fn one_bad_row_keeps_no_other_from_being_claimed(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..5).map(|n| task(n.to_string()))).expect("accepted");
    assert_eq!(bed.sql("UPDATE fulmar_task SET starts = -7 WHERE identifier = '2'"), 1);
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["0", "1", "3", "4"]);
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty());
}

pub(crate) fn one_bad_row_keeps_no_other_from_rescue(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..5).map(|n| task(n.to_string()))).expect("accepted");
    let worker = WorkerId::new();
    claims(&queue, &worker, 5).iter().for_each(|claim| claim.start().expect("ours"));
    // A status that no version knows.
    assert_eq!(bed.sql("UPDATE fulmar_task SET status = 99 WHERE identifier = '2'"), 1);
    bed.pass(2 * LEASE);
    let tidied = queue.tidy().expect("rescued");
    assert_eq!((tidied.returned, tidied.bad), (4, 1));
    assert_eq!(names(&claims(&queue, &worker, 9)), ["0", "1", "3", "4"]);
    assert_eq!(queue.status("t", "2").expect("readable again"), Failed);
    assert_eq!(queue.tidy().expect("once").bad, 0);
}

pub(crate) fn a_type_named_twice_has_its_tasks_once(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").max_concurrent(2)).expect("registered");
    queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    let claims = queue.dequeue(&WorkerId::new(), &["t", "t"], 9, LEASE).expect("claimed");
    assert_eq!(names(&claims), ["0", "1"]);
    claims.iter().for_each(|claim| claim.start().expect("each of them is good"));
}

pub(crate) fn the_longest_durations_are_never(bed: &dyn Bed) {
    let never = Duration::MAX;
    let queue = bed.queue();
    let retry = RetryPolicy::times(9).first(never).cap(never).factor(f64::INFINITY);
    queue.register(TaskType::new("t").time_limit(never).retention(never).retry(retry)).expect("registered");
    for name in ["finished", "failed", "paused", "held"] {
        put(&queue, name);
    }
    let worker = WorkerId::new();
    let claims = queue.dequeue(&worker, &["t"], 9, never).expect("claimed");
    claims.iter().for_each(|claim| claim.start().expect("ours"));
    claims[3].renew(never).expect("ours");
    assert_eq!(claims[0].finish().expect("ours"), Finished);
    assert_eq!(claims[1].fail("on purpose").expect("ours"), Accepted, "to be retried, but not soon");
    claims[2].task().pause(never);
    assert_eq!(claims[2].finish().expect("ours"), Paused);
    queue.stats().expect("read");
    assert_eq!(queue.tidy().expect("tidied"), Default::default());
    assert!(queue.dequeue(&worker, &["t"], 9, LEASE).expect("no error").is_empty());
    assert_eq!(queue.status("t", "held").expect("known"), Running);
}

pub(crate) fn the_longest_poll_interval_is_no_panic(bed: &dyn Bed) {
    bed.queue();
    let queue = bed.open_with(fulmar::tasks::TaskQueue::builder().poll_interval(Duration::MAX));
    let handle = put(&queue, "a");
    assert!(matches!(handle.wait(Duration::from_millis(1)), Err(TaskError::Timeout { .. })));
    let worker = fulmar::tasks::Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(()));
    let worker = worker.start().expect("started");
    assert_eq!(handle.wait(HANG).expect("it ends"), Finished, "news of this process need no poll");
    worker.drain(HANG).expect("idle");
}
