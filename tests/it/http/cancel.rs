//! Calls that are blocked when the operation around them is cancelled: at each stage against a
//! server that says nothing more, each cancelled on the event that the stage is reached.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::batch::{BatchRunner, Context, JobError, JobFailure, Poll, RemoteJob, StopReason, Submitted};
use fulmar::client::http::{
    Download, HttpClient, HttpClientBuilder, HttpError, HttpErrorKind, Method, RateLimit, RetryPolicy, Timeouts, Token,
    Tokens,
};
use fulmar::{Executor, shield};

use super::server::{Server, Then, head, read_until, reply};
use super::{Folder, client, quick};
use crate::support::{Gate, HANG, executor};

/// Nothing ends a call but the cancel.
fn patient() -> HttpClientBuilder {
    let never = Timeouts { connect: None, send: None, first_byte: None, body: None, total: None };
    quick().timeouts(never).retry(RetryPolicy::never())
}

/// Runs `call` in an operation of `executor`, which has one thread, and cancels it once `reached`
/// has returned. The thread has to come back.
fn given_up<T: Send + 'static>(
    executor: &Executor,
    call: impl FnOnce() -> Result<T, HttpError> + Send + 'static,
    reached: impl FnOnce(),
) -> HttpError {
    let request = executor.spawn(move || call().err()).expect("accepted");
    reached();
    assert!(!request.cancel(), "it runs");
    let error = request.wait(HANG).expect("it ends").expect("it fails");
    assert_eq!(executor.spawn(|| 7).expect("accepted").wait(HANG).expect("the thread is free"), 7);
    assert_eq!(error.kind(), HttpErrorKind::Cancelled, "{error:?}");
    assert!(!error.is_retryable(), "{error:?}");
    error
}

fn get(client: &HttpClient, url: &str) -> impl FnOnce() -> Result<(), HttpError> + use<> {
    let (client, url) = (client.clone(), url.to_owned());
    move || client.get(&url).send().map(drop)
}

fn heard(event: &Receiver<()>) -> impl FnOnce() {
    || event.recv_timeout(HANG).expect("it comes so far")
}

/// Accepts connections, and tells of each once `head` of it has been read.
fn black_hole(head: &'static [u8]) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let (told, tell) = channel();
    std::thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            read_until(&mut stream, head);
            kept.push(stream);
            if told.send(()).is_err() {
                return;
            }
        }
    });
    (address, tell)
}

/// A port whose backlog is full: the system answers no further connection.
#[cfg(target_os = "linux")]
fn full_port() -> (u16, [std::os::fd::OwnedFd; 1], Vec<TcpStream>) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&listener, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    listen(&listener, 0).expect("it listens");
    let address: std::net::SocketAddr = getsockname(&listener).expect("an address").try_into().expect("IPv4");
    let first = TcpStream::connect(address).expect("there is room for one");
    (address.port(), [listener], vec![first])
}

/// Whether a socket of this machine is connecting to `port`.
#[cfg(target_os = "linux")]
fn is_connecting(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let to = format!(":{port:04X}");
    sockets.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // SYN_SENT.
        words.get(2).is_some_and(|remote| remote.ends_with(&to)) && words.get(3) == Some(&"02")
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_cancel_ends_a_connect_that_nobody_answers() {
    let (port, _listener, _first) = full_port();
    let executor = executor(1);
    for url in [format!("http://127.0.0.1:{port}/"), format!("https://127.0.0.1:{port}/")] {
        let call = get(&patient().build().expect("sound settings"), &url);
        let error = given_up(&executor, call, || crate::support::eventually("connecting", || is_connecting(port)));
        assert!(!error.may_have_arrived(), "{error:?}");
        assert_eq!(error.attempts(), 0);
        crate::support::eventually("its socket is closed", || !is_connecting(port));
    }
}

#[test]
fn a_cancel_ends_a_handshake_and_a_proxy_that_say_nothing() {
    let executor = executor(1);
    let client = patient().build().expect("sound settings");
    // The first byte of a record of the handshake.
    let (address, event) = black_hole(&[22]);
    let error = given_up(&executor, get(&client, &format!("https://{address}/")), heard(&event));
    assert!(!error.may_have_arrived(), "{error:?}");
    for (proxy, greeting) in [("http", &b"\r\n\r\n"[..]), ("socks5h", &[5])] {
        let (address, event) = black_hole(greeting);
        let client = patient().proxy(&format!("{proxy}://{address}")).build().expect("sound settings");
        let error = given_up(&executor, get(&client, "https://host.example/"), heard(&event));
        assert!(!error.may_have_arrived(), "{proxy}: {error:?}");
    }
}

#[test]
fn a_cancel_ends_the_wait_for_headers_and_the_connection_is_not_used_again() {
    let executor = executor(1);
    let gate = Gate::new();
    let hold = gate.clone();
    let server = Server::start(move |seen, stream| match seen.target.as_str() {
        "/" => reply(stream, 200, &[], b"ok"),
        _ => {
            hold.pass();
            Then::Close
        }
    });
    let client = patient().build().expect("sound settings");
    // One that was kept before.
    client.get(&server.url("/")).send().expect("served");
    for (number, method) in [(1, Method::Get), (2, Method::Post), (3, Method::Delete)] {
        let (asking, url) = (client.clone(), server.url("/silent"));
        let arrivals = gate.clone();
        let call = move || asking.request(method, &url).send();
        let error = given_up(&executor, call, move || arrivals.await_arrivals(number));
        assert!(error.may_have_arrived(), "{method}: {error:?}");
        assert_eq!((error.attempts(), server.connections()), (1, number), "{method}: sent once");
        client.get(&server.url("/")).send().expect("served");
        assert_eq!(server.connections(), number + 1, "{method}: over a connection of its own");
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.target == "/silent").count(), 3, "nothing is sent twice");
    gate.open();
}

