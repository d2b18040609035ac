//! An openEO back-end for tests and examples: jobs, results, logs, an OIDC issuer, faults on demand, and an account of what
//! was done.
//!
//! It computes nothing. What state a job is in follows from the time when somebody asks, and its results from its id. A
//! thread serves one connection. The shapes of its replies are those of two real back-ends, captured in exchanges with the
//! Python client.
//!
//! Signed links lead to a second address, the store, which refuses credentials.

mod api;
mod faults;
mod jobs;
mod oidc;
mod processes;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use http_server::{Answer, Guard, HttpServer, lock};

pub use faults::{Chaos, Fault};
pub use http_server::{Passage, Request};
pub use jobs::JobAccount;

use faults::{Plans, Turns};
use jobs::Jobs;
use oidc::Tokens;
use processes::Stored;
use serde_json::Value;

/// How the server behaves. `Config::default()` is a server without faults whose jobs take about a second.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a started job is queued at least. Defaults to 0.3 s.
    pub queue: Duration,
    /// How long a job runs. Defaults to 0.7 s.
    pub run: Duration,
    /// How long a job runs whose title has `slow` in it. Defaults to 14 s.
    pub slow: Duration,
    /// How many jobs run at once; others stay queued. Defaults to 16.
    pub slots: usize,
    /// With so many queued and running jobs a start is refused as `ConcurrentJobLimit`. Defaults to none.
    pub concurrent_limit: Option<usize>,
    /// What every job is estimated to cost. Defaults to none: no estimates are supported.
    pub estimates: Option<f64>,
    /// The assets of every job: key, media type, size in bytes. Defaults to a GeoTIFF of 4,104 bytes and a short table.
    pub assets: Vec<(String, String, usize)>,
    /// Whether links are signed and lead to the store. Defaults to no.
    pub signed: bool,
    /// Whether `file:checksum` is told. Defaults to yes.
    pub checksums: bool,
    /// Told in place of the SHA-256: `sha512` for one of that kind, or any text. Defaults to nothing.
    pub other_checksum: Option<&'static str>,
    /// Whether ranges are served. Defaults to yes.
    pub ranges: bool,
    /// Whether ranges are announced, and answered with the whole all the same. Defaults to no.
    pub lies_about_ranges: bool,
    /// How many items a page of a list has; `None` is all. Defaults to all.
    pub page: Option<usize>,
    /// What stands in `next` links in place of the next page: a circle, another host. Defaults to the next page.
    pub next: Option<String>,
    /// How long a token lives. Defaults to an hour.
    pub token_life: Duration,
    /// What every log entry has for an id, as back-ends have it that count none. Defaults to ids of their own.
    pub log_id: Option<&'static str>,
    /// The status for an expired token: 401 or 403. Defaults to 403.
    pub expired_status: u16,
    /// How often the device flow says `authorization_pending` before it gives a token. Defaults to 1.
    pub pending: u32,
    /// What else the device flow says, in turn, before all that: `slow_down`, `expired_token`. Defaults to nothing.
    pub device_says: Vec<&'static str>,
    /// What a reply with a token says about its life, in seconds. Defaults to the truth.
    pub claimed_life: Option<f64>,
    /// How many seconds the server's clock is ahead. Defaults to none.
    pub clock: i64,
    /// How many seconds the clock that dates jobs is ahead of that. Defaults to none.
    pub list_clock: i64,
    /// What strikes by chance, once somebody has logged in. Defaults to nothing.
    pub chaos: Option<Chaos>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            queue: Duration::from_millis(300),
            run: Duration::from_millis(700),
            slow: Duration::from_secs(14),
            slots: 16,
            concurrent_limit: None,
            estimates: None,
            assets: vec![
                ("openEO.tif".to_owned(), "image/tiff; application=geotiff".to_owned(), 4_104),
                ("out.csv".to_owned(), "text/csv".to_owned(), 48),
            ],
            signed: false,
            checksums: true,
            other_checksum: None,
            ranges: true,
            lies_about_ranges: false,
            page: None,
            next: None,
            log_id: None,
            token_life: Duration::from_secs(3_600),
            expired_status: 403,
            pending: 1,
            device_says: Vec::new(),
            claimed_life: None,
            clock: 0,
            list_clock: 0,
            chaos: None,
        }
    }
}

