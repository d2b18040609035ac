//! How long does a cancel take to arrive?
//!
//! `cargo bench --all-features --bench cancel` prints, for each kind of call that an operation may
//! block in, microseconds from `AsyncRequest::cancel`, and from the end of a time limit, until the
//! operation has returned from that call: the median and the highest of 200. The goal is 50 ms, for
//! each. All kinds take turns, round after round. Each call would block for an hour, or for ever,
//! and the cancel comes some milliseconds after the thread was about to block. After each the
//! executor's one thread has to take another operation. With the address of a PostgreSQL server in
//! `FULMAR_POSTGRES_URL`, a statement there takes its turn as well. `-- --test` does each once.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use fulmar::client::http::{HttpClient, HttpErrorKind, RetryPolicy, Timeouts};
use fulmar::queue::{GetError, Producer, bounded};
#[cfg(feature = "postgres")]
use fulmar::tasks::TaskError;
use fulmar::tasks::rusqlite::{Connection, ErrorCode};
use fulmar::tasks::{TaskQueue, interrupt_on_cancel};
use fulmar::{AsyncRequest, Error, Executor, on_cancel, sleep};

const GOAL: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_secs(3_600);
/// From the event that the thread is about to block to the cancel.
const NAP: Duration = Duration::from_millis(3);
/// A time limit in which the thread comes as far as to block.
const LIMIT: Duration = Duration::from_millis(20);

/// What blocks. It says so before, and whether the cancel was what ended it.
type Blocks = Box<dyn FnOnce(&Sender<()>) -> bool + Send>;

type Kind = (&'static str, fn(&Peers) -> Blocks);

fn main() {
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    // `cargo bench` passes `--bench`; `cargo test` doesn't, and wants to see that it works.
    let test = flag("--test") || !flag("--bench");
    let rounds = if test { 1 } else { 200 };
    let peers = Peers::new();
    let mut kinds: Vec<Kind> = vec![
        ("sleep", sleeping),
        ("wait for a request", waiting),
        ("get from an empty queue", getting),
        ("put into a full queue", putting),
        ("HTTP, connecting", |peers| calling(&peers.connect, 0)),
        ("HTTP, TLS handshake", |peers| calling(&peers.secure, 0)),
        ("HTTP, sending the body", |peers| calling(&peers.mute, 32 << 20)),
        ("HTTP, waiting for the head", |peers| calling(&peers.head, 0)),
        ("HTTP, reading the body", |peers| calling(&peers.body, 0)),
        ("statement of SQLite", querying),
        ("child, killed by a hook", killing),
        ("child, looked at each 10 ms", looking),
        ("socket, shut down by a hook", reading),
    ];
    if peers.queue.is_some() {
        kinds.push(("statement of PostgreSQL", asking));
    }
    let executor = Executor::builder().threads(1).build().expect("sound");
    let mut figures = vec![[Vec::new(), Vec::new()]; kinds.len()];
    for _ in 0..rounds {
        for ((name, make), [cancels, limits]) in kinds.iter().zip(&mut figures) {
            cancels.push(cancelled(name, &executor, make(&peers)));
            limits.push(limited(name, &executor, || make(&peers)));
        }
    }
    peers.gate.close();
    if test {
        println!("A test: one round, and figures mean nothing.");
    }
    println!("to return [us], of {rounds} rounds in which all take turns; goal: at most {} us", GOAL.as_micros());
    println!("{:<30} {:>10} {:>10}   {:>10} {:>10}", "", "cancel", "max", "limit", "max");
    for ((name, _), figures) in kinds.iter().zip(&mut figures) {
        let [(cancel, cancel_max), (limit, limit_max)] = figures.each_mut().map(|figures| {
            figures.sort();
            (figures[figures.len() / 2], figures[figures.len() - 1])
        });
        let met = if cancel_max.max(limit_max) <= GOAL { "" } else { "   NO" };
        let [cancel, cancel_max, limit, limit_max] =
            [cancel, cancel_max, limit, limit_max].map(|figure| figure.as_micros());
        println!("{name:<30} {cancel:>10} {cancel_max:>10}   {limit:>10} {limit_max:>10}{met}");
    }
}

/// How long after the cancel the operation has returned.
fn cancelled(name: &str, executor: &Executor, blocks: Blocks) -> Duration {
    let (about, begins) = channel();
    let operation = move || {
        let by_cancel = blocks(&about);
        (Instant::now(), by_cancel)
    };
    let request = executor.spawn(operation).expect("accepted");
    begins.recv().expect("it runs");
    std::thread::sleep(NAP);
    let start = Instant::now();
    assert!(!request.cancel(), "{name}: it runs");
    let (end, by_cancel) = request.wait(None).expect("it ends");
    assert!(by_cancel, "{name}: something else ended it");
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(None).expect("the thread is free"), 7);
    end.saturating_duration_since(start)
}

