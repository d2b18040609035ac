//! What users of other clients have reported, each tried here.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;

use fulmar::client::http::{Bearer, Download, HttpErrorKind, Method};

use super::server::{Server, Then, head, read_until, reply};
use super::tls_server::{Authority, TlsServer, TlsStream, local};
use super::{Folder, client, quick, soon};

/// aiohttp, xh, methanol: an empty body that is said to be compressed was one that could not be
/// unpacked.
#[test]
fn an_empty_body_need_not_be_unpacked() {
    let server = Server::start(|seen, stream| {
        match (seen.method.as_str(), seen.target.as_str()) {
            ("HEAD", _) => head(stream, 200, &[("Content-Encoding", "gzip")], Some(1234)),
            (_, "/204") => head(stream, 204, &[("Content-Encoding", "gzip")], None),
            _ => head(stream, 200, &[("Content-Encoding", "gzip")], Some(0)),
        }
        Then::Keep
    });
    let client = client();
    assert_eq!(client.request(Method::Head, &server.url("/")).send().expect("a head").bytes(), b"");
    assert_eq!(client.delete(&server.url("/204")).send().expect("nothing").status(), 204);
    assert_eq!(client.get(&server.url("/empty")).send().expect("nothing").bytes(), b"");
    assert_eq!(server.connections(), 1, "the connection isn't kept");
}

/// isahc, requests, wreq, http-client: locations that aren't clean ASCII.
#[test]
fn a_location_that_is_written_carelessly_is_followed() {
    for (location, target) in [
        (&b"/caf\xc3\xa9"[..], "/caf%C3%A9"),
        (b"/caf\xe9", "/caf%E9"),
        (b"/a b c", "/a%20b%20c"),
        (b"/a%20b", "/a%20b"),
        (b" /a ", "/a"),
        (b"?q=\xe9", "/?q=%E9"),
    ] {
        let server = Server::start(move |seen, stream| {
            if seen.number > 0 {
                return reply(stream, 200, &[], seen.target.as_bytes());
            }
            let _ = stream
                .write_all(&[b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ", location, b"\r\n\r\n"].concat());
            Then::Keep
        });
        let reply = client().get(&server.url("/")).send().expect("followed");
        assert_eq!(reply.text().expect("text"), target, "{:?}", String::from_utf8_lossy(location));
    }
}

/// requests: the name of a file in UTF-8, as it is.
#[test]
fn a_header_in_utf_8_is_text() {
    let server = Server::start(|_, stream| {
        reply(stream, 200, &[("Content-Disposition", "attachment; filename=\"Überblick.tif\"")], b"x")
    });
    let reply = client().get(&server.url("/")).send().expect("a reply");
    assert_eq!(reply.file_name().as_deref(), Some("Überblick.tif"));
}

/// attohttpc, requests, httparse: lines among the headers that are none, and blanks where none may
/// be.
#[test]
fn what_is_no_header_is_passed_over_and_those_behind_it_count() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200\r\nPHP Warning: cannot load 'mcrypt.so' in Unknown on line 0\r\n\
              some -test: abcdef\r\nX-Spaced : yes\r\nContent-Length: 2\r\n\r\nok",
        );
        Then::Keep
    });
    let client = client();
    for _ in 0..2 {
        let reply = client.get(&server.url("/")).send().expect("a reply");
        assert_eq!((reply.bytes(), reply.header("x-spaced"), reply.length_known()), (&b"ok"[..], Some("yes"), true));
    }
    assert_eq!(server.connections(), 1, "it was taken for a reply without a length");
}

/// A proxy that says this to a CONNECT, and then is the server.
fn proxy(answer: &'static [u8], server: &TlsServer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (url, port) = (format!("http://{}", listener.local_addr().expect("an address")), server.port);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            read_until(&mut stream, b"\r\n\r\n");
            let _ = stream.write_all(answer);
            let server = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            let (mut from, mut to) = (stream.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to) = (server, stream);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    url
}

/// curl, and proxies of HTTP/1.0: any 2xx opens the tunnel, whatever its headers say of a body.
#[test]
fn a_tunnel_is_open_whatever_else_the_proxy_says() {
    let authority = Authority::new("Authority of these tests");
    let server = TlsServer::start(authority.sign(&local()).config());
    let answers: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 Connection established\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\n\n",
    ];
    for answer in answers {
        let builder = quick().proxy(&proxy(answer, &server)).root_certificate(authority.pem());
        let client = builder.build().expect("sound settings");
        assert_eq!(client.get(&server.url()).send().expect("a reply").bytes(), b"ok", "{answer:?}");
    }
}

