//! What users of other queues have reported, each as its smallest case. The number is that of the
//! report.

use std::time::{Duration, SystemTime};

use fulmar::tasks::TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
use fulmar::tasks::{
    Limits, Missed, NewTask, Rate, RetryPolicy, Schedule, TaskContext, TaskError, TaskFilter, TaskQueue, TaskType,
    Unique, Worker, WorkerId,
};

use crate::support::{Bed, Gate, HANG, LEASE, claim, claims, eventually, last_message, names, put, task};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// procrastinate 1446: the rescue of a lost task failed, because another one of the same lock was
/// queued meanwhile.
pub(crate) fn a_lost_task_comes_back_though_another_of_its_key_waits(bed: &dyn Bed) {
    let queue = bed.queue();
    let unique = |name: &str| task(name).unique(Unique::by_key("k").while_waiting());
    queue.enqueue(unique("lost")).expect("accepted");
    claim(&queue).start().expect("ours");
    assert!(!queue.enqueue(unique("waits")).expect("accepted").existed(), "none waits");
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["lost", "waits"]);
}

/// oban 424: a unique job whose node was gone stood in the way of its successors for ever.
pub(crate) fn a_task_that_died_with_its_worker_stands_in_nobodys_way(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    let unique = |name: &str| task(name).unique(Unique::by_key("k").until_ended());
    queue.enqueue(unique("dies")).expect("accepted");
    claim(&queue).start().expect("ours");
    assert!(queue.enqueue(unique("too early")).expect("told").existed());
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").failed, 1);
    assert!(!queue.enqueue(unique("next")).expect("accepted").existed());
}

/// solid_queue 761: a worker that was taken for dead and came back released its place a second
/// time, and more jobs than allowed ran at once.
pub(crate) fn a_place_below_a_limit_is_given_back_once(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").max_concurrent(1).restart_limit(9)).expect("registered");
    queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    let slow = claim(&queue);
    slow.start().expect("ours");
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    let next = claim(&queue);
    next.start().expect("ours");
    assert!(slow.finish().expect_err("it was taken for dead").is_stale());
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "one is at work");
    next.finish().expect("ours");
    assert_eq!(claims(&queue, &WorkerId::new(), 9).len(), 1);
}

/// solid_queue 735: after a worker was killed, a new one took as many jobs as it had threads,
/// whatever their limit.
pub(crate) fn a_limit_holds_across_a_kill(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").max_concurrent(1).restart_limit(9)).expect("registered");
    queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    claim(&queue).start().expect("ours");
    let next = WorkerId::new();
    assert!(claims(&queue, &next, 9).is_empty(), "nothing says yet that the first one is dead");
    bed.pass(2 * LEASE);
    assert!(claims(&queue, &next, 9).is_empty(), "nor is its place free before it is rescued");
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    assert_eq!(claims(&queue, &next, 9).len(), 1);
}

/// solid_queue 478: jobs that a limit held back stayed so when the limit was taken away.
pub(crate) fn a_limit_that_is_taken_away_holds_nothing_back(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").max_concurrent(1)).expect("registered");
    queue.enqueue_many((0..5).map(|n| task(n.to_string()))).expect("accepted");
    assert_eq!(claims(&queue, &WorkerId::new(), 9).len(), 1);
    queue.register(TaskType::new("t")).expect("registered");
    assert_eq!(claims(&queue, &WorkerId::new(), 9).len(), 4);
}

/// huey 915: what was due was taken from the schedule, and lost where it could not be enqueued.
pub(crate) fn a_firing_that_finds_no_room_is_made_up_for(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_capacity(1).expect("set");
    queue.put_schedule(Schedule::every("s", LEASE, task("due"))).expect("put");
    put(&queue, "in its place");
    queue.pass_time(LEASE + LEASE / 2).expect("later");
    assert!(matches!(queue.fire_schedules(), Err(TaskError::QueueFull { .. })));
    assert_eq!(queue.stats().expect("read").depth(), 1);
    claim(&queue).run(&|_: &TaskContext| Ok::<_, TaskError>(())).expect("ours");
    assert_eq!(queue.fire_schedules().expect("there is room"), 1);
    assert_eq!(queue.fire_schedules().expect("once"), 0);
}

