//! Order by key, across machines.

use std::time::Duration;

use fulmar::tasks::{Claim, NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, WorkerId};

use crate::support::{Bed, LEASE, claims, names, task};

/// Enqueues tasks of key `k`: a name in capitals is a modifier.
fn put_all(queue: &TaskQueue, all: &[&str]) {
    let tasks = all.iter().map(|name| task(*name).ordered("k", name.chars().all(char::is_uppercase)));
    queue.enqueue_many(tasks).expect("accepted");
}

fn all(queue: &TaskQueue) -> Vec<Claim> {
    claims(queue, &WorkerId::new(), 99)
}

fn finish(claim: &Claim) {
    let status = claim.run(&|_: &TaskContext| Ok::<_, TaskError>(())).expect("ours");
    assert_eq!(status, TaskStatus::Finished);
}

pub(crate) fn accessors_share_and_modifiers_run_alone(bed: &dyn Bed) {
    let queue = bed.queue();
    put_all(&queue, &["a", "b", "C", "d", "e", "F", "G"]);
    let first = all(&queue);
    assert_eq!(names(&first), ["a", "b"]);
    finish(&first[0]);
    assert!(all(&queue).is_empty(), "one accessor is still there");
    finish(&first[1]);
    let modifier = all(&bed.open());
    assert_eq!(names(&modifier), ["C"]);
    assert!(all(&queue).is_empty());
    finish(&modifier[0]);
    let second = all(&queue);
    assert_eq!(names(&second), ["d", "e"]);
    second.iter().for_each(finish);
    for expected in ["F", "G"] {
        let modifier = all(&queue);
        assert_eq!(names(&modifier), [expected]);
        finish(&modifier[0]);
    }
    put_all(&queue, &["h"]);
    assert_eq!(names(&all(&queue)), ["h"], "an idle key keeps nobody");
}

pub(crate) fn nobody_overtakes(bed: &dyn Bed) {
    let queue = bed.queue();
    put_all(&queue, &["a", "B"]);
    // Neither a higher priority nor an earlier time helps against one that clashes and was there before.
    queue.enqueue(task("c").ordered("k", false).priority(100)).expect("accepted");
    queue.enqueue(task("free").priority(-100)).expect("accepted");
    let first = all(&queue);
    assert_eq!(names(&first), ["a", "free"]);
    finish(&first[0]);
    let second = all(&queue);
    assert_eq!(names(&second), ["B"]);
    finish(&second[0]);
    assert_eq!(names(&all(&queue)), ["c"]);
}

pub(crate) fn who_leaves_in_whatever_way_opens_the_lane(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("t").restart_limit(0)).expect("registered");
    put_all(&queue, &["A", "B", "c", "D", "e", "F", "G"]);
    let first = all(&queue);
    assert_eq!(names(&first), ["A"]);
    first[0].start().expect("ours");
    first[0].fail("on purpose").expect("ours"); // Failed for good: there are no retries.
    queue.cancel("t", "B").expect("known");
    let third = all(&queue);
    assert_eq!(names(&third), ["c"]);
    queue.cancel("t", "D").expect("known");
    assert_eq!(names(&all(&queue)), ["e"], "the modifier between the two accessors is gone");
    queue.cancel("t", "e").expect("known");
    third[0].start().expect("ours");
    bed.pass(2 * LEASE);
    queue.tidy().expect("rescued: its restart limit is reached");
    queue.delete("t", "F").expect("it was waiting");
    assert_eq!(names(&all(&queue)), ["G"]);
}

pub(crate) fn keys_and_types_are_strangers(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    for key in ["k", "l", ""] {
        queue.enqueue(task(format!("first of {key}")).ordered(key, true)).expect("accepted");
        queue.enqueue(task(format!("second of {key}")).ordered(key, true)).expect("accepted");
    }
    queue.enqueue(NewTask::new("u", "other").ordered("k", true)).expect("accepted");
    assert_eq!(names(&all(&queue)), ["first of k", "first of l", "first of "]);
    assert_eq!(names(&queue.dequeue(&WorkerId::new(), &["u"], 9, LEASE).expect("claimed")), ["other"]);
}

pub(crate) fn a_paused_modifier_keeps_its_place(bed: &dyn Bed) {
    let queue = bed.queue();
    put_all(&queue, &["A", "b"]);
    let minute = Duration::from_secs(60);
    let pause = move |task: &TaskContext| {
        task.pause(minute);
        Ok::<_, TaskError>(())
    };
    assert_eq!(all(&queue)[0].run(&pause).expect("ours"), TaskStatus::Paused);
    assert!(all(&queue).is_empty());
    bed.pass(minute);
    let again = all(&queue);
    assert_eq!(names(&again), ["A"]);
    again[0].give_back("not now").expect("ours");
    let again = all(&queue);
    assert_eq!(names(&again), ["A"]);
    finish(&again[0]);
    assert_eq!(names(&all(&queue)), ["b"]);
}

pub(crate) fn a_bad_row_opens_the_lane(bed: &dyn Bed) {
    let queue = bed.queue();
    put_all(&queue, &["A", "B", "C"]);
    assert_eq!(bed.sql("UPDATE fulmar_task SET starts = -7 WHERE identifier = 'A'"), 1);
    assert!(all(&queue).is_empty(), "it can't be claimed");
    let second = all(&queue);
    assert_eq!(names(&second), ["B"]);
    second[0].start().expect("ours");
    assert_eq!(bed.sql("UPDATE fulmar_task SET status = 99 WHERE identifier = 'B'"), 1);
    bed.pass(2 * LEASE);
    assert_eq!(queue.tidy().expect("rescued").bad, 1);
    assert_eq!(names(&all(&queue)), ["C"]);
    for name in ["A", "B"] {
        let last = queue.log("t", name).expect("a log").pop().expect("an entry");
        assert_eq!(last.status, TaskStatus::Failed);
        assert!(last.message.contains("makes no sense"), "{}", last.message);
    }
}
