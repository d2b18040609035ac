//! From a host's name to a connection: look it up, connect, through a proxy if there is one, and secure it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

use url::Url;

use super::super::error::HttpErrorKind;
use super::super::origin::Origin;
use super::Wire;
use super::connection::Connection;
use super::fault::Fault;
use super::proxy::{Proxy, Speaks};
use super::stream::{Socket, Stream};
use super::tunnel::{self, Target};
use crate::sync::{Condvar, Mutex, thread};
use crate::time::Deadline;

impl Wire {
    /// A new connection for requests to `url`. Whatever goes wrong here, no request was sent.
    pub(super) fn dial(&self, url: &Url, origin: &Origin, total: Deadline) -> Result<Connection, Fault> {
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
                Speaks::Http | Speaks::Https if !is_secure => absolute = true,
                Speaks::Http | Speaks::Https => tunnel::connect(&mut *stream, proxy, host, port, &self.agent)?,
                Speaks::Socks5 => {
                    let addresses = resolve(host, port, until)?;
                    let address = addresses.first().copied().ok_or_else(unknown)?;
                    tunnel::socks5(&mut *stream, proxy, &Target::Address(address))?;
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

    /// A socket, and until when what follows may take: encryption counts as connecting.
    fn open(&self, host: &str, port: u16, total: Deadline) -> Result<(Box<dyn Stream>, Option<Instant>), Fault> {
        let addresses = resolve(host, port, until(self.timeouts.connect, total))?;
        let until = until(self.timeouts.connect, total);
        let tcp = connect(&addresses, until)?;
        // Requests are written whole; waiting for more would only delay them.
        let _ = tcp.set_nodelay(true);
        let mut stream = Box::new(Socket::new(tcp));
        stream.limit(until);
        Ok((stream, until))
    }
}

/// When a phase that starts now has to end.
pub(super) fn until(phase: Option<std::time::Duration>, total: Deadline) -> Option<Instant> {
    [Deadline::start(phase).at(), total.at()].into_iter().flatten().min()
}

/// The address that a host's name itself is.
fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Looks a name up. The system has no time limit for that, so it happens on a thread of its own if there is to be one.
fn resolve(host: &str, port: u16, until: Option<Instant>) -> Result<Vec<SocketAddr>, Fault> {
    if let Some(ip) = address(host) {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = (host.to_owned(), port);
    let look_up = move || name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let found = match until {
        None => look_up(),
        Some(until) => {
            let answer = Arc::new((Mutex::new(None), Condvar::new()));
            let asked = answer.clone();
            let body = move || {
                let found = look_up();
                *asked.0.lock() = Some(found);
                asked.1.notify_one();
            };
            thread::spawn("fulmar-lookup".into(), Some(256 << 10), body).map_err(|error| {
                let text = "the host's name can't be looked up: the system has no thread left for it";
                Fault::before(HttpErrorKind::Connect, text, true).with_source(error)
            })?;
            let mut found = answer.0.lock();
            while found.is_none() && !answer.1.wait_until(&mut found, until).timed_out() {}
            found
                .take()
                .ok_or_else(|| Fault { arrived: false, ..Fault::timeout("looking the host's name up took too long") })?
        }
    };
    match found {
        Ok(addresses) if addresses.is_empty() => Err(unknown()),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(unknown().with_source(error)),
    }
}

fn unknown() -> Fault {
    Fault::before(HttpErrorKind::Connect, "the host's name can't be looked up", true)
}

/// The first address that answers. Each but the last has half of the time that is left: one may lead nowhere, as IPv6 does
/// in many a network.
fn connect(addresses: &[SocketAddr], until: Option<Instant>) -> Result<TcpStream, Fault> {
    let mut last = None;
    for (at, address) in addresses.iter().enumerate() {
        let is_last = at + 1 == addresses.len();
        let outcome = match until {
            None => TcpStream::connect(address),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                TcpStream::connect_timeout(address, if is_last { left } else { left / 2 })
            }
        };
        match outcome {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Fault { arrived: false, ..Fault::timeout("connecting took too long") }, no_connection))
}

fn no_connection(error: io::Error) -> Fault {
    let text = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            return Fault { arrived: false, ..Fault::timeout("connecting took too long") };
        }
        io::ErrorKind::ConnectionRefused => "the connection was refused: nothing listens at this port",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the host can't be reached",
        _ => "no connection came about",
    };
    Fault::before(HttpErrorKind::Connect, text, true).with_source(error)
}

/// What went wrong on the way to the proxy, said of the proxy.
fn unreachable(proxy: &Proxy, fault: Fault) -> Fault {
    if fault.kind == HttpErrorKind::Timeout {
        return fault;
    }
    let text = format!("{proxy} can't be reached: {}", fault.text);
    Fault { kind: HttpErrorKind::Proxy, text: text.into(), ..fault }
}