impl Config {
    /// A server whose jobs take no time to speak of.
    pub fn quick() -> Config {
        Config {
            queue: Duration::from_millis(5),
            run: Duration::from_millis(20),
            slow: Duration::from_millis(400),
            ..Config::default()
        }
    }
}

/// A running server. Dropping it closes every connection and ends its threads.
pub struct Server {
    shared: Arc<Shared>,
    /// The API's and the store's.
    servers: [HttpServer; 2],
}

/// What a test makes of a reply: a kind of call, and the change.
type Rewrite = (&'static str, Box<dyn Fn(&Request, &mut Value) + Send + Sync>);

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) rewrites: Mutex<Vec<Rewrite>>,
    pub(crate) turns: Mutex<Turns>,
    pub(crate) origin: String,
    pub(crate) store: String,
    pub(crate) jobs: Mutex<Jobs>,
    pub(crate) processes: Mutex<Stored>,
    pub(crate) tokens: Mutex<Tokens>,
    pub(crate) plans: Mutex<Plans>,
    pub(crate) counts: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) seen: Mutex<Vec<Request>>,
    pub(crate) guard: Guard,
    /// Where hung requests wait, and whether they may go on.
    pub(crate) hung: (Mutex<Hung>, Condvar),
}

#[derive(Default)]
pub(crate) struct Hung {
    pub(crate) released: bool,
    pub(crate) waiting: usize,
}

