//! A backup while the queue is in use, and what waits moved to another queue: `cargo run --example move_queue --features sqlite`

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};

use fulmar::tasks::{NewTask, TaskFilter, TaskQueue, TaskType};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-move-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let old = TaskQueue::open(folder.join("old.db"))?;
    old.register(TaskType::new("mail"))?;
    old.enqueue_many((0..1_000).map(|n| NewTask::new("mail", n.to_string()).input(&n)))?;

    old.backup(folder.join("backup.db"))?;
    let backup = TaskQueue::builder().read_only().open(folder.join("backup.db"))?;
    println!("in the backup: {} tasks", backup.stats()?.depth());

    // No worker takes any while they move; the other queue may as well be on PostgreSQL.
    old.pause()?;
    let file = folder.join("tasks.jsonl");
    let exported = old.export(&TaskFilter::new(), BufWriter::new(File::create(&file)?))?;
    let new = TaskQueue::open(folder.join("new.db"))?;
    new.register(TaskType::new("mail"))?;
    let imported = new.import(BufReader::new(File::open(&file)?))?;
    println!("{exported} exported, {} imported", imported.enqueued);
    assert_eq!((exported, new.stats()?.depth()), (1_000, 1_000));
    old.delete_all(&TaskFilter::new())?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
