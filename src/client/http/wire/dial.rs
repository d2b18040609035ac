//! Makes a connection to a host: looks its name up, connects, through a proxy if there is one, and
//! starts encryption.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::super::kind::HttpErrorKind;
use super::super::origin::Origin;
use super::super::timeouts::until;
use super::Wire;
use super::connection::Connection;
use super::fault::Fault;
use super::proxy::{Proxy, Speaks};
use super::stream::{Socket, Stream};
use super::tcp::Tcp;
use super::tunnel::{self, Target};
use crate::sync::{Condvar, Mutex, interrupt, thread};
use crate::time::Deadline;

/// How long each of several addresses gets at first: most that answer at all do so within this
/// time.
const MOMENT: Duration = Duration::from_millis(300);

/// The shortest time limit for a connect: the system doesn't accept zero.
const SHORTEST: Duration = Duration::from_millis(1);

impl Wire {
    /// Makes a new connection for requests to `url`. If this fails, no request was sent.
    pub(super) fn dial(&self, url: &Url, origin: &Origin, total: Deadline) -> Result<Connection, Fault> {
        self.connection(url, origin, total).map_err(|fault| Fault { arrived: false, ..fault })
    }

    /// Connects to `origin`, through the proxy that the settings name for `url` if there is one,
    /// and starts TLS for `https`. It always makes a new connection, and sends no request.
    ///
    /// The lookup of a name has the limit `Timeouts::connect`, and once more all that follows:
    /// connecting, the proxy's answers and TLS. `total` ends both. The kind of the fault says what
    /// failed: `Connect`, `Proxy`, `Tls`, `Timeout` or `Cancelled`.
    fn connection(&self, url: &Url, origin: &Origin, total: Deadline) -> Result<Connection, Fault> {
        let (host, port) = (origin.host(), origin.port());
        let is_secure = origin.scheme() == "https";
        let proxy = self.proxies.for_url(url)?;
        let (mut stream, until) = match proxy {
            None => self.open(host, port, total)?,
            Some(proxy) => self.open(&proxy.host, proxy.port, total).map_err(|fault| unreachable(proxy, fault))?,
        };
        let mut absolute = false;
        if let Some(proxy) = proxy {
            if proxy.speaks == Speaks::Https {
                let secured = self.tls.secure(&proxy.host, stream).map_err(|fault| unreachable(proxy, fault))?;
                stream = Box::new(secured);
            }
            match proxy.speaks {
                // The proxy itself sends the request on, so requests name the whole URL.
                Speaks::Http | Speaks::Https if !is_secure => absolute = true,
                // For `https` the proxy only passes bytes on, because it must not read them.
                Speaks::Http | Speaks::Https => tunnel::connect(&mut *stream, proxy, host, port, &self.agent)?,
                Speaks::Socks5 => {
                    let addresses = resolve(host, port, until)?;
                    stream = socks5(stream, proxy, &addresses, until)?;
                }
                Speaks::Socks5h => {
                    let target = match address(host) {
                        Some(ip) => Target::Address(SocketAddr::new(ip, port)),
                        None => Target::Name(host, port),
                    };
                    tunnel::socks5(&mut *stream, proxy, &target)?;
                }
            }
        }
        if is_secure {
            stream = Box::new(self.tls.secure(host, stream)?);
        }
        let authorization = proxy.filter(|_| absolute).and_then(Proxy::authorization);
        Ok(Connection::new(stream, origin.clone(), absolute, authorization))
    }

    /// Connects a socket, and returns it with the deadline for starting encryption, which counts as
    /// a part of connecting.
    fn open(&self, host: &str, port: u16, total: Deadline) -> Result<(Box<dyn Stream>, Option<Instant>), Fault> {
        let addresses = resolve(host, port, until(self.timeouts.connect, total))?;
        let until = until(self.timeouts.connect, total);
        Ok((open_one(&addresses, until)?, until))
    }
}

/// Asks the SOCKS proxy behind `stream` for a tunnel to each of `addresses` in turn, until it
/// reaches one.
fn socks5(
    mut stream: Box<dyn Stream>,
    proxy: &Proxy,
    addresses: &[SocketAddr],
    until: Option<Instant>,
) -> Result<Box<dyn Stream>, Fault> {
    let (mut outcome, mut is_first) = (Err(unknown()), true);
    for address in addresses {
        if !std::mem::take(&mut is_first) {
            // A proxy closes the connection on which it has refused (RFC 1928, section 6), so each
            // further address needs a connection of its own.
            let proxies = resolve(&proxy.host, proxy.port, until)?;
            stream = open_one(&proxies, until).map_err(|fault| unreachable(proxy, fault))?;
        }
        outcome = tunnel::socks5(&mut *stream, proxy, &Target::Address(*address));
        // Another address helps only if the proxy couldn't reach this one.
        if !matches!(&outcome, Err(fault) if fault.unreached) {
            break;
        }
    }
    outcome.map(|()| stream)
}

