//! A PAIRS server for tests, benches and examples: the protocol, its faults on demand, and an account of what was done.
//!
//! It speaks what `pairs_sim.py` beside it speaks, which was proved with the real client, but carries tens of thousands of
//! jobs: a job is a few numbers, and what state it is in is computed from the time when somebody asks. A thread serves one
//! connection, so it wants clients that keep theirs.
//!
//! Faults are decided by a seed, what is asked for, and how often that was asked before: neither the order in which threads
//! run nor the clock changes them.

mod api;
mod faults;
mod job;
mod tokens;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_server::{Guard, HttpServer, lock};

pub use faults::Faults;
pub use http_server::{Passage, Request};
pub use job::JobAccount;

use job::Jobs;
use tokens::Tokens;

/// How the server behaves. `Config::default()` is a fast server without faults that asks nobody who they are.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a query takes once it has a slot. Defaults to 2 s.
    pub run: Duration,
    /// How many queries run at once; others are queued. Defaults to 64.
    pub slots: usize,
    /// Who may call. Defaults to [`Auth::Any`].
    pub auth: Auth,
    /// Whether the words for an expired token are those of the legacy host. Defaults to false: those of v3 and v4.
    pub legacy: bool,
    /// Whether a call without `x-ibm-client-id` is refused. Defaults to false.
    pub require_client_id: bool,
    /// The size of a raster, in bytes. Defaults to 16 KiB.
    pub raster: usize,
    /// Whether a download may be resumed. Defaults to false, as with the real server.
    pub ranges: bool,
    /// Whether every request is remembered, for [`Server::seen`]. Defaults to false.
    pub record: bool,
    /// What goes wrong. Defaults to nothing.
    pub faults: Faults,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Anybody; but credentials, if any, must be good.
    Any,
    /// Whoever has a name and a password that doesn't begin with `bad`.
    Basic,
    /// Whoever has a token from this server.
    Bearer,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            run: Duration::from_secs(2),
            slots: 64,
            auth: Auth::Any,
            legacy: false,
            require_client_id: false,
            raster: 16 << 10,
            ranges: false,
            record: false,
            faults: Faults::default(),
        }
    }
}

/// A running server. Dropping it closes every connection and ends its threads.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: HttpServer,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) jobs: Mutex<Jobs>,
    pub(crate) tokens: Mutex<Tokens>,
    pub(crate) counts: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) seen: Mutex<Vec<Request>>,
    pub(crate) turns: Mutex<faults::Turns>,
    pub(crate) recent: Mutex<VecDeque<Instant>>,
    requests: AtomicU64,
    guard: Guard,
}

impl Server {
    /// Starts a server on a free port of this machine.
    ///
    /// # Errors
    /// What the operating system says if there is no port or no thread to be had.
    pub fn start(config: Config) -> io::Result<Server> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Jobs::new(config.slots)),
            tokens: Mutex::default(),
            counts: Mutex::default(),
            seen: Mutex::default(),
            turns: Mutex::default(),
            recent: Mutex::default(),
            requests: AtomicU64::new(0),
            guard: Guard::default(),
            config,
        });
        let inner = Arc::clone(&shared);
        let server = HttpServer::start("pairs-server", listener, move |request| {
            if inner.config.record {
                lock(&inner.seen).push(request.clone());
            }
            let number = inner.requests.fetch_add(1, Ordering::SeqCst) + 1;
            inner.guard.pass(number, || api::answer(&inner, request))
        })?;
        Ok(Server { address, shared, server })
    }

    /// The base of the API, `http://127.0.0.1:PORT/v2`.
    pub fn url(&self) -> String {
        format!("{}/v2", self.origin())
    }

    /// The address without a path, `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every job that was created, in order.
    pub fn jobs(&self) -> Vec<JobAccount> {
        lock(&self.shared.jobs).accounts()
    }

    /// The archive that a job's download is, or would be, whole; `None` if there is no such job.
    pub fn archive(&self, id: &str) -> Option<Vec<u8>> {
        let jobs = lock(&self.shared.jobs);
        jobs.get(id).map(|job| job.result(self.shared.config.raster).0)
    }

    /// How often each kind of call came (`submit`, `status`, `download`, `list`, `history`, ..) and each fault struck
    /// (`fault 503`, `fault drop`, ..).
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.shared.counts).clone()
    }

    /// How often a call of this kind came, or this fault struck.
    pub fn count(&self, kind: &str) -> u64 {
        lock(&self.shared.counts).get(kind).copied().unwrap_or(0)
    }

    /// Every request so far, if [`Config::record`] says so.
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.shared.seen).clone()
    }

    /// Has `guard` decide what becomes of each request. It gets the number of the request, from 1, and may take its time:
    /// the request waits.
    pub fn guard(&self, guard: impl Fn(u64) -> Passage + Send + Sync + 'static) {
        self.shared.guard.set(guard);
    }

    /// Lets every token that was given out expire now.
    pub fn expire_tokens(&self) {
        lock(&self.shared.tokens).expire();
    }

    /// Waits until all is done that a killed process has asked for. No other client may be connected.
    ///
    /// # Errors
    /// What the operating system says if no connection can be made.
    pub fn drain(&self) -> io::Result<()> {
        self.server.drain()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }
}

impl Shared {
    pub(crate) fn bump(&self, kind: &'static str) {
        *lock(&self.counts).entry(kind).or_default() += 1;
    }
}
