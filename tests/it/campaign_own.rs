//! Campaigns over a service of the user's own: what a campaign promises holds for whatever
//! implements `RemoteService`. The service is a folder, so that its account outlives the processes
//! that are killed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar::BoxError;
use fulmar::backoff::Backoff;
use fulmar::batch::{BatchRunner, BatchRunnerBuilder, Context, JobError, Poll, RemoteJob, Submitted};
use fulmar::campaign::{
    Campaign, CampaignError, CampaignOptions, CampaignReport, CampaignRun, RemoteService, RowState, Ticket,
};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use crate::openeo::campaign::open_campaign;
use crate::openeo::{Folder, names_in};
use crate::support::{Gate, HANG, executor};

/// What a finished job costs.
const COST: f64 = 2.0;

/// How often a job is asked about until it is done.
const POLLS: usize = 2;

/// Called before and after each call of the service, with its number from 1 and whether it is after
/// it.
type Hook = Arc<dyn Fn(u64, bool) + Send + Sync>;

#[derive(Clone)]
struct Yard(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    calls: AtomicU64,
    hook: Hook,
    /// What `submit` comes to, by the number of its call from 1, if not what it should.
    trouble: fn(u64) -> Trouble,
    submits: AtomicU64,
    stops_jobs: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    LostReply,
    LostRequest,
    Busy,
    Refused,
    Panic,
    HangsInSubmit,
    HangsInPoll,
}

impl Yard {
    fn new(folder: &Path) -> Yard {
        Yard::with(folder, Arc::new(|_, _| {}), |_| Trouble::None, false)
    }

    fn with(folder: &Path, hook: Hook, trouble: fn(u64) -> Trouble, stops_jobs: bool) -> Yard {
        let folder = folder.join("yard");
        fs::create_dir_all(folder.join("jobs")).expect("a folder");
        let (calls, submits) = (AtomicU64::new(0), AtomicU64::new(0));
        Yard(Arc::new(Inner { folder, calls, hook, trouble, submits, stops_jobs }))
    }

    /// One request to the service.
    fn call<T>(&self, work: impl FnOnce() -> T) -> T {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (self.0.hook)(call, false);
        let outcome = work();
        (self.0.hook)(call, true);
        outcome
    }

    fn job(&self, id: &str) -> PathBuf {
        self.0.folder.join("jobs").join(id)
    }

    fn create(&self, ticket: &Ticket) -> String {
        self.call(|| {
            // A process that was killed in here has left its folder behind.
            let new = format!("new-{}-{}", std::process::id(), self.0.calls.load(Ordering::SeqCst));
            let new = self.0.folder.join(new);
            let new = new.with_extension(ticket.token());
            fs::create_dir(&new).expect("a folder");
            fs::write(new.join("name"), ticket.title("job")).expect("written");
            fs::write(new.join("params"), ticket.row().params.to_string()).expect("written");
            (0..).find(|id| fs::rename(&new, self.job(&id.to_string())).is_ok()).expect("a number").to_string()
        })
    }

    fn add_to(&self, id: &str, file: &str) -> usize {
        let path = self.job(id).join(file);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("a file");
        file.write_all(b".").expect("written");
        fs::read(&path).expect("read").len()
    }

    /// A process that was killed in `add_to` may have left an empty file: it has added nothing.
    fn has(&self, id: &str, file: &str) -> bool {
        fs::metadata(self.job(id).join(file)).is_ok_and(|file| file.len() > 0)
    }

    /// The names of all jobs.
    fn names(&self) -> Vec<String> {
        let ids = names_in(&self.0.folder.join("jobs"));
        ids.iter().map(|id| fs::read_to_string(self.job(id).join("name")).expect("a name")).collect()
    }
}

struct Load {
    yard: Yard,
    ticket: Ticket,
    id: String,
    hangs: bool,
}

impl Load {
    /// Until it is interrupted; what comes then is no error that passes.
    fn hang(&self) -> Result<(), JobError> {
        self.yard.call(|| self.yard.add_to(&self.id, "hangs"));
        Err(JobError::fatal(crate::support::until_cancelled()))
    }
}

