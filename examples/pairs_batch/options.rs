//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
Runs many IBM PAIRS queries in a sliding window.

Usage: cargo run --release --example pairs_batch [-- OPTIONS]

  --host URL            where the API begins, such as https://pairs.res.ibm.com or
                        http://127.0.0.1:9090/v2
                        (without it: a server of this program's own)
  --user NAME           who you are there
  --password PASSWORD   your password; better in the variable PAIRS_PASSWORD,
                        which other users of this machine can't see
  --queries FILE.jsonl  the queries, one a line, as JSON of the Python client
                        (without it: 40 queries of 2 s on the server of its own)
  --window N            how many queries are in flight at a time    (8)
  --threads N           how many threads do all the work            (8)
  --poll-interval S     seconds between two questions for a status  (1 for the
                        server of its own, else 30)
  --out DIR             where files go                              (download;
                        without --host a temporary folder)
  --report FILE.json    writes what became of each query
  --quiet               no progress
  --help                this text

The exit status is 0 only if every query has succeeded.
";

pub(crate) enum Command {
    Run(Options),
    Help,
}

pub(crate) struct Options {
    pub(crate) host: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) queries: Option<PathBuf>,
    pub(crate) window: usize,
    pub(crate) threads: usize,
    /// In seconds.
    pub(crate) poll_interval: f64,
    pub(crate) out: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) quiet: bool,
}

/// Reads the command line.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut options = Options {
        host: None,
        user: None,
        password: std::env::var("PAIRS_PASSWORD").ok(),
        queries: None,
        window: 8,
        threads: 8,
        poll_interval: 0.0,
        out: None,
        report: None,
        quiet: false,
    };
    let mut interval = None;
    let mut has_password = false;
    let mut args = args;
    while let Some(arg) = args.next() {
        // `--name VALUE` or `--name=VALUE`. No error repeats a value: it may be a password.
        let text = arg.to_string_lossy().into_owned();
        let (name, mut inline) = match (arg.to_str(), text.split_once('=')) {
            (Some(_), Some((name, value))) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
            _ => (text, None),
        };
        match name.as_str() {
            "--quiet" | "--help" if inline.is_some() => return Err(format!("`{name}` takes no value")),
            "--help" | "-h" => return Ok(Command::Help),
            "--quiet" => {
                options.quiet = true;
                continue;
            }
            _ => {}
        }
        let mut value = || inline.take().or_else(|| args.next()).ok_or_else(|| format!("`{name}` needs a value"));
        let text = |value: OsString| value.into_string().map_err(|_| format!("the value of `{name}` isn't text"));
        match name.as_str() {
            "--host" => options.host = Some(text(value()?)?),
            "--user" => options.user = Some(text(value()?)?),
            "--password" => {
                options.password = Some(text(value()?)?);
                has_password = true;
            }
            "--queries" => options.queries = Some(value()?.into()),
            "--window" => options.window = number(&name, &text(value()?)?, 1..=1_000_000)?,
            "--threads" => options.threads = number(&name, &text(value()?)?, 1..=1_024)?,
            "--poll-interval" => interval = Some(seconds(&name, &text(value()?)?)?),
            "--out" => options.out = Some(value()?.into()),
            "--report" => options.report = Some(value()?.into()),
            _ => return Err(format!("there is no `{name}`")),
        }
    }
    if options.host.is_some() && options.queries.is_none() {
        return Err("`--host` needs `--queries FILE.jsonl`".to_owned());
    }
    if options.user.is_some() && options.password.is_none() {
        return Err("`--user` needs `--password`, or the variable PAIRS_PASSWORD".to_owned());
    }
    if has_password && options.user.is_none() {
        return Err("`--password` needs `--user`".to_owned());
    }
    options.poll_interval = interval.unwrap_or(if options.host.is_some() { 30.0 } else { 1.0 });
    Ok(Command::Run(options))
}

fn number(name: &str, text: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, String> {
    let wrong = || format!("`{name}` takes a number from {} to {}, not `{text}`", range.start(), range.end());
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(wrong)
}

fn seconds(name: &str, text: &str) -> Result<f64, String> {
    let wrong = || format!("`{name}` takes seconds from 0.001 to 86400, not `{text}`");
    text.parse().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds)).ok_or_else(wrong)
}
