//! A small tenant's tasks don't wait for a large one's:
//! `cargo run --example limits --features sqlite`

use std::error::Error;
use std::time::Duration;

use fulmar::tasks::{Limits, NewTask, Rate, TaskQueue, TaskType, WorkerId};

const LEASE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-limits-example-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let queue = TaskQueue::open(folder.join("queue.db"))?;
    queue.register(TaskType::new("export"))?;
    // For all machines, and while tasks wait: no worker has to be told.
    let daily = Rate::new(100, Duration::from_secs(86_400)).burst(3);
    queue.set_limits("export", Limits::new().max_concurrent_by_key(2).rate_by_key(daily).turns(true))?;

    let of = |tenant: &'static str, n: usize| NewTask::new("export", format!("{tenant} {n}")).ordered(tenant, false);
    queue.enqueue_many((0..1_000).map(|n| of("large", n)))?;
    queue.enqueue_many((0..2).map(|n| of("small", n)))?;

    // What a worker would take; a real one has a handler.
    let taken = queue.dequeue(&WorkerId::new(), &["export"], 10, LEASE)?;
    let names: Vec<&str> = taken.iter().map(|claim| claim.task().identifier()).collect();
    println!("taken: {names:?}");
    assert_eq!(names, ["large 0", "small 0", "large 1", "small 1"]);

    for claim in &taken {
        claim.start()?;
        claim.finish()?;
    }
    let next = queue.dequeue(&WorkerId::new(), &["export"], 10, LEASE)?;
    println!("then: {} of the large tenant, whose rate lets no more pass for now", next.len());
    assert_eq!(next.len(), 1);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
