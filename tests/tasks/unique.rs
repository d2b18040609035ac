//! Tasks of which one is enough: while one waits, or runs, or for a time; and what becomes of the
//! one that is there.

use std::sync::Barrier;
use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Failed, Finished};
use fulmar::tasks::{
    NewTask, RetryPolicy, Schedule, TaskContext, TaskError, TaskFilter, TaskHandle, TaskQueue, TaskType, Unique,
    Worker, WorkerId,
};

use crate::support::{Bed, claim, claims, last_message, names, put, task, transaction_at};

const HOUR: Duration = Duration::from_secs(3_600);

fn by_key() -> Unique {
    Unique::by_key("k")
}

fn enqueue(queue: &TaskQueue, identifier: &str, unique: Unique) -> TaskHandle {
    queue.enqueue(task(identifier).input(identifier).unique(unique)).expect("accepted")
}

/// The identifier of what stands for such a task; `None` if it was accepted itself.
fn in_the_way(queue: &TaskQueue, identifier: &str, unique: Unique) -> Option<String> {
    let handle = enqueue(queue, identifier, unique);
    handle.existed().then(|| handle.identifier().to_owned())
}

fn input_of_next(queue: &TaskQueue) -> String {
    claim(queue).task().input().expect("its input")
}

pub(crate) fn one_that_waits_stands_for_the_next(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    let first = enqueue(&queue, "a", by_key());
    assert!(!first.existed());
    let second = enqueue(&queue, "b", by_key());
    assert!(second.existed());
    assert_eq!((second.id(), second.identifier()), (first.id(), "a"));
    assert!(matches!(queue.status("t", "b"), Err(TaskError::NotFound { .. })));
    // Another key, another type, none at all.
    assert_eq!(in_the_way(&queue, "c", Unique::by_key("other")), None);
    assert!(!queue.enqueue(NewTask::new("u", "a").unique(by_key())).expect("accepted").existed());
    assert!(!put(&queue, "d").existed());
    // Taken but not started it stands for the next still; at work it may have missed what the next
    // one tells of.
    let taken = claim(&queue);
    assert_eq!(in_the_way(&queue, "e", by_key()).as_deref(), Some("a"));
    taken.start().expect("ours");
    assert_eq!(in_the_way(&queue, "e", by_key()), None);
    assert_eq!(in_the_way(&queue, "f", by_key()).as_deref(), Some("e"));
    // The identifier is another matter.
    let duplicate = queue.enqueue(task("a").unique(Unique::by_key("z")));
    assert!(matches!(duplicate, Err(TaskError::Duplicate { .. })));
    assert!(matches!(queue.enqueue(task("g").unique(Unique::by_key("\n"))), Err(TaskError::Invalid(_))));
}

pub(crate) fn one_that_has_not_ended_stands_for_the_next(bed: &dyn Bed) {
    let queue = bed.queue();
    let way = |identifier: &str| in_the_way(&queue, identifier, by_key().until_ended());
    assert_eq!(way("a"), None);
    let first = claim(&queue);
    first.start().expect("ours");
    assert_eq!(way("b").as_deref(), Some("a"));
    first.task().pause(HOUR);
    first.finish().expect("ours");
    assert_eq!(way("b").as_deref(), Some("a"), "it is paused");
    queue.pass_time(HOUR).expect("it passes");
    let again = claim(&queue);
    again.start().expect("ours");
    assert_eq!(again.fail("no luck").expect("ours"), Failed);
    assert_eq!(way("b"), None, "what has failed stands in no way");
    // Deleted is forgotten; a key doesn't outlive its task.
    queue.delete("t", "b").expect("it waits");
    assert_eq!(way("b"), None);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_unique"), 2);
    queue.delete_all(&TaskFilter::new()).expect("deleted");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_unique"), 0);
    assert_eq!(way("c"), None);
    queue.force_unregister("t").expect("known");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_unique"), 0);
}

pub(crate) fn one_of_a_period_stands_for_the_next(bed: &dyn Bed) {
    let queue = bed.queue();
    let way = |identifier: &str| in_the_way(&queue, identifier, by_key().for_period(HOUR));
    assert_eq!(way("a"), None);
    let first = claim(&queue);
    first.start().expect("ours");
    assert_eq!(first.finish().expect("ours"), Finished);
    assert_eq!(way("b").as_deref(), Some("a"), "finished within the hour");
    queue.pass_time(HOUR / 2).expect("it passes");
    assert_eq!(way("b").as_deref(), Some("a"));
    queue.pass_time(HOUR / 2).expect("it passes");
    assert_eq!(way("b"), None, "another hour");
    queue.cancel("t", "b").expect("cancelled");
    assert_eq!(way("c"), None, "what was cancelled stands in no way");
}