/// akka-http, gradle: the server says how long it keeps a connection, and a request met one that it
/// closed.
#[test]
fn a_connection_is_kept_no_longer_than_the_server_says() {
    for (hint, connections) in [("timeout=1", 2), ("timeout=60, max=100", 1), ("max=100", 1), ("timeout=soon", 1)] {
        let server = Server::start(move |_, stream| reply(stream, 200, &[("Keep-Alive", hint)], b"ok"));
        let client = client();
        for _ in 0..2 {
            client.get(&server.url("/")).send().expect("a reply");
        }
        assert_eq!(server.connections(), connections, "{hint}");
    }
}

/// rdf4j, glaze: what an idle connection says or suffers before the next request isn't an answer to
/// it.
#[test]
fn what_comes_over_an_idle_connection_answers_nothing() {
    let (done, said) = channel();
    let server = Server::start(move |seen, stream| {
        reply(stream, 200, &[], seen.method.as_bytes());
        if seen.number == 0 {
            let _ = stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Both);
            let _ = done.send(());
            return Then::Close;
        }
        Then::Keep
    });
    let client = client();
    assert_eq!(client.get(&server.url("/")).send().expect("a reply").bytes(), b"GET");
    said.recv().expect("it was said");
    // Not one that could be asked twice.
    let reply = client.post(&server.url("/")).once().json("x").send().expect("a reply of its own");
    assert_eq!((reply.bytes(), server.connections()), (&b"POST"[..], 2));
}

/// reqwest: TLS that ends without its farewell after all has come, or within the words of an error.
#[test]
fn a_farewell_that_is_missing_harms_nothing_that_is_whole_and_hides_no_error() {
    let authority = Authority::new("Authority of these tests");
    let signed = authority.sign(&local());
    let client = quick().retry(soon(1)).root_certificate(authority.pem()).build().expect("sound settings");
    let packed = gzip(b"hello");
    let size = format!("{:x}\r\n", packed.len());
    let head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n";
    let whole = [&head[..], size.as_bytes(), &packed, b"\r\n0\r\n\r\n"].concat();
    let say = |stream: &mut TlsStream, text: &[u8]| {
        let _ = stream.write_all(text);
        let _ = stream.flush();
        false
    };
    let server = TlsServer::answering(signed.config(), move |_, stream| say(stream, &whole));
    assert_eq!(client.get(&server.url()).send().expect("whole").bytes(), b"hello");

    let fault = b"HTTP/1.1 500 Error\r\nConnection: close\r\n\r\n{\"message\": \"the tape is torn\"}";
    let server = TlsServer::answering(signed.config(), move |_, stream| say(stream, fault));
    let error = client.get(&server.url()).send().expect_err("an error");
    assert_eq!(error.kind(), HttpErrorKind::Status(500), "{error:?}");
    assert!(error.to_string().contains("the tape is torn"), "{error}");
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(text).expect("in memory");
    packed.finish().expect("in memory")
}

/// urllib3 5189, and the objects of S3 that were uploaded in signed chunks: a list of codings of
/// which one packs, and words that aren't codings at all.
#[test]
fn words_about_the_encoding_that_change_no_byte_are_passed_over() {
    let plain: &[&[&str]] = &[&["aws-chunked"], &["UTF-8"], &["identity, none"], &["identity", ""]];
    let packed: &[&[&str]] = &[&["gzip, identity"], &["identity", "gzip"], &["aws-chunked,GZIP"], &["x-gzip, utf-8"]];
    for (values, is_packed) in plain.iter().map(|values| (*values, false)).chain(packed.iter().map(|v| (*v, true))) {
        let server = Server::start(move |_, stream| {
            let headers: Vec<(&str, &str)> = values.iter().map(|value| ("Content-Encoding", *value)).collect();
            reply(stream, 200, &headers, &if is_packed { gzip(b"a,b\n") } else { b"a,b\n".to_vec() })
        });
        let (client, folder) = (client(), Folder::new());
        assert_eq!(client.get(&server.url("/")).send().expect("read").bytes(), b"a,b\n", "{values:?}");
        let mut text = String::new();
        let mut stream = client.get(&server.url("/")).stream().expect("read");
        std::io::Read::read_to_string(&mut stream, &mut text).expect("read");
        assert_eq!(text, "a,b\n", "{values:?}");
        client.get(&server.url("/")).download(&Download::new(folder.path(), "a.csv")).expect("downloaded");
        assert_eq!(folder.read("a.csv"), b"a,b\n", "{values:?}");
    }
    for values in ["br", "gzip, br", "gzip, gzip", "deflate"] {
        let server = Server::start(move |_, stream| reply(stream, 200, &[("Content-Encoding", values)], b"..."));
        let error = client().get(&server.url("/")).send().expect_err("not asked for");
        assert_eq!(error.kind(), HttpErrorKind::Content, "{values}: {error}");
    }
}

