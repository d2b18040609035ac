//! A handler that takes the task's input.

use fulmar::tasks::{TaskQueue, Worker};

fn send(_: String) -> std::io::Result<()> {
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue = TaskQueue::open("queue.db")?;
    Worker::builder(&queue).handle("mail", send).start()?.drain(None)?;
    Ok(())
}
