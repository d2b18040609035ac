//! Handlers of tasks as closures.

use fulmar::tasks::{NewTask, TaskContext, TaskQueue, TypedTask, Worker, handler, rusqlite};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Mail {
    to: String,
}

const MAIL: TypedTask<Mail> = TypedTask::new("mail");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-ideas-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("queue.db");
    let queue = TaskQueue::open(&file)?;
    queue.register(MAIL.task_type())?;
    queue.register(fulmar::tasks::TaskType::new("silent"))?;
    queue.register(fulmar::tasks::TaskType::new("untyped"))?;
    let worker = Worker::builder(&queue)
        .handle_typed(MAIL, |_, mail| {
            let _: u32 = mail.to.parse()?;
            Ok(())
        })
        .handle("silent", |task: &TaskContext| println!("{}", task.identifier()))
        .handle(
            "untyped",
            handler(|task| {
                let number: u64 = task.input()?;
                println!("{number}");
                Ok(())
            }),
        );
    let mut own = rusqlite::Connection::open(&file)?;
    let transaction = own.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    queue.enqueue_in(&transaction, [MAIL.task("one", &Mail { to: "7".into() })])?;
    transaction.commit()?;
    queue.enqueue(NewTask::new("untyped", "two").input(&7))?;
    assert_eq!(worker.run_due()?.len(), 2);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
