//! A function that outlives its process: `cargo run --release --example durable --features sqlite`
//!
//! Its process ends in the middle of the third step, as by `kill -9`; another runs the function again. What was stored is
//! not done again.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use fulmar::tasks::durable::{Durable, function};
use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskType, Worker};

fn order(cx: &Durable<'_>, item: String) -> Result<String, TaskError> {
    let price: u32 = cx.step("price", || done("asks for the price", 42))?;
    let receipt: String = cx.step("pay", || done("pays", format!("{item} for {price}")))?;
    cx.step("ship", || {
        if std::env::var_os("DIES").is_some() {
            println!("  dies");
            std::process::abort();
        }
        done("ships", ())
    })?;
    Ok(receipt)
}

fn done<T>(what: &str, value: T) -> Result<T, TaskError> {
    println!("  {what}");
    Ok(value)
}

fn work(file: &Path) -> Result<(), Box<dyn Error>> {
    let queue = TaskQueue::open(file)?;
    queue.register(TaskType::new("order"))?;
    let task = queue.enqueue(NewTask::new("order", "one").input("a lamp"));
    println!("{}", if task.is_ok() { "a new order" } else { "the same order" });
    if task.is_err() {
        // A process that died holds its tasks until its lease is over: time passes at the program's word here.
        queue.pass_time(std::time::Duration::from_secs(3_600))?;
    }
    let worker = Worker::builder(&queue).handle("order", function(order)).start()?;
    let task = queue.task("order", "one");
    task.wait(None)?;
    println!("the receipt: {}", task.response()?.ok_or("no receipt")?.json::<String>()?);
    worker.drain(None)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(file) = std::env::args_os().nth(1) {
        return work(Path::new(&file));
    }
    let folder = std::env::temp_dir().join(format!("fulmar-durable-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("queue.db");
    let program = std::env::current_exe()?;
    let first = Command::new(&program).arg(&file).env("DIES", "yes").status()?;
    let second = Command::new(&program).arg(&file).status()?;
    std::fs::remove_dir_all(&folder)?;
    if first.success() || !second.success() {
        return Err("the first has to die, and the second to go on".into());
    }
    Ok(())
}
