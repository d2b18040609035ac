//! Tasks that survive a crash, in a file or on a server:
//! `cargo run --release --example durable_tasks --features sqlite`.
//!
//! Without a subcommand: one task from its registration to its deletion, then a thousand over eight
//! workers, some failing, some pausing, one poison, and an account that has to add up. The
//! subcommands let several processes share one database:
//!
//! ```text
//! durable_tasks [--database FILE] [demo]           as above; in a temporary folder without --database
//! durable_tasks --database FILE enqueue N          N more tasks
//! durable_tasks --database FILE work               work until Ctrl-C: start as many as you like, kill any of them
//! durable_tasks --database FILE status             how many stand where
//! ```
//!
//! `--database postgres://user:password@host/database` takes a server, with the features
//! `sqlite,postgres`.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
#[cfg(unix)]
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fulmar::tasks::{
    NewTask, RetryPolicy, TaskContext, TaskError, TaskHandle, TaskQueue, TaskStatus, TaskType, Worker, WorkerId,
};

/// `println!`, except that a closed output isn't a panic, so that `| head` is fine.
macro_rules! say {
    ($($text:tt)*) => {{ let _ = writeln!(io::stdout(), $($text)*); }};
}

const USAGE: &str = "\
usage: durable_tasks [--database FILE] [demo]       one task, then a thousand, and an account; in a temporary folder without FILE
       durable_tasks --database FILE enqueue N      N more tasks
       durable_tasks --database FILE work           work until Ctrl-C: start as many as you like, kill any of them
       durable_tasks --database FILE status         how many stand where
