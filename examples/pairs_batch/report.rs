//! What became of each query, for people and for programs.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fulmar::batch::{BatchReport, JobReport};
use fulmar::client::pairs::{PairsError, Query, QueryResult};
use serde_json::{Value, json};

/// A table with a line for each failure and a summary of the rest.
pub(crate) fn print(report: &BatchReport<QueryResult>, queries: &[Query]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for job in report.failures() {
        let name = queries.get(job.index).and_then(Query::name).unwrap_or("");
        writeln!(out, "query {} {name} {}: {}", job.index, job.id.as_deref().unwrap_or("(no id)"), error(job))?;
    }
    for job in &report.jobs {
        for note in &job.notes {
            writeln!(out, "query {}: {note}", job.index)?;
        }
    }
    writeln!(out, "{report}")
}

/// `{"queries": [{"index", "id", "status", "files", "error", "seconds", ..}], ..}`.
pub(crate) fn write(path: &Path, report: &BatchReport<QueryResult>, queries: &[Query]) -> Result<(), Box<dyn Error>> {
    let stats = &report.stats;
    let value = json!({
        "seconds": report.elapsed.as_secs_f64(),
        "total": stats.total,
        "succeeded": stats.succeeded,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
        "retries": stats.retries,
        "bytes": stats.bytes,
        "queries": report.jobs.iter().map(|job| entry(job, queries.get(job.index))).collect::<Vec<_>>(),
    });
    fs::write(path, format!("{value:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}

/// Whether the report can be written: better known before the queries have run. What is there stays until then.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

fn entry(job: &JobReport<QueryResult>, query: Option<&Query>) -> Value {
    let result = job.outcome.as_ref().ok();
    let files = result.map(|result| &result.files);
    // Points that are answered at once have no id; what the report calls them then is their name.
    let id = result.map_or(job.id.as_ref(), |result| result.id.as_ref());
    // A path need not be text, and JSON is.
    let shown = |path: &PathBuf| path.to_string_lossy().into_owned();
    json!({
        "index": job.index,
        "name": query.and_then(Query::name),
        "id": id,
        "status": status(job),
        "files": files.map_or_else(Vec::new, |files| files.files.iter().map(shown).collect()),
        "archive": files.and_then(|files| files.archive.as_ref().map(shown)),
        "error": job.outcome.is_err().then(|| error(job)),
        "seconds": (job.ended.saturating_sub(job.started.unwrap_or(job.ended))).as_secs_f64(),
        "attempts": {"submit": job.attempts.submit, "poll": job.attempts.poll, "fetch": job.attempts.fetch},
        "notes": job.notes,
    })
}

/// The server's word for how the query ended, or ours where it has none.
fn status(job: &JobReport<QueryResult>) -> String {
    match &job.outcome {
        Ok(result) => {
            result.status.as_ref().map_or_else(|| "answered at once".to_owned(), |status| status.status.clone())
        }
        Err(failure) => match failure.error::<PairsError>() {
            Some(PairsError::Failed { status, .. }) => status.clone(),
            _ => "not done".to_owned(),
        },
    }
}

fn error(job: &JobReport<QueryResult>) -> String {
    job.outcome.as_ref().err().map_or_else(String::new, |failure| chain(failure))
}

/// An error with all of its sources, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
