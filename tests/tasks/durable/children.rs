//! Children, forks and trees.

use fulmar::tasks::TaskStatus::{Accepted, Cancelled, Failed, Finished, Paused};
use fulmar::tasks::durable::{Durable, MOST_DEPTH, StepOptions, function};
use fulmar::tasks::{
    NewTask, RetryPolicy, TaskContext, TaskError, TaskFilter, TaskQueue, TaskType, Worker, WorkerBuilder,
};

use super::{Did, HOUR, last, no, ok, queue, result, run, start, worker};
use crate::support::{Bed, HANG, eventually};

/// A queue with the types `t` and `c`, of which the first is `work` and the second doubles its
/// input, or fails if that is 0.
fn family(
    bed: &dyn Bed,
    work: impl Fn(&Durable<'_>) -> Result<Vec<i64>, TaskError> + Send + Sync + 'static,
) -> (TaskQueue, WorkerBuilder) {
    let queue = queue(bed);
    queue.register(TaskType::new("c")).expect("registered");
    let double = |task: &TaskContext| -> Result<(), TaskError> {
        match task.input::<i64>()? {
            0 => task.fail("none"),
            n => task.store_json(&(2 * n))?,
        }
        Ok(())
    };
    let worker =
        Worker::builder(&queue).handle("t", function(move |cx: &Durable<'_>, ()| work(cx))).handle("c", double);
    (queue, worker)
}

pub(crate) fn children_give_their_results_in_order_and_wake_once(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| {
        let doubled: Vec<i64> = cx.all("double", (1..=50).map(|n| cx.child("c", &n.to_string(), &n)))?;
        let none: Vec<i64> = cx.all("none", [])?;
        assert!(none.is_empty());
        ok(doubled)
    });
    let task = start(&queue, "a");
    let ends = run(&worker);
    assert_eq!(ends.len(), 52, "its two runs, and its children's: {ends:?}");
    assert_eq!(result::<Vec<i64>>(&task), (1..=50).map(|n| 2 * n).collect::<Vec<i64>>());
    assert_eq!(task.info().expect("there").starts, 2, "it woke once");
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task_family"), 0);
}

pub(crate) fn the_first_failure_cancels_the_rest(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| cx.all("double", (0..5).map(|n| cx.child("c", &n.to_string(), &n))));
    let task = start(&queue, "a");
    // The failing child is claimed first; its end wakes the parent, which is older than the rest.
    let ends = run(&worker);
    assert_eq!(task.status().expect("there"), Failed, "{ends:?}");
    assert!(last(&task).contains("`a/0`") && last(&task).contains("none"), "{}", last(&task));
    for n in 1..5 {
        assert_eq!(queue.status("c", &format!("a/{n}")).expect("there"), Cancelled);
    }
}

pub(crate) fn all_may_be_awaited_though_some_fail(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| {
        let ended = cx.all_ended::<i64>("double", (0..3).map(|n| cx.child("c", &n.to_string(), &n)))?;
        ok(ended.into_iter().map(|end| end.unwrap_or(-1)).collect())
    });
    let task = start(&queue, "a");
    run(&worker);
    assert_eq!(result::<Vec<i64>>(&task), [-1, 2, 4]);
}

pub(crate) fn a_cancel_goes_down_the_tree(bed: &dyn Bed) {
    let queue = queue(bed);
    // Each level has two children below it, three levels deep.
    let worker = Worker::builder(&queue).handle(
        "t",
        function(|cx: &Durable<'_>, left: u32| {
            if left == 0 {
                cx.sleep("rest", HOUR)?;
                return ok(());
            }
            cx.all::<()>("below", ["l", "r"].map(|name| cx.child("t", name, &(left - 1)))).map(drop)
        }),
    );
    let task = queue.enqueue(fulmar::tasks::NewTask::new("t", "a").input(&3)).expect("accepted");
    assert_eq!(run(&worker).len(), 15);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task WHERE status = 3"), 15);
    assert_eq!(task.cancel().expect("cancelled"), Cancelled);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task WHERE status = 6"), 15, "all of it");
    assert!(run(&worker).is_empty());
}

pub(crate) fn a_failed_parents_children_are_cancelled(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    queue.register(TaskType::new("c")).expect("registered");
    let (other, did) = (queue.clone(), Did::default());
    let notes = did.clone();
    let handler = function(move |cx: &Durable<'_>, ()| {
        let paused = cx.all::<()>("below", [cx.child("c", "x", &())]);
        notes.note("spawned");
        // Its worker is lost before it can pause.
        other.pass_time(2 * crate::support::LEASE).expect("passed");
        other.tidy().expect("tidied");
        paused.map(drop)
    });
    let task = start(&queue, "a");
    let claim = crate::support::claim(&queue);
    assert!(claim.run(&handler).is_err_and(|error| error.is_stale()));
    assert_eq!(task.status().expect("there"), Failed);
    assert_eq!(queue.status("c", "a/x").expect("there"), Cancelled);
    did.assert(&["spawned"]);
}