pub(crate) fn the_input_may_be_the_key(bed: &dyn Bed) {
    let queue = bed.queue();
    let put = |identifier: &str, input: &[i32]| {
        queue.enqueue(task(identifier).input(input).unique(Unique::by_input())).expect("accepted").existed()
    };
    assert!(!put("a", &[1, 2]));
    assert!(put("b", &[1, 2]));
    assert!(!put("c", &[2, 1]));
    assert!(!queue.enqueue(NewTask::unnamed("t").input(&[1, 2])).expect("accepted").existed(), "it asks for nothing");
}

pub(crate) fn what_waits_is_replaced_or_pushed_back(bed: &dyn Bed) {
    let queue = bed.queue();
    let put = |identifier: &str, input: &str, delay: Duration, priority, unique: Unique| {
        let new = task(identifier).input(input).run_after(delay).priority(priority).message(identifier).unique(unique);
        queue.enqueue(new).expect("accepted")
    };
    put("a", "one", HOUR, 0, by_key());
    // Replaced: what it says is new, its time stays.
    let handle = put("b", "two", Duration::ZERO, 7, by_key().replace());
    assert_eq!((handle.identifier(), handle.existed()), ("a", true));
    assert_eq!(last_message(&queue, "a"), "replaced by another: b");
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "its time has not come");
    queue.pass_time(HOUR).expect("it passes");
    assert_eq!(handle.info().expect("known").priority, 7);
    // Pushed back, at the last moment, with an input that doesn't fit into its row.
    let large = "x".repeat(10_000);
    put("c", &large, HOUR, 1, by_key().push_back());
    assert_eq!(last_message(&queue, "a"), "pushed back by another: c");
    queue.pass_time(HOUR / 2).expect("it passes");
    put("d", &large, HOUR, 1, by_key().push_back());
    queue.pass_time(HOUR / 2).expect("it passes");
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "half an hour is left");
    queue.pass_time(HOUR / 2).expect("it passes");
    // Kept: nothing of it changes.
    put("e", "kept", HOUR, 5, by_key());
    let taken = claim(&queue);
    assert_eq!((taken.task().identifier(), taken.task().input::<String>().expect("its input")), ("a", large));
    // It may have been read already, so that the next one is a task of its own.
    assert!(!put("f", "small", Duration::ZERO, 0, by_key().replace()).existed());
    put("g", "smaller", Duration::ZERO, 0, by_key().push_back());
    assert_eq!(input_of_next(&queue), "smaller");
    assert_eq!(queue.info("t", "f").expect("known").key, None);
}

pub(crate) fn what_has_started_once_is_not_replaced(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1).first(HOUR).jitter(0.0))).expect("registered");
    enqueue(&queue, "a", by_key());
    let first = claim(&queue);
    first.start().expect("ours");
    assert_eq!(first.fail("no").expect("ours"), Accepted);
    // Its first attempt may have stored steps by what it has read.
    assert_eq!(in_the_way(&queue, "b", by_key().until_ended().replace()).as_deref(), Some("a"));
    assert_eq!(in_the_way(&queue, "b", by_key().until_ended().push_back()).as_deref(), Some("a"));
    assert_eq!(in_the_way(&queue, "b", by_key().replace()), None);
    assert_eq!(in_the_way(&queue, "c", by_key().until_ended().replace()).as_deref(), Some("b"));
    assert_eq!(input_of_next(&queue), "c");
    queue.pass_time(HOUR).expect("it passes");
    assert_eq!(input_of_next(&queue), "a");
}

pub(crate) fn an_order_is_kept_where_what_waits_is_pushed_back(bed: &dyn Bed) {
    let queue = bed.queue();
    let first = task("m").ordered("lane", true);
    let second = |identifier: &str| {
        task(identifier).input(identifier).ordered("lane", true).unique(Unique::by_key("u").push_back())
    };
    queue.enqueue_many([first, second("n")]).expect("accepted");
    assert!(queue.enqueue(second("o")).expect("accepted").existed());
    let modifier = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&modifier), ["m"]);
    modifier[0].start().expect("ours");
    modifier[0].finish().expect("ours");
    assert_eq!(input_of_next(&queue), "o");
}