impl RemoteJob for Load {
    type Output = PathBuf;

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        let trouble = (self.yard.0.trouble)(self.yard.0.submits.fetch_add(1, Ordering::SeqCst) + 1);
        match trouble {
            Trouble::LostRequest => return Err(JobError::retry("the connection was cut")),
            Trouble::Busy => return Err(JobError::wait("too many jobs", Duration::from_millis(1))),
            Trouble::Refused => return Err(JobError::fatal("no such layer")),
            Trouble::None | Trouble::LostReply | Trouble::Panic | Trouble::HangsInSubmit | Trouble::HangsInPoll => {}
        }
        self.id = self.yard.create(&self.ticket);
        assert!(trouble != Trouble::Panic, "planned");
        if trouble == Trouble::HangsInSubmit {
            self.hang()?;
        }
        self.hangs = trouble == Trouble::HangsInPoll;
        if trouble == Trouble::LostReply {
            return Err(JobError::retry("the connection was cut"));
        }
        self.yard.call(|| self.yard.add_to(&self.id, "starts"));
        Ok(Submitted::Accepted { id: self.id.clone() })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        if std::mem::take(&mut self.hangs) {
            self.hang()?;
        }
        let polls = self.yard.call(|| self.yard.add_to(&self.id, "polls"));
        if self.yard.has(&self.id, "stopped") || self.ticket.row().get("fails") == &json!(self.ticket.row().attempt) {
            return Err(JobError::fatal("out of memory"));
        }
        let is_slow = self.ticket.row().get("slow") == &json!(true);
        Ok(if polls > POLLS && !is_slow { Poll::Ready } else { Poll::pending("at work") })
    }

    fn fetch(&mut self, _: &mut Context<'_>) -> Result<PathBuf, JobError> {
        let folder = self.ticket.folder(&self.id)?;
        fs::create_dir_all(&folder).expect("a folder");
        let params = self.yard.call(|| fs::read(self.yard.job(&self.id).join("params")).expect("read"));
        fs::write(folder.join("result"), params).expect("written");
        Ok(folder.join("result"))
    }

    fn cancel(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
        self.yard.call(|| self.yard.add_to(&self.id, "stopped"));
        Ok(())
    }
}

impl RemoteService for Yard {
    type Job = Load;

    fn name(&self) -> &str {
        "yard"
    }

    fn make(&self, ticket: &Ticket) -> Result<Load, BoxError> {
        if ticket.row().get("nonsense").is_string() {
            return Err("no job can be made of it".into());
        }
        Ok(Load { yard: self.clone(), ticket: ticket.clone(), id: String::new(), hangs: false })
    }

    fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
        self.call(|| {
            let mut ids = names_in(&self.0.folder.join("jobs")).into_iter();
            let name_of = |id: &String| fs::read_to_string(self.job(id).join("name")).expect("a name");
            Ok(ids.find(|id| ticket.is_it(&name_of(id))))
        })
    }

    fn adopt(&self, ticket: &Ticket, id: &str) -> Result<Load, JobError> {
        if !self.has(id, "starts") {
            self.call(|| self.add_to(id, "starts"));
        }
        Ok(Load { yard: self.clone(), ticket: ticket.clone(), id: id.to_owned(), hangs: false })
    }

    fn cost(&self, _: &Load) -> Option<f64> {
        Some(COST)
    }

    fn files(&self, output: &PathBuf) -> Vec<PathBuf> {
        vec![output.clone()]
    }

    fn stops_jobs(&self) -> bool {
        self.0.stops_jobs
    }
}

fn options(folder: &Path) -> CampaignOptions<BatchRunnerBuilder> {
    let (poll, backoff) = (Duration::from_millis(1), Backoff::new(Duration::from_millis(1)));
    let run = BatchRunner::builder().window(3).poll_every(poll).backoff(backoff);
    // What was asked for is there or isn't: nothing has to settle.
    CampaignOptions::new().run_with(run).download_to(folder.join("out")).settle(Duration::ZERO)
}

fn rows(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| json!({"number": number}))
}

fn run(yard: &Yard, folder: &Path, count: usize) -> CampaignReport {
    let campaign = open_campaign(folder);
    campaign.add_rows(rows(count)).expect("added");
    let limited = options(folder).spend_at_most(COST * count as f64).estimate(COST).folders("{back_end}/{number}");
    campaign.run(yard.clone(), &limited).expect("run")
}

