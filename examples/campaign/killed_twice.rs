//! The back-end, the program that a user would write, and what kills it.

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use fulmar::client::openeo::campaign::{Campaign, CampaignOptions, Row};
use fulmar::client::openeo::{BackEnd, Connection, NewJob, ProcessGraph, RunOptions};
use openeo_server::{Config, Passage, Server};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The program that a user would write.
fn campaign(url: &str, folder: &Path) -> Outcome<()> {
    let connection = Connection::connect(url)?;
    connection.authenticate_basic("u", "u123")?;
    let campaign = Campaign::open(folder.join("sums.db"))?;
    let new = campaign.add_rows((0..60).map(|n| json!({"x": n, "y": 5})))?;
    let before = campaign.report()?;
    println!("{new} new rows; {before}");
    let run = RunOptions::new().poll(Duration::from_millis(50), Duration::from_millis(500));
    let options = CampaignOptions::new().run_with(run).spend_at_most(240.0).download_to(folder.join("out"));
    let make = |row: &Row| Ok(NewJob::new(ProcessGraph::start("add", row.params.clone())));
    let back_end = BackEnd::new(&connection).parallel_jobs(8);
    // A process that was killed may have sent a request: it is settled a second later.
    let report = campaign.run_jobs([back_end], make, &options.settle(Duration::from_secs(1)))?;
    println!("{report}");
    Ok(())
}

/// Starts itself three times, and kills it twice.
pub(crate) fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, url, folder] = arguments.as_slice() {
        return campaign(url, Path::new(folder));
    }
    let server = Server::start(Config { slots: 8, ..Config::quick() })?;
    let folder = std::env::temp_dir().join(format!("fulmar-campaign-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    for requests in [100, 220] {
        let (tell, reached) = mpsc::channel();
        server.guard(move |number| {
            if number == requests {
                let _ = tell.send(());
            }
            Passage::Free
        });
        let mut process = start(&server, &folder)?;
        reached.recv()?;
        process.kill()?;
        process.wait()?;
        println!("killed, with {} jobs on the back-end\n", server.jobs().len());
    }
    let status = start(&server, &folder)?.wait()?;
    let jobs = server.jobs();
    let finished = jobs.iter().filter(|job| job.status == "finished").count();
    let mut titles: Vec<&str> = jobs.iter().map(|job| job.title.as_str()).collect();
    titles.sort_unstable();
    titles.dedup();
    println!(
        "\nthe back-end's account: {} jobs, {finished} finished, {} made twice",
        jobs.len(),
        jobs.len() - titles.len()
    );
    std::fs::remove_dir_all(&folder)?;
    if !status.success() || jobs.len() != 60 || finished != 60 || titles.len() != 60 {
        return Err("the account doesn't add up".into());
    }
    Ok(())
}

fn start(server: &Server, folder: &Path) -> Outcome<Child> {
    Ok(Command::new(std::env::current_exe()?).arg(server.url()).arg(folder).spawn()?)
}
