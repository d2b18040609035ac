//! Queues that are only opened, or only looked at; and tasks that move to another queue.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
use fulmar::tasks::{
    NewTask, RetryPolicy, Schedule, TaskContext, TaskError, TaskFilter, TaskQueue, TaskType, WorkerId,
};

use crate::support::{Bed, claim, claims, names, open_at, put, task};

pub(crate) fn a_queue_that_is_not_there_is_not_made(bed: &dyn Bed) {
    for builder in [TaskQueue::builder().existing_only(), TaskQueue::builder().read_only()] {
        let refused = open_at(&bed.address(), builder).expect_err("nothing is there");
        assert!(matches!(refused, TaskError::NoQueue { .. }), "{refused:?}");
    }
    put(&bed.queue(), "a");
    let existing = bed.open_with(TaskQueue::builder().existing_only());
    assert_eq!(names(&claims(&existing, &WorkerId::new(), 9)), ["a"]);
}

pub(crate) fn who_only_looks_changes_nothing(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "a");
    let reader = bed.open_with(TaskQueue::builder().read_only());
    assert_eq!(reader.status("t", "a").expect("known"), Accepted);
    assert_eq!(reader.stats().expect("counted").depth(), 1);
    assert_eq!(reader.count(&TaskFilter::new()).expect("counted"), 1);
    let hourly = || Schedule::every("s", Duration::from_secs(3_600), task("s"));
    for (what, refused) in [
        ("enqueue", reader.enqueue(task("b")).map(drop)),
        ("cancel", reader.cancel("t", "a").map(drop)),
        ("delete", reader.delete("t", "a")),
        ("register", reader.register(TaskType::new("u"))),
        ("pause", reader.pause()),
        ("capacity", reader.set_capacity(3)),
        ("retry", reader.cancel_all(&TaskFilter::new(), "all").map(drop)),
        ("schedule", reader.put_schedule(hourly())),
        ("claim", reader.dequeue(&WorkerId::new(), &["t"], 1, Duration::from_secs(1)).map(drop)),
    ] {
        assert!(matches!(refused, Err(TaskError::ReadOnly)), "{what}: {refused:?}");
    }
    // It sees what others do.
    queue.cancel("t", "a").expect("cancelled");
    assert_eq!(reader.status("t", "a").expect("known"), Cancelled);
    // An older schema is for those who may write.
    let one = if bed.address().starts_with("postgres://") { "'1'" } else { "1" };
    bed.sql(&format!("UPDATE fulmar_setting SET value = {one} WHERE name = 'schema'"));
    let refused = open_at(&bed.address(), TaskQueue::builder().read_only()).expect_err("too old");
    assert!(matches!(refused, TaskError::SchemaTooOld { found: 1, .. }), "{refused:?}");
}

pub(crate) fn what_waits_moves_to_another_queue(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    queue
        .enqueue_many([
            task("a").input("ü\n").priority(-3).message("first"),
            task("b").input_bytes(vec![0, 255]).ordered("k", true),
            task("c").ordered("k", false),
            NewTask::new("u", "a").run_after(Duration::from_secs(3_600)),
            task("ended"),
            task("held").priority(9),
        ])
        .expect("accepted");
    assert_eq!(claim(&queue).task().identifier(), "held");
    queue.cancel("t", "ended").expect("cancelled");
    let mut lines = Vec::new();
    assert_eq!(queue.export(&TaskFilter::new(), &mut lines).expect("written"), 4);
    let text = String::from_utf8(lines).expect("lines are text");
    assert_eq!(text.lines().count(), 4);

    // Into the same queue, full as it is: all are there. The one that is held hasn't started, and
    // takes room as well.
    for capacity in [None, Some(5)] {
        queue.set_capacity(capacity).expect("set");
        let again = queue.import(text.as_bytes()).expect("read");
        assert_eq!((again.enqueued, again.existing), (0, 4));
    }
    // One deleted, and its room taken by another: it finds none.
    queue.delete("t", "b").expect("deleted");
    queue.enqueue(task("guest")).expect("accepted");
    assert!(matches!(queue.import(text.as_bytes()), Err(TaskError::QueueFull { .. })));
    queue.delete("t", "guest").expect("deleted");
    queue.set_capacity(None).expect("set");
    assert_eq!(queue.import(text.as_bytes()).expect("read").enqueued, 1);
    // All of them deleted, they come anew.
    let before = queue.info("u", "a").expect("known");
    assert_eq!(queue.delete_all(&TaskFilter::new().status([Accepted])).expect("deleted"), 4);
    let moved = queue.import(text.as_bytes()).expect("read");
    assert_eq!((moved.enqueued, moved.existing), (4, 0));
    let after = queue.info("u", "a").expect("known");
    assert_eq!((after.run_at, after.priority, after.key), (before.run_at, before.priority, before.key));
    assert_eq!(queue.log("t", "a").expect("a log")[0].message, "first");
    let taken = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&taken), ["b", "a"], "the order is kept");
    assert_eq!(taken[0].task().input_bytes().expect("its input"), [0, 255]);
    assert_eq!(taken[1].task().input::<String>().expect("its input"), "ü\n");

    let nonsense = queue.import(&b"{\"type\": \"t\"}\n"[..]).expect_err("that isn't a task");
    let TaskError::Transfer { source, .. } = nonsense else { panic!("{nonsense:?}") };
    assert!(source.to_string().contains("line 1"), "{source}");
    assert!(matches!(queue.import(text.replace("\"u\"", "\"x\"").as_bytes()), Err(TaskError::UnknownType(_))));
}