/// huey 915, too: beyond five hundred, some of what was due at once was lost.
pub(crate) fn thousands_that_are_due_at_once_all_come(bed: &dyn Bed) {
    let queue = bed.queue();
    let tasks = (0..2_500).map(|n| task(n.to_string()).run_after(LEASE));
    queue.enqueue_many(tasks).expect("accepted");
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty());
    bed.pass(2 * LEASE);
    let worker = WorkerId::new();
    let taken: usize =
        std::iter::repeat_with(|| claims(&queue, &worker, 999).len()).take_while(|count| *count > 0).sum();
    assert_eq!(taken, 2_500);
}

/// pg-boss, in akash-network/console 3898 and fazer-ai/agents 243: an error whose text holds a zero
/// byte could not be written, so that the job neither failed nor was retried.
pub(crate) fn an_error_with_a_zero_byte_is_a_failure_like_others(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "by hand");
    let fails = claim(&queue);
    fails.start().expect("ours");
    assert_eq!(fails.fail("the provider said \0 nothing").expect("written"), Failed);
    assert!(last_message(&queue, "by hand").starts_with("the provider said"), "{}", last_message(&queue, "by hand"));
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1).first(Duration::ZERO))).expect("registered");
    put(&queue, "retried");
    let fails = |_: &TaskContext| Err::<(), TaskError>(TaskError::Invalid("a zero byte: \0".into()));
    assert_eq!(claim(&queue).run(&fails).expect("written"), Accepted);
    assert_eq!(claim(&queue).run(&fails).expect("written"), Failed);
}

/// firecrawl 4113: a result with a zero byte crashed the worker, again after each restart.
pub(crate) fn a_response_holds_any_bytes(bed: &dyn Bed) {
    let queue = bed.queue();
    let handle = queue.enqueue(task("a").input("in: \0")).expect("accepted");
    let echoes = |task: &TaskContext| task.store_json(&task.input::<String>()?);
    assert_eq!(claim(&queue).run(&echoes).expect("written"), Finished);
    assert_eq!(handle.response().expect("read").expect("one").json::<String>().expect("text"), "in: \0");
    put(&queue, "bytes");
    assert_eq!(
        claim(&queue).run(&|task: &TaskContext| task.store_response([0, 255, 0], "x/y")).expect("written"),
        Finished
    );
    assert_eq!(queue.response("t", "bytes").expect("read").expect("one").body, [0, 255, 0]);
}

/// river 791: a job of each week never ran where the program was restarted each day, because its
/// time was kept in memory.
pub(crate) fn a_weekly_schedule_outlives_daily_restarts(bed: &dyn Bed) {
    bed.queue();
    let mut fired = 0;
    for _ in 0..15 {
        let queue = bed.open();
        queue.put_schedule(Schedule::every("weekly", WEEK, NewTask::new("t", "weekly"))).expect("put");
        queue.pass_time(Duration::from_secs(86_400)).expect("a day");
        fired += queue.fire_schedules().expect("fired");
    }
    assert_eq!(fired, 2, "in 15 days");
}

fn fails_for_good(task: &TaskContext) -> Result<(), TaskError> {
    task.fail("no");
    Ok(())
}

/// procrastinate 1543: a job that failed could not go back into the queue, because another one of
/// the same queueing lock was deferred while it ran; a person had to clear up in the database.
pub(crate) fn a_failed_task_is_tried_again_though_another_of_its_key_waits(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1))).expect("registered");
    let unique = |name: &str| task(name).ordered("k", true).unique(Unique::by_key("k").while_waiting());
    queue.enqueue(unique("fails")).expect("accepted");
    let producer = queue.clone();
    let fails = move |_: &TaskContext| {
        assert!(!producer.enqueue(unique("waits"))?.existed(), "none waits");
        Err::<(), _>(TaskError::Invalid("once".into()))
    };
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Accepted);
    bed.pass(LEASE);
    for name in ["fails", "waits"] {
        let next = claim(&queue);
        assert_eq!(next.task().identifier(), name);
        assert_eq!(next.run(&|_: &TaskContext| Ok::<(), TaskError>(())).expect("ours"), Finished);
    }
}

