//! Connects through a proxy to a server: `CONNECT` (RFC 9110, 9.3.6), and SOCKS 5 (RFC 1928, with
//! user and password by RFC 1929).

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::super::kind::HttpErrorKind;
use super::fault::Fault;
use super::head;
use super::proxy::Proxy;
use super::stream::Stream;

/// The most bytes of a proxy's answer.
const LONGEST_ANSWER: usize = 16 << 10;

/// Asks an HTTP proxy for a connection to `host` and `port`.
pub(super) fn connect(stream: &mut dyn Stream, proxy: &Proxy, host: &str, port: u16, agent: &str) -> Result<(), Fault> {
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {agent}\r\n");
    if let Some(authorization) = proxy.authorization() {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let broke = |error| broke(proxy, error);
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(broke)?;
    let mut answer = Vec::new();
    // Read byte by byte: the bytes after the proxy's answer are the server's.
    while !head::is_whole(&answer) {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(broke)?;
        answer.push(byte[0]);
        if answer.len() > LONGEST_ANSWER {
            return Err(refused(proxy, "answers without an end", false));
        }
    }
    let status = head::parse(&answer).map_err(|_| refused(proxy, "speaks no HTTP", false))?.status;
    match status {
        200..=299 => Ok(()),
        407 => Err(wants_password(proxy)),
        // A status of 500 or more is a temporary fault of the proxy, so it may be tried again; a
        // lower one refuses this request.
        _ => Err(refused(proxy, &format!("refused to connect to {host}:{port} (status {status})"), status >= 500)),
    }
}

/// The server to which a SOCKS proxy should connect.
pub(super) enum Target<'a> {
    Name(&'a str, u16),
    Address(SocketAddr),
}

/// Asks a SOCKS proxy for a connection.
pub(super) fn socks5(stream: &mut dyn Stream, proxy: &Proxy, target: &Target<'_>) -> Result<(), Fault> {
    let broke = |error| broke(proxy, error);
    let say = |stream: &mut dyn Stream, bytes: &[u8]| stream.write_all(bytes).and_then(|()| stream.flush());
    let short =
        |text: &str| u8::try_from(text.len()).map_err(|_| refused(proxy, "can't be told so long a name", false));

    let offered: &[u8] = if proxy.user.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    say(stream, offered).map_err(broke)?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).map_err(broke)?;
    match (answer, &proxy.user) {
        ([5, 0], _) => {}
        ([5, 2], Some((user, password))) => {
            let mut login = vec![1, short(user)?];
            login.extend_from_slice(user.as_bytes());
            login.push(short(password)?);
            login.extend_from_slice(password.as_bytes());
            say(stream, &login).map_err(broke)?;
            stream.read_exact(&mut answer).map_err(broke)?;
            if answer[1] != 0 {
                return Err(wants_password(proxy));
            }
        }
        ([5, _], _) => return Err(wants_password(proxy)),
        _ => return Err(refused(proxy, "speaks no SOCKS 5", false)),
    }

    let mut request = vec![5, 1, 0];
    let port = match target {
        Target::Name(name, port) => {
            request.extend_from_slice(&[3, short(name)?]);
            request.extend_from_slice(name.as_bytes());
            *port
        }
        Target::Address(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    request.push(1);
                    request.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    request.push(4);
                    request.extend_from_slice(&ip.octets());
                }
            }
            address.port()
        }
    };
    request.extend_from_slice(&port.to_be_bytes());
    say(stream, &request).map_err(broke)?;

    let mut head = [0; 4];
    stream.read_exact(&mut head).map_err(broke)?;
    let unreached = |text: &str, retryable| Fault { unreached: true, ..refused(proxy, text, retryable) };
    match head[1] {
        0 => {}
        2 => return Err(refused(proxy, "doesn't allow this host", false)),
        3 | 4 => return Err(unreached("can't reach the host", true)),
        5 => return Err(unreached("says that the host refused the connection", true)),
        8 => return Err(unreached("doesn't take addresses of this type (SOCKS reply 8)", false)),
        code => return Err(refused(proxy, &format!("failed (SOCKS reply {code})"), code == 1)),
    }
    // Skip the proxy's own address, which is of no use here.
    let length = match head[3] {
        1 => 4,
        4 => 16,
        3 => {
            let mut length = [0];
            stream.read_exact(&mut length).map_err(broke)?;
            usize::from(length[0])
        }
        _ => return Err(refused(proxy, "speaks no SOCKS 5", false)),
    };
    stream.read_exact(&mut [0; 257][..length + 2]).map_err(broke)
}

/// The text for a proxy that asks for a user and password, or refuses the ones that it got.
pub(in super::super) const WANTS_PASSWORD: &str = "wants a user and a password, or doesn't take the ones it got (407): \
                                                   set them in the proxy's URL, http://user:password@host:port";

fn wants_password(proxy: &Proxy) -> Fault {
    refused(proxy, WANTS_PASSWORD, false)
}

fn refused(proxy: &Proxy, text: &str, retryable: bool) -> Fault {
    Fault::before(HttpErrorKind::Proxy, format!("{proxy} {text}"), retryable)
}

fn broke(proxy: &Proxy, error: io::Error) -> Fault {
    Fault::within(error, |error| match error.kind() {
        io::ErrorKind::TimedOut => Fault::timeout("the proxy took too long"),
        _ => refused(proxy, "ended the connection", true).with_source(error),
    })
}
