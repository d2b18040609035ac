//! What users of other queues have reported, each as its smallest case. The number is that of the report.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Failed, Finished};
use fulmar::tasks::{NewTask, RetryPolicy, Schedule, TaskContext, TaskError, TaskType, Unique, WorkerId};

use crate::support::{Bed, LEASE, claim, claims, last_message, names, put, task};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// procrastinate 1446: the rescue of a lost task failed, because another one of the same lock was queued meanwhile.
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

/// solid_queue 761: a worker that was taken for dead and came back released its place a second time, and more jobs than allowed
/// ran at once.
pub(crate) fn a_place_below_a_limit_is_given_back_once(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").at_once(1).restart_limit(9)).expect("registered");
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

/// solid_queue 735: after a worker was killed, a new one took as many jobs as it had threads, whatever their limit.
pub(crate) fn a_limit_holds_across_a_kill(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").at_once(1).restart_limit(9)).expect("registered");
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
    queue.register(TaskType::new("t").at_once(1)).expect("registered");
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

/// pg-boss, in akash-network/console 3898 and fazer-ai/agents 243: an error whose text holds a zero byte could not be written,
/// so that the job neither failed nor was retried.
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

/// river 791: a job of each week never ran where the program was restarted each day, because its time was kept in memory.
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