/// Connects to one of `addresses`, and limits the connection to the same deadline.
fn open_one(addresses: &[SocketAddr], until: Option<Instant>) -> Result<Box<dyn Stream>, Fault> {
    let tcp = connect_by(addresses, until, Tcp::connect)?;
    // We write each request as a whole: waiting for more bytes would only delay it.
    let _ = tcp.stream().set_nodelay(true);
    let mut stream = Box::new(Socket::new(tcp));
    stream.limit(until);
    Ok(stream)
}

/// The address, if the host's name is one.
fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Looks a name up, on another thread, because the system has neither a time limit for that nor a
/// way to cancel it.
fn resolve(host: &str, port: u16, until: Option<Instant>) -> Result<Vec<SocketAddr>, Fault> {
    if let Some(ip) = address(host) {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = (host.to_owned(), port);
    let answer = Arc::new((Mutex::new(None), Condvar::new()));
    let asked = answer.clone();
    let body = move || {
        let found = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        *asked.0.lock() = Some(found);
        asked.1.notify_one();
    };
    thread::spawn("fulmar-lookup".into(), Some(256 << 10), body).map_err(|error| {
        let text = "the host's name can't be looked up: the system has no thread left for it";
        Fault::before(HttpErrorKind::Connect, text, true).with_source(error)
    })?;
    let waits = answer.clone();
    let _interrupt = interrupt::on_cancel(move || {
        // Under the lock: a thread that is about to wait has seen the cancel, or sleeps by now.
        let _found = waits.0.lock();
        waits.1.notify_one();
    });
    let mut found = answer.0.lock();
    while found.is_none() {
        if interrupt::is_cancelled() {
            return Err(Fault::cancelled());
        }
        match until {
            None => answer.1.wait(&mut found),
            Some(until) if answer.1.wait_until(&mut found, until).timed_out() => break,
            Some(_) => {}
        }
    }
    let found = found.take().ok_or_else(|| Fault::timeout("looking the host's name up took too long"))?;
    match found {
        Ok(addresses) if addresses.is_empty() => Err(unknown()),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(unknown().with_source(error)),
    }
}

fn unknown() -> Fault {
    Fault::before(HttpErrorKind::Connect, "the host's name can't be looked up", true)
}

/// Connects to the first address that answers. One may lead nowhere, as IPv6 does in many
/// networks, so each first gets only a moment. If none answers in that time, each gets half of the
/// remaining time, and the last one all of it. (After RFC 8305, which tries them at the same time.)
fn connect_by<T>(
    addresses: &[SocketAddr],
    until: Option<Instant>,
    mut attempt: impl FnMut(&SocketAddr, Option<Duration>) -> io::Result<T>,
) -> Result<T, Fault> {
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    let mut silent = addresses.to_vec();
    let mut last = None;
    if addresses.len() > 1 {
        silent.clear();
        for address in addresses {
            match attempt(address, Some(until.map_or(MOMENT, |until| MOMENT.min(left(until))).max(SHORTEST))) {
                Ok(connection) => return Ok(connection),
                Err(error) if is_timeout(&error) => silent.push(*address),
                Err(error) => last = Some(error),
            }
        }
    }
    for (at, address) in silent.iter().enumerate() {
        let share = if at + 1 == silent.len() { 1 } else { 2 };
        let limit = until.map(|until| left(until) / share);
        if limit.is_some_and(|limit| limit.is_zero()) {
            break;
        }
        match attempt(address, limit) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = Some(error),
        }
    }
    let late = || Fault::timeout("connecting took too long");
    Err(last.map_or_else(late, |error| Fault::within(error, no_connection)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn no_connection(error: io::Error) -> Fault {
    let text = match error.kind() {
        _ if is_timeout(&error) => return Fault::timeout("connecting took too long"),
        io::ErrorKind::ConnectionRefused => "the connection was refused: nothing listens at this port",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the host can't be reached",
        _ => "no connection came about",
    };
    Fault::before(HttpErrorKind::Connect, text, true).with_source(error)
}

/// Turns a fault on the way to the proxy into one that names the proxy.
fn unreachable(proxy: &Proxy, fault: Fault) -> Fault {
    if matches!(fault.kind, HttpErrorKind::Timeout | HttpErrorKind::Cancelled) {
        return fault;
    }
    let text = format!("{proxy} can't be reached: {}", fault.text);
    Fault { kind: HttpErrorKind::Proxy, text: text.into(), ..fault }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// What is tried, for how long each, by addresses that answer like this.
    fn tried(answers: &[io::ErrorKind], time: Duration) -> (Vec<(u16, Duration)>, Fault) {
        let addresses: Vec<SocketAddr> = (1..).map(address).take(answers.len()).collect();
        let mut tried = Vec::new();
        let outcome = connect_by(&addresses, Instant::now().checked_add(time), |address, limit| {
            tried.push((address.port(), limit.expect("a limit")));
            Err::<(), _>(answers[usize::from(address.port()) - 1].into())
        });
        (tried, outcome.expect_err("no server answers"))
    }

    #[test]
    fn an_address_that_leads_nowhere_holds_up_the_next_for_a_moment_only() {
        let addresses = [address(1), address(2)];
        let answer = |to: &SocketAddr, _| if to.port() == 2 { Ok(2) } else { Err(io::ErrorKind::TimedOut.into()) };
        let minute = Instant::now().checked_add(Duration::from_secs(60));
        assert!(matches!(connect_by(&addresses, minute, answer), Ok(2)));
        assert!(matches!(connect_by(&addresses, None, answer), Ok(2)));

        // Both are slow, it turns out: the rest of the time is theirs.
        let (tried, fault) = tried(&[io::ErrorKind::TimedOut, io::ErrorKind::TimedOut], Duration::from_secs(60));
        assert_eq!(tried.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1, 2, 1, 2]);
        assert_eq!((tried[0].1, tried[1].1), (MOMENT, MOMENT));
        assert!(tried[2].1 > Duration::from_secs(25) && tried[3].1 > Duration::from_secs(50), "{tried:?}");
        assert_eq!(fault.kind, HttpErrorKind::Timeout);
    }

    #[test]
    fn who_refuses_is_not_asked_again_and_one_alone_has_all_the_time() {
        let (all, fault) = tried(&[io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut], Duration::from_secs(60));
        assert_eq!(all.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!(fault.kind, HttpErrorKind::Timeout);
        let (all, fault) = tried(&[io::ErrorKind::ConnectionRefused], Duration::from_secs(60));
        assert!(all.len() == 1 && all[0].1 > Duration::from_secs(50), "{all:?}");
        assert_eq!(fault.kind, HttpErrorKind::Connect);
    }

    /// A SOCKS proxy that gives these answers, one on each connection: the last octets of the
    /// addresses that it was told, and what came of it.
    fn socks_answering(answers: &'static [u8]) -> (Vec<u8>, Result<(), Fault>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Proxy::parse(&format!("socks5://127.0.0.1:{port}"), "proxy").expect("a proxy");
        let told = Arc::new(Mutex::new(Vec::new()));
        let all = told.clone();
        let body = move || {
            for (answer, stream) in answers.iter().zip(listener.incoming()) {
                let (mut stream, mut request) = (stream.expect("a connection"), [0; 13]);
                stream.read_exact(&mut request[..3]).expect("a greeting");
                stream.write_all(&[5, 0]).expect("sent");
                stream.read_exact(&mut request[3..]).expect("a request");
                stream.write_all(&[5, *answer, 0, 1, 0, 0, 0, 0, 0, 0]).expect("sent");
                all.lock().push(request[10]);
            }
        };
        let server = thread::spawn_joinable("socks".into(), None, body, || ()).expect("a thread");
        let addresses: Vec<SocketAddr> = (1..=3).map(|last| SocketAddr::from(([192, 0, 2, last], 80))).collect();
        let stream = open_one(&[address(port)], None).expect("it listens");
        let outcome = socks5(stream, &proxy, &addresses, None).map(drop);
        server.join().expect("no panic");
        let told = told.lock().clone();
        (told, outcome)
    }

    #[test]
    fn a_socks_proxy_is_told_the_next_address_if_it_does_not_reach_the_first() {
        for missed in [&[3, 0][..], &[4, 0], &[5, 0], &[8, 0]] {
            let (told, outcome) = socks_answering(missed);
            assert!(told == [1, 2] && outcome.is_ok(), "{missed:?}: {told:?}, {outcome:?}");
        }
        let (told, outcome) = socks_answering(&[4, 8, 5]);
        let fault = outcome.expect_err("none is reached");
        assert_eq!((told, fault.kind, fault.retryable), (vec![1, 2, 3], HttpErrorKind::Proxy, true), "{fault:?}");
        // It would refuse the others, too.
        let (told, outcome) = socks_answering(&[2]);
        assert!(told == [1] && outcome.is_err(), "{told:?}");
    }
}
