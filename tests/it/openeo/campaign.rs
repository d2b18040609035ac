//! Campaigns: what is done once stays done, whatever process is killed when.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use fulmar::client::openeo::campaign::{Campaign, CampaignError, CampaignOptions, CampaignReport, RowState};
use fulmar::client::openeo::{BackEnd, Connection, NewJob, ProcessGraph, RunOptions};
use openeo_server::{Config, Fault, JobAccount, Passage, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Folder, names_in, server, sum};

/// What a finished job costs on these servers.
const COST: f64 = 4.0;

fn options(folder: &Path) -> CampaignOptions {
    let poll = Duration::from_millis(20);
    let run = RunOptions::new().poll(poll, poll).soft_errors(20, Duration::from_millis(5));
    CampaignOptions::new().run_with(run).download_to(folder.join("out")).settle(Duration::from_millis(50))
}

/// Opens the ledger of the folder's campaign: a file in it, or, as `tests/run` has it, a schema of
/// its name on a PostgreSQL server.
pub(crate) fn open_campaign(folder: &Path) -> Campaign {
    if !is_on_postgres() {
        return Campaign::open(folder.join("c.db")).expect("a ledger");
    }
    #[cfg(feature = "postgres")]
    {
        let url = std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started");
        let schema = folder.file_name().and_then(|name| name.to_str()).expect("a name");
        Campaign::connect(&url, schema).expect("a ledger")
    }
    #[cfg(not(feature = "postgres"))]
    panic!("FULMAR_CAMPAIGN_ENGINE=postgres needs the feature `postgres`")
}

pub(crate) fn is_on_postgres() -> bool {
    std::env::var("FULMAR_CAMPAIGN_ENGINE").is_ok_and(|engine| engine == "postgres")
}

fn rows(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| json!({"x": number, "y": 5}))
}

fn run(campaign: &Campaign, connection: &Connection, options: &CampaignOptions) -> CampaignReport {
    let back_ends = [BackEnd::new(connection).name("one").parallel_jobs(2)];
    let make = |row: &fulmar::client::openeo::campaign::Row| {
        Ok(NewJob::new(ProcessGraph::start("add", row.params.clone())).title("sum"))
    };
    campaign.run_jobs(back_ends, make, options).expect("run")
}

/// Whether a job was deleted without a start, because the limit had no room for its estimate.
fn is_unmade(job: &JobAccount) -> bool {
    (job.status, job.starts) == ("deleted", 0)
}

/// Each row has one job that finished, all others are gone, and every file is whole.
fn assert_done_once(servers: &[Server], report: &CampaignReport, folder: &Path, rows: usize) {
    assert!(report.is_success(), "{report}: {:?}", report.failures().collect::<Vec<_>>());
    assert_eq!((report.rows.len(), report.spent), (rows, COST * rows as f64), "{report}");
    let mut titles = HashMap::new();
    for job in servers.iter().flat_map(Server::jobs).filter(|job| !is_unmade(job)) {
        assert_eq!((job.status, job.starts), ("finished", 1), "{job:?}");
        *titles.entry(job.title).or_insert(0) += 1;
    }
    assert!(titles.len() == rows && titles.values().all(|count| *count == 1), "{titles:?}");
    for row in &report.rows {
        let id = row.job.as_deref().expect("a job");
        assert_eq!(row.files.len(), 2, "{row:?}");
        let server = &servers[usize::from(row.back_end.as_deref() == Some("two"))];
        for file in &row.files {
            let key = file.file_name().and_then(|name| name.to_str()).expect("a name");
            assert_eq!(std::fs::read(file).ok(), server.asset(id, key), "{}", file.display());
        }
        let own = folder.join("out").join(row.folder.as_ref().expect("a folder"));
        assert!(!names_in(&own).iter().any(|name| name.ends_with(".part")), "{:?}", names_in(&own));
    }
}

#[test]
fn the_same_program_again_has_nothing_left_to_do() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    assert_eq!(campaign.add_rows(rows(5)).expect("added"), 5);
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 5);
    drop(campaign);

    let again = open_campaign(folder.path());
    assert_eq!(again.add_rows(rows(6)).expect("added"), 1, "the sixth is new");
    let made = server.count("create");
    let report = run(&again, &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 6);
    assert_eq!(server.count("create"), made + 1);
    let mut csv = Vec::new();
    report.write_csv(&mut csv).expect("written");
    let text = String::from_utf8(csv).expect("text");
    assert!(text.lines().count() == 7 && text.contains("done,1,one,"), "{text}");
    let left: Vec<String> = names_in(folder.path()).into_iter().filter(|name| name.ends_with(".lock")).collect();
    assert_eq!(left.len(), usize::from(!is_on_postgres()), "the open one's own: {left:?}");
}

const URLS: &str = "FULMAR_CAMPAIGN_URLS";
const FOLDER: &str = "FULMAR_CAMPAIGN_FOLDER";
const ROWS: &str = "FULMAR_CAMPAIGN_ROWS";

/// What is run on how many back-ends, up to which limit, by a process that is killed.
#[derive(Clone, Copy)]
struct Trial {
    back_ends: usize,
    rows: usize,
    /// How many rows the limit has money for.
    paid: usize,
    /// What the back-ends say before the start of a job that it will cost.
    estimate: f64,
    /// How many jobs a row may have.
    attempts: u32,
}

impl Trial {
    fn limit(self) -> f64 {
        COST * self.paid as f64 + 1.0
    }

    /// How many rows are done up to the limit: each fits if what it is estimated to cost does.
    fn fitting(self) -> usize {
        ((self.limit() - self.estimate) / COST) as usize + 1
    }

    fn run(self, urls: &[String], folder: &Path, limit: f64) -> CampaignReport {
        let campaign = open_campaign(folder);
        campaign.add_rows(rows(self.rows)).expect("added");
        let back_ends: Vec<BackEnd> = (urls.iter().zip(["one", "two"]))
            .map(|(url, name)| {
                let connection = Connection::connect_with(url, super::impatient()).expect("connected");
                connection.authenticate_basic("u", "u123").expect("logged in");
                BackEnd::new(&connection).name(name).parallel_jobs(if self.rows > 20 { 10 } else { 2 })
            })
            .collect();
        let make = |row: &fulmar::client::openeo::campaign::Row| {
            Ok(NewJob::new(ProcessGraph::start("add", row.params.clone())).title("sum"))
        };
        let limited = options(folder).spend_at_most(limit).estimate(COST).attempts(self.attempts);
        campaign.run_jobs(back_ends, make, &limited).expect("run")
    }