impl Server {
    /// Starts a server on two free ports of this machine.
    ///
    /// # Errors
    /// What the operating system says if there is no port or no thread to be had.
    pub fn start(config: Config) -> io::Result<Server> {
        let (listener, stored) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
        let (address, store) = (listener.local_addr()?, stored.local_addr()?);
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Jobs::new(config.slots, config.clock + config.list_clock)),
            rewrites: Mutex::default(),
            turns: Mutex::default(),
            config,
            origin: format!("http://{address}"),
            store: format!("http://{store}"),
            processes: Mutex::default(),
            tokens: Mutex::default(),
            plans: Mutex::default(),
            counts: Mutex::default(),
            seen: Mutex::default(),
            guard: Guard::default(),
            hung: (Mutex::default(), Condvar::new()),
        });
        let (api, links) = (Arc::clone(&shared), Arc::clone(&shared));
        let servers = [
            HttpServer::start("openeo-server", listener, move |request| api.answer(request, api::answer))?,
            HttpServer::start("openeo-server", stored, move |request| links.answer(request, api::answer_of_store))?,
        ];
        Ok(Server { shared, servers })
    }

    /// What a user would connect to: `http://127.0.0.1:PORT`. It names the API's root in its version document.
    pub fn url(&self) -> String {
        self.shared.origin.clone()
    }

    /// The root of the API.
    pub fn root(&self) -> String {
        format!("{}{}", self.shared.origin, api::ROOT)
    }

    /// Every job that was created, in order, deleted ones included.
    pub fn jobs(&self) -> Vec<JobAccount> {
        lock(&self.shared.jobs).accounts()
    }

    /// The bytes of an asset of a job.
    pub fn asset(&self, id: &str, key: &str) -> Option<Vec<u8>> {
        let size = self.shared.config.assets.iter().find(|(known, _, _)| known == key)?.2;
        Some(jobs::content(id, key, size))
    }

    /// How often each kind of call came (`create`, `start`, `describe`, `list`, `results`, `logs`, `asset`, `stop`, `delete`,
    /// `patch`, `result`, `processes`, `token`, ..), and `total`.
    pub fn count(&self, kind: &str) -> u64 {
        lock(&self.shared.counts).get(kind).copied().unwrap_or(0)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// Changes every JSON reply to calls of a kind, errors left out.
    pub fn rewrite(&self, kind: &'static str, change: impl Fn(&Request, &mut Value) + Send + Sync + 'static) {
        lock(&self.shared.rewrites).push((kind, Box::new(change)));
    }

    /// Strikes the next `times` calls of a kind. Plans for one kind are used up in order.
    pub fn plan(&self, kind: &'static str, fault: Fault, times: usize) {
        lock(&self.shared.plans).add(kind, None, fault, times);
    }

    /// Forgets what was planned and hasn't struck yet.
    pub fn forget_plans(&self) {
        lock(&self.shared.plans).forget();
    }

    /// Strikes every call for that page of a list, counted from 0.
    pub fn plan_page(&self, kind: &'static str, page: usize, fault: Fault) {
        lock(&self.shared.plans).add(kind, Some(format!("page={page}")), fault, usize::MAX);
    }

    /// As [`plan`](Server::plan), for the job of that title alone.
    pub fn plan_for(&self, kind: &'static str, title: &str, fault: Fault, times: usize) {
        lock(&self.shared.plans).add(kind, Some(title.to_owned()), fault, times);
    }

    /// Has `guard` decide what becomes of each request, the API's and the store's. It gets the number
    /// of requests so far, this one included.
    pub fn guard(&self, guard: impl Fn(u64) -> Passage + Send + Sync + 'static) {
        self.shared.guard.set(guard);
    }

    /// Waits until so many requests hang; false if that doesn't come true within a minute.
    pub fn await_hung(&self, count: usize) -> bool {
        let (hung, changed) = &self.shared.hung;
        let wait = changed.wait_timeout_while(lock(hung), Duration::from_secs(60), |hung| hung.waiting < count);
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lets every hung request go on, and all later ones.
    pub fn release(&self) {
        lock(&self.shared.hung.0).released = true;
        self.shared.hung.1.notify_all();
    }

    /// Waits until all is done that a killed process has asked for. No other client may be connected.
    ///
    /// # Errors
    /// What the operating system says if no connection can be made.
    pub fn drain(&self) -> io::Result<()> {
        self.servers.iter().try_for_each(HttpServer::drain)
    }

    /// Lets every token that was given out expire now.
    pub fn expire_tokens(&self) {
        lock(&self.shared.tokens).expire();
    }

    /// Lets every signed link that was given out expire now.
    pub fn expire_links(&self) {
        lock(&self.shared.jobs).expire_links();
    }

    /// Lets a job have been created that much earlier.
    pub fn backdate(&self, id: &str, by: Duration) {
        lock(&self.shared.jobs).backdate(id, by);
    }

    /// Puts a job into a state, whatever the time says.
    pub fn set_status(&self, id: &str, status: &'static str) {
        lock(&self.shared.jobs).set_status(id, status);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    fn answer(&self, request: &Request, answer: fn(&Shared, &Request) -> Answer) -> Answer {
        lock(&self.seen).push(request.clone());
        self.bump("total");
        let number = lock(&self.counts).get("total").copied().unwrap_or(0);
        self.guard.pass(number, || answer(self, request))
    }

    pub(crate) fn bump(&self, kind: &'static str) {
        *lock(&self.counts).entry(kind).or_default() += 1;
    }

    /// Lets a time pass, or until hung requests may go on.
    pub(crate) fn delay(&self, delay: Duration) {
        let (hung, changed) = &self.hung;
        let _ = changed.wait_timeout_while(lock(hung), delay, |hung| !hung.released);
    }

    /// Waits until hung requests may go on.
    pub(crate) fn hang(&self) {
        let (hung, changed) = &self.hung;
        let mut state = lock(hung);
        state.waiting += 1;
        changed.notify_all();
        while !state.released {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}