/// Each row has one job, started once, and its file.
fn assert_done_once(yard: &Yard, report: &CampaignReport, folder: &Path, count: usize) {
    assert!(report.is_success(), "{report}: {:?}", report.failures().collect::<Vec<_>>());
    assert_eq!((report.rows.len(), report.spent), (count, COST * count as f64), "{report}");
    let mut names = yard.names();
    names.sort();
    names.dedup();
    let ids = names_in(&yard.0.folder.join("jobs"));
    assert_eq!((names.len(), ids.len()), (count, count), "{names:?}");
    for id in &ids {
        assert_eq!(fs::read(yard.job(id).join("starts")).ok().as_deref(), Some(&b"."[..]), "{id} was started once");
    }
    for row in &report.rows {
        let file = folder.join("out/yard").join(row.params["number"].to_string()).join("result");
        assert_eq!((&row.files[..], row.back_end.as_deref()), (&[file.clone()][..], Some("yard")));
        assert_eq!(fs::read_to_string(&file).expect("a file"), row.params.to_string());
    }
}

const FOLDER: &str = "FULMAR_OWN_FOLDER";
const AT: &str = "FULMAR_OWN_AT";
const ROWS: usize = 4;

#[test]
#[ignore = "it is a process of another test, which starts it"]
fn child() {
    let (Ok(folder), Ok(at)) = (std::env::var(FOLDER), std::env::var(AT)) else { return };
    let (call, is_after) = at.split_once(' ').expect("two words");
    let at = (call.parse().expect("a number"), is_after == "after");
    let kill = move |call, is_after| {
        if (call, is_after) == at {
            kill_process(getpid(), Signal::KILL).expect("killed");
        }
    };
    let folder = Path::new(&folder);
    run(&Yard::with(folder, Arc::new(kill), |_| Trouble::None, false), folder, ROWS);
}

#[test]
fn a_campaign_of_ones_own_is_killed_at_every_call_of_its_service_and_makes_nothing_twice() {
    let folder = Folder::new();
    let yard = Yard::new(folder.path());
    assert_done_once(&yard, &run(&yard, folder.path(), ROWS), folder.path(), ROWS);
    let calls = yard.0.calls.load(Ordering::SeqCst);
    assert!(calls as usize >= ROWS * (2 + POLLS + 1 + 1), "{calls}");
    let mut killed = 0;
    for call in 1..=calls {
        for when in ["before", "after"] {
            let folder = Folder::new();
            let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
            command.args(["campaign_own::child", "--exact", "--ignored", "--nocapture"]);
            command.env(FOLDER, folder.path()).env(AT, format!("{call} {when}"));
            let status =
                command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("this very program starts");
            killed += u64::from(!status.success());
            let yard = Yard::new(folder.path());
            assert_done_once(&yard, &run(&yard, folder.path(), ROWS), folder.path(), ROWS);
        }
    }
    assert_eq!(killed, calls * 2, "as many calls each time");
}

#[test]
fn what_submit_returns_tells_whether_a_job_is_looked_for() {
    let of = |trouble: fn(u64) -> Trouble| {
        let folder = Folder::new();
        let yard = Yard::with(folder.path(), Arc::new(|_, _| {}), trouble, false);
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(1)).expect("added");
        let report = campaign.run(yard.clone(), &options(folder.path())).expect("run");
        let first = (report.count(RowState::Done), yard.names().len(), yard.0.submits.load(Ordering::SeqCst));
        let report = campaign.run(yard.clone(), &options(folder.path())).expect("run");
        (first, (report.count(RowState::Done), yard.names().len(), yard.0.submits.load(Ordering::SeqCst)))
    };
    // Found, and not made again.
    assert_eq!(of(|call| if call == 1 { Trouble::LostReply } else { Trouble::None }), ((1, 1, 1), (1, 1, 1)));
    // Looked for in vain, and made.
    assert_eq!(of(|call| if call == 1 { Trouble::LostRequest } else { Trouble::None }), ((1, 1, 2), (1, 1, 2)));
    assert_eq!(of(|call| if call < 30 { Trouble::Busy } else { Trouble::None }), ((1, 1, 30), (1, 1, 30)));
    // The row has failed.
    assert_eq!(of(|call| if call == 1 { Trouble::Refused } else { Trouble::None }), ((0, 0, 1), (0, 0, 1)));
    // The next run finds what the panic has left.
    assert_eq!(of(|call| if call == 1 { Trouble::Panic } else { Trouble::None }), ((0, 1, 1), (1, 1, 1)));
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Cancel,
    Detach,
    /// The operation that waits for the run is cancelled.
    CancelOfWhoWaits,
}

