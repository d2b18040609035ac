//! A batch job on an openEO back-end, from the process graph to the files: `cargo run --release --example openeo_batch`.
//!
//! Without arguments it starts a small back-end of its own. With a real one:
//!
//! ```text
//! openeo_batch --url URL --user U --password P --process-graph FILE.json --title T --out DIR
//! openeo_batch --url URL --user U --password P --jobs FILE.jsonl --parallel N --out DIR
//! ```
//!
//! Without `--user`, the environment says who is asking (`OPENEO_AUTH_CLIENT_ID`, ..). A line of the second file is a job as
//! the API has it: `{"title": "a", "process": {"process_graph": {..}}}`.

mod arguments;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use fulmar::BoxError;
use fulmar::backoff::Backoff;
use fulmar::batch::{BatchRunner, EventKind};
use fulmar::client::openeo::{
    BackEnd, Connection, DownloadOptions, LogLevel, NewJob, ProcessGraph, RunOptions, WaitOptions, run_jobs,
};
use openeo_server::{Config, Server};
use serde_json::{Value, json};

use arguments::Arguments;

/// `println!`, except that a closed output is no panic, so that `| head` is fine.
macro_rules! say {
    ($($text:tt)*) => {{ let _ = writeln!(io::stdout(), $($text)*); }};
}

fn main() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.help {
        say!("{}", arguments::USAGE);
        return Ok(ExitCode::SUCCESS);
    }

    // A back-end of our own, if none is named. It ends with this program.
    let own = if arguments.url.is_none() { Some(Server::start(Config::default())?) } else { None };
    let url = arguments.url.clone().or(own.as_ref().map(Server::url)).unwrap_or_default();
    let connection = Connection::connect(&url)?;
    say!("{} ({})", connection.capabilities().title().unwrap_or("a back-end"), connection.root_url());

    match (&arguments.user, &arguments.password) {
        (Some(user), Some(password)) => connection.authenticate_basic(user, password)?,
        _ if own.is_some() => connection.authenticate_basic("u", "u123")?,
        _ => connection.authenticate_from_environment()?,
    }
    match &arguments.jobs {
        None => one(&connection, &arguments, own.is_some()),
        Some(file) => many(&connection, &arguments, file),
    }
}

/// One job, step by step.
fn one(connection: &Connection, arguments: &Arguments, is_local: bool) -> Result<ExitCode, BoxError> {
    let graph = match &arguments.process_graph {
        Some(file) => ProcessGraph::from_json(serde_json::from_str(&std::fs::read_to_string(file)?)?)?,
        None => ProcessGraph::load_collection("SENTINEL2_L2A")
            .spatial_extent([3.5, 51.0, 3.6, 51.1])
            .temporal_extent("2022-06-01", "2022-07-01")
            .bands(["B04", "B08"])
            .process("ndvi", json!({}))
            .save_result("GTiff"),
    };
    let job = connection.create_job(NewJob::new(graph).title(&arguments.title))?;
    say!("created job '{}'", job.id());
    for warning in job.warnings() {
        say!("the back-end warns: {warning}");
    }

    let options = WaitOptions::new();
    let options = if is_local { options.poll(Backoff::new(Duration::from_millis(300)).factor(1.25)) } else { options };
    let end = job.start_and_wait(options)?;
    say!("\n{end}\n\n{}\n", job.logs(None, LogLevel::Info)?);

    let results = job.results();
    let files = results.download_files(&arguments.out, &DownloadOptions::new())?;
    say!("{results}\n");
    for file in files {
        say!("{}: {} bytes", file.display(), file.metadata()?.len());
    }
    if is_local {
        say!("\nall jobs of this user:\n{}", connection.list_jobs()?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Every job of a file, several at once.
fn many(connection: &Connection, arguments: &Arguments, file: &str) -> Result<ExitCode, BoxError> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let jobs = lines.map(|line| Ok(NewJob::from_json(serde_json::from_str::<Value>(line)?)?));
    let jobs: Vec<NewJob> = jobs.collect::<Result<_, BoxError>>()?;
    let runner = BatchRunner::builder().attempts(10).on_event(|event| {
        let id = event.id.unwrap_or("-");
        match &event.kind {
            EventKind::StateChanged { state } => say!("{:>4}  {id}  {state}", event.index),
            EventKind::Failed { failure } => say!("{:>4}  {id}  FAILED: {failure}", event.index),
            EventKind::Done => say!("{:>4}  {id}  done", event.index),
            EventKind::Noted { text } => say!("{:>4}  {id}  {text}", event.index),
            _ => {}
        }
    });
    let poll = Duration::from_secs_f64(arguments.poll);
    let options =
        RunOptions::new().poll(poll, poll.max(Duration::from_secs(60))).download_to(&arguments.out).run_on(runner);
    let back_end = BackEnd::new(connection).parallel_jobs(arguments.parallel).queue_limit(arguments.parallel.max(10));
    let report = run_jobs([back_end], jobs, &options)?;
    say!("\n{report}");
    for job in report.failures() {
        let reason = job.outcome.as_ref().err().map(|failure| describe(failure)).unwrap_or_default();
        say!("job {} ({}): {reason}", job.index, job.id.as_deref().unwrap_or("never created"));
    }
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An error with all that it came from.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}