    /// Runs the campaign in a process that is killed at request `at`, if it makes so many, then to
    /// the limit, and then without; says how many requests there were until then.
    fn killed_at(self, at: u64, passage: Passage) -> u64 {
        self.killed_at_with(at, passage, |_| {})
    }

    fn killed_at_with(self, at: u64, passage: Passage, prepare: fn(&Server)) -> u64 {
        let config = Config { estimates: Some(self.estimate), ..Config::quick() };
        let servers: Vec<Server> =
            (0..self.back_ends).map(|_| Server::start(config.clone()).expect("a server")).collect();
        servers.iter().for_each(prepare);
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        let folder = Folder::new();
        let (start, started) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let waits = Arc::new((Mutex::new(started), Mutex::new(ended)));
        let seen = Arc::new(AtomicU64::new(0));
        for server in &servers {
            let (waits, seen) = (Arc::clone(&waits), Arc::clone(&seen));
            server.guard(move |_| {
                // Counted over all back-ends.
                if seen.fetch_add(1, Ordering::SeqCst) + 1 != at {
                    return Passage::Free;
                }
                let (started, ended) = &*waits;
                let id = started.lock().expect("no panic").recv().expect("a process");
                kill_process(id, Signal::KILL).expect("killed");
                // The other half is dropped when the process has ended.
                let _ = ended.lock().expect("no panic").recv();
                passage
            });
        }
        let mut child = self.start_child(&urls, folder.path());
        start.send(Pid::from_child(&child)).expect("the server is there");
        let status = child.wait().expect("ended");
        drop(end);
        let requests = seen.load(Ordering::SeqCst);
        // The number of requests differs from run to run, so that the last ones may not come.
        assert_eq!(status.success(), requests < at, "killed if and only if it came so far: {status}");
        // What the process has sent is done before the next one looks, or never.
        servers.iter().for_each(|server| server.drain().expect("a connection"));
        servers.iter().for_each(|server| server.guard(|_| Passage::Free));
        servers.iter().for_each(Server::forget_plans);
        self.go_on(&servers, &urls, folder.path());
        requests
    }

    /// Goes on up to the limit, and then without one.
    fn go_on(self, servers: &[Server], urls: &[String], folder: &Path) {
        let report = self.run(urls, folder, self.limit());
        assert_eq!(
            (report.count(RowState::Done), report.over_budget),
            (self.fitting(), self.rows - self.fitting()),
            "{report}"
        );
        let started = servers.iter().flat_map(Server::jobs).filter(|job| job.starts > 0).count();
        assert!(started as f64 * COST <= self.limit(), "{started} jobs were started: {report}");
        let unmade = servers.iter().flat_map(Server::jobs).filter(is_unmade).count();
        assert!(unmade == 0 || self.estimate > COST || self.attempts > 1, "{unmade} jobs were made in vain: {report}");
        let report = self.run(urls, folder, f64::MAX);
        assert_done_once(servers, &report, folder, self.rows);
    }

    fn start_child(self, urls: &[String], folder: &Path) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.args(["openeo::campaign::child", "--exact", "--ignored", "--nocapture"]);
        command.env(URLS, urls.join(" ")).env(FOLDER, folder);
        command
            .env(ROWS, format!("{} {} {}", self.rows, self.paid, self.attempts))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("this very program starts")
    }
}

#[test]
#[ignore = "it is a process of other tests, which start it"]
fn child() {
    let (Ok(urls), Ok(folder), Ok(rows)) = (std::env::var(URLS), std::env::var(FOLDER), std::env::var(ROWS)) else {
        return;
    };
    let urls: Vec<String> = urls.split(' ').map(str::to_owned).collect();
    let numbers: Vec<usize> = rows.split(' ').map(|number| number.parse().expect("a number")).collect();
    let [rows, paid, attempts] = numbers[..] else { panic!("three numbers") };
    let trial = Trial { back_ends: urls.len(), rows, paid, estimate: COST, attempts: attempts as u32 };
    println!("@ {}", trial.run(&urls, Path::new(&folder), trial.limit()));
}

#[test]
fn a_campaign_that_is_killed_at_any_request_makes_nothing_twice_and_loses_nothing() {
    let trial = Trial { back_ends: 1, rows: 3, paid: 3, estimate: COST, attempts: 1 };
    let requests = trial.killed_at(u64::MAX, Passage::Free);
    assert!(requests > 20, "{requests}");
    // How many there are varies a little with time: the last ones may not come.
    for at in 1..=requests - requests / 5 {
        for passage in [Passage::Done, Passage::Lost] {
            trial.killed_at(at, passage);
        }
    }
}

/// Which of a campaign's requests its process is killed at: `FULMAR_KILLS=ROWS,EVERY,FROM`.
///
/// `200,1` are 200 rows, killed at every request; `200,31,4` at the fourth and every 31st after it,
/// so that 31 such runs are the whole. Without it: five rows, at every second request. The file
/// that `FULMAR_KILLS_DONE` names has a line for each kill after which all added up. These are
/// passed over, so that a run which was stopped is gone on with by running it again, and the lines
/// are the account.
struct Kills {
    rows: usize,
    every: u64,
    from: u64,
    done: Mutex<Vec<String>>,
    file: Option<std::path::PathBuf>,
}

impl Kills {
    fn asked_for() -> Kills {
        let text = std::env::var("FULMAR_KILLS").unwrap_or_else(|_| "5,2".to_owned());
        let numbers: Vec<u64> =
            text.split(',').map(|number| number.parse().expect("FULMAR_KILLS=ROWS,EVERY,FROM")).collect();
        let number = |index: usize| numbers.get(index).copied().unwrap_or(1);
        let file = std::env::var_os("FULMAR_KILLS_DONE").map(std::path::PathBuf::from);
        let done = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        Kills {
            rows: number(0) as usize,
            every: number(1),
            from: number(2),
            done: Mutex::new(done.lines().map(str::to_owned).collect()),
            file,
        }
    }