impl Stop {
    fn and_wait(self, run: CampaignRun) -> CampaignReport {
        match self {
            Stop::Cancel => run.cancel(),
            Stop::Detach => run.detach(),
            Stop::CancelOfWhoWaits => {
                let (executor, gate) = (executor(1), Gate::new());
                let waits = gate.clone();
                let waiting = executor.spawn(move || {
                    waits.pass();
                    run.wait()
                });
                let waiting = waiting.expect("accepted");
                gate.await_arrivals(1);
                gate.open();
                assert!(!waiting.cancel(), "it runs");
                return waiting.wait(HANG).expect("ends").expect("a report all the same");
            }
        }
        run.wait().expect("ended")
    }
}

#[test]
fn a_step_that_a_stop_interrupts_says_nothing_of_its_row() {
    for trouble in [(|_| Trouble::HangsInSubmit) as fn(u64) -> Trouble, |_| Trouble::HangsInPoll] {
        for stop in [Stop::Cancel, Stop::Detach, Stop::CancelOfWhoWaits] {
            let folder = Folder::new();
            let campaign = open_campaign(folder.path());
            campaign.add_rows(rows(1)).expect("added");
            let yard = Yard::with(folder.path(), Arc::new(|_, _| {}), trouble, true);
            let at_work = campaign.start(yard.clone(), &options(folder.path())).expect("started");
            crate::support::eventually("it hangs", || yard.has("0", "hangs"));
            let report = stop.and_wait(at_work);
            assert_eq!(report.count(RowState::Failed), 0, "{report:?}");
            let is_known = trouble(1) == Trouble::HangsInPoll;
            let stopped = stop == Stop::Cancel && is_known;
            assert_eq!(yard.has("0", "stopped"), stopped);
            let row = &report.rows[0];
            let expected = if stopped { (RowState::Waiting, 2) } else { (RowState::Started, 1) };
            assert_eq!((row.state, row.attempt), expected, "{row:?}");
            if stop != Stop::Cancel {
                let yard = Yard::with(folder.path(), Arc::new(|_, _| {}), |_| Trouble::None, true);
                let report = campaign.run(yard.clone(), &options(folder.path())).expect("run");
                assert!(report.is_success(), "{report:?}");
                assert_eq!(
                    (yard.names().len(), yard.0.submits.load(Ordering::SeqCst)),
                    (1, 0),
                    "found, and gone on with"
                );
            }
        }
    }
}

#[test]
fn a_job_of_ones_own_that_fails_is_tried_again_by_rule() {
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows([json!({"fails": 1}), json!({"nonsense": "yes"}), json!({"good": 1})]).expect("added");
    let yard = Yard::new(folder.path());
    let ruled = options(folder.path()).attempts(3).retry_if(|error| error.to_string().contains("memory"));
    let report = campaign.run(yard.clone(), &ruled).expect("run");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed), yard.names().len()), (2, 1, 3));
    assert_eq!((report.rows[0].attempt, report.spent), (2, 3.0 * COST), "{report:?}");
    let failed = report.failures().next().expect("one");
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("no job can be made")), "{failed:?}");
}

#[test]
fn a_service_of_ones_own_that_stops_nothing_keeps_what_runs() {
    for stops_jobs in [false, true] {
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows([json!({"slow": true})]).expect("added");
        let yard = Yard::with(folder.path(), Arc::new(|_, _| {}), |_| Trouble::None, stops_jobs);
        let outcome = campaign.run(yard.clone(), &options(folder.path()).cancel_over_limit(true).spend_at_most(0.0));
        match (stops_jobs, outcome) {
            (true, Ok(report)) => assert_eq!(report.count(RowState::Done), 0, "{report}"),
            (false, Err(CampaignError::Invalid(text))) => assert!(text.contains("yard"), "{text}"),
            other => panic!("{other:?}"),
        }
        let at_work = campaign.start(yard.clone(), &options(folder.path())).expect("started");
        crate::support::eventually("a job at work", || yard.0.calls.load(Ordering::SeqCst) > 3);
        at_work.cancel();
        at_work.wait().expect("ended");
        assert_eq!(yard.has("0", "stopped"), stops_jobs);
        let again = campaign.report().expect("read").rows.remove(0);
        let expected = if stops_jobs { (RowState::Waiting, 2) } else { (RowState::Started, 1) };
        assert_eq!((again.state, again.attempt), expected, "{again:?}");
    }
}

