//! The command line.

use fulmar::BoxError;

pub(crate) const USAGE: &str = "openeo_batch [--url URL] [--user U --password P] [--out DIR]
             [--process-graph FILE.json] [--title T]
             [--jobs FILE.jsonl] [--parallel N] [--poll SECONDS]";

pub(crate) struct Arguments {
    pub(crate) help: bool,
    pub(crate) url: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) process_graph: Option<String>,
    pub(crate) title: String,
    pub(crate) out: String,
    pub(crate) jobs: Option<String>,
    pub(crate) parallel: usize,
    pub(crate) poll: f64,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, BoxError> {
        let out = std::env::temp_dir().join(format!("openeo_batch-{}", std::process::id()));
        let mut arguments = Arguments {
            help: false,
            url: None,
            user: None,
            password: None,
            process_graph: None,
            title: "NDVI timeseries 2022".to_owned(),
            out: out.display().to_string(),
            jobs: None,
            parallel: 2,
            poll: 5.0,
        };
        while let Some(word) = words.next() {
            if word == "--help" {
                arguments.help = true;
                return Ok(arguments);
            }
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--url" => arguments.url = Some(value()?),
                "--user" => arguments.user = Some(value()?),
                "--password" => arguments.password = Some(value()?),
                "--process-graph" => arguments.process_graph = Some(value()?),
                "--title" => arguments.title = value()?,
                "--out" => arguments.out = value()?,
                "--jobs" => arguments.jobs = Some(value()?),
                "--parallel" => arguments.parallel = value()?.parse()?,
                "--poll" => {
                    arguments.poll = value()?.parse()?;
                    if !(0.01..=3_600.0).contains(&arguments.poll) {
                        return Err("--poll takes seconds, from 0.01 to 3600".into());
                    }
                }
                _ => return Err(format!("unknown argument {word:?}\n{USAGE}").into()),
            }
        }
        Ok(arguments)
    }
}