    /// Runs it unless that was done before; says whether it was run.
    fn once(&self, rows: usize, at: u64, passage: Passage, run: impl FnOnce() -> u64) -> bool {
        let name = format!("{rows} rows, request {at} {passage:?}");
        let is_it = |line: &String| line.starts_with(&format!("{name}: "));
        if self.done.lock().expect("no panic").iter().any(is_it) {
            return false;
        }
        let came = if run() < at { "it had ended before" } else { "killed" };
        let line = format!("{name}: {came}");
        if let Some(path) = &self.file {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
            // In one write: other processes may append as well.
            file.write_all(format!("{line}\n").as_bytes()).expect("written");
        }
        self.done.lock().expect("no panic").push(line);
        true
    }
}

#[test]
fn on_two_back_ends_with_a_limit_nothing_is_made_twice_and_nothing_spent_beyond_whenever_it_is_killed() {
    let kills = Kills::asked_for();
    let rows = kills.rows;
    let trial = Trial { back_ends: 2, rows, paid: rows - 1, estimate: COST, attempts: 1 };
    let requests = trial.killed_at(u64::MAX, Passage::Free);
    assert!(requests as usize > rows * 6, "{requests}");
    let next = AtomicU64::new(0);
    // The processes mostly wait.
    let ran: u64 = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut ran = 0;
                    loop {
                        let turn = next.fetch_add(1, Ordering::SeqCst);
                        let at = kills.from + turn / 2 * kills.every;
                        if at > requests {
                            return ran;
                        }
                        let passage = if turn % 2 == 0 { Passage::Done } else { Passage::Lost };
                        ran += u64::from(kills.once(rows, at, passage, || trial.killed_at(at, passage)));
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    let done = kills.done.lock().expect("no panic");
    let killed = done.iter().filter(|line| line.ends_with(": killed")).count();
    println!(
        "{rows} rows, {requests} requests: {ran} runs, and after each all adds up; with those before, {killed} were killed"
    );
    assert!(killed > 0, "{done:?}");
}

#[test]
fn a_job_that_its_back_end_estimates_beyond_the_limit_is_never_started_whenever_it_is_killed() {
    let trial = Trial { back_ends: 1, rows: 3, paid: 2, estimate: COST + 2.0, attempts: 1 };
    assert_eq!(trial.fitting(), 1);
    let requests = trial.killed_at(u64::MAX, Passage::Free);
    for at in 1..=requests - requests / 5 {
        for passage in [Passage::Done, Passage::Lost] {
            trial.killed_at(at, passage);
        }
    }
}

#[test]
fn a_start_that_is_refused_leaves_one_job_for_each_row_whenever_its_process_is_killed() {
    let of_the_account: fn(&Server) = |server| server.plan("start", Fault::Refused(402, "PaymentRequired"), 2);
    let of_the_job: fn(&Server) = |server| server.plan("start", Fault::Refused(400, "ProcessUnsupported"), 1);
    for (attempts, refuse) in [(1, of_the_account), (2, of_the_job)] {
        let trial = Trial { back_ends: 1, rows: 2, paid: 2, estimate: COST, attempts };
        let requests = trial.killed_at_with(u64::MAX, Passage::Free, refuse);
        // The first requests log in.
        for at in 4..=requests - requests / 5 {
            for passage in [Passage::Done, Passage::Lost] {
                trial.killed_at_with(at, passage, refuse);
            }
        }
    }
}

#[test]
fn what_the_back_end_estimates_for_a_job_is_reserved_before_it_is_started() {
    let config = Config { estimates: Some(9.0), ..Config::quick() };
    let (server, connection) = server(config);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(8)).expect("added");
    let limited = options(folder.path()).spend_at_most(18.0).estimate(1.0);
    let report = run(&campaign, &connection, &limited);
    // The first three cost 12, and the fourth is said to cost 9.
    assert_eq!((report.count(RowState::Done), report.over_budget, report.spent), (3, 5, 12.0), "{report}");
    let unmade = server.jobs().iter().filter(|job| is_unmade(job)).count();
    assert!(unmade >= 5 && server.jobs().len() == unmade + 3, "what wasn't started is gone: {:?}", server.jobs());
    assert!(report.rows.iter().all(|row| row.attempt == 1), "{:?}", report.rows);
    assert_eq!((report.left, report.reserved), (Some(6.0), 0.0));
    // A back-end that tells no number for a job leaves it at what is known.
    server.rewrite("estimate", |_, estimate| *estimate = json!({"duration": "PT1M"}));
    let report = run(&campaign, &connection, &limited);
    assert_eq!((report.count(RowState::Done), report.over_budget, report.spent), (4, 4, 16.0), "{report}");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(32.0));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 8);
}

#[test]
fn on_two_back_ends_whose_replies_are_lost_each_row_has_one_job() {
    let trial = Trial { back_ends: 2, rows: 12, paid: 11, estimate: COST, attempts: 1 };
    let servers = [(); 2].map(|()| Server::start(Config::quick()).expect("a server"));
    servers[0].plan("create", Fault::LostReply, 3);
    servers[1].plan("start", Fault::LostReply, 3);
    let (urls, folder) = (servers.each_ref().map(Server::url), Folder::new());
    trial.go_on(&servers, &urls, folder.path());
    assert!(servers.iter().all(|server| !server.jobs().is_empty()), "both have jobs");
}

#[test]
fn nothing_is_spent_beyond_the_limit() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(8)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0));
    assert_eq!((report.spent, report.count(RowState::Done), report.over_budget), (16.0, 4, 4), "{report}");
    assert_eq!((report.left, report.reserved), (Some(2.0), 0.0));
    assert_eq!(server.jobs().len(), 4, "not even made");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0));
    assert_eq!((report.spent, server.jobs().len()), (16.0, 4), "{report}");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(32.0).estimate(1.0));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 8);
}