#[test]
fn a_job_of_another_service_of_ones_own_is_left_alone() {
    struct Other(Yard);
    impl RemoteService for Other {
        type Job = Load;
        fn name(&self) -> &str {
            "other"
        }
        fn make(&self, ticket: &Ticket) -> Result<Load, BoxError> {
            self.0.make(ticket)
        }
        fn find(&self, ticket: &Ticket) -> Result<Option<String>, JobError> {
            Err(ticket.unclear("it has no list"))
        }
        fn adopt(&self, ticket: &Ticket, id: &str) -> Result<Load, JobError> {
            self.0.adopt(ticket, id)
        }
    }
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let yard = Yard::with(folder.path(), Arc::new(|_, _| {}), |_| Trouble::Panic, false);
    campaign.run(yard.clone(), &options(folder.path())).expect("run");
    let report = campaign.run(Other(yard.clone()), &options(folder.path())).expect("run");
    let told = report.rows[0].error.clone().unwrap_or_default();
    assert!(told.contains("\"yard\"") && yard.names().len() == 1, "{report:?}");

    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let yard = Yard::with(folder.path(), Arc::new(|_, _| {}), |_| Trouble::LostReply, false);
    let report = campaign.run(Other(yard.clone()), &options(folder.path())).expect("run");
    let told = report.rows[0].error.clone().unwrap_or_default();
    assert!(told.contains("has no list") && told.contains("[fulmar-"), "{report:?}");
    assert_eq!((yard.names().len(), report.rows[0].state), (1, RowState::Started), "{report:?}");
}

#[test]
fn a_folder_without_a_root_is_told() {
    let folder = Folder::new();
    let campaign: Campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let run = BatchRunner::builder().poll_every(Duration::from_millis(1));
    let report = campaign.run(Yard::new(folder.path()), &CampaignOptions::new().run_with(run)).expect("run");
    let row = &report.rows[0];
    assert!(row.error.as_ref().is_some_and(|error| error.contains("download_to")), "{row:?}");
    assert_eq!(row.state, RowState::Finished, "its job is there for a run that says where");
}

/// What a server does to the sessions of a campaign. Each kind is a program of tests/run's.
#[cfg(feature = "postgres")]
mod postgres {
    use std::sync::atomic::AtomicBool;

    use fulmar::tasks::{TaskError, TaskQueue};

    use super::*;

    /// How many rows there are while the server ends sessions as fast as it can.
    const STORM: usize = 40;

    fn url() -> String {
        std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started")
    }

    /// A campaign in a schema of its own, whose sessions have its name.
    fn connect(name: &str) -> Campaign {
        Campaign::connect(&format!("{}?application_name={name}", url()), name).expect("a ledger")
    }

    fn name_of(folder: &Folder) -> String {
        folder.path().file_name().and_then(|name| name.to_str()).expect("a name").replace('-', "_")
    }

    /// Ends the sessions of that name, and says how many there were.
    fn terminate(around: &TaskQueue, name: &str) -> usize {
        let sql =
            format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = '{name}'");
        around.postgres_transaction(|tx| Ok::<_, TaskError>(tx.query(&sql, &[])?.len())).expect("terminated")
    }