/// procrastinate 292: while all workers were busy with long jobs, no periodic job was deferred.
pub(crate) fn a_schedule_fires_while_all_threads_are_busy(bed: &dyn Bed) {
    let queue = bed.queue();
    let gate = Gate::default();
    let at_gate = gate.clone();
    let handler = move |task: &TaskContext| {
        if task.identifier() == "long" {
            at_gate.pass();
        }
        Ok::<(), TaskError>(())
    };
    let worker = Worker::builder(&queue).max_concurrent(1).handle("t", handler).start().expect("started");
    put(&queue, "long");
    gate.await_arrivals(1);
    queue.put_schedule(Schedule::every("s", Duration::from_secs(60), task("s"))).expect("sound");
    queue.pass_time(Duration::from_secs(61)).expect("passed");
    eventually("the schedule's task is there", || {
        let depth = queue.depth().expect("counted");
        depth.waiting() + depth.held() > 1
    });
    gate.open();
    worker.drain(HANG).expect("drained");
}

/// oban 618, lavinmq 446, cuttle 320: a pause was over when the program started again, and what had
/// come due meanwhile ran.
pub(crate) fn a_pause_outlives_restarts_and_holds_for_what_comes_due(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue(task("later").run_after(Duration::from_secs(60))).expect("accepted");
    put(&queue, "failed");
    claim(&queue).run(&fails_for_good).expect("ours");
    queue.pause_type("t").expect("paused");
    queue.put_schedule(Schedule::every("s", Duration::from_secs(60), task("s"))).expect("sound");
    queue.pause_schedule("s").expect("known");
    drop(queue);

    let queue = bed.queue();
    queue.put_schedule(Schedule::every("s", Duration::from_secs(60), task("s"))).expect("sound");
    queue.retry("t", "failed").expect("retried");
    queue.pass_time(Duration::from_secs(61)).expect("passed");
    queue.tidy().expect("tidied");
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty());
    queue.resume_type("t").expect("resumed");
    let mut claimed: Vec<String> = names(&claims(&queue, &WorkerId::new(), 9)).into_iter().map(str::to_owned).collect();
    claimed.sort();
    assert_eq!(claimed, ["failed", "later"], "the schedule is paused still");
}

/// solid_queue 125: where a job that held a concurrency lock was discarded, those that it blocked
/// waited for the lock to expire.
pub(crate) fn a_discarded_task_of_a_key_lets_the_next_follow(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.set_limits("t", Limits::new().max_concurrent_by_key(1)).expect("set");
    for discard in ["deleted", "cancelled", "failed"] {
        let name = |place: &str| format!("{discard} {place}");
        for place in ["first", "second"] {
            queue.enqueue(task(name(place)).ordered(discard, true)).expect("accepted");
        }
        let pause = |task: &TaskContext| {
            task.pause(LEASE);
            Ok::<(), TaskError>(())
        };
        assert_eq!(claim(&queue).run(&pause).expect("ours"), Paused);
        assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "the paused one is in front");
        match discard {
            "deleted" => queue.delete("t", &name("first")).expect("deleted"),
            "cancelled" => assert_eq!(queue.cancel("t", &name("first")).expect("cancelled"), Cancelled),
            _ => {
                bed.pass(LEASE);
                assert_eq!(claim(&queue).run(&fails_for_good).expect("ours"), Failed);
            }
        }
        let next = claim(&queue);
        assert_eq!(next.task().identifier(), name("second"));
        assert_eq!(next.run(&|_: &TaskContext| Ok::<(), TaskError>(())).expect("ours"), Finished);
    }
}

