//! What Prometheus sees of a queue, and a context that goes with a task: `cargo run --example seen --features sqlite`

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use fulmar::tasks::{NewTask, TaskContext, TaskEvent, TaskQueue, TaskType, Worker};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("fulmar-seen-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    // With OpenTelemetry this asks for the current span's `traceparent`.
    let queue = TaskQueue::builder()
        .trace_context(|| Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()))
        .open(folder.join("queue.db"))?;
    queue.register(TaskType::new("mail"))?;
    let worker = Worker::builder(&queue)
        .handle("mail", |task: &TaskContext| {
            println!("{} belongs to {:?}", task.identifier(), task.trace_context());
            Ok::<_, fulmar::tasks::TaskError>(())
        })
        .on_event(|event| {
            if let TaskEvent::Ended { task, status, took } = event {
                println!("{}: {status:?} in {took:?}", task.identifier());
            }
        })
        .start()?;
    queue.enqueue(NewTask::new("mail", "order-1"))?.wait(Duration::from_secs(60))?;

    // A server in earnest does this for each connection.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut scraper = TcpStream::connect(listener.local_addr()?)?;
    let page = queue.open_metrics()?;
    let (mut connection, _) = listener.accept()?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    write!(connection, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{page}", page.len())?;
    drop(connection);
    let mut scraped = String::new();
    scraper.read_to_string(&mut scraped)?;
    for line in scraped.lines().filter(|line| line.starts_with("fulmar_attempts_total")) {
        println!("{line}");
    }
    worker.drain(Duration::from_secs(60))?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