#[test]
fn jobs_that_turn_out_dear_are_stopped_if_that_was_asked_for() {
    for stops in [false, true] {
        let (server, connection) = server(Config { slots: 1, run: Duration::from_millis(300), ..Config::quick() });
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(6)).expect("added");
        // Six would fit; they cost four times as much, and two fit.
        let limited = options(folder.path()).spend_at_most(10.0).estimate(1.0).cancel_over_limit(stops);
        let back_ends = || [BackEnd::new(&connection).name("one").parallel_jobs(6)];
        let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
        let report = campaign.run_jobs(back_ends(), make, &limited).expect("run");
        if !stops {
            assert_eq!((report.count(RowState::Done), report.spent), (6, 24.0), "{report}");
            continue;
        }
        assert!(report.spent <= 10.0 + COST, "{report}");
        assert_eq!(report.count(RowState::Done) + report.over_budget, 6, "{report}");
        assert!(server.count("stop") > 0 && report.over_budget > 0, "{report}");
        assert_eq!(
            report.failures().filter(|row| row.error.as_ref().is_some_and(|e| e.contains("limit"))).count(),
            report.over_budget
        );
        let text = report.to_string();
        assert!(text.contains("wait for a higher limit"), "{text}");
        let report = campaign.run_jobs(back_ends(), make, &limited.spend_at_most(100.0)).expect("run");
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn progress_tells_what_is_left_and_when_it_will_be_done() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(4)).expect("added");
    let (told, progress) = mpsc::channel();
    let hooked = options(folder.path()).spend_at_most(20.0).on_progress(move |progress| {
        let _ = told.send(progress.clone());
        panic!("a hook's panic is the hook's");
    });
    let report = run(&campaign, &connection, &hooked);
    assert!(report.is_success(), "{report}");
    let mut told: Vec<_> = progress.try_iter().collect();
    told.sort_by_key(|progress| progress.done);
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|progress| progress.rows == 4 && progress.remaining.is_some()), "{told:?}");
    let last = told.last().expect("one");
    assert_eq!((last.done, last.spent, last.left), (4, 16.0, Some(4.0)));
    assert_eq!(last.remaining, Some(Duration::ZERO));
}

#[test]
fn a_limit_over_two_currencies_is_refused() {
    let connected = |currency: Value| {
        let server = Server::start(Config::quick()).expect("a server");
        server.rewrite("capabilities", move |_, document| document["billing"] = json!({ "currency": currency }));
        (super::connect(&server), server)
    };
    let servers = [json!("EUR"), json!("USD"), json!("eur"), Value::Null].map(connected);
    let run = |chosen: &[usize], limit: Option<f64>| {
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(1)).expect("added");
        let back_ends: Vec<BackEnd> =
            chosen.iter().map(|n| BackEnd::new(&servers[*n].0).name(&format!("no. {n}"))).collect();
        let mut chosen = options(folder.path());
        if let Some(limit) = limit {
            chosen = chosen.spend_at_most(limit);
        }
        campaign.run_jobs(back_ends, |_| Ok(sum("sum")), &chosen)
    };
    let error = run(&[0, 3, 1], Some(10.0)).expect_err("two currencies");
    let text = error.to_string();
    assert!(matches!(error, CampaignError::Invalid(_)), "{text}");
    assert!(["EUR", "USD", "no. 0", "no. 1"].iter().all(|name| text.contains(name)), "{text}");
    assert!(servers.iter().all(|(_, server)| server.jobs().is_empty()), "nothing was made");
    assert!(run(&[0, 2, 3], Some(10.0)).expect("one currency").is_success());
    assert!(run(&[0, 1], None).expect("no limit").is_success());
}

#[test]
fn progress_counts_rows_that_never_got_a_job() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(3)).expect("added");
    server.plan("create", Fault::Status(400), 1);
    let (told, progress) = mpsc::channel();
    let hooked = options(folder.path()).on_progress(move |progress| drop(told.send(progress.clone())));
    // One at a time, so that the back-end refuses the second row, whichever comes first.
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(1)];
    let make = |row: &fulmar::client::openeo::campaign::Row| match row.get("x").as_u64() {
        Some(0) => Err("no job can be made of it".into()),
        _ => Ok(sum("sum")),
    };
    let report = campaign.run_jobs(back_ends, make, &hooked).expect("run");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed)), (1, 2), "{report:?}");
    let mut ended: Vec<_> = progress.try_iter().map(|progress| progress.done + progress.failed).collect();
    ended.sort_unstable();
    assert_eq!((ended.len(), ended.last()), (3, Some(&3)), "{ended:?}: a call for each row that ends");
}

#[test]
fn the_view_of_the_ledger_has_a_line_for_each_job() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows((0..3).map(|n| json!({"n": n}))).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let make = |row: &fulmar::client::openeo::campaign::Row| match (row.get("n").as_u64(), row.attempt) {
        (Some(0), 1) => Ok(sum("fail")),
        (Some(1), _) => Err("no job can be made of it".into()),
        _ => Ok(sum("good")),
    };
    let twice = options(folder.path()).attempts(2).folders("{n}");
    let report = campaign.run_jobs(back_ends, make, &twice).expect("run");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed)), (2, 1), "{report:?}");
    let view = lines_of_the_view(folder.path());
    let told: Vec<[&str; 5]> = view.iter().map(|line| line.each_ref().map(|cell| cell.as_str())).collect();
    let told: Vec<_> = told
        .iter()
        .map(|[row, attempt, state, back_end, folder]| (*row, *attempt, *state, *back_end, *folder))
        .collect();
    let lines = [
        ("1", "1", "failed", "one", ""),
        ("1", "2", "done", "one", "0"),
        ("2", "1", "failed", "", ""),
        ("3", "1", "done", "one", "2"),
    ];
    assert_eq!(told, lines);
    assert_eq!(server.jobs().len(), 3, "a line each, and one for the row that has none");
}