/// bull 1110: with a rate limit, several threads, and a great many waiting jobs, the queue stopped
/// for good.
pub(crate) fn a_crowd_below_a_rate_never_stalls(bed: &dyn Bed) {
    // A worker that looked by itself alone would take hours.
    let queue = bed.open_with(TaskQueue::builder().poll_interval(HANG));
    queue.register(TaskType::new("t")).expect("registered");
    queue.set_limits("t", Limits::new().rate(Rate::new(500, Duration::from_secs(1)).burst(12))).expect("set");
    queue.enqueue_many((0..5_000).map(|n| task(n.to_string()))).expect("accepted");
    let worker = Worker::builder(&queue)
        .max_concurrent(4)
        .handle("t", |_: &TaskContext| Ok::<(), TaskError>(()))
        .start()
        .expect("started");
    assert_eq!(queue.task("t", "199").wait(HANG / 2).expect("in time"), Finished);
    worker.drain(HANG).expect("drained");
}

/// river 673 and 118: one retention for all, which cancelled and discarded jobs had of their own;
/// asked for was one for each type.
pub(crate) fn what_has_ended_goes_by_its_types_retention(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retention(Duration::from_secs(60))).expect("registered");
    queue.register(TaskType::new("u").retention(WEEK)).expect("registered");
    for of_type in ["t", "u"] {
        queue.enqueue_many(["a", "b", "c"].map(|name| NewTask::new(of_type, name))).expect("accepted");
        let claims = queue.dequeue(&WorkerId::new(), &[of_type], 2, LEASE).expect("claimed");
        claims[0].run(&|_: &TaskContext| Ok::<(), TaskError>(())).expect("ours");
        claims[1].run(&fails_for_good).expect("ours");
        queue.cancel(of_type, "c").expect("cancelled");
    }
    bed.pass(Duration::from_secs(61));
    queue.tidy().expect("tidied");
    assert!(["a", "b", "c"].iter().all(|name| queue.status("t", name).is_err()));
    let kept = ["a", "b", "c"].map(|name| queue.status("u", name).expect("kept"));
    assert_eq!(kept, [Finished, Failed, Cancelled]);
}

/// celery 5654: a task that was retried had lost its priority.
pub(crate) fn a_priority_outlives_attempts_pauses_and_a_lost_worker(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1).first(Duration::ZERO))).expect("registered");
    queue.enqueue(task("urgent").priority(9)).expect("accepted");
    let fails = |_: &TaskContext| Err::<(), TaskError>(TaskError::Invalid("once".into()));
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Accepted);
    queue.enqueue_many((0..3).map(|n| task(n.to_string()))).expect("accepted");
    let pause = |task: &TaskContext| {
        task.pause(Duration::ZERO);
        Ok::<(), TaskError>(())
    };
    assert_eq!(claim(&queue).run(&pause).expect("ours"), Paused);
    let lost = claim(&queue);
    assert_eq!(lost.task().identifier(), "urgent");
    lost.start().expect("ours");
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").returned, 1);
    assert_eq!(claim(&queue).task().identifier(), "urgent");
    assert_eq!(queue.info("t", "urgent").expect("known").priority, 9);
}

/// oban 476 and 245: a job that was snoozed some times waited for days after its first error,
/// because each snooze counted as an attempt; after 1,200 of them no time could be told at all.
pub(crate) fn pauses_lengthen_no_wait_for_the_next_attempt(bed: &dyn Bed) {
    let queue = bed.queue();
    let minute = Duration::from_secs(60);
    queue.register(TaskType::new("t").retry(RetryPolicy::times(3).first(minute).factor(10.0))).expect("registered");
    put(&queue, "snoozes");
    let pause = |task: &TaskContext| {
        task.pause(Duration::ZERO);
        Ok::<(), TaskError>(())
    };
    for _ in 0..30 {
        assert_eq!(claim(&queue).run(&pause).expect("ours"), Paused);
    }
    let fails = |_: &TaskContext| Err::<(), TaskError>(TaskError::Invalid("the service said no".into()));
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Accepted);
    let info = queue.info("t", "snoozes").expect("known");
    assert!(info.run_at <= SystemTime::now() + minute, "as after the first failure");
    assert_eq!(info.failures, 1);
}

