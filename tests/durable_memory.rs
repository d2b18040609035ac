//! A function that waits for children with large results takes no memory for what it can't have: in
//! a process of its own, whose peak is its own alone.
#![cfg(all(feature = "sqlite", target_os = "linux"))]

use fulmar::tasks::durable::{Durable, function};
use fulmar::tasks::{NewTask, TaskContext, TaskError, TaskQueue, TaskStatus, TaskType, Worker};

const CHILDREN: usize = 24;
const SIZE: usize = 6 << 20;

fn peak_with_large_children(queue: &TaskQueue) -> u64 {
    for name in ["memory-parent", "memory-child"] {
        queue.register(TaskType::new(name)).expect("registered");
    }
    let parent = |cx: &Durable<'_>, ()| -> Result<usize, TaskError> {
        let children = (0..CHILDREN).map(|n| cx.child("memory-child", &n.to_string(), &()));
        Ok(cx.all::<String>("all", children)?.len())
    };
    let child = |task: &TaskContext| task.store_json(&"x".repeat(SIZE));
    let worker = Worker::builder(queue).handle("memory-parent", function(parent)).handle("memory-child", child);
    let task = queue.enqueue(NewTask::new("memory-parent", "a").input(&())).expect("accepted");
    worker.run_due().expect("run");
    assert_eq!(task.status().expect("there"), TaskStatus::Failed);
    let why = task.log().expect("a log").pop().expect("an entry").message;
    assert!(why.contains("results of all children"), "{why}");
    peak()
}

#[test]
fn results_that_are_too_large_together_are_not_read() {
    let folder = std::env::temp_dir().join(format!("fulmar-durable-memory-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let queue = TaskQueue::open(folder.join("queue.db")).expect("a queue");
    let peak = peak_with_large_children(&queue);
    drop(queue);
    std::fs::remove_dir_all(&folder).expect("removed");
    let all = (CHILDREN * SIZE / 1024) as u64;
    assert!(peak < all / 2, "{peak} KiB at the peak; the results together have {all} KiB");
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