With the feature `postgres`, FILE may be postgres://user:password@host/database";

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const TASKS: usize = 1_000;
const WORKERS: usize = 8;
/// A hang is a failure with a reason.
const HANG: Duration = Duration::from_secs(120);
/// How a process ends that the poison has killed, and how long its tasks stay with it.
const POISONED: i32 = 77;
const DOOMED_LEASE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(deeper) = source {
                text = format!("{text}: {deeper}");
                source = deeper.source();
            }
            eprintln!("durable_tasks: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    let (mut database, mut words) = (None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--database" => database = Some(arguments.next().ok_or("`--database` needs a FILE")?),
            "--help" | "-h" => {
                say!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            flag if flag.starts_with("--") => return Err(format!("there is no flag `{flag}`\n{USAGE}").into()),
            _ => words.push(argument),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let shared = || database.as_deref().ok_or("this needs `--database FILE`, for others to share");
    match words[..] {
        [] | ["demo"] => demo(database.as_deref()),
        ["enqueue", count] => {
            let count =
                count.parse().map_err(|_| format!("`enqueue` needs a number of tasks, and `{count}` is none"))?;
            enqueue(&open(shared()?)?, count)
        }
        ["work"] => work(&open(shared()?)?),
        ["doomed"] => doomed(&open(shared()?)?),
        ["status"] => status(&existing(shared()?)?),
        _ => Err(format!("`{}` makes no sense here\n{USAGE}", words.join(" ")).into()),
    }
}

fn demo(database: Option<&str>) -> Result<ExitCode> {
    let folder = if database.is_none() { Some(Folder::new()?) } else { None };
    let file = folder.as_ref().map(Folder::file);
    let address = database.or(file.as_deref()).unwrap_or_default();
    let queue = open(address)?;
    sequence_sum(&queue)?;
    thousand(&queue, address)
}

/// A server's address, as opposed to a file's.
fn is_server(address: &str) -> bool {
    address.starts_with("postgres://") || address.starts_with("postgresql://")
}

fn open(address: &str) -> Result<TaskQueue> {
    let builder = TaskQueue::builder().poll_interval(Duration::from_millis(20));
    if !is_server(address) {
        return Ok(builder.open(address)?);
    }
    #[cfg(feature = "postgres")]
    return Ok(builder.connect(address)?);
    #[cfg(not(feature = "postgres"))]
    Err("a server needs the feature `postgres`: run with `--features sqlite,postgres`".into())
}

/// As [`open`], but makes no new file: who asks how things stand has mistyped its name.
fn existing(address: &str) -> Result<TaskQueue> {
    if !is_server(address) && !Path::new(address).exists() {
        return Err(format!("there is no `{address}`: `enqueue` and `work` make one").into());
    }
    open(address)
}

// One task, step by step.

/// Sums what it is given. An input that isn't a sequence of numbers fails it.
fn sum(task: &TaskContext) -> Result<(), TaskError> {
    match task.input::<Vec<f64>>() {
        Ok(numbers) => task.store_response(numbers.iter().sum::<f64>().to_string(), "text/plain"),
        Err(error) => {
            task.fail(format!("input must be a sequence of numbers: {error}"));
            Ok(())
        }
    }
}

fn sequence_sum(queue: &TaskQueue) -> Result<()> {
    // 1 and 2. A type, with its time limit, retention and restart limit, and a handler for it.
    let sequence_sum = TaskType::new("SequenceSum")
        .time_limit(Duration::from_secs(60))
        .retention(Duration::from_secs(600))
        .restart_limit(3);
    queue.register(sequence_sum)?;
    let worker = Worker::builder(queue).handle("SequenceSum", sum).start()?;

    // 3. A task of that type. A full queue says so; try again later.
    let task = loop {
        match queue.enqueue(NewTask::new("SequenceSum", "Task001").input(&[1, 2, 3, 4, 5])) {
            Err(TaskError::QueueFull { .. }) => say!("the queue is full"),
            other => break other?,
        }
    };

    // 4. Poll until it has ended. `wait` does that without the loop.
    let status = loop {
        match task.wait(Duration::from_millis(200)) {
            Err(TaskError::Timeout { .. }) => say!("Status: {}", task.status()?),
            other => break other?,
        }
    };
    say!("Status: {status}");

    // 5. Its history.
    say!("Processing history:");
    let log = task.log()?;
    for entry in &log {
        let since = entry.time.duration_since(log[0].time).unwrap_or_default();
        say!("- {:>6.3} s  Status: {:<10} {}", since.as_secs_f64(), entry.status, entry.message);
    }

    // 6. Its result.
    let response = task.response()?.ok_or("the task stored no response")?;
    say!("Result: {} ({})", response.text()?, response.media_type);
    if status != TaskStatus::Finished || response.text()? != "15" {
        return Err("the sum of 1 to 5 is 15".into());
    }

    // 7. It is not needed any more.
    task.delete()?;
    if !matches!(task.status(), Err(TaskError::NotFound { .. })) {
        return Err("the task was deleted, and is still there".into());
    }
    worker.drain(HANG)?;
    say!("Task001 is deleted.\n");
    Ok(())
}

// A thousand tasks, and an account.

/// What becomes of task `n`: by its number, so that the account can be checked.
fn kind(n: usize) -> &'static str {
    match n {
        500 => "poison",
        n if n % 10 == 3 => "failing",
        n if n % 10 == 7 => "pausing",
        n if n % 20 == 9 => "flaky",
        _ => "plain",
    }
}

fn mixed(task: &TaskContext) -> Result<(), Box<dyn Error + Send + Sync>> {
    let n: usize = task.input()?;
    match kind(n) {
        "failing" => return Err("it fails every time".into()),
        "flaky" if task.failures() == 0 => return Err("it fails the first time".into()),
        // It gives its thread back twice, and keeps where it was.
        "pausing" if task.attempt() <= 2 => {
            let rounds = task.checkpoint::<u32>()?.unwrap_or(0);
            task.pause_with(Duration::from_millis(20), &(rounds + 1))?;
        }
        "pausing" => task.store_json(&task.checkpoint::<u32>()?)?,
        _ => task.store_json(&(n * n))?,
    }
    Ok(())
}

fn register(queue: &TaskQueue) -> Result<()> {
    let retry = RetryPolicy::times(1).first(Duration::from_millis(10));
    Ok(queue.register(TaskType::new("mixed").restart_limit(2).retry(retry))?)
}

