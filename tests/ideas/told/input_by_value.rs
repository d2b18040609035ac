//! The input of a task is borrowed, and a task has an identifier.

use fulmar::tasks::{NewTask, Result, TaskQueue};

fn main() -> Result<()> {
    let queue = TaskQueue::open("queue.db")?;
    queue.enqueue(NewTask::new("mail", "1").input(serde_json::json!({"to": "me"})))?;
    queue.enqueue(NewTask::new("mail").input(&1))?;
    Ok(())
}