/// One that is paused, two that wait for another attempt, and three that have ended, each in its
/// way.
pub(crate) fn paused_and_ended_tasks_move_with_their_past(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").retry(RetryPolicy::times(3))).expect("registered");
    type Handler = fn(&TaskContext) -> Result<(), TaskError>;
    let steps: [(&str, Handler); 5] = [
        ("paused", |task| task.pause_with(Duration::from_secs(3_600), &[1, 2])),
        ("finished", |task| task.store_response(vec![0, 255], "image/x")),
        ("failed", |task| {
            task.fail("no \"good\"");
            task.store_json("so far")
        }),
        ("cancelled", |task| {
            task.progress(0.5, "half of it")?;
            task.pause(Duration::from_secs(3_600));
            Ok(())
        }),
        ("again", |task| Err(TaskError::Invalid(format!("attempt {} failed", task.attempt())))),
    ];
    for (name, work) in steps {
        queue.enqueue(task(name).input(name).ordered(name, true).priority(7).message("go")).expect("accepted");
        claim(&queue).run(&work).expect("ours");
        if name == "again" {
            queue.cancel("t", name).expect("cancelled");
            queue.retry("t", name).expect("retried");
            let lost = claim(&queue);
            lost.start().expect("ours");
            lost.lose("its worker is gone").expect("ours");
        }
    }
    queue.cancel("t", "cancelled").expect("cancelled");
    let all = || {
        let mut all = Vec::new();
        for (name, _) in steps {
            let mut info = queue.info("t", name).expect("known");
            info.id = 0;
            all.push((info, queue.log("t", name).expect("a log"), queue.response("t", name).expect("known")));
        }
        all
    };
    let before = all();
    let statuses: Vec<_> = before.iter().map(|(info, ..)| info.status).collect();
    assert_eq!(statuses, [Paused, Finished, Failed, Cancelled, Accepted]);
    let (mut unended, mut lines) = (Vec::new(), Vec::new());
    assert_eq!(queue.export(&TaskFilter::new(), &mut unended).expect("written"), 2);
    let everything = TaskFilter::new().status([Accepted, Paused, Finished, Failed, Cancelled]);
    assert_eq!(queue.export(&everything, &mut lines).expect("written"), 5);
    for (name, _) in steps {
        queue.delete("t", name).expect("deleted");
    }
    // What is paused or has ended takes no room.
    queue.set_capacity(1).expect("set");
    let moved = queue.import(&*lines).expect("read");
    assert_eq!((moved.enqueued, moved.existing), (5, 0));
    assert_eq!(all(), before);
    // Nor does what is there already, in a queue that is full.
    let again = queue.import(&*lines).expect("read");
    assert_eq!((again.enqueued, again.existing), (0, 5));
    queue.set_capacity(None).expect("set");

    // They go on as they would have gone on.
    assert!(queue.tidy().is_ok());
    bed.pass(Duration::from_secs(3_601));
    let taken = claims(&queue, &WorkerId::new(), 9);
    assert_eq!(names(&taken), ["paused", "again"]);
    assert_eq!(taken[0].task().checkpoint::<Vec<u32>>().expect("kept"), Some(vec![1, 2]));
    assert_eq!((taken[0].task().attempt(), taken[1].task().attempt()), (2, 3));
    queue.retry("t", "failed").expect("retried");
    let claim = claim(&queue);
    assert_eq!(claim.task().identifier(), "failed");
    assert_eq!(claim.task().input::<String>().expect("kept"), "failed");
    queue.enqueue(task("behind").ordered("paused", false)).expect("accepted");
    assert!(claims(&queue, &WorkerId::new(), 9).is_empty(), "the order of its key holds");
}