/// What people's tools read: row, attempt, state, back-end and folder of each line. It also selects
/// every other column that is documented.
fn lines_of_the_view(folder: &Path) -> Vec<[String; 5]> {
    const SQL: &str =
        "SELECT row_id, attempt, state, back_end, folder, key, job, reserved, cost, error FROM campaign_ledger
         ORDER BY row_id, attempt";
    if !is_on_postgres() {
        let db = rusqlite::Connection::open(folder.join("c.db")).expect("the ledger");
        let mut sql = db.prepare(SQL).expect("a view");
        let text = |value: rusqlite::types::Value| match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            _ => String::new(),
        };
        let lines = sql.query_map([], |row| {
            Ok([text(row.get(0)?), text(row.get(1)?), text(row.get(2)?), text(row.get(3)?), text(row.get(4)?)])
        });
        return lines.expect("read").collect::<Result<_, _>>().expect("read");
    }
    #[cfg(feature = "postgres")]
    {
        let url = std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started");
        let schema = folder.file_name().and_then(|name| name.to_str()).expect("a name");
        // A queue beside it, for its connection.
        let queue = fulmar::tasks::TaskQueue::connect(&url).expect("connected");
        let lines = queue.postgres_transaction(|tx| {
            tx.query(&SQL.replace("campaign_ledger", &format!("{schema:?}.campaign_ledger")), &[])
        });
        let cell = |cell: &Option<String>| cell.clone().unwrap_or_default();
        let line = |line: Vec<Option<String>>| std::array::from_fn(|column| cell(&line[column]));
        lines.expect("read").into_iter().map(line).collect()
    }
    #[cfg(not(feature = "postgres"))]
    unreachable!("`open_campaign` has panicked")
}

#[test]
fn a_job_that_was_refused_for_now_keeps_its_share_of_the_limit() {
    let (server, connection) = server(Config { run: Duration::from_millis(300), ..Config::quick() });
    server.plan("create", Fault::TooManyJobs, 6);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(8)).expect("added");
    let limited = options(folder.path()).spend_at_most(18.0).estimate(COST);
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(8)];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let report = campaign.run_jobs(back_ends, make, &limited).expect("run");
    assert_eq!((report.count(RowState::Done), report.over_budget, server.jobs().len()), (4, 4, 4), "{report}");
}

#[test]
fn a_limit_that_can_not_be_kept_is_told() {
    let (server, connection) = server(Config::quick());
    server.rewrite("describe", |_, details| {
        details.as_object_mut().expect("an object").remove("costs");
    });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(4)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0));
    assert_eq!((report.count(RowState::Done), server.jobs().len()), (1, 1), "{report}");
    let told = report.rows.iter().filter_map(|row| row.error.as_deref()).filter(|error| error.contains("estimate"));
    assert_eq!(told.count(), 3, "{report:?}");
    // The first, whose cost no one knows, counts with the estimate as well.
    let report = run(&campaign, &connection, &options(folder.path()).spend_at_most(18.0).estimate(6.0));
    assert_eq!((report.count(RowState::Done), report.spent, report.over_budget), (3, 18.0, 1), "{report}");
    assert_eq!((server.jobs().len(), report.left), (3, Some(0.0)));
}

#[test]
fn two_processes_share_a_campaign() {
    let (server, connection) = server(Config { run: Duration::from_millis(60), ..Config::quick() });
    let folder = Folder::new();
    let campaigns = [open_campaign(folder.path()), open_campaign(folder.path())];
    campaigns[0].add_rows(rows(12)).expect("added");
    let reports = thread::scope(|scope| {
        let runs = campaigns.each_ref().map(|campaign| {
            scope.spawn(|| run(campaign, &connection, &options(folder.path()).spend_at_most(COST * 12.0)))
        });
        runs.map(|run| run.join().expect("no panic"))
    });
    let elsewhere = reports[0].elsewhere + reports[1].elsewhere;
    assert_eq!(elsewhere + reports[0].over_budget + reports[1].over_budget, 12, "each row was one's alone");
    let report = run(&campaigns[0], &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 12);
}

#[test]
fn two_runs_of_one_campaign_share_no_row() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::Hang, 2);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(2)).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(2)];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    // On threads of its own, because its calls hold them.
    let executor = fulmar::Executor::builder().threads(4).build().expect("an executor");
    let runner = fulmar::batch::BatchRunner::builder().executor(&executor);
    let poll = Duration::from_millis(20);
    let own = options(folder.path()).run_with(RunOptions::new().poll(poll, poll).run_on(runner));
    let first = campaign.start_jobs(back_ends, make, &own).expect("started");
    assert!(server.await_hung(2), "the first run has both rows");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_eq!((report.elsewhere, server.count("create")), (2, 2), "{report}");
    server.release();
    let report = first.wait().expect("ended");
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 2);
    assert_eq!(campaign.add_rows(rows(3)).expect("added"), 1);
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 3);
}

#[test]
fn a_failure_on_the_back_end_is_tried_again_by_rule_and_paid_for() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_json_lines("{\"n\": 1}\n\n{\"n\": 2}\n".as_bytes()).expect("added");
    let back_ends = || [BackEnd::new(&connection).name("one")];
    let make = |row: &fulmar::client::openeo::campaign::Row| {
        // The first row needs more memory than it is given at first.
        let is_short = row.get("n") == &json!(1) && row.attempt == 1;
        assert_eq!(row.attempt > 1, row.last_error.as_ref().is_some_and(|error| error.contains("corrupt data")));
        Ok(sum(if is_short { "fail" } else { "good" }).job_options(json!({"memory": row.attempt})))
    };
    let never = options(folder.path()).attempts(3).retry_if(|error| error.to_string().contains("out of memory"));
    let report = campaign.run_jobs(back_ends(), make, &never).expect("run");
    assert_eq!((report.count(RowState::Done), report.count(RowState::Failed)), (1, 1), "{report}");
    let failed = report.failures().next().expect("one");
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("corrupt data")), "{failed:?}");
    assert_eq!((failed.back_end.as_deref(), failed.attempt), (Some("one"), 1));

    assert_eq!(campaign.retry_failed().expect("one"), 1);
    let report = campaign.run_jobs(back_ends(), make, &options(folder.path())).expect("run");
    assert!(report.is_success(), "{report}");
    assert_eq!((report.rows[0].attempt, server.jobs().len()), (2, 3));

    let other = Folder::new();
    let campaign = open_campaign(other.path());
    campaign.add_rows([json!({"n": 1})]).expect("added");
    let report = campaign.run_jobs(back_ends(), make, &options(other.path()).attempts(2)).expect("run");
    assert!(report.is_success() && report.rows[0].attempt == 2, "{report}");
}