/// A server that sends a part of a body, says so and stops, whatever tells the body's end.
fn half_a_body(told: Sender<()>, gate: Gate) -> Server {
    Server::start(move |seen, stream| {
        match seen.target.as_str() {
            "/length" => head(stream, 200, &[("ETag", "\"x\"")], Some(1 << 20)),
            "/chunks" => head(stream, 200, &[("Transfer-Encoding", "chunked")], None),
            _ => head(stream, 200, &[("Connection", "close")], None),
        }
        // More than a download waits for before it writes anything.
        let half = "half a body".repeat(1_000);
        let _ = stream.write_all(if seen.target == "/chunks" { b"400\r\nhalf" } else { half.as_bytes() });
        told.send(()).expect("the test listens");
        gate.pass();
        Then::Close
    })
}

#[test]
fn a_cancel_ends_the_wait_for_more_of_a_body_and_half_a_body_is_never_whole() {
    let executor = executor(1);
    let (told, event) = channel();
    let gate = Gate::new();
    let server = half_a_body(told, gate.clone());
    let client = patient().build().expect("sound settings");
    for target in ["/length", "/chunks", "/close"] {
        let url = server.url(target);
        let error = given_up(&executor, get(&client, &url), heard(&event));
        assert!(error.may_have_arrived(), "{target}: {error:?}");

        let (streaming, asked) = (client.clone(), url.clone());
        let call = move || {
            let mut stream = streaming.get(&asked).stream()?;
            let mut body = Vec::new();
            let failed = stream.read_to_end(&mut body).expect_err("it has no end");
            // Nor has it one for another thread, which isn't cancelled.
            let again = shield(move || stream.read(&mut [0]).is_err());
            assert!(again, "the end of a socket that was shut down is taken for the end of the body");
            Err::<(), _>(failed.downcast::<HttpError>().expect("the client's own"))
        };
        given_up(&executor, call, heard(&event));

        let folder = Folder::new();
        let (loading, path) = (client.clone(), folder.path().to_owned());
        let call = move || loading.get(&url).download(&Download::new(path, "file"));
        let comes = || {
            event.recv_timeout(HANG).expect("it comes so far");
            // The server has sent it, which the client may not have read.
            let is_written = |name: &String| folder.path().join(name).metadata().is_ok_and(|file| file.len() > 0);
            let has_part = || target != "/length" || folder.names().iter().any(is_written);
            crate::support::eventually("a part", has_part);
        };
        given_up(&executor, call, comes);
        assert!(!folder.names().contains(&"file".to_owned()), "{target}: half a file has the name");
        // What had come of a body that can be gone on with is kept for another time.
        assert_eq!(folder.names().len(), if target == "/length" { 2 } else { 0 }, "{target}: {:?}", folder.names());
    }
    assert_eq!(server.connections(), 9, "each had a connection of its own");
    gate.open();
}

#[test]
fn a_caller_ends_the_wait_for_more_of_a_body() {
    let executor = executor(1);
    let client = patient().build().expect("sound settings");
    for target in ["/length", "/chunks", "/close"] {
        let (told, event) = channel();
        let gate = Gate::new();
        let server = half_a_body(told, gate.clone());
        let (client, url) = (client.clone(), server.url(target));
        let call = move || client.get(&url).send_unless(|| event.try_recv().is_ok()).err();
        let error = executor.spawn(call).expect("accepted").wait(HANG).expect("it ends").expect("it fails");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Cancelled, 1), "{target}: {error:?}");
        gate.open();
    }
}