fn new_task(n: usize) -> NewTask {
    // The poison is a type of its own, so that it kills no worker that the account is made of.
    let task_type = if kind(n) == "poison" { "poison" } else { "mixed" };
    NewTask::new(task_type, format!("task-{n}")).input(&n).priority(i16::from(n % 10 == 0))
}

fn thousand(queue: &TaskQueue, address: &str) -> Result<ExitCode> {
    register(queue)?;
    queue.register(TaskType::new("poison").restart_limit(2))?;
    let start = Instant::now();
    let handles = queue.enqueue_many((0..TASKS).map(new_task)).map_err(|error| match error {
        TaskError::Duplicate { .. } => format!("a demo was here before, use a database of its own: {error}").into(),
        error => Box::<dyn Error>::from(error),
    })?;
    say!("{TASKS} tasks accepted in {:.0?}", start.elapsed());

    let workers = (0..WORKERS)
        .map(|_| Worker::builder(queue).max_concurrent(2).handle("mixed", mixed).start())
        .collect::<Result<Vec<Worker>, TaskError>>()?;
    let lost = poison(queue, address)?;
    let mut ended = Vec::new();
    for handle in &handles {
        ended.push((handle, handle.wait(HANG)?));
    }
    say!("all ended in {:.2?}, over {WORKERS} workers:", start.elapsed());
    let mut started = 0;
    for worker in workers {
        let stats = worker.drain(HANG)?;
        say!("  {stats}");
        started += stats.started;
    }
    account(&ended, started, lost)
}

