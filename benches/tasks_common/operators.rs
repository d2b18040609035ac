//! What an operator waits for beside a million waiting tasks, and what others wait for because of an operator.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fulmar::tasks::{NewTask, TaskFilter, TaskQueue, TaskStatus, TaskType, WorkerId};

use super::ours;

/// Prints how long lists, a pause and a retry of many take, and the longest wait of a producer and a worker beside that.
pub(crate) fn tell(queue: &TaskQueue, test: bool) {
    let (waiting, many) = if test { (2_000, 500) } else { (1_000_000, 100_000) };
    for of_type in ["waits", "mends", "beside"] {
        queue.register(TaskType::new(of_type)).expect("registered");
    }
    let fill = |of_type: &'static str, tasks: usize| {
        for from in (0..tasks).step_by(2_000) {
            let task = |n: usize| NewTask::new(of_type, n.to_string()).ordered(format!("k{}", n % 1_000), false);
            queue.enqueue_many((from..tasks.min(from + 2_000)).map(task)).expect("accepted");
        }
    };
    fill("waits", waiting);
    fill("mends", many);
    let mends = TaskFilter::new().of_type("mends");
    let start = Instant::now();
    queue.cancel_all(&mends, "connection refused").expect("cancelled");
    println!("\nBeside {waiting} waiting tasks: {many} cancelled by filter in {:.1?}", start.elapsed());

    let all = TaskFilter::new;
    for (what, filter) in [
        ("of a type, that wait", all().of_type("waits").status([TaskStatus::Accepted])),
        ("the newest", all().newest_first()),
        ("of a key", all().of_type("waits").key("k7")),
        ("cancelled, by text", all().status([TaskStatus::Cancelled]).saying("refused")),
        ("running, of which there are none", all().status([TaskStatus::Running])),
        ("finished, of which there are none", all().status([TaskStatus::Finished])),
    ] {
        let mut times: Vec<Duration> = (0..21)
            .map(|_| {
                let start = Instant::now();
                queue.list(&filter, 50).expect("listed");
                start.elapsed()
            })
            .collect();
        times.sort();
        let tasks = queue.list(&filter, 50).expect("listed").tasks.len();
        println!(
            "  first page, {what:<34} {:>9.2?} at most {:>9.2?}  {tasks} tasks  goal < 50 ms",
            times[10], times[20]
        );
    }
    ours::tell_depth(queue, &format!("{waiting} waiting ones"));
    let start = Instant::now();
    queue.pause_type("waits").expect("paused");
    println!("  pause of a type {:.2?}", start.elapsed());

    let alone = beside(queue, "alone", || {
        let until = Instant::now() + Duration::from_secs(if test { 0 } else { 5 });
        while Instant::now() < until {
            std::thread::yield_now();
        }
    });
    let retrying = beside(queue, "retry", || {
        let start = Instant::now();
        let retried = queue.retry_all(&mends).expect("retried");
        println!("  {retried} retried by filter in {:.1?}", start.elapsed());
    });
    for (what, longest) in [("alone", alone), ("beside the retry", retrying)] {
        println!("  longest wait, {what:<17} enqueue {:>9.2?}, claim {:>9.2?}  goal < 100 ms", longest.0, longest.1);
    }
}

/// The longest enqueue and the longest claim of another thread while `work` goes on.
fn beside(queue: &TaskQueue, name: &str, work: impl FnOnce()) -> (Duration, Duration) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut longest, worker, mut n) = ((Duration::ZERO, Duration::ZERO), WorkerId::new(), 0);
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                queue.enqueue(NewTask::new("beside", format!("{name}-{n}"))).expect("accepted");
                longest.0 = longest.0.max(start.elapsed());
                let start = Instant::now();
                queue.dequeue(&worker, &["beside"], 1, Duration::from_secs(600)).expect("claimed");
                longest.1 = longest.1.max(start.elapsed());
                n += 1;
            }
            longest
        });
        work();
        done.store(true, Ordering::Relaxed);
        other.join().expect("it measures")
    })
}
