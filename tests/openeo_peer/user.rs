//! What a user writes for a campaign. The reference's counterpart is `tests/peers/openeo/user.py`;
//! a test runs both, and counts their lines.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use fulmar::Executor;
use fulmar::batch::BatchRunner;
use fulmar::client::openeo::campaign::{Campaign, CampaignOptions, CampaignReport, Row};
use fulmar::client::openeo::{BackEnd, Connection, NewJob, ProcessGraph, RunOptions};
use serde_json::{Value, json};

type Outcome = Result<CampaignReport, Box<dyn Error>>;

pub(crate) fn run(url: &str, jobs: u64, parallel: usize, graph: Value, out: &Path) -> Outcome {
    let connection = Connection::connect(url)?;
    connection.authenticate_basic("u", "u123")?;
    let campaign = Campaign::open(out.join("jobs.db"))?;
    campaign.add_rows((0..jobs).map(|number| json!({"title": format!("job {number}")})))?;
    let (second, executor) = (Duration::from_secs(1), Executor::builder().threads(parallel).build()?);
    let runner = BatchRunner::builder().executor(&executor).max_concurrent(parallel);
    let run = RunOptions::new().poll(second, second).run_on(runner);
    let options = CampaignOptions::new().run_with(run).spend_at_most(1e6).estimate(4.0).download_to(out.join("out"));
    let back_ends = [BackEnd::new(&connection).parallel_jobs(parallel).queue_limit(parallel)];
    let graph = ProcessGraph::from_json(graph)?;
    let make = move |row: &Row| Ok(NewJob::new(graph.clone()).title(row.get("title").as_str().unwrap_or_default()));
    Ok(campaign.run_jobs(back_ends, make, &options)?)
}