#[test]
fn a_cancel_ends_an_upload_that_the_server_does_not_read() {
    let executor = executor(1);
    let (address, event) = black_hole(b"\r\n\r\n");
    let client = patient().build().expect("sound settings");
    let folder = Folder::new();
    folder.write("large", &vec![7; 32 << 20]);
    for from_file in [false, true] {
        let (client, url, file) = (client.clone(), format!("http://{address}/"), folder.path().join("large"));
        let call = move || {
            let request = client.request(Method::Put, &url);
            let request = match from_file {
                true => request.body_file("text/plain", file),
                false => request.body("text/plain", vec![7; 32 << 20]),
            };
            request.send()
        };
        let error = given_up(&executor, call, heard(&event));
        assert!(error.may_have_arrived(), "{error:?}");
    }
}

#[test]
fn a_cancel_ends_the_waits_between_calls() {
    let executor = executor(1);
    let (told, event) = channel();
    let server = Server::start(move |_, stream| {
        reply(stream, 503, &[("Retry-After", "3000"), ("Connection", "close")], b"later");
        // The client closes the connection once it has read the answer.
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
        told.send(()).expect("the test listens");
        Then::Close
    });
    let patience = RetryPolicy::attempts(9).backoff(Backoff::new(Duration::from_secs(3600)));
    let client = quick().retry(patience).max_retry_after(Duration::from_secs(3600));
    let client = client.timeouts(Timeouts { total: None, ..Timeouts::default() }).build().expect("sound settings");
    let call = get(&client, &server.url("/"));
    let request = executor.spawn(move || call().err()).expect("accepted");
    heard(&event)();
    request.cancel();
    let error = request.wait(HANG).expect("it ends").expect("it fails");
    assert_eq!((error.kind(), error.attempts(), server.seen().len()), (HttpErrorKind::Cancelled, 1, 1));
    assert!(!error.is_retryable() && !error.may_have_arrived(), "{error:?}");
    // What the server has answered isn't lost.
    let answer = error.source().and_then(|source| source.downcast_ref::<HttpError>()).expect("the answer");
    assert_eq!((answer.status(), answer.message()), (Some(503), "later"));
    // The same if the caller says so.
    let stop = || event.try_recv().is_ok();
    let error = client.get(&server.url("/")).send_unless(stop).expect_err("stopped");
    assert_eq!((error.kind(), error.attempts(), server.seen().len()), (HttpErrorKind::Cancelled, 1, 2));
    let folder = Folder::new();
    let download = Download::new(folder.path(), "x").cancelled(|| event.try_recv().is_ok());
    let error = client.get(&server.url("/")).download(&download).expect_err("stopped");
    assert_eq!((error.kind(), error.attempts(), server.seen().len()), (HttpErrorKind::Cancelled, 1, 3));
    assert!(error.source().is_some_and(|source| source.is::<HttpError>()), "{error:?}");

    // The turn of the next request is in an hour.
    let slow = patient().rate_limit(RateLimit::per_second(1.0 / 3600.0)).build().expect("sound settings");
    let server = Server::of(b"ok");
    slow.get(&server.url("/")).send().expect("the first may");
    let (told, event) = channel();
    let call = get(&slow, &server.url("/"));
    let told_call = move || {
        told.send(()).expect("the test listens");
        call()
    };
    let error = given_up(&executor, told_call, heard(&event));
    assert!(!error.may_have_arrived(), "{error:?}");

    // All places are taken, by a reply that isn't read.
    let single = patient().rate_limit(RateLimit::none().max_concurrent(1)).build().expect("sound settings");
    let unread = single.get(&server.url("/")).stream().expect("served");
    let (told, event) = channel();
    let call = get(&single, &server.url("/"));
    let told_call = move || {
        told.send(()).expect("the test listens");
        call()
    };
    let error = given_up(&executor, told_call, heard(&event));
    assert!(!error.may_have_arrived(), "{error:?}");
    drop(unread);
    single.get(&server.url("/")).send().expect("the place is free");
    assert_eq!(server.seen().len(), 3, "what was cancelled wasn't sent");
}