pub(crate) fn trees_are_bounded(bed: &dyn Bed) {
    let queue = queue(bed);
    let worker = Worker::builder(&queue)
        .handle("t", function(|cx: &Durable<'_>, ()| cx.all::<()>("below", [cx.child("t", "x", &())]).map(drop)));
    let task = start(&queue, "a");
    run(&worker);
    assert_eq!(task.status().expect("there"), Failed);
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task"), MOST_DEPTH as i64 + 1);
    let deepest = format!("a{}", "/x".repeat(MOST_DEPTH));
    assert!(last(&queue.task("t", &deepest)).contains("levels below the root"), "{}", last(&queue.task("t", &deepest)));
}

pub(crate) fn a_child_that_is_there_already_is_refused(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| cx.all("double", [1, 1].map(|n| cx.child("c", "same", &n))));
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Failed]);
    assert!(last(&task).contains("`a/same`"), "{}", last(&task));
    assert_eq!(bed.count("SELECT count(*) FROM fulmar_task"), 1, "all or none");
}

pub(crate) fn a_deleted_child_is_a_failure(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| cx.all("double", [1, 2].map(|n| cx.child("c", &n.to_string(), &n))));
    let task = start(&queue, "a");
    let parents = Worker::builder(&queue).handle(
        "t",
        function(|cx: &Durable<'_>, ()| cx.all::<i64>("double", [1, 2].map(|n| cx.child("c", &n.to_string(), &n)))),
    );
    assert_eq!(run(&parents), [Paused]);
    queue.delete("c", "a/1").expect("deleted");
    run(&worker);
    assert_eq!(task.status().expect("there"), Failed);
    assert!(last(&task).contains("deleted"), "{}", last(&task));
}

pub(crate) fn a_fork_goes_on_from_a_step(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    let notes = did.clone();
    let worker = super::worker(&queue, move |cx| {
        let mut steps = Vec::new();
        for name in ["one", "two", "two", "three"] {
            steps.push(cx.step(name, || {
                notes.note(name);
                ok(name.to_owned())
            })?);
        }
        ok(steps)
    });
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Finished]);
    let fork = queue.fork("t", "a", "two", 2, "b").expect("forked");
    assert_eq!(fork.status().expect("there"), Accepted);
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["one", "two", "two", "three", "two", "three"]);
    assert_eq!(fork.log().expect("a log")[0].message, "forked from `a` at `two` (use 2)");
    assert_eq!(task.status().expect("there"), Finished, "the old one stays");
    assert!(matches!(queue.fork("t", "a", "two", 3, "c"), Err(TaskError::Invalid(_))));
    assert!(matches!(queue.fork("t", "z", "two", 1, "c"), Err(TaskError::NotFound { .. })));
    assert!(matches!(queue.fork("t", "a", "two", 1, "b"), Err(TaskError::Duplicate { .. })));
}

pub(crate) fn a_tree_prints_as_a_table_and_as_json(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| {
        cx.step("split", || ok(3))?;
        cx.all("double", (1..=3).map(|n| cx.child("c", &n.to_string(), &n)))
    });
    start(&queue, "a");
    run(&worker);
    let tree = queue.tree("t", "a", 2).expect("there");
    assert_eq!((tree.steps.len(), tree.children.len(), tree.has_more), (2, 2, true));
    let table = tree.to_string();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..3], ["a", "t", "FINISHED"]);
    assert_eq!(lines[2][..4], [".", "`split`", "step", "done"]);
    assert_eq!(lines[4][..3], ["a/1", "c", "FINISHED"]);
    let json: serde_json::Value = serde_json::from_str(&tree.to_json()).expect("JSON");
    assert_eq!(
        (json["children"][1]["identifier"].as_str(), json["steps"][0]["attempts"].as_i64()),
        (Some("a/2"), Some(1))
    );
    assert!(matches!(queue.tree("t", "z", 2), Err(TaskError::NotFound { .. })));
}

