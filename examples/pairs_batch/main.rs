//! Many PAIRS queries in a sliding window: `cargo run --release --example pairs_batch`.
//!
//! With no arguments it starts a PAIRS server of its own and runs 40 queries of 2 s each, 8 at a
//! time. With `--host` it runs the queries of a file, one a line, in the JSON of the Python client,
//! against any server. `--help` tells the rest.

mod local;
mod options;
#[cfg(not(feature = "progress"))]
mod progress;
mod report;

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use fulmar::Executor;
use fulmar::batch::BatchReport;
use fulmar::client::pairs::{BatchOptions, Client, Query, QueryResult, batch_query};

use options::{Command, Options};

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            // A closed output isn't a reason to fail.
            let _ = io::stdout().write_all(options::HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("error: {problem}; --help tells what there is");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", report::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; says whether every query has succeeded.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // Without a host there is one here, until the end of this function.
    let local = match options.host {
        Some(_) => None,
        None => Some(local::Local::start(options.queries.is_none())?),
    };
    if let Some(path) = &options.report {
        report::check(path)?;
    }
    let client = client(options, local.as_ref())?;
    let queries = match &options.queries {
        Some(path) => read_queries(path)?,
        None => local::queries(),
    };
    let out = options.out.clone().or_else(|| local.as_ref().map(|local| local.folder().to_owned()));
    let out = out.unwrap_or_else(|| "download".into());
    println!(
        "{} queries to {}, {} at a time on {} threads, files to {}",
        queries.len(),
        client.host(),
        options.window,
        options.threads,
        out.display()
    );

    let report = batch(&client, queries.clone(), options, &out)?;
    report::print(&report, &queries)?;
    if let Some(path) = &options.report {
        report::write(path, &report, &queries)?;
        println!("report: {}", path.display());
    }
    Ok(report.is_success())
}

fn client(options: &Options, local: Option<&local::Local>) -> Result<Client, Box<dyn Error>> {
    let host = options.host.clone().or_else(|| local.map(local::Local::url)).unwrap_or_default();
    let builder = Client::builder(&host);
    Ok(match (&options.user, &options.password) {
        (Some(user), Some(password)) => builder.basic(user, password),
        _ => builder,
    }
    .build()?)
}

fn batch(
    client: &Client,
    queries: Vec<Query>,
    options: &Options,
    out: &std::path::Path,
) -> Result<BatchReport<QueryResult>, Box<dyn Error>> {
    let executor = Executor::builder().threads(options.threads).build()?;
    #[cfg(not(feature = "progress"))]
    let count = queries.len();
    let interval = Duration::from_secs_f64(options.poll_interval);
    let settings = BatchOptions::new()
        .workers(options.window)
        .status_interval(interval)
        .status_interval_floor(interval)
        .folder(out)
        .runner_with(|runner| {
            let runner = runner.executor(&executor).max_concurrent(options.threads);
            #[cfg(feature = "progress")]
            let runner = if options.quiet { runner } else { runner.progress() };
            #[cfg(not(feature = "progress"))]
            let runner = if options.quiet { runner } else { runner.on_event(progress::on_stderr(count)) };
            runner
        });
    Ok(batch_query(client, queries, settings)?)
}

/// One query a line; empty lines are passed over.
fn read_queries(path: &std::path::Path) -> Result<Vec<Query>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read =
        |(at, line): (usize, &str)| line.parse().map_err(|error| format!("{}:{}: {error}", path.display(), at + 1));
    let queries: Vec<Query> = lines.map(read).collect::<Result<_, _>>()?;
    if queries.is_empty() {
        return Err(format!("{} holds no query", path.display()).into());
    }
    Ok(queries)
}
