//! A campaign over a service of one's own: frames are rendered by processes that outlive the
//! campaign's, which is killed twice on the way. The third run of the same program does what is
//! left.
//!
//! cargo run --release --example campaign_own --features sqlite

// Its sleeps stand for work.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use fulmar::BoxError;
use fulmar::batch::{BatchRunner, Context, JobError, Poll, RemoteJob, Submitted};
use fulmar::campaign::{Campaign, CampaignOptions, RemoteService, Ticket};
use serde_json::json;

const FRAMES: usize = 30;

/// The service: a folder in which each job has a folder, called by its id, and there its name.
#[derive(Clone)]
struct Farm(PathBuf);

impl Farm {
    fn create(&self, name: &str, token: &str) -> io::Result<String> {
        let new = self.0.join(format!("new-{token}"));
        fs::create_dir_all(&new)?;
        fs::write(new.join("name"), name)?;
        fs::create_dir_all(self.0.join("jobs"))?;
        let mut id = 0;
        // A folder with something in it isn't replaced.
        while fs::rename(&new, self.job(&id.to_string())).is_err() {
            id += 1;
        }
        Ok(id.to_string())
    }

    /// A second process for one job ends at once.
    fn start(&self, id: &str) -> io::Result<()> {
        Command::new(std::env::current_exe()?).arg("render").arg(self.job(id)).spawn().map(drop)
    }

    fn job(&self, id: &str) -> PathBuf {
        self.0.join("jobs").join(id)
    }
}

fn render(job: &Path) -> io::Result<()> {
    if fs::File::create_new(job.join("started")).is_ok() {
        thread::sleep(Duration::from_millis(50));
        fs::write(job.join("frame.new"), fs::read(job.join("name"))?)?;
        fs::rename(job.join("frame.new"), job.join("frame"))?;
    }
    Ok(())
}

struct Render {
    farm: Farm,
    ticket: Ticket,
    id: String,
}

impl RemoteJob for Render {
    type Output = PathBuf;

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        let name = self.ticket.title("frame");
        self.id = self.farm.create(&name, self.ticket.token()).map_err(JobError::retry)?;
        self.farm.start(&self.id).map_err(JobError::retry)?;
        Ok(Submitted::Accepted { id: self.id.clone() })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        let is_done = self.farm.job(&self.id).join("frame").exists();
        Ok(if is_done { Poll::Ready } else { Poll::pending("rendering") })
    }

    fn fetch(&mut self, _: &mut Context<'_>) -> Result<PathBuf, JobError> {
        let folder = self.ticket.folder(&self.id)?;
        fs::create_dir_all(&folder).map_err(JobError::retry)?;
        let to = folder.join("frame");
        fs::copy(self.farm.job(&self.id).join("frame"), &to).map_err(JobError::retry)?;
        Ok(to)
    }
}

impl RemoteService for Farm {
    type Job = Render;

    fn name(&self) -> &str {
        "farm"
    }

    fn make(&self, ticket: &Ticket) -> Result<Render, BoxError> {
        Ok(Render { farm: self.clone(), ticket: ticket.clone(), id: String::new() })
    }

    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
        let Ok(jobs) = fs::read_dir(self.0.join("jobs")) else { return Ok(None) };
        for job in jobs {
            let job = job.map_err(JobError::retry)?;
            if ticket.is_it(&fs::read_to_string(job.path().join("name")).map_err(JobError::retry)?) {
                return Ok(Some(job.file_name().to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }

    fn adopt(&self, ticket: &Ticket, id: &str) -> Result<Render, JobError> {
        // The process that made it may have been killed before it could start it.
        self.start(id).map_err(JobError::retry)?;
        Ok(Render { farm: self.clone(), ticket: ticket.clone(), id: id.to_owned() })
    }

    fn files(&self, output: &PathBuf) -> Vec<PathBuf> {
        vec![output.clone()]
    }
}

/// The program that a user would write.
fn campaign(folder: &Path) -> Result<(), Box<dyn Error>> {
    let campaign = Campaign::open(folder.join("frames.db"))?;
    campaign.add_rows((0..FRAMES).map(|frame| json!({"frame": frame})))?;
    let run = BatchRunner::builder().window(4).poll_every(Duration::from_millis(20));
    let options = CampaignOptions::new().run_with(run).download_to(folder.join("out")).folders("frame-{frame}");
    // A folder is there as soon as it was asked for: nothing has to settle.
    let report = campaign.run(Farm(folder.join("farm")), &options.settle(Duration::ZERO))?;
    println!("{report}");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, what, job] if what == "render" => return Ok(render(Path::new(job))?),
        [_, what, folder] if what == "campaign" => return campaign(Path::new(folder)),
        _ => {}
    }
    let folder = std::env::temp_dir().join(format!("fulmar-campaign-own-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let jobs = || fs::read_dir(folder.join("farm/jobs")).map_or(0, Iterator::count);
    for enough in [8, 20] {
        let mut process = start(&folder)?;
        while jobs() < enough {
            thread::sleep(Duration::from_millis(5));
        }
        process.kill()?;
        process.wait()?;
        println!("killed, with {} jobs on the farm", jobs());
    }
    let status = start(&folder)?.wait()?;
    let (jobs, frames) = (jobs(), fs::read_dir(folder.join("out"))?.count());
    println!("the farm's account: {jobs} jobs, and {frames} frames are here");
    fs::remove_dir_all(&folder)?;
    if !status.success() || (jobs, frames) != (FRAMES, FRAMES) {
        return Err("the account doesn't add up".into());
    }
    Ok(())
}

fn start(folder: &Path) -> io::Result<Child> {
    Command::new(std::env::current_exe()?).arg("campaign").arg(folder).spawn()
}