#[test]
fn a_start_that_the_back_end_refuses_the_account_takes_nothing_from_the_row() {
    let refusals = [
        (401, "AuthenticationRequired", "log in again"),
        (402, "PaymentRequired", "top up"),
        (403, "PermissionsInsufficient", "permit"),
        (400, "StorageQuotaExceeded", "delete old results"),
        (501, "FeatureUnsupported", "support"),
    ];
    for (status, code, remedy) in refusals {
        let (server, connection) = server(Config::quick());
        server.plan("start", Fault::Refused(status, code), usize::MAX);
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(3)).expect("added");
        let limited = || options(folder.path()).spend_at_most(3.0 * COST).estimate(COST);
        for _ in 0..2 {
            let report = run(&campaign, &connection, &limited());
            assert_eq!((report.count(RowState::Started), report.refused), (3, 3), "{code}: {report:?}");
            assert_eq!((report.reserved, report.spent), (0.0, 0.0), "{code}: {report:?}");
            let text = report.to_string();
            assert!(text.contains(remedy) && text.contains("run the same program again"), "{code}: {text}");
            for row in &report.rows {
                let error = row.error.as_deref().unwrap_or_default();
                assert!(error.contains(remedy) && error.contains(code), "{error}");
            }
        }
        server.forget_plans();
        let report = run(&campaign, &connection, &limited());
        assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 3);
        assert!(report.rows.iter().all(|row| row.attempt == 1) && server.jobs().len() == 3, "{code}: {report:?}");
    }
}

#[test]
fn a_job_that_the_back_end_refuses_the_account_is_the_failure_of_no_row() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::Refused(402, "PaymentRequired"), usize::MAX);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(3)).expect("added");
    let limited = options(folder.path()).spend_at_most(3.0 * COST).estimate(COST);
    let report = run(&campaign, &connection, &limited);
    assert_eq!((report.count(RowState::Waiting), report.refused, report.reserved), (3, 3, 0.0), "{report:?}");
    assert!(report.to_string().contains("top up"), "{report}");
    server.forget_plans();
    let report = run(&campaign, &connection, &limited);
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 3);
}

#[test]
fn a_row_whose_start_is_refused_holds_up_no_other() {
    let (server, connection) = server(Config::quick());
    server.plan("start", Fault::Refused(402, "PaymentRequired"), 1);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(2)).expect("added");
    let limited = |limit| options(folder.path()).spend_at_most(limit).estimate(COST);
    // There is money for one job.
    let report = run(&campaign, &connection, &limited(COST));
    assert_eq!((report.count(RowState::Done), report.refused), (1, 1), "{report:?}");
    assert_eq!((report.spent, report.reserved, report.left), (COST, 0.0, Some(0.0)), "{report:?}");
    // Before it is started after all, money is reserved for it again.
    let report = run(&campaign, &connection, &limited(COST));
    assert_eq!((report.count(RowState::Started), report.over_budget), (1, 1), "{report:?}");
    let report = run(&campaign, &connection, &limited(2.0 * COST));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 2);
    assert_eq!(server.jobs().len(), 2);
}

#[test]
fn a_job_that_was_never_started_does_not_tell_what_jobs_cost() {
    for refusal in [Fault::Refused(402, "PaymentRequired"), Fault::Refused(400, "ProcessUnsupported")] {
        let (server, connection) = server(Config { run: Duration::from_millis(100), ..Config::quick() });
        server.plan("start", refusal, 1);
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(6)).expect("added");
        let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(6)];
        let limited = options(folder.path()).spend_at_most(10.0);
        let report = campaign.run_jobs(back_ends, |_| Ok(sum("sum")), &limited).expect("run");
        assert_eq!((report.count(RowState::Done), report.spent), (2, 8.0), "{refusal:?}: {report:?}");
    }
}

#[test]
fn a_job_that_the_back_end_will_not_start_has_failed_and_is_deleted() {
    for (attempts, fault) in [
        (1, None),
        (2, None),
        (2, Some(Fault::LostReply)),
        (2, Some(Fault::Status(503))),
        (2, Some(Fault::Status(403))),
    ] {
        let (server, connection) = server(Config::quick());
        server.plan("start", Fault::Refused(400, "ProcessUnsupported"), 1);
        if let Some(fault) = fault {
            server.plan("delete", fault, 1);
        }
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(2)).expect("added");
        let limited = options(folder.path()).spend_at_most(2.0 * COST).estimate(COST).attempts(attempts);
        let mut report = run(&campaign, &connection, &limited);
        assert_eq!(report.count(RowState::Done), attempts as usize, "{fault:?}: {report:?}");
        if attempts == 1 {
            let failed = report.failures().next().expect("one");
            assert!(failed.error.as_ref().is_some_and(|error| error.contains("ProcessUnsupported")), "{failed:?}");
            assert_eq!((report.spent, report.reserved, report.refused), (COST, 0.0, 0), "{report:?}");
            assert_eq!(campaign.retry_failed().expect("one"), 1);
            report = run(&campaign, &connection, &limited);
        }
        assert!(report.is_success() && report.spent == 2.0 * COST, "{fault:?}: {report:?}");
        assert_eq!((server.jobs().len(), server.count("start")), (3, 3), "{fault:?}");
        let left = if fault == Some(Fault::Status(403)) { "created" } else { "deleted" };
        assert_eq!(server.jobs().iter().filter(|job| job.starts == 0 && job.status == left).count(), 1, "{fault:?}");
    }
}