/// pgflow 271 and backrest 618: the wait after the 31st attempt, or the 64th, could not be counted,
/// and was an error, or none at all.
pub(crate) fn however_many_attempts_fail_the_wait_is_the_cap(bed: &dyn Bed) {
    let queue = bed.queue();
    let policy = RetryPolicy::times(u32::MAX).first(Duration::from_secs(1)).factor(2.0).cap(LEASE).jitter(0.0);
    queue.register(TaskType::new("t").retry(policy)).expect("registered");
    put(&queue, "fails");
    let fails = |_: &TaskContext| Err::<(), TaskError>(TaskError::Invalid("no".into()));
    for failures in [30_u32, 31, 63, 64, 1_023, 1_024, i32::MAX as u32, u32::MAX - 1] {
        bed.sql(&format!("UPDATE fulmar_task SET failures = {failures}"));
        assert_eq!(claim(&queue).run(&fails).expect("ours"), Accepted, "after {failures}");
        // It waits from a time between its start and now.
        let log = queue.log("t", "fails").expect("a log");
        let (started, ended) = (log[log.len() - 2].time, SystemTime::now());
        let run_at = queue.info("t", "fails").expect("known").run_at;
        assert!(run_at >= started + LEASE && run_at <= ended + LEASE, "after {failures}: {run_at:?}");
        bed.pass(2 * LEASE);
    }
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Failed, "as often as there may be");
}

/// vendure 832: a queue of one worker stood still while a job that had failed waited for its next
/// attempt.
pub(crate) fn what_waits_for_its_next_attempt_holds_up_no_other(bed: &dyn Bed) {
    let queue = bed.queue();
    let policy = RetryPolicy::times(1).first(LEASE).cap(LEASE);
    queue.register(TaskType::new("t").max_concurrent(1).retry(policy)).expect("registered");
    queue.set_limits("t", Limits::new().max_concurrent_by_key(1)).expect("set");
    let of_key = |name: &str| task(name).ordered("k", false);
    queue.enqueue_many(["fails", "next"].map(of_key)).expect("accepted");
    let fails = |_: &TaskContext| Err::<(), TaskError>(TaskError::Invalid("once".into()));
    assert_eq!(claim(&queue).run(&fails).expect("ours"), Accepted);
    let next = claim(&queue);
    assert_eq!(next.task().identifier(), "next");
    assert_eq!(next.run(&|_: &TaskContext| Ok::<(), TaskError>(())).expect("ours"), Finished);
}

/// oban 319: a hundred thousand jobs in one step were more parameters than a statement may have.
pub(crate) fn seventy_thousand_are_accepted_in_one_step(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "65999");
    let tasks = || (0..70_000).map(|n| task(n.to_string()));
    assert!(matches!(queue.enqueue_many(tasks()), Err(TaskError::Duplicate { .. })));
    assert_eq!(queue.depth().expect("counted").waiting(), 1, "all or none");
    queue.delete("t", "65999").expect("deleted");
    assert_eq!(queue.enqueue_many(tasks()).expect("accepted").len(), 70_000);
    assert_eq!(queue.depth().expect("counted").waiting(), 70_000);
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 3)), ["0", "1", "2"]);
}

/// graphile/worker 303: while a job with a key ran, each call that was to replace it added one
/// more.
pub(crate) fn what_runs_is_followed_by_one_and_not_by_many(bed: &dyn Bed) {
    let queue = bed.queue();
    let change = |n: u32| NewTask::unnamed("t").input(&n).unique(Unique::by_key("page").replace());
    queue.enqueue(change(0)).expect("accepted");
    let running = claim(&queue);
    running.start().expect("ours");
    let existed: Vec<bool> = (1..=10).map(|n| queue.enqueue(change(n)).expect("accepted").existed()).collect();
    assert_eq!(existed, [[false].as_slice(), &[true; 9]].concat(), "the first of them waits");
    running.finish().expect("ours");
    let next = claims(&queue, &WorkerId::new(), 99);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].task().input::<u32>().expect("a number"), 10, "with what was said last");
}

