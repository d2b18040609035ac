//! A batch job on an openEO back-end, from the process graph to the files:
//! `cargo run --release --example openeo_batch`.
//!
//! Without arguments it starts a small back-end of its own. With a real one:
//!
//! ```text
//! openeo_batch --url URL --user U --password P --process-graph FILE.json --title T --out DIR
//! openeo_batch --url URL --user U --password P --jobs FILE.jsonl --parallel N --out DIR
//! ```
//!
//! `--help` tells the rest.

mod arguments;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use fulmar::BoxError;
use fulmar::backoff::Backoff;
use fulmar::batch::{BatchRunner, EventKind, JobFailure};
use fulmar::client::openeo::{
    BackEnd, Connection, DownloadOptions, LogLevel, NewJob, Oidc, OpenEoError, ProcessGraph, RunOptions, WaitOptions,
    run_jobs,
};
use openeo_server::{Config, Server};
use serde_json::json;

use arguments::Arguments;

/// `println!`, except that a closed output isn't a panic, so that `| head` is fine.
macro_rules! say {
    ($($text:tt)*) => {{ let _ = writeln!(io::stdout(), $($text)*); }};
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "openeo_batch: {}", describe(&*error));
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.help {
        say!("{}", arguments::USAGE);
        return Ok(ExitCode::SUCCESS);
    }
    // What is wrong with a file is better known before anybody is asked.
    let work = match &arguments.jobs {
        None => Work::One(Box::new(job_of(&arguments)?)),
        Some(file) => Work::Many(jobs_of(file)?),
    };

    // A back-end of our own, if none is named. It ends with this program.
    let own = if arguments.url.is_none() { Some(Server::start(Config::default())?) } else { None };
    let url = arguments.url.clone().or(own.as_ref().map(Server::url)).unwrap_or_default();
    let connection = Connection::connect(&url)?;
    say!("{} ({})", connection.capabilities().title().unwrap_or("a back-end"), connection.root_url());

    let from_environment = || std::env::var("OPENEO_AUTH_PASSWORD").ok();
    match (&arguments.user, arguments.password.clone().or_else(from_environment)) {
        (Some(user), Some(password)) => connection.authenticate_basic(user, &password)?,
        (Some(_), None) => return Err("--user wants a --password, or OPENEO_AUTH_PASSWORD in the environment".into()),
        _ if own.is_some() => connection.authenticate_basic("u", "u123")?,
        _ if arguments.device => {
            connection.authenticate_oidc_device(&Oidc::new(), |prompt| say!("{prompt}"))?;
        }
        _ => connection
            .authenticate_from_environment()
            .map_err(|error| format!("{}; or log in with --user and --password, or with --device", describe(&error)))?,
    }
    match work {
        Work::One(job) => one(&connection, *job, &arguments, own.is_some()),
        Work::Many(jobs) => many(&connection, jobs, &arguments),
    }
}

enum Work {
    One(Box<NewJob>),
    Many(Vec<NewJob>),
}

fn job_of(arguments: &Arguments) -> Result<NewJob, BoxError> {
    let graph = match &arguments.process_graph {
        Some(file) => {
            let graph = serde_json::from_str(&read(file)?).map_err(BoxError::from);
            let graph = graph.and_then(|graph| Ok(ProcessGraph::from_json(graph)?));
            graph.map_err(|error| format!("{file}: {error}"))?
        }
        None => ProcessGraph::load_collection("SENTINEL2_L2A")
            .spatial_extent([3.5, 51.0, 3.6, 51.1])
            .temporal_extent("2022-06-01", "2022-07-01")
            .bands(["B04", "B08"])
            .process("ndvi", json!({}))
            .save_result("GTiff"),
    };
    Ok(NewJob::new(graph).title(arguments.title.as_deref().unwrap_or("NDVI timeseries 2022")))
}

fn jobs_of(file: &str) -> Result<Vec<NewJob>, BoxError> {
    let mut jobs = Vec::new();
    for (number, line) in (1..).zip(read(file)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let job = serde_json::from_str(line).map_err(BoxError::from);
        let job = job.and_then(|job| Ok(NewJob::from_json(job)?));
        jobs.push(job.map_err(|error| format!("{file}, line {number}: {error}"))?);
    }
    if jobs.is_empty() { Err(format!("{file} has no jobs: a line is one").into()) } else { Ok(jobs) }
}

fn read(file: &str) -> Result<String, BoxError> {
    Ok(std::fs::read_to_string(file).map_err(|error| format!("{file} can't be read: {error}"))?)
}

/// One job, step by step.
fn one(connection: &Connection, job: NewJob, arguments: &Arguments, is_local: bool) -> Result<ExitCode, BoxError> {
    let job = connection.create_job(job)?;
    say!("created job '{}'", job.id());
    for warning in job.warnings() {
        say!("the back-end warns: {warning}");
    }

    let first = arguments.poll.unwrap_or(if is_local { 0.3 } else { 5.0 });
    let poll = Backoff::new(Duration::from_secs_f64(first)).factor(1.25).cap(Duration::from_secs_f64(first.max(60.0)));
    let options = WaitOptions::new().poll(poll);
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
fn many(connection: &Connection, jobs: Vec<NewJob>, arguments: &Arguments) -> Result<ExitCode, BoxError> {
    let runner = BatchRunner::builder().attempts(10).on_event(|event| {
        let id = event.id.unwrap_or("-");
        match &event.kind {
            EventKind::StateChanged { state } => say!("{:>4}  {id}  {state}", event.index),
            EventKind::Failed { failure } => say!("{:>4}  {id}  FAILED: {}", event.index, reason(failure)),
            EventKind::Done => say!("{:>4}  {id}  done", event.index),
            EventKind::Noted { text } => say!("{:>4}  {id}  {text}", event.index),
            _ => {}
        }
    });
    let parallel = arguments.parallel.unwrap_or(2);
    let poll = Duration::from_secs_f64(arguments.poll.unwrap_or(if arguments.url.is_none() { 0.3 } else { 5.0 }));
    let options =
        RunOptions::new().poll(poll, poll.max(Duration::from_secs(60))).download_to(&arguments.out).run_on(runner);
    let back_end = BackEnd::new(connection).parallel_jobs(parallel).queue_limit(parallel.max(10));
    let report = run_jobs([back_end], jobs, &options)?;
    say!("\n{report}\nresults and error logs are in {}", arguments.out);
    for job in report.failures() {
        let why = job.outcome.as_ref().err().map(reason).unwrap_or_default();
        say!("job {} ({}): {why}", job.index, job.id.as_deref().unwrap_or("never created"));
    }
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why a job has no results: in the client's own words, where it was the client who said so.
fn reason(failure: &JobFailure) -> String {
    failure.error::<OpenEoError>().map_or_else(|| describe(failure), |error| describe(error))
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