/// How long after its time limit the operation has returned. Tried again if the limit has passed
/// before it was about to block.
fn limited(name: &str, executor: &Executor, make: impl Fn() -> Blocks) -> Duration {
    loop {
        let blocks = make();
        let (about, begins) = channel();
        let operation = move || {
            let by_limit = blocks(&about);
            Ok::<_, Error>((Instant::now(), by_limit))
        };
        let limit = Instant::now() + LIMIT;
        let request = executor.within(LIMIT).spawn(operation).expect("accepted");
        let blocked = begins.recv().map(|()| Instant::now());
        let ended = request.wait(None);
        assert_eq!(executor.spawn(|| 7).expect("accepted").wait(None).expect("the thread is free"), 7);
        if blocked.is_ok_and(|at| at + NAP < limit) {
            let (end, by_limit) = ended.expect("it ends");
            assert!(by_limit, "{name}: something else ended it");
            return end.saturating_duration_since(limit);
        }
    }
}

/// What the calls are made to, which all say nothing more.
struct Peers {
    held: Arc<AsyncRequest<()>>,
    gate: Producer<()>,
    connect: String,
    _full_port: (OwnedFd, TcpStream),
    head: String,
    body: String,
    silent: SocketAddr,
    secure: String,
    mute: String,
    queue: Option<TaskQueue>,
}

impl Peers {
    fn new() -> Peers {
        let others = Executor::builder().threads(1).build().expect("sound");
        let (gate, closes) = bounded(1).expect("holds something");
        let held = others.spawn(move || while closes.get().is_ok() {}).expect("accepted");
        let (connect, full_port) = full_port();
        let mute = mute();
        Peers {
            held: Arc::new(held),
            gate,
            connect: format!("http://{connect}/"),
            _full_port: full_port,
            head: format!("http://{}/", serve(b"")),
            body: format!("http://{}/", serve(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\nhalf a body")),
            silent: serve(b""),
            secure: format!("https://{mute}/"),
            mute: format!("http://{mute}/"),
            queue: queue(),
        }
    }
}

/// A port whose backlog is full: the system answers no further connection.
fn full_port() -> (SocketAddr, (OwnedFd, TcpStream)) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    listen(&listener, 0).expect("it listens");
    let address: SocketAddr = getsockname(&listener).expect("an address").try_into().expect("IPv4");
    let first = TcpStream::connect(address).expect("there is room for one");
    (address, (listener, first))
}

/// Answers each request with a beginning, and keeps the connection until the client closes it.
fn serve(beginning: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let _ = (&stream).write_all(beginning);
                // Until the other side closes.
                let _ = reader.read_line(&mut line);
            });
        }
    });
    address
}

/// Takes connections, and reads nothing.
fn mute() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Until the other side closes, which is no event for one that doesn't read.
            std::thread::spawn(move || {
                let closed = rustix::event::PollFlags::RDHUP;
                let mut fds = [rustix::event::PollFd::new(&stream, closed)];
                let _ = rustix::event::poll(&mut fds, None);
            });
        }
    });
    address
}

#[cfg(feature = "postgres")]
fn queue() -> Option<TaskQueue> {
    let url = std::env::var("FULMAR_POSTGRES_URL").ok()?;
    Some(TaskQueue::connect(&url).expect("a server"))
}

#[cfg(not(feature = "postgres"))]
fn queue() -> Option<TaskQueue> {
    None
}

fn sleeping(_: &Peers) -> Blocks {
    Box::new(|about| {
        tell(about);
        matches!(sleep(HOUR), Err(Error::Interrupted))
    })
}