/// The poison task kills each process that runs it, until its restart limit is reached. Returns how
/// many it killed.
fn poison(queue: &TaskQueue, address: &str) -> Result<u64> {
    let mut deaths = 0;
    loop {
        let mut doomed = Command::new(std::env::current_exe()?);
        doomed.args(["--database", address, "doomed"]).stdin(Stdio::piped());
        let mut doomed = doomed.spawn()?;
        // Kept open: waiting for a process closes its input first, and that would end it too soon.
        let _input = doomed.stdin.take();
        let status = doomed.wait()?;
        if status.code() != Some(POISONED) {
            return Err(format!("the poison's process ended otherwise: {status}").into());
        }
        deaths += 1;
        // Its lease runs out. Workers look for such tasks now and then; the example has nothing
        // else to do.
        while queue.status("poison", "task-500")? == TaskStatus::Running {
            let (_keep, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(DOOMED_LEASE / 5);
            queue.tidy()?;
        }
        if queue.status("poison", "task-500")?.is_ended() {
            return Ok(deaths);
        }
    }
}

/// A process that dies of its first task.
fn doomed(queue: &TaskQueue) -> Result<ExitCode> {
    let _worker = Worker::builder(queue)
        .lease(DOOMED_LEASE)
        .handle("poison", |_: &TaskContext| -> Result<(), TaskError> { std::process::exit(POISONED) })
        .start()?;
    // Not for ever, if its parent goes first.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(ExitCode::SUCCESS)
}

fn account(ended: &[(&TaskHandle, TaskStatus)], started: u64, deaths: u64) -> Result<ExitCode> {
    let mut wrong = Vec::new();
    let mut expected_starts = 0;
    say!("\n{:<10} {:>6} {:>9} {:>7} {:>7}", "kind", "tasks", "finished", "failed", "starts");
    for of_kind in ["plain", "flaky", "pausing", "failing", "poison"] {
        let (mut count, mut finished, mut failed, mut starts) = (0, 0, 0, 0);
        for (n, (handle, status)) in ended.iter().enumerate().filter(|(n, _)| kind(*n) == of_kind) {
            let info = handle.info()?;
            count += 1;
            starts += u64::from(info.starts);
            finished += u64::from(*status == TaskStatus::Finished);
            failed += u64::from(*status == TaskStatus::Failed);
            let log = handle.log()?;
            let ends = log.iter().filter(|entry| entry.status.is_ended()).count();
            let expected = match of_kind {
                "plain" => (TaskStatus::Finished, 1, Some((n * n).to_string())),
                "flaky" => (TaskStatus::Finished, 2, Some((n * n).to_string())),
                "pausing" => (TaskStatus::Finished, 3, Some("2".to_owned())),
                "failing" => (TaskStatus::Failed, 2, None),
                _ => (TaskStatus::Failed, 3, None),
            };
            let response = handle.response()?.map(|response| response.text().map(str::to_owned)).transpose()?;
            if (*status, info.starts, response) != expected || ends != 1 {
                wrong.push(format!("{} is {status} after {} starts", handle.identifier(), info.starts));
            }
        }
        expected_starts += if of_kind == "poison" { 0 } else { starts };
        say!("{of_kind:<10} {count:>6} {finished:>9} {failed:>7} {starts:>7}");
        if count != finished + failed {
            wrong.push(format!("{count} {of_kind} tasks, but {finished} finished and {failed} failed"));
        }
    }
    if started != expected_starts {
        wrong.push(format!("the workers started {started} attempts, and the tasks say {expected_starts}"));
    }
    if deaths != 3 || ended.len() != TASKS {
        wrong.push(format!("the poison took {deaths} workers instead of 3, or {} is not {TASKS}", ended.len()));
    }
    if wrong.is_empty() {
        say!("\nThe account adds up: each task ended once, as it should, and nothing was done twice.");
        return Ok(ExitCode::SUCCESS);
    }
    for line in wrong {
        say!("WRONG: {line}");
    }
    Ok(ExitCode::FAILURE)
}

// For several processes.

fn enqueue(queue: &TaskQueue, count: usize) -> Result<ExitCode> {
    register(queue)?;
    // A prefix of its own, so that any number of processes may do this at once.
    let prefix = WorkerId::new().to_string();
    // No poison: whoever works here shall live.
    let numbers = (0..).filter(|n| kind(*n) != "poison").take(count);
    let tasks = numbers.map(|n| NewTask::new("mixed", format!("{}-{n}", &prefix[..8])).input(&n));
    let accepted = queue.enqueue_many(tasks)?;
    say!("{} tasks accepted", accepted.len());
    Ok(ExitCode::SUCCESS)
}

fn work(queue: &TaskQueue) -> Result<ExitCode> {
    register(queue)?;
    // A short lease, so that the tasks of a killed process are soon another's.
    let worker = Worker::builder(queue).lease(Duration::from_secs(3)).handle("mixed", mixed).start()?;
    say!("worker {} is at work: Ctrl-C drains it, and kill -9 leaves its tasks to the others", worker.id());
    until_interrupted()?;
    say!("{}", worker.drain(HANG)?);
    Ok(ExitCode::SUCCESS)
}

/// Until Ctrl-C or SIGTERM; a second one ends the process at once.
#[cfg(unix)]
fn until_interrupted() -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, interrupted.clone())?;
    }
    signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?.forever().next();
    interrupted.store(true, Ordering::SeqCst);
    Ok(())
}

/// Until its input ends.
#[cfg(not(unix))]
fn until_interrupted() -> Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn status(queue: &TaskQueue) -> Result<ExitCode> {
    let stats = queue.stats()?;
    if stats.types.is_empty() {
        say!("no task was ever enqueued here");
    }
    for of_type in &stats.types {
        say!("{}: {} ended in the last minute", of_type.name, of_type.ended_last_minute);
        for status in [
            TaskStatus::Accepted,
            TaskStatus::Scheduled,
            TaskStatus::Running,
            TaskStatus::Paused,
            TaskStatus::Finished,
            TaskStatus::Failed,
            TaskStatus::Cancelled,
        ] {
            say!("  {status:<10} {:>8}", of_type.count(status));
        }
        if let Some(oldest) = of_type.oldest_ready {
            say!("  the oldest has been ready for {oldest:.1?}");
        }
    }
    for warning in &stats.warnings {
        say!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A temporary folder, which goes with the program.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("durable-tasks-{}", WorkerId::new()));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    fn file(&self) -> String {
        Path::new(&self.0).join("queue.db").to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
