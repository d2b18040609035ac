//! Thousands of types.

use fulmar::tasks::{NewTask, TaskQueue, TaskType, WorkerId};

use crate::support::{Bed, LEASE, names};

const TYPES: usize = 300;

fn name(n: usize) -> String {
    format!("t{n:03}")
}

/// The first three tasks of all types.
fn first_three(queue: &TaskQueue, types: &[&str]) -> Vec<String> {
    let claims = queue.dequeue(&WorkerId::new(), types, 3, LEASE).expect("claimed");
    names(&claims).into_iter().map(str::to_owned).collect()
}

/// Priority, age, pauses and limits at once hold across types as they do within one.
pub(crate) fn thousands_of_types_are_claimed_in_one_order(bed: &dyn Bed) {
    let queue = bed.open();
    (0..TYPES).for_each(|n| queue.register(TaskType::new(name(n))).expect("registered"));
    let all: Vec<String> = (0..TYPES).map(name).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert!(first_three(&queue, &all).is_empty());
    let tasks = (0..TYPES).rev().map(|n| NewTask::new(name(n), n.to_string()).priority(if n == 7 { 1 } else { 0 }));
    queue.enqueue_many(tasks).expect("accepted");
    assert_eq!(first_three(&queue, &all), ["7", "299", "298"], "the first by priority, then the older ones");
    queue.pause_type(&name(297)).expect("paused");
    assert_eq!(first_three(&queue, &all), ["296", "295", "294"]);
    queue.register(TaskType::new(name(293)).max_concurrent(1)).expect("registered");
    queue.enqueue(NewTask::new(name(293), "high").priority(9)).expect("accepted");
    queue.enqueue(NewTask::new(name(293), "as high").priority(9)).expect("accepted");
    assert_eq!(first_three(&queue, &all), ["high", "292", "291"], "one of that type at once");
    // Those of other types that stand in front are passed over, however many they are.
    assert_eq!(first_three(&queue, &all[..20]), ["19", "18", "17"]);
    let crowd = (0..2_000).map(|n| NewTask::new(name(299), format!("crowd {n}")).priority(5));
    queue.enqueue_many(crowd).expect("accepted");
    assert_eq!(first_three(&queue, &all[..20]), ["16", "15", "14"]);
    assert_eq!(first_three(&queue, &all), ["crowd 0", "crowd 1", "crowd 2"]);
}