/// requests 6711: a path that begins with two slashes is part of a signature, and no host.
#[test]
fn a_path_with_two_slashes_is_sent_as_it_is() {
    let server = Server::start(|seen, stream| reply(stream, 200, &[], seen.target.as_bytes()));
    let reply = client().get(&server.url("//bucket//key.txt?X-Amz-Signature=ab%2Fcd")).send().expect("a reply");
    assert_eq!(reply.text().expect("text"), "//bucket//key.txt?X-Amz-Signature=ab%2Fcd");
}

/// urllib3 1822, and 24 of the documentation of SpaceTraders: `Retry-After` that isn't a number of
/// seconds and no date. The status is what went wrong, and the next attempt comes after the usual
/// delay.
#[test]
fn a_time_to_come_back_that_makes_no_sense_counts_as_none() {
    for value in ["1m0s", "0.493", "-1", "soon", "", "Wed, 99 Foo 2026 25:00:00 GMT"] {
        let server = Server::start(move |seen, stream| match seen.number {
            0 => reply(stream, 429, &[("Retry-After", value)], b""),
            _ => reply(stream, 200, &[], b"ok"),
        });
        client().get(&server.url("/")).send().expect("repeated");
        let server = Server::start(move |_, stream| reply(stream, 429, &[("Retry-After", value)], b""));
        let error = client().get(&server.url("/")).once().send().expect_err("refused");
        assert_eq!((error.kind(), error.retry_after()), (HttpErrorKind::Status(429), None), "{value}");
    }
}

/// requests 5948 and urllib3 1352: chunks that break off after sound headers are asked for again,
/// as any other failure of a request that can be repeated is.
#[test]
fn chunks_that_break_off_are_asked_for_again() {
    let server = Server::start(|seen, stream| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let _ = stream.write_all(head.as_bytes());
        if seen.number < 2 {
            return Then::Close;
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        Then::Keep
    });
    let client = client();
    assert_eq!(client.get(&server.url("/")).send().expect("whole at last").bytes(), b"hello");
    assert_eq!(server.seen().len(), 3);
}

/// ureq 967: the tunnel that a proxy is asked for, and the `Host` beside it, are of the server and
/// not of the proxy.
#[test]
fn a_proxy_is_asked_for_the_server_in_both_places() {
    let proxy = Server::start(|_, stream| reply(stream, 403, &[], b""));
    let client = quick().retry(soon(1)).proxy(&proxy.url("")).build().expect("sound settings");
    let error = client.get("https://host.example:8443/path").send().expect_err("refused");
    assert_eq!(error.kind(), HttpErrorKind::Proxy, "{error}");
    let seen = proxy.seen();
    assert_eq!((seen.len(), seen[0].method.as_str()), (1, "CONNECT"));
    assert_eq!((seen[0].target.as_str(), seen[0].header("host")), ("host.example:8443", Some("host.example:8443")));
}

/// reqwest 2985: `https` that redirects to `http` at the same host and port. No credentials go
/// there, and nothing else.
#[test]
fn a_redirect_to_http_at_the_same_port_is_not_followed() {
    let authority = Authority::new("Authority of these tests");
    let server = TlsServer::answering(authority.sign(&local()).config(), |head, stream| {
        let host = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
        let location = format!("http://{}/next", host.expect("a host"));
        let text = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.flush();
        true
    });
    let builder = quick().root_certificate(authority.pem()).auth(Bearer::new(&server.url(), "secret-token"));
    let client = builder.build().expect("sound settings");
    let error = client.get(&server.url()).send().expect_err("not followed");
    assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Redirect, 1), "{error}");
    assert_eq!((server.connections(), server.requests()), (1, 1), "it was asked again");
}
