//! A small server on a real socket, for the faults: a test says what it does with each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Counted over all connections, from 0.
    pub(super) number: usize,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Whether the connection is kept.
pub(super) enum Then {
    Keep,
    Close,
}

pub(super) struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    requests: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    stopped: AtomicBool,
}

impl Server {
    /// Serves each connection on a thread of its own.
    pub(super) fn start(handler: impl Fn(&Seen, &mut TcpStream) -> Then + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (state, handler) = (Arc::new(State::default()), Arc::new(handler));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (state, handler) = (shared.clone(), handler.clone());
                let Ok(stream) = stream else { continue };
                state.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(stream, &state, &*handler));
            }
        });
        Server { address, state }
    }

    /// A reply of 200 with these bytes, always.
    pub(super) fn of(body: &'static [u8]) -> Server {
        Server::start(move |_, stream| reply(stream, 200, &[], body))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, state: &State, handler: &(impl Fn(&Seen, &mut TcpStream) -> Then + ?Sized)) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let _ = writer.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some(mut seen) = read_request(&mut reader) {
        seen.number = state.requests.fetch_add(1, Ordering::SeqCst);
        state.seen.lock().expect("no panic").push(seen.clone());
        match handler(&seen, &mut writer) {
            Then::Keep => {}
            Then::Close => {
                let _ = writer.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen { method, target, headers, body: Vec::new(), number: 0 };
    let length = seen.header("content-length").map_or(0, |length| length.parse().expect("a number"));
    // A test that never reads a body says so.
    if seen.header("x-unread").is_none() {
        seen.body.resize(length, 0);
        reader.read_exact(&mut seen.body).ok()?;
    }
    Some(seen)
}

/// Reads up to these bytes and no further: a test that leaves the rest unread says so by what they are.
pub(super) fn read_until(stream: &mut impl Read, end: &[u8]) {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(end) && stream.read_exact(&mut byte).is_ok() {
        read.push(byte[0]);
    }
}

/// A whole reply. What can't be sent any more concerns nobody.
pub(super) fn reply(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Then {
    head(stream, status, headers, Some(body.len()));
    let _ = stream.write_all(body);
    Then::Keep
}

/// The head of a reply alone.
pub(super) fn head(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], length: Option<usize>) {
    let mut text = format!("HTTP/1.1 {status} Whatever\r\n");
    if let Some(length) = length {
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{text}\r\n").as_bytes());
}