fn waiting(peers: &Peers) -> Blocks {
    let held = peers.held.clone();
    Box::new(move |about| {
        tell(about);
        matches!(held.wait(None), Err(Error::Interrupted))
    })
}

/// From a new queue each time: one whose last wait was long no longer spins before it sleeps.
fn getting(_: &Peers) -> Blocks {
    let (producer, consumer) = bounded::<()>(1).expect("holds something");
    Box::new(move |about| {
        tell(about);
        let got = consumer.get();
        // It keeps the queue open until here.
        drop(producer);
        got == Err(GetError::Interrupted)
    })
}

fn putting(_: &Peers) -> Blocks {
    let (producer, consumer) = bounded(1).expect("holds something");
    producer.put(()).expect("there is room");
    Box::new(move |about| {
        tell(about);
        let put = producer.put(());
        drop(consumer);
        put.is_err_and(|refused| refused.is_interrupted())
    })
}

/// A client of its own each time, with a connection of its own, and no time limit.
fn calling(url: &str, upload: usize) -> Blocks {
    let never = Timeouts { connect: None, send: None, first_byte: None, body: None, total: None };
    let client = HttpClient::builder().environment_proxy(false).timeouts(never).retry(RetryPolicy::never());
    let client = client.build().expect("sound");
    let request = match upload {
        0 => client.get(url),
        size => client.post(url).body("text/plain", vec![7; size]),
    };
    Box::new(move |about| {
        tell(about);
        request.send().is_err_and(|error| error.kind() == HttpErrorKind::Cancelled)
    })
}

fn querying(_: &Peers) -> Blocks {
    Box::new(|about| {
        let database = Connection::open_in_memory().expect("memory");
        interrupt_on_cancel(&database);
        tell(about);
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let count = database.query_row(endless, [], |row| row.get::<_, i64>(0));
        count.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted))
    })
}

#[cfg(feature = "postgres")]
fn asking(peers: &Peers) -> Blocks {
    let queue = peers.queue.clone().expect("asked for");
    Box::new(move |about| {
        let slept = queue.postgres_transaction(|tx| {
            tell(about);
            tx.execute("SELECT pg_sleep(3600)", &[])
        });
        slept.is_err_and(|error: TaskError| format!("{error:#?}").contains("57014"))
    })
}

#[cfg(not(feature = "postgres"))]
fn asking(_: &Peers) -> Blocks {
    unreachable!("there is no queue")
}

/// The hook asks the system to kill the child by its number, which is no other process's before it
/// is waited for.
fn killing(_: &Peers) -> Blocks {
    use rustix::process::{Pid, Signal, kill_process};

    Box::new(|about| {
        let mut child = Command::new("sleep").arg("3600").spawn().expect("it starts");
        let pid = Pid::from_child(&child);
        let hook = on_cancel(move || {
            let _ = kill_process(pid, Signal::KILL);
        });
        tell(about);
        let status = child.wait();
        hook.take_back();
        is_killed(status)
    })
}

/// Without anything of the system's: as the documentation of `sleep` shows.
fn looking(_: &Peers) -> Blocks {
    Box::new(|about| {
        let mut child = Command::new("sleep").arg("3600").spawn().expect("it starts");
        tell(about);
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if sleep(Duration::from_millis(10)).is_err() {
                let _ = child.kill();
                return is_killed(child.wait());
            }
        }
        false
    })
}

fn is_killed(status: std::io::Result<ExitStatus>) -> bool {
    use std::os::unix::process::ExitStatusExt;

    status.is_ok_and(|status| status.signal() == Some(9))
}

fn reading(peers: &Peers) -> Blocks {
    use std::io::Read;

    let address = peers.silent;
    Box::new(move |about| {
        let mut socket = TcpStream::connect(address).expect("it listens");
        let other = socket.try_clone().expect("a second handle");
        let hook = on_cancel(move || drop(other.shutdown(Shutdown::Both)));
        tell(about);
        let read = socket.read(&mut [0]);
        !hook.take_back() && matches!(read, Ok(0))
    })
}

fn tell(about: &Sender<()>) {
    about.send(()).expect("the bench listens");
}