#[test]
fn a_start_whose_effect_is_not_known_is_no_refusal() {
    // The start is refused, and had its effect; the answer to the first start is lost, and the
    // second is refused.
    for lost in [false, true] {
        let (server, connection) = server(Config { run: Duration::from_millis(300), ..Config::quick() });
        if lost {
            server.plan("start", Fault::Cut, 1);
            server.plan("start", Fault::Refused(402, "PaymentRequired"), 1);
        } else {
            server.plan("start", Fault::DoneBut(400), 1);
        }
        let folder = Folder::new();
        let campaign = open_campaign(folder.path());
        campaign.add_rows(rows(1)).expect("added");
        let limited = options(folder.path()).spend_at_most(COST).estimate(COST).attempts(2);
        let mut report = run(&campaign, &connection, &limited);
        if lost {
            assert_eq!((report.count(RowState::Started), report.reserved), (1, COST), "it may run: {report:?}");
            report = run(&campaign, &connection, &limited);
        }
        assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 1);
        assert_eq!(server.jobs().len(), 1);
    }
}

#[test]
fn a_job_that_a_machine_of_the_back_end_does_not_know_at_its_start_is_started_later() {
    let (server, connection) = server(Config::quick());
    server.plan("start", Fault::NotFound, 2);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 1);
    assert_eq!(server.jobs().len(), 1);
}

/// So many rows at two back-ends, of which the first answers a request of this kind with 402.
fn with_one_that_refuses(kind: &'static str, count: usize) -> (Vec<Server>, CampaignReport) {
    let (servers, connections): (Vec<_>, Vec<_>) = (0..2).map(|_| server(Config::quick())).unzip();
    servers[0].plan(kind, Fault::Refused(402, "PaymentRequired"), usize::MAX);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(count)).expect("added");
    let back_ends = (connections.iter().zip(["one", "two"]))
        .map(|(connection, name)| BackEnd::new(connection).name(name).parallel_jobs(2));
    let make = |row: &fulmar::client::openeo::campaign::Row| {
        Ok(NewJob::new(ProcessGraph::start("add", row.params.clone())).title("sum"))
    };
    let report = campaign.run_jobs(back_ends, make, &options(folder.path())).expect("run");
    (servers, report)
}

#[test]
fn a_back_end_that_refuses_to_start_jobs_does_not_draw_all_of_them() {
    let (_servers, report) = with_one_that_refuses("start", 40);
    assert!(report.count(RowState::Done) >= 20, "{report}");
    assert_eq!(report.count(RowState::Done) + report.refused, 40, "{report}");
}

#[test]
fn a_back_end_that_refuses_to_make_jobs_gets_none_that_another_makes() {
    let (servers, report) = with_one_that_refuses("create", 20);
    assert_eq!((report.count(RowState::Done), report.refused), (20, 0), "{report}");
    assert_eq!((servers[0].jobs().len(), servers[1].jobs().len()), (0, 20));
}

#[test]
fn nothing_is_reserved_for_a_job_whose_start_was_refused_until_it_is_seen_again() {
    let (server, connection) = server(Config::quick());
    server.plan("start", Fault::Refused(402, "PaymentRequired"), 1);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let limited = options(folder.path()).spend_at_most(10.0).estimate(COST);
    let report = run(&campaign, &connection, &limited);
    assert_eq!((report.refused, report.reserved), (1, 0.0), "{report}");
    server.plan("describe", Fault::Refused(403, "PermissionsInsufficient"), 1);
    let report = run(&campaign, &connection, &limited);
    assert_eq!((report.count(RowState::Done), report.reserved), (0, 0.0), "{report}");
    let report = run(&campaign, &connection, &limited);
    assert_eq!((report.count(RowState::Done), report.reserved, server.jobs().len()), (1, 0.0, 1), "{report}");
}

#[test]
fn what_is_left_alone_goes_on_and_is_adopted() {
    let (server, connection) = server(Config { run: Duration::from_secs(1), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(4)).expect("added");
    let (told, running) = mpsc::channel();
    let runner = fulmar::batch::BatchRunner::builder().on_event(move |event| {
        let _ = told.send(event.index);
    });
    let poll = Duration::from_millis(20);
    let leaves = options(folder.path()).run_with(RunOptions::new().poll(poll, poll).run_on(runner));
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let back_ends = [BackEnd::new(&connection).name("one").parallel_jobs(2)];
    let at_work = campaign.start_jobs(back_ends, make, &leaves).expect("started");
    while server.count("start") < 2 {
        running.recv_timeout(crate::support::HANG).expect("an event");
    }
    assert_eq!(at_work.progress().expect("read").done, 0);
    // As a thread that gets the Ctrl-C does, while another waits.
    let stopper = at_work.stopper();
    let waiting = thread::spawn(move || at_work.wait());
    stopper.detach();
    let report = waiting.join().expect("no panic").expect("ended");
    assert!(report.to_string().contains("run the same program again"), "{report}");
    assert_eq!(report.count(RowState::Done), 0, "{report}");
    assert_eq!((server.count("stop"), server.count("delete")), (0, 0), "they are left");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 4);
}

#[test]
fn a_lost_reply_is_found_by_its_title() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::LostReply, 2);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(3)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 3);
}

#[test]
fn a_job_that_appears_long_after_its_reply_was_lost_is_made_once() {
    let (servers, connections): (Vec<_>, Vec<_>) = (0..2).map(|_| server(Config::quick())).unzip();
    servers[0].plan("create", Fault::DoneBut(504), 1);
    // The client looks three times, and then the campaign.
    let lists = AtomicU64::new(0);
    servers[0].rewrite("list", move |_, list| {
        if lists.fetch_add(1, Ordering::SeqCst) < 4 {
            list["jobs"] = json!([]);
        }
    });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let back_ends =
        connections.iter().zip(["one", "two"]).map(|(connection, name)| BackEnd::new(connection).name(name));
    let make = |row: &fulmar::client::openeo::campaign::Row| {
        Ok(NewJob::new(ProcessGraph::start("add", row.params.clone())).title("sum"))
    };
    let patient = options(folder.path()).settle(crate::support::HANG);
    let report = campaign.run_jobs(back_ends, make, &patient).expect("run");
    assert_done_once(&servers, &report, folder.path(), 1);
    assert_eq!((servers[0].jobs().len(), servers[1].jobs().len()), (1, 0), "{report}");
}

