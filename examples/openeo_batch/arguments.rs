//! The command line.

use std::str::FromStr;

use fulmar::BoxError;

pub(crate) const USAGE: &str =
    "openeo_batch [--url URL [--user U --password P | --device]] [--out DIR] [--poll SECONDS]
             [--process-graph FILE.json] [--title T]    one job, step by step
             [--jobs FILE.jsonl] [--parallel N]         or many

  --url            the back-end; without it, a small one of this program's own
  --user           logs in with a password, from --password or OPENEO_AUTH_PASSWORD
  --device         logs in with a browser; without this and --user, OPENEO_AUTH_CLIENT_ID and
                   OPENEO_AUTH_CLIENT_SECRET say who is asking
  --process-graph  what to compute, as JSON; without it, an NDVI
  --title          what the job list calls it
  --jobs           a job a line, as the API has it: {\"title\": \"a\", \"process\": {\"process_graph\": {..}}}
  --parallel       how many of them run at once; 2 unless it is given
  --poll           how long to wait before the first look at a job; 5 unless it is given, 0.3 without --url
  --out            where the results go; a new folder for temporary files unless it is given";

pub(crate) struct Arguments {
    pub(crate) help: bool,
    pub(crate) url: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) device: bool,
    pub(crate) process_graph: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) out: String,
    pub(crate) jobs: Option<String>,
    pub(crate) parallel: Option<usize>,
    pub(crate) poll: Option<f64>,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, BoxError> {
        let out = std::env::temp_dir().join(format!("openeo_batch-{}", std::process::id()));
        let mut arguments = Arguments {
            help: false,
            url: None,
            user: None,
            password: None,
            device: false,
            process_graph: None,
            title: None,
            out: out.display().to_string(),
            jobs: None,
            parallel: None,
            poll: None,
        };
        while let Some(word) = words.next() {
            // `--url=URL` is `--url URL`.
            let (name, mut given) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (word, None),
            };
            let mut value = || given.take().or_else(|| words.next()).ok_or(format!("{name} needs a value\n\n{USAGE}"));
            match name.as_str() {
                "--help" | "-h" => arguments.help = true,
                "--device" => arguments.device = true,
                "--url" => arguments.url = Some(value()?),
                "--user" => arguments.user = Some(value()?),
                "--password" => arguments.password = Some(value()?),
                "--process-graph" => arguments.process_graph = Some(value()?),
                "--title" => arguments.title = Some(value()?),
                "--out" => arguments.out = value()?,
                "--jobs" => arguments.jobs = Some(value()?),
                "--parallel" => arguments.parallel = Some(number(&name, &value()?, 1..=1_000)?),
                "--poll" => arguments.poll = Some(number(&name, &value()?, 0.01..=3_600.0)?),
                _ => return Err(format!("unknown argument {name:?}\n\n{USAGE}").into()),
            }
        }
        arguments.check()?;
        Ok(arguments)
    }

    /// What doesn't go together, rather than what would silently be left out.
    fn check(&self) -> Result<(), BoxError> {
        let login = self.user.is_some() || self.password.is_some() || self.device;
        for (is_so, text) in [
            (login && self.url.is_none(), "a login is for a back-end: give its --url, too"),
            (self.password.is_some() && self.user.is_none(), "--password wants a --user"),
            (self.user.is_some() && self.device, "--user logs in with a password, --device with a browser: give one"),
            (
                self.jobs.is_some() && (self.process_graph.is_some() || self.title.is_some()),
                "--jobs brings graphs and titles: --process-graph and --title are for a single job",
            ),
            (self.jobs.is_none() && self.parallel.is_some(), "--parallel is for --jobs"),
        ] {
            if is_so {
                return Err(text.into());
            }
        }
        Ok(())
    }
}

fn number<T>(name: &str, text: &str, range: std::ops::RangeInclusive<T>) -> Result<T, BoxError>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let found = text.parse().ok().filter(|number| range.contains(number));
    found.ok_or_else(|| format!("{name} takes a number from {} to {}, not {text:?}", range.start(), range.end()).into())
}