    fn limited(folder: &Path, count: usize) -> CampaignOptions<BatchRunnerBuilder> {
        options(folder).spend_at_most(COST * count as f64).estimate(COST).folders("{back_end}/{number}")
    }

    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server"]
    fn a_campaign_whose_session_the_server_ends_at_every_call_goes_on() {
        let (folder, around) = (Folder::new(), TaskQueue::connect(&url()).expect("the server is up"));
        let name = name_of(&folder);
        let ended = Arc::new(AtomicU64::new(0));
        let (count, of) = (Arc::clone(&ended), name.clone());
        let hook = move |_, _| {
            count.fetch_add(terminate(&around, &of) as u64, Ordering::SeqCst);
        };
        let yard = Yard::with(folder.path(), Arc::new(hook), |_| Trouble::None, false);
        let campaign = connect(&name);
        campaign.add_rows(rows(ROWS)).expect("added");
        let report = campaign.run(yard.clone(), &limited(folder.path(), ROWS)).expect("run");
        assert_done_once(&yard, &report, folder.path(), ROWS);
        let ended = ended.load(Ordering::SeqCst);
        assert!(ended as usize > ROWS * 2, "{ended} sessions were ended");
        println!("{ended} sessions were ended");
    }

    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server"]
    fn two_campaigns_whose_sessions_the_server_ends_at_any_moment_make_nothing_twice() {
        let (folder, around) = (Folder::new(), TaskQueue::connect(&url()).expect("the server is up"));
        let name = name_of(&folder);
        let yard = Yard::new(folder.path());
        let campaigns = [connect(&name), connect(&name)];
        campaigns[0].add_rows(rows(STORM)).expect("added");
        let is_over = AtomicBool::new(false);
        // A request of a process that has lost its rows may be under way: longer than any takes.
        let patient = limited(folder.path(), STORM).settle(Duration::from_secs(1));
        let (mut ended, mut told) = (0, 0);
        std::thread::scope(|scope| {
            let runs = campaigns.each_ref().map(|campaign| {
                let (yard, patient) = (yard.clone(), &patient);
                scope.spawn(move || {
                    // Between two runs it is as with a program that is started again.
                    let outcomes: Vec<_> = (0..5).map(|_| campaign.run(yard.clone(), patient)).collect();
                    outcomes.iter().filter(|outcome| matches!(outcome, Err(CampaignError::Ledger { .. }))).count()
                })
            });
            let storm = scope.spawn(|| {
                let mut ended = 0;
                while !is_over.load(Ordering::SeqCst) {
                    ended += terminate(&around, &name);
                }
                ended
            });
            for run in runs {
                told += run.join().expect("no panic");
            }
            is_over.store(true, Ordering::SeqCst);
            ended = storm.join().expect("no panic");
        });
        let report = campaigns[0].run(yard.clone(), &patient).expect("run");
        assert!(report.is_success(), "{report}: {:?}", report.failures().collect::<Vec<_>>());
        let mut names = yard.names();
        let jobs = names.len();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), jobs, report.spent), (STORM, STORM, COST * STORM as f64), "{report}");
        println!("{ended} sessions were ended, and {told} runs ended with an error");
    }

    fn server(what: &str) {
        let program = std::env::var("FULMAR_POSTGRES_SERVER").expect("tests/run sets it");
        let status = Command::new(program).arg(what).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("it starts").success(), "{what}");
    }

    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server of its own"]
    fn alone_a_campaign_outlives_crashes_of_its_server() {
        let folder = Folder::new();
        let name = name_of(&folder);
        let one_at_once = Mutex::new(());
        let hook = move |call, is_after| {
            if call % 5 == 2 && is_after {
                let _one = one_at_once.lock().expect("no panic");
                server("crash");
                server("start");
            }
        };
        let yard = Yard::with(folder.path(), Arc::new(hook), |_| Trouble::None, false);
        let campaign = connect(&name);
        campaign.add_rows(rows(ROWS)).expect("added");
        let run = || campaign.run(yard.clone(), &limited(folder.path(), ROWS));
        let mut outcome = run();
        while !outcome.as_ref().is_ok_and(CampaignReport::is_success) {
            println!(
                "once more, after {}",
                outcome.map_or_else(|error| error.to_string(), |report| report.to_string())
            );
            outcome = run();
        }
        assert_done_once(&yard, &outcome.expect("run"), folder.path(), ROWS);

        // A server that stays away.
        let folder = Folder::new();
        let name = name_of(&folder);
        let hook = |call, is_after| {
            if call == 5 && is_after {
                server("crash");
            }
        };
        let yard = Yard::with(folder.path(), Arc::new(hook), |_| Trouble::None, false);
        let campaign = connect(&name);
        campaign.add_rows(rows(ROWS)).expect("added");
        let error = campaign.run(yard.clone(), &limited(folder.path(), ROWS)).expect_err("no server");
        assert!(matches!(&error, CampaignError::Ledger { .. }), "{error:?}");
        server("start");
        let yard = Yard::new(folder.path());
        let report = campaign.run(yard.clone(), &limited(folder.path(), ROWS)).expect("run");
        assert_done_once(&yard, &report, folder.path(), ROWS);
    }
}
