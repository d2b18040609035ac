//! Which end of a body is one, and which is a cut. (RFC 9112, 8 and 9.8)

use std::io::Write;
use std::net::{Shutdown, TcpListener};

use fulmar::client::http::{Download, HttpClient, HttpError, HttpErrorKind, Response};
use rustls::version::TLS13;

use super::server::read_until;
use super::tls_server::{Authority, TlsServer, TlsStream, local};
use super::{Folder, quick, soon};

/// How a connection ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// In order.
    Closed,
    /// By a reset, which a peer that died causes.
    Reset,
}

/// A server that says this to whatever comes.
fn saying(text: &'static [u8], end: End) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Closing with something unread is a reset: one byte of the request is left for that.
            read_until(&mut stream, if end == End::Reset { b"\r\n\r" } else { b"\r\n\r\n" });
            let _ = stream.write_all(text);
            if end == End::Closed {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    });
    url
}

fn client() -> HttpClient {
    quick().retry(soon(1)).build().expect("sound settings")
}

/// A body, and whether its length was known.
type Outcome = Result<(Vec<u8>, bool), HttpError>;

/// By every way to read a body: into memory and into a file, each with and without a caller that may cancel.
/// Of a file that was cut nothing must be left under its name.
fn read(url: &str, client: &HttpClient) -> [(&'static str, Outcome); 4] {
    let in_memory = |reply: Response| (reply.bytes().to_vec(), reply.length_known());
    let on_disk = |may_cancel: bool| {
        let folder = Folder::new();
        let mut download = Download::new(folder.path(), "file");
        if may_cancel {
            download = download.cancelled(|| false);
        }
        let file = client.get(url).download(&download);
        if file.is_err() {
            assert_eq!(folder.names(), [""; 0], "half a file is left");
        }
        file.map(|file| (folder.read("file"), file.length_known))
    };
    [
        ("in memory", client.get(url).send().map(in_memory)),
        ("in memory, unless cancelled", client.get(url).send_unless(|| false).map(in_memory)),
        ("a file", on_disk(false)),
        ("a file, unless cancelled", on_disk(true)),
    ]
}

fn whole(url: &str, client: &HttpClient, body: &[u8], length_known: bool) {
    for (way, outcome) in read(url, client) {
        assert_eq!(outcome.expect(way), (body.to_vec(), length_known), "{way}");
    }
}

fn cut(url: &str, client: &HttpClient) {
    for (way, outcome) in read(url, client) {
        let error = outcome.expect_err(way);
        assert_eq!(error.kind(), HttpErrorKind::Broken, "{way}: {error:?}");
        assert!(error.may_have_arrived() && error.is_retryable(), "{way}: {error:?}");
    }
}

#[test]
fn a_body_ends_where_its_length_or_its_last_chunk_says() {
    whole(&saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", End::Closed), &client(), b"hello", true);
    whole(&saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", End::Closed), &client(), b"hello", true);
    whole(&saying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", End::Closed), &client(), b"", true);
    let chunked: [&'static [u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;name=\"a\"\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        // All has come: what is missing says nothing of the body.
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        // The chunks win over the length.
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    for text in chunked {
        whole(&saying(text, End::Closed), &client(), b"hello", true);
    }
}

#[test]
fn a_body_without_a_length_ends_with_the_connection_and_says_that_its_length_was_not_known() {
    whole(&saying(b"HTTP/1.1 200 OK\r\n\r\nhello", End::Closed), &client(), b"hello", false);
    whole(&saying(b"HTTP/1.0 200 OK\r\n\r\nhello", End::Closed), &client(), b"hello", false);
}

#[test]
fn a_body_that_is_cut_is_an_error_in_memory_and_on_the_disk() {
    let texts: [&'static [u8]; 6] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
    ];
    for text in texts {
        cut(&saying(text, End::Closed), &client());
        cut(&saying(text, End::Reset), &client());
    }
}

#[test]
fn a_reset_is_no_end_of_a_body_without_a_length_however_it_is_waited_for() {
    cut(&saying(b"HTTP/1.1 200 OK\r\n\r\nhello", End::Reset), &client());
    cut(&saying(b"HTTP/1.0 200 OK\r\nContent-Type: text/csv\r\n\r\na,b\n1,2\n", End::Reset), &client());
}

#[test]
fn over_tls_the_end_has_to_be_announced() {
    let authority = Authority::new("Authority of these tests");
    let client = quick().retry(soon(1)).root_certificate(authority.pem()).build().expect("sound settings");
    let signed = authority.sign(&local());
    let say = |stream: &mut TlsStream, text: &[u8], announced: bool| {
        let _ = stream.write_all(text);
        if announced {
            stream.conn.send_close_notify();
        }
        let _ = stream.flush();
        false
    };
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello";
    let server = TlsServer::answering(signed.config(), move |_, stream| say(stream, HALF, true));
    whole(&server.url(), &client, b"hello", false);

    let server = TlsServer::answering(signed.config_of(&TLS13), move |_, stream| say(stream, HALF, false));
    cut(&server.url(), &client);

    // A length says as much as an announcement.
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let server = TlsServer::answering(signed.config(), move |_, stream| say(stream, WHOLE, false));
    whole(&server.url(), &client, b"hello", true);
}

#[test]
fn what_says_nothing_sound_of_its_end_is_refused() {
    let texts: [&'static [u8]; 6] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    ];
    for text in texts {
        cut(&saying(text, End::Closed), &client());
    }
}