/// pg-boss 81, 353 and 414: of jobs that were to be debounced, all but the first two were dropped
/// with what they said, and the first ran at once.
pub(crate) fn what_is_pushed_back_runs_once_with_what_was_said_last(bed: &dyn Bed) {
    let queue = bed.queue();
    let minute = Duration::from_secs(60);
    let change = |n: u32| {
        let unique = Unique::by_key("student").push_back();
        NewTask::unnamed("t").input(&n).run_after(2 * minute).unique(unique)
    };
    for n in 1..=6 {
        queue.enqueue(change(n)).expect("accepted");
        queue.pass_time(minute).expect("it passes");
        assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "it is pushed back: {n}");
    }
    queue.pass_time(minute).expect("it passes");
    let due = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].task().input::<u32>().expect("a number"), 6);
}

/// solid_queue 535: while a queue was paused, because what it asked was down, its recurring job
/// went on being enqueued, and all ran at once when it was resumed.
pub(crate) fn a_paused_type_is_not_flooded_by_its_schedule(bed: &dyn Bed) {
    let queue = bed.queue();
    let minute = Duration::from_secs(60);
    let snapshot = task("snapshot").unique(Unique::by_key("one is enough").while_waiting());
    queue.put_schedule(Schedule::every("s", minute, snapshot)).expect("put");
    queue.pause_type("t").expect("paused");
    for round in 0..5 {
        queue.pass_time(minute).expect("it passes");
        assert_eq!(queue.fire_schedules().expect("fired"), u64::from(round == 0), "{round}");
    }
    queue.resume_type("t").expect("resumed");
    let due = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(due.len(), 1);
    due[0].start().expect("ours");
    queue.pass_time(minute).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 1, "and it goes on");
}

/// riverui 622: to retry a discarded unique job while another one waited was an error of the
/// database.
pub(crate) fn a_failed_task_is_retried_by_hand_though_another_of_its_key_waits(bed: &dyn Bed) {
    let queue = bed.queue();
    let unique = |name: &str| task(name).unique(Unique::by_key("k").until_ended());
    for name in ["first", "second"] {
        queue.enqueue(unique(name)).expect("accepted");
        claim(&queue).run(&fails_for_good).expect("ours");
    }
    assert!(!queue.enqueue(unique("third")).expect("accepted").existed());
    assert_eq!(queue.retry_all(&TaskFilter::new().status([Failed])).expect("retried"), 2);
    assert!(queue.enqueue(unique("fourth")).expect("told").existed());
    let mut claimed: Vec<String> = names(&claims(&queue, &WorkerId::new(), 9)).into_iter().map(str::to_owned).collect();
    claimed.sort();
    assert_eq!(claimed, ["first", "second", "third"]);
}

/// Foundatio 317: after an outage each time that was missed was made up for, one after the other,
/// and for hours nothing else was; there was no way but to clear the store.
pub(crate) fn a_schedule_with_much_to_make_up_for_holds_up_no_other(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    let each = |name: &str| Schedule::every(name, Duration::from_secs(1), task(name)).missed(Missed::Each);
    queue.put_schedule(each("a")).expect("put");
    queue.put_schedule(Schedule::every("z", Duration::from_secs(60), NewTask::new("u", "z"))).expect("put");
    // Some hundred thousand of the first one.
    queue.pass_time(WEEK).expect("it passes");
    let gate = Gate::default();
    let inside = gate.clone();
    let worker = Worker::builder(&queue)
        .handle("u", move |_: &TaskContext| {
            inside.pass();
            Ok::<(), TaskError>(())
        })
        .start()
        .expect("started");
    gate.await_arrivals(1);
    gate.open();
    worker.drain(HANG).expect("drained");
    // A worker that stops leaves the rest to others.
    drop(worker);
    let made_up = bed.count("SELECT count(*) FROM fulmar_task");
    assert!(made_up < 600_000, "{made_up}");
    assert!(queue.remove_schedule("a").expect("removed"), "and an operator has a way to end it");
    assert_eq!(queue.fire_schedules().expect("looked"), 0);
}