#[test]
fn a_job_that_a_person_has_stopped_is_not_made_again() {
    let (server, connection) = server(Config { run: Duration::from_secs(3600), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let at_work = campaign.start_jobs(back_ends, make, &options(folder.path()).attempts(3)).expect("started");
    let waiting = thread::spawn(move || at_work.wait());
    while server.count("start") == 0 {
        thread::yield_now();
    }
    for job in server.jobs() {
        connection.job(&job.id).stop().expect("stopped");
    }
    let report = waiting.join().expect("no panic").expect("ended");
    assert_eq!((report.count(RowState::Failed), server.jobs().len()), (1, 1), "{report:?}");
}

#[test]
fn a_job_is_found_in_a_list_that_tells_no_titles() {
    let untitled = |server: &Server| {
        server.rewrite("list", |_, list| {
            for job in list["jobs"].as_array_mut().expect("a list") {
                job.as_object_mut().expect("an object").remove("title");
            }
        });
    };
    let blank = |server: &Server| {
        server.rewrite("list", |_, list| {
            for job in list["jobs"].as_array_mut().expect("a list") {
                job["title"] = json!("");
            }
        });
    };
    let trial = Trial { back_ends: 1, rows: 3, paid: 3, estimate: COST, attempts: 1 };
    // The first requests log in; jobs are made by those that follow.
    for at in 4..10 {
        trial.killed_at_with(at, Passage::Done, untitled);
        trial.killed_at_with(at, Passage::Done, blank);
    }
}

#[test]
fn a_job_that_a_back_end_may_have_made_without_its_title_is_not_made_again() {
    let (server, connection) = server(Config::quick());
    server.plan("create", Fault::DoneBut(504), 1);
    server.rewrite("list", |_, list| {
        for job in list["jobs"].as_array_mut().expect("a list") {
            job["title"] = json!("");
        }
    });
    server.rewrite("describe", |_, details| details["title"] = json!(" "));
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_eq!((server.count("create"), report.count(RowState::Started)), (1, 1), "{report:?}");
    assert!(report.rows[0].error.as_ref().is_some_and(|error| error.contains("has no title")), "{report:?}");
    // A job that computes something else is not it: the row's own was never made, and is now.
    for job in server.jobs() {
        connection.job(&job.id).delete().expect("deleted");
    }
    connection.create_job(NewJob::new(ProcessGraph::start("subtract", json!({"x": 3, "y": 5})))).expect("created");
    let report = run(&campaign, &connection, &options(folder.path()));
    assert!(report.is_success(), "{report:?}");
}

#[test]
fn a_job_that_was_deleted_there_has_failed() {
    let (server, connection) = server(Config { run: Duration::from_secs(3600), ..Config::quick() });
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let at_work = campaign.start_jobs(back_ends, make, &options(folder.path())).expect("started");
    let waiting = thread::spawn(move || at_work.wait());
    while server.count("start") == 0 {
        thread::yield_now();
    }
    for job in server.jobs() {
        connection.job(&job.id).delete().expect("deleted");
    }
    let report = waiting.join().expect("no panic").expect("ended");
    assert_eq!(report.count(RowState::Failed), 1, "{report:?}");
    assert_eq!(server.count("create"), 1, "one attempt");
}

#[test]
fn a_job_that_one_machine_of_a_back_end_does_not_know_yet_is_not_made_again() {
    let (server, connection) = server(Config::quick());
    // The client finds it in the list, and asks for its details; so does the campaign, three looks
    // later.
    server.plan("create", Fault::DoneBut(504), 1);
    server.plan("describe", Fault::NotFound, 6);
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    let report = run(&campaign, &connection, &options(folder.path()).attempts(2));
    assert_done_once(std::slice::from_ref(&server), &report, folder.path(), 1);
    assert_eq!(server.count("create"), 1);
}

#[test]
fn a_back_end_that_is_not_named_any_more_is_asked_for() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(rows(1)).expect("added");
    server.plan("asset", Fault::Status(404), 9);
    let report = run(&campaign, &connection, &options(folder.path()));
    assert_eq!(report.count(RowState::Finished), 1, "{report:?}");
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let other = [BackEnd::new(&connection).name("two")];
    let report = campaign.run_jobs(other, make, &options(folder.path())).expect("run");
    assert!(report.rows[0].error.as_ref().is_some_and(|error| error.contains("\"one\"")), "{report:?}");
    assert_eq!(server.jobs().len(), 1);
}

#[test]
fn folders_are_named_by_a_pattern() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    campaign.add_rows(["a/b", "a b"].map(|tile| json!({"tile": tile}))).expect("added");
    let back_ends = [BackEnd::new(&connection).name("one")];
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let report = campaign.run_jobs(back_ends, make, &options(folder.path()).folders("{back_end}/{tile}")).expect("run");
    assert!(report.is_success(), "{report}");
    let mut names = names_in(&folder.path().join("out/one"));
    names.sort();
    assert_eq!(names, ["a_b", "a_b-2"]);
}

#[test]
fn what_makes_no_sense_is_told_at_once() {
    let (_server, connection) = server(Config::quick());
    let folder = Folder::new();
    let campaign = open_campaign(folder.path());
    let make = |_: &fulmar::client::openeo::campaign::Row| Ok(sum("sum"));
    let twice = [BackEnd::new(&connection).name("one"), BackEnd::new(&connection).name("one")];
    let error = campaign.run_jobs(twice, make, &options(folder.path())).expect_err("one name");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("\"one\"")), "{error}");
    let one = [BackEnd::new(&connection).name("one")];
    let error = campaign.run_jobs(one, make, &options(folder.path()).spend_at_most(f64::NAN)).expect_err("no number");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("spend_at_most")), "{error}");
    let error = campaign.add_json_lines("{}\n{".as_bytes()).expect_err("no JSON");
    assert!(matches!(&error, CampaignError::Invalid(text) if text.contains("line 2")), "{error}");
    assert!(campaign.report().expect("read").rows.is_empty(), "nothing was added");
    let error = Campaign::open(folder.path().join("none/c.db")).expect_err("no folder");
    assert!(matches!(&error, CampaignError::Ledger { .. }), "{error}");
}