#[test]
fn a_cancel_of_who_renews_a_token_fails_no_other_request() {
    let executor = executor(2);
    let (renewing, gate) = (Gate::new(), Gate::new());
    let server = Server::of(b"ok");
    let (inside, silent) = (renewing.clone(), black_hole(b"\r\n\r\n"));
    let token_url = format!("http://{}/", silent.0);
    let tokens = Tokens::new(&server.url("/"), move |_| {
        if inside.arrivals() > 0 {
            return Ok(Token::new("good"));
        }
        inside.open();
        inside.pass();
        patient().build()?.get(&token_url).send()?;
        Ok(Token::new("late"))
    });
    let client = patient().auth(tokens.expect("a sound URL")).build().expect("sound settings");
    let ask = |client: &HttpClient| {
        let call = get(client, &server.url("/"));
        executor.spawn(move || call().map_err(|error| error.kind())).expect("accepted")
    };
    let first = ask(&client);
    silent.1.recv_timeout(HANG).expect("it renews");
    let (second, third) = (ask(&client), ask(&client));
    // The second waits for the renewal of the first, or is about to.
    crate::support::eventually("it runs", || second.status() == fulmar::Status::Running);
    second.cancel();
    assert!(second.wait(HANG).expect("it ends").is_err());
    first.cancel();
    assert!(first.wait(HANG).expect("it ends").is_err());
    third.wait(HANG).expect("it ends").expect("it has renewed by itself");
    gate.open();
}

#[test]
fn after_a_cancel_no_call_begins_but_in_a_shield() {
    let executor = executor(1);
    let server = Server::of(b"ok");
    let gate = Gate::new();
    let (hold, client, url) = (gate.clone(), Arc::new(client()), server.url("/"));
    let request = executor.spawn(move || {
        hold.pass();
        let refused = client.get(&url).send().expect_err("it was cancelled");
        let shielded = shield(|| client.get(&url).send()).expect("served");
        (refused.kind(), refused.may_have_arrived(), refused.attempts(), shielded.status())
    });
    let request = request.expect("accepted");
    gate.await_arrivals(1);
    request.cancel();
    gate.open();
    assert_eq!(request.wait(HANG).expect("it ends"), (HttpErrorKind::Cancelled, false, 0, 200));
    assert_eq!(server.seen().len(), 1);
}

/// A job of a service that answers everything but a poll; with a download for its result.
struct Polled {
    client: HttpClient,
    url: String,
    folder: std::path::PathBuf,
}

impl RemoteJob for Polled {
    type Output = ();

    fn submit(&mut self, _: &mut Context<'_>) -> Result<Submitted, JobError> {
        self.client.request(Method::Post, &format!("{}/job", self.url)).send().map_err(JobError::fatal)?;
        Ok(Submitted::Accepted { id: "1".into() })
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Result<Poll, JobError> {
        self.client.get(&format!("{}/poll", self.url)).send().map_err(JobError::fatal)?;
        Ok(Poll::Ready)
    }

    fn fetch(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
        let to = Download::new(&self.folder, "result");
        self.client.get(&format!("{}/result", self.url)).download(&to).map_err(JobError::fatal).map(drop)
    }

    fn cancel(&mut self, _: &mut Context<'_>) -> Result<(), JobError> {
        self.client.request(Method::Delete, &format!("{}/job", self.url)).send().map_err(JobError::fatal).map(drop)
    }
}

#[test]
fn a_cancelled_batch_gives_up_the_call_of_a_step_and_cancels_the_job_by_another() {
    let executor = executor(1);
    for silent in ["/poll", "/result"] {
        let (folder, gate) = (Folder::new(), Gate::new());
        let hold = gate.clone();
        let server = Server::start(move |seen, stream| {
            if seen.target != silent {
                return reply(stream, 200, &[], b"ok");
            }
            head(stream, 200, &[], Some(1 << 20));
            let _ = stream.write_all(b"half of it");
            hold.pass();
            Then::Close
        });
        let client = patient().build().expect("sound settings");
        let job = Polled { client, url: server.url(""), folder: folder.path().to_owned() };
        let runner = BatchRunner::builder().executor(&executor).poll_every(Duration::from_millis(1));
        let batch = runner.build().expect("sound").start([job]);
        gate.await_arrivals(1);
        batch.cancel();
        let report = batch.wait(HANG).expect("it ends, and the server has said nothing");
        let job = &report.jobs[0];
        assert!(matches!(job.outcome, Err(JobFailure::Stopped(StopReason::Cancelled))), "{job:?}");
        assert!(job.notes.is_empty(), "{job:?}");
        let deletes = server.seen().iter().filter(|seen| seen.method == "DELETE").count();
        assert_eq!((deletes, job.attempts.cancel), (1, 1));
        assert!(!folder.names().contains(&"result".to_owned()), "half a file has the name");
        gate.open();
    }
}
