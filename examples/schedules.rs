//! A report every morning, fired once however many processes look: `cargo run --example schedules --features sqlite,cron`
//!
//! Time passes at the program's word here, as in a test; a program in earnest starts a `Worker` and waits.

use std::error::Error;
use std::time::Duration;

use fulmar::tasks::{NewTask, Schedule, TaskContext, TaskQueue, TaskType, Worker};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-schedules-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let queue = TaskQueue::open(folder.join("queue.db"))?;
    queue.register(TaskType::new("report").retention(7 * DAY))?;

    // Each program says so when it starts; the database has it once.
    let task = NewTask::new("report", "morning").input("sales");
    queue.put_schedule(Schedule::cron("morning report", "30 8 * * 1-5", task).zone("Europe/Vienna"))?;

    let worker = Worker::builder(&queue).handle("report", |task: &TaskContext| {
        let of: String = task.input()?;
        println!("  {}: the report of {of}", task.identifier());
        Ok::<_, fulmar::tasks::TaskError>(())
    });
    let mut runs = 0;
    for day in 1..=7 {
        println!("day {day}");
        queue.pass_time(DAY)?;
        // A second process that looks at the same time fires nothing.
        let other = TaskQueue::open(folder.join("queue.db"))?;
        runs += other.fire_schedules()?;
        assert_eq!(queue.fire_schedules()?, 0);
        worker.run_due()?;
    }
    println!("{runs} runs in a week: {:?}", queue.schedules()?[0].rule);
    assert_eq!(runs, 5);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
