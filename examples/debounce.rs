//! A page that changes often is indexed once, when it has been quiet: `cargo run --example debounce --features sqlite`
//!
//! Time passes at the program's word here, as in a test.

use std::error::Error;
use std::time::Duration;

use fulmar::tasks::{NewTask, TaskContext, TaskQueue, TaskType, Unique, Worker};

const QUIET: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-debounce-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let queue = TaskQueue::open(folder.join("queue.db"))?;
    queue.register(TaskType::new("index"))?;
    let worker = Worker::builder(&queue).handle("index", |task: &TaskContext| {
        let text: String = task.input()?;
        println!("indexed: {text}");
        task.store_response(text, "text/plain")
    });

    for text in ["a", "a pa", "a page"] {
        // What waits gets the new text, and has to wait anew.
        let once = Unique::by_key("page-7").push_back();
        let task = queue.enqueue(NewTask::unnamed("index").input(text).run_after(QUIET).unique(once))?;
        println!("changed to {text:?}, {}", if task.existed() { "pushed back" } else { "enqueued" });
        queue.pass_time(QUIET / 2)?;
        assert!(worker.run_due()?.is_empty(), "it isn't quiet yet");
    }
    queue.pass_time(QUIET)?;
    let ran = worker.run_due()?;
    assert_eq!(ran.len(), 1);
    assert_eq!(queue.response("index", &ran[0].identifier)?.ok_or("no response")?.text()?, "a page");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