pub(crate) fn many_at_once_have_their_own_among_them(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue(task("there").unique(Unique::by_key("0"))).expect("accepted");
    // What stands for others needs no room: ten keys, one of which is there.
    queue.set_capacity(11).expect("set");
    let many = (0..30).map(|n| task(n.to_string()).input(&n).unique(Unique::by_key((n % 10).to_string()).replace()));
    let handles = queue.enqueue_many(many.chain([task("plain")])).expect("there is room");
    let existed: Vec<bool> = handles.iter().map(TaskHandle::existed).collect();
    assert_eq!(existed.iter().filter(|existed| **existed).count(), 21);
    assert_eq!((handles[0].identifier(), handles[13].identifier()), ("there", "3"));
    assert_eq!(handles[23].id(), handles[3].id());
    assert!(matches!(queue.enqueue(task("more")), Err(TaskError::QueueFull { .. })));
    assert!(queue.enqueue(task("more").unique(Unique::by_key("5"))).expect("it needs no room").existed());
    let taken = claims(&queue, &WorkerId::new(), 99);
    let inputs: Vec<u32> = taken.iter().filter_map(|claim| claim.task().input().ok()).collect();
    assert_eq!(inputs, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29], "the last of each");
}

pub(crate) fn one_of_many_producers_is_first(bed: &dyn Bed) {
    let queue = bed.queue();
    const PRODUCERS: usize = 8;
    let others: Vec<TaskQueue> = (0..PRODUCERS).map(|_| bed.open()).collect();
    for round in 0..10 {
        let start = Barrier::new(PRODUCERS);
        let accepted: usize = std::thread::scope(|scope| {
            let put = |(at, queue): (usize, &TaskQueue)| {
                let unique = Unique::by_key(format!("round {round}"));
                let unique = if at % 2 == 0 { unique } else { unique.push_back() };
                start.wait();
                let handle = queue.enqueue(task(format!("{round}-{at}")).unique(unique)).expect("accepted");
                usize::from(!handle.existed())
            };
            let threads: Vec<_> = others.iter().enumerate().map(|each| scope.spawn(move || put(each))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(accepted, 1, "round {round}");
    }
    assert_eq!(queue.count(&TaskFilter::new().status([Accepted])).expect("counted"), 10);
}

pub(crate) fn in_a_transaction_of_the_callers_one_is_enough(bed: &dyn Bed) {
    let queue = bed.queue();
    let enqueue = |identifier: &str, keep: bool| {
        let done = transaction_at(&bed.address(), &queue, &|tx, _| {
            let handle = queue.enqueue_in(tx, [task(identifier).unique(by_key())])?.remove(0);
            assert_eq!(handle.existed(), handle.identifier() != identifier);
            if keep { Ok(()) } else { Err(TaskError::Cancelled) }
        });
        assert_eq!(done.is_ok(), keep);
    };
    enqueue("a", false);
    enqueue("b", true);
    enqueue("c", true);
    assert_eq!(names(&claims(&queue, &WorkerId::new(), 9)), ["b"]);
}

pub(crate) fn a_retried_task_keeps_its_key(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue(task("a").ordered("lane", true).unique(by_key())).expect("accepted");
    queue.cancel("t", "a").expect("cancelled");
    queue.retry("t", "a").expect("retried, with another number");
    assert_eq!(in_the_way(&queue, "b", by_key()).as_deref(), Some("a"));
}

pub(crate) fn a_schedule_s_task_may_be_unique(bed: &dyn Bed) {
    let queue = bed.queue();
    let run = task("r").unique(Unique::by_key("one run at a time").until_ended());
    queue.put_schedule(Schedule::every("s", HOUR, run)).expect("sound");
    queue.pass_time(HOUR).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 1);
    queue.pass_time(HOUR).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 0, "the run before is not done");
    let handlers = Worker::builder(&queue).handle("t", |_: &TaskContext| Ok::<_, TaskError>(()));
    assert_eq!(handlers.run_due().expect("run").len(), 1);
    queue.pass_time(HOUR).expect("it passes");
    assert_eq!(handlers.run_due().expect("run").len(), 1);
}