pub(crate) fn a_function_moves_with_its_steps_and_its_events(bed: &dyn Bed) {
    let (queue, did) = (queue(bed), Did::default());
    queue.register(TaskType::new("t").retry(RetryPolicy::times(1))).expect("registered");
    let notes = did.clone();
    let worker = worker(&queue, move |cx| {
        let bytes = cx.step_bytes("bytes", StepOptions::new(), || ok(vec![0, 255]))?;
        let one: i32 = cx.step("one", || {
            notes.note("one");
            ok(1)
        })?;
        let word: i32 = cx.event("word", None)?;
        notes.note("run");
        if notes.all().len() == 2 {
            return Err(no());
        }
        let next: i32 = cx.event("word", None)?;
        ok((bytes, one, word, next))
    });
    start(&queue, "a");
    for n in [2, 3] {
        queue.send_event_once("t", "a", "word", &n.to_string(), &n).expect("kept");
    }
    assert_eq!(run(&worker), [Accepted]);
    let mut lines = Vec::new();
    assert_eq!(queue.export(&TaskFilter::new(), &mut lines).expect("written"), 1);
    queue.delete("t", "a").expect("deleted");
    let moved = queue.import(&*lines).expect("read");
    assert_eq!((moved.enqueued, moved.existing), (1, 0));
    let again = queue.import(&*lines).expect("read");
    assert_eq!((again.enqueued, again.existing), (0, 1));
    assert!(!queue.send_event_once("t", "a", "word", "2", &2).expect("known"), "its key was taken along");
    queue.pass_time(HOUR).expect("passed");
    assert_eq!(run(&worker), [Finished]);
    did.assert(&["one", "run", "run"]);
    assert_eq!(result::<(Vec<u8>, i32, i32, i32)>(&queue.task("t", "a")), (vec![0, 255], 1, 2, 3));
}

pub(crate) fn a_child_of_a_parent_that_waits_is_not_moved(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("c")).expect("registered");
    let worker = worker(&queue, |cx| cx.all::<()>("all", [cx.child("c", "x", &())]).map(drop));
    let task = start(&queue, "a");
    assert_eq!(run(&worker), [Paused]);
    let refused = queue.export(&TaskFilter::new(), &mut Vec::new()).expect_err("it waits for a child");
    let TaskError::Transfer { source, .. } = refused else { panic!("{refused:?}") };
    assert!(source.to_string().contains("`a`") && source.to_string().contains("waits for children"), "{source}");
    let of_children = TaskFilter::new().of_type("c");
    let refused = queue.export(&of_children, &mut Vec::new()).expect_err("its parent waits for it");
    let TaskError::Transfer { source, .. } = refused else { panic!("{refused:?}") };
    assert!(source.to_string().contains("`a/x`") && source.to_string().contains("parent waits"), "{source}");
    task.cancel().expect("cancelled");
    assert_eq!(queue.export(&TaskFilter::new(), &mut Vec::new()).expect("none waits"), 0);
}

pub(crate) fn a_parent_with_a_key_is_retried_together_with_its_children(bed: &dyn Bed) {
    let queue = queue(bed);
    queue.register(TaskType::new("c")).expect("registered");
    let parent = worker(&queue, |cx| cx.all::<()>("below", ["x", "y"].map(|name| cx.child("c", name, &()))).map(drop));
    let child = Worker::builder(&queue).handle("c", |_: &TaskContext| ok(()));
    let task = queue.enqueue(NewTask::new("t", "a").input(&()).ordered("k", true)).expect("accepted");
    assert_eq!(run(&parent), [Paused]);
    assert_eq!(task.cancel().expect("cancelled"), Cancelled);
    assert_eq!(queue.retry_all(&TaskFilter::new().status([Cancelled])).expect("retried"), 3);
    assert_eq!(run(&parent), [Paused], "its children have yet to run");
    assert_eq!(run(&child), [Finished, Finished]);
    assert_eq!(run(&parent), [Finished], "the last of them wakes it");
}

pub(crate) fn a_child_whose_row_makes_no_sense_keeps_no_cancel_from_its_end(bed: &dyn Bed) {
    let (queue, worker) = family(bed, |cx| cx.all("double", (1..4).map(|n| cx.child("c", &n.to_string(), &n))));
    let task = start(&queue, "a");
    queue.pause_type("c").expect("registered");
    assert_eq!(run(&worker), [Paused]);
    bed.sql("UPDATE fulmar_task SET status = 9, gate = NULL WHERE identifier = 'a/2'");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(task.cancel()));
    assert_eq!(told.recv_timeout(HANG).expect("it ends").expect("cancelled"), Cancelled);
    for n in [1, 3] {
        assert_eq!(queue.status("c", &format!("a/{n}")).expect("there"), Cancelled);
    }
}

pub(crate) fn a_parent_wakes_when_its_children_go_with_their_type(bed: &dyn Bed) {
    let queue = bed.open_with(TaskQueue::builder().poll_interval(10 * HANG));
    queue.register(TaskType::new("t")).expect("registered");
    queue.register(TaskType::new("c")).expect("registered");
    let parent = worker(&queue, |cx| ok(cx.all_ended::<()>("below", [cx.child("c", "x", &())])?.remove(0).is_err()));
    let parent = parent.lease(HOUR).start().expect("started");
    let task = start(&queue, "a");
    eventually("it waits", || task.status().expect("there") == Paused);
    queue.force_unregister("c").expect("registered");
    assert_eq!(task.wait(HANG).expect("it ends"), Finished);
    assert!(result::<bool>(&task), "its child was deleted");
    parent.drain(HANG).expect("idle");
}
